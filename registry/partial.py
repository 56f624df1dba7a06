"""A file that is still arriving: its bytes, and a journal of which of them are there, which a killed process leaves."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from registry.digest import Digest

Range = tuple[int, int]  # first byte, byte after the last


def arrived_bytes(target: Path) -> int:
    """Return what has come of a file that is still arriving, as it takes room on the disk: it may have holes."""
    path = _path_of(target)
    return path.stat().st_blocks * 512 if path.exists() else 0


def _path_of(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


class ClosedError(Exception):
    """The download was ended while a thread still had bytes for it."""


class Partial:
    """The bytes of `target` that have come so far, beside it as `<target>.partial` and `<target>.journal`.

    The journal is written after the bytes that it tells of, and only appended to, so that what it says is there is
    there whenever the process ends. It names size and digest, or where no digest is known the server's own mark of the
    version (an ETag): a journal of another file is thrown away.
    """

    def __init__(self, target: Path, size_bytes: int, digest: Digest | None) -> None:
        self.target = target
        self.size_bytes = size_bytes
        self.path = _path_of(target)
        self.version: str | None = None
        self._journal_path = target.with_name(f"{target.name}.journal")
        self._digest = digest
        self._lock = threading.Lock()
        self._file = self._journal = -1
        self._ranges = self._read_journal()
        self._open()

    @property
    def done_bytes(self) -> int:
        with self._lock:
            return sum(end - start for start, end in self._ranges)

    @property
    def prefix_bytes(self) -> int:
        """How many bytes are there without a gap from the start."""
        with self._lock:
            return self._ranges[0][1] if self._ranges and self._ranges[0][0] == 0 else 0

    def missing(self) -> Iterator[Range]:
        position = 0
        for start, end in (*self._ranges, (self.size_bytes, self.size_bytes)):
            if position < start:
                yield position, start
            position = end

    def write(self, position: int, data: bytes) -> None:
        """Store bytes that arrived, from any thread; raises ClosedError once the file is closed."""
        # Under the lock, so that nobody closes the file between the look at its descriptor and the write.
        with self._lock:
            if self._file == -1:
                raise ClosedError
            written = 0
            while written < len(data):
                written += os.pwrite(self._file, data[written:], position + written)
            os.write(self._journal, b"%d %d\n" % (position, position + len(data)))
            self._ranges = merge([*self._ranges, (position, position + len(data))])

    def keep_version(self, version: str | None) -> None:
        """Remember which version of the file is arriving, from the server's first answer on."""
        with self._lock:
            if self.version is None and version is not None:
                self.version = version
                os.close(self._journal)
                self._write_journal()

    def restart(self) -> None:
        """Forget every byte."""
        self.close()
        self._journal_path.unlink(missing_ok=True)
        self._ranges = []
        self.version = None
        self._open()

    def finish(self) -> None:
        """Put the whole file in its place."""
        os.fsync(self._file)
        self.close()
        self.path.replace(self.target)
        self._journal_path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove every trace of it."""
        self.close()
        self.path.unlink(missing_ok=True)
        self._journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        with self._lock:
            for descriptor in {self._file, self._journal} - {-1}:
                os.close(descriptor)
            self._file = self._journal = -1

    def _open(self) -> None:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        # Modes are left to the umask: a cache may belong to a group.
        self._file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if not self._ranges:
                os.ftruncate(self._file, 0)
            self._write_journal()
        except BaseException:
            os.close(self._file)
            self._file = -1
            raise

    def _write_journal(self) -> None:
        lines = [json.dumps(self._head()), *(f"{start} {end}" for start, end in self._ranges)]
        fresh = self._journal_path.with_name(f"{self._journal_path.name}.new")
        fresh.write_text("\n".join(lines) + "\n")
        fresh.replace(self._journal_path)
        self._journal = os.open(self._journal_path, os.O_WRONLY | os.O_APPEND)

    def _head(self) -> dict[str, object]:
        return {"size_bytes": self.size_bytes, "digest": str(self._digest), "version": self.version}

    def _read_journal(self) -> list[Range]:
        with suppress(OSError, ValueError, AttributeError):
            head, *lines = self._journal_path.read_text().splitlines(keepends=True)
            held = self.path.stat().st_size
            self.version = json.loads(head).get("version")
            is_known = self._digest is not None or self.version is not None
            if json.loads(head) == self._head() and is_known and held <= self.size_bytes:
                return merge(_parse(lines, held))
        self.version = None
        return []


def _parse(lines: Iterable[str], held_bytes: int) -> Iterator[Range]:
    for line in lines:
        numbers = line.split()
        # The last line may be torn; the file may have lost its end to a crash of the whole machine.
        if line.endswith("\n") and len(numbers) == 2 and all(number.isdigit() for number in numbers):
            start, end = int(numbers[0]), int(numbers[1])
            if start < end <= held_bytes:
                yield start, end


def merge(ranges: Iterable[Range]) -> list[Range]:
    """Return the same bytes as the fewest ranges, in order."""
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
