"""Moves bytes for every hub that speaks HTTP: in parallel ranges, resumable to the byte, verified while they arrive.

One call brings one file. Threads write ranges into a `Partial`; the caller's thread hashes the part that has no gap,
tells how far it is, and puts the file in its place when the digest is right.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator

from registry.digest import BLOCK_BYTES, Digest, wrong_digest
from registry.errors import DownloadError
from registry.partial import ClosedError, Partial, Range
from registry.progress import Told
from registry.remote_bytes import READ_BYTES, Download, Limits, RemoteBytes, SlowError, StartOverError, TransientError
from registry.transport import NotReachedError, Transport, host_of
from registry.trouble import is_refused, out_of_reach, writing

SMALLEST_SEGMENT_BYTES = 8 << 20
LONGEST_PAUSE_S = 30.0
LONGEST_ASKED_PAUSE_S = 300.0
TICK_S = 0.1  # how often the caller hears how far it is, at least
DEFAULT_LIMITS = Limits()


def fetch(download: Download, report: Told, limits: Limits = DEFAULT_LIMITS) -> None:
    """Bring one file, or take up where an earlier try was ended; `report` is told the bytes that are there.

    Wrong bytes are thrown away and fetched once more. Raises DigestError if they are wrong again (nothing is kept),
    OfflineError if the server is out of reach, DiskFullError, CacheNotWritableError, DownloadError if it kept breaking
    off (what came is kept), RefusedError for a status that it will not change.
    """
    transport = Transport(limits.timeout_s, limits.connections)
    try:
        with writing(download.target.parent, download.size_bytes):
            if (wrong := _bring(transport, download, report, limits)) is not None:
                report(0, "wrong bytes came: fetching them again")
                wrong = _bring(transport, download, report, limits)
    finally:
        transport.close()
    if wrong is not None and download.digest is not None:
        raise wrong_digest(download.name, download.digest, wrong)


def _bring(transport: Transport, download: Download, report: Told, limits: Limits) -> Digest | None:
    """Put a file in its place and return None, or throw it away and return its digest, which is not the right one."""
    try:
        return _try(transport, download, report, limits, is_ranged=True)
    except StartOverError as reason:
        report(0, f"starting over: {reason}")
        whole = limits._replace(connections=1, segment_bytes=max(1, download.size_bytes))
        return _try(transport, download, report, whole, is_ranged=False)


def _try(transport: Transport, download: Download, report: Told, limits: Limits, *, is_ranged: bool) -> Digest | None:
    # Opened for each try: threads of the last one that still have bytes find theirs closed.
    partial = Partial(download.target, download.size_bytes, download.digest)
    try:
        if not is_ranged:
            partial.restart()
        remote = RemoteBytes(transport, download, partial, limits, is_ranged=is_ranged)
        digest = _Transfer(remote, partial, download.digest, limits).run(report)
        if download.digest is not None and digest != download.digest:
            partial.discard()
            return digest
        partial.finish()
        return None
    finally:
        partial.close()


class _Transfer:
    """One run over what is missing of a file."""

    def __init__(self, remote: RemoteBytes, partial: Partial, expected: Digest | None, limits: Limits) -> None:
        self._remote = remote
        self._partial = partial
        self._like = expected or Digest("sha256", "")
        self._limits = limits
        self._segments: queue.SimpleQueue[Range] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._note = ""
        self._stopped = threading.Event()
        self._not_before = 0.0

    def run(self, report: Told) -> Digest:
        """Return the digest of the whole file once it is there; raises what a worker met."""
        workers = self._start_workers()
        try:
            digest = self._hash_along(report)
        except BaseException:
            self._stopped.set()
            raise
        for worker in workers:
            worker.join()
        return digest

    def _start_workers(self) -> list[threading.Thread]:
        segments = list(self._cut())
        for segment in segments:
            self._segments.put(segment)
        # Daemons: one may be waiting for a silent server when the user ends the program.
        workers = [
            threading.Thread(target=self._work, name="download", daemon=True)
            for _ in range(min(len(segments), self._limits.connections))
        ]
        for worker in workers:
            worker.start()
        return workers

    def _cut(self) -> Iterator[Range]:
        """Yield what is missing in pieces that keep all connections busy to the end."""
        share = self._partial.size_bytes // (4 * self._limits.connections)
        step = min(self._limits.segment_bytes, max(share, SMALLEST_SEGMENT_BYTES))
        for start, end in self._partial.missing():
            for first in range(start, end, step):
                yield first, min(end, first + step)

    # --- the caller's thread

    def _hash_along(self, report: Told) -> Digest:
        hasher = self._like.hasher(self._partial.size_bytes)
        hashed, block = 0, memoryview(bytearray(BLOCK_BYTES))
        # Unbuffered: a buffer would read ahead, into bytes that have not come yet.
        with self._partial.path.open("rb", buffering=0) as file:
            while hashed < self._partial.size_bytes:
                self._wait_for_more_than(hashed)
                while hashed < (prefix := self._partial.prefix_bytes):
                    count = file.readinto(block[: min(BLOCK_BYTES, prefix - hashed)])
                    hasher.update(block[:count])
                    hashed += count
                    self._tell(report)
                self._tell(report)
        return self._like.of_same_kind(hasher.hexdigest())

    def _wait_for_more_than(self, hashed: int) -> None:
        """Wait until a block can be hashed, but no longer than a tick."""
        enough = min(hashed + BLOCK_BYTES, self._partial.size_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._partial.prefix_bytes >= enough, TICK_S)
            if self._error is not None:
                raise self._error

    def _tell(self, report: Told) -> None:
        note, self._note = self._note, ""
        if note:
            report(self._partial.done_bytes, note)
        else:
            report(self._partial.done_bytes)

    # --- the workers' threads

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._bring_segment(*self._segments.get_nowait())
        except (queue.Empty, ClosedError):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._stopped.set()
            with self._changed:
                self._error = self._error or error
                self._changed.notify()

    def _bring_segment(self, position: int, end: int) -> None:
        """Write the bytes from `position` to before `end`, trying again from where it broke off."""
        import urllib3

        failures = 0
        while position < end and not self._stopped.is_set():
            before = position
            self._stopped.wait(max(0.0, self._not_before - time.monotonic()))
            try:
                for data in self._remote.read(position, end):
                    self._partial.write(position, data)
                    position += len(data)
                    self._wake(position)
                    if self._stopped.is_set():
                        return
            except (urllib3.exceptions.HTTPError, NotReachedError, TransientError) as error:
                # A few bytes now and then are no progress: that could go on for days.
                failures = failures + 1 if position == before or isinstance(error, SlowError) else 1
                if failures >= self._limits.attempts or is_refused(error):
                    raise self._gave_up(error) from error
                self._pause(error, failures)

    def _wake(self, position: int) -> None:
        # Not for every few bytes: the caller looks by itself at each tick.
        if position % BLOCK_BYTES < READ_BYTES or self._partial.prefix_bytes == self._partial.size_bytes:
            with self._changed:
                self._changed.notify()

    def _pause(self, error: Exception, failures: int) -> None:
        pause_s = min(self._limits.first_pause_s * 2.0 ** (failures - 1), LONGEST_PAUSE_S)
        if isinstance(error, TransientError) and error.pause_s is not None:
            pause_s = min(error.pause_s, LONGEST_ASKED_PAUSE_S)
            # All connections keep to what the server asked for, not only the one that it told.
            self._not_before = max(self._not_before, time.monotonic() + pause_s)
        if pause_s:
            self._note = f"retrying in {pause_s:.2g} s: {self._in_words(error)}"
        self._stopped.wait(pause_s)

    # --- in words

    def _gave_up(self, error: Exception) -> DownloadError:
        hint = "the same command goes on where it stopped"
        if isinstance(error, NotReachedError):
            return out_of_reach(error.url, error, hint=hint)
        message = f"The download from `{self._remote.host}` kept breaking off"
        return DownloadError(message, details=[self._in_words(error)], hint=hint)

    def _in_words(self, error: Exception) -> str:
        from urllib3 import exceptions

        if isinstance(error, NotReachedError):
            return f"`{host_of(error.url)}` is out of reach"
        if isinstance(error, exceptions.ReadTimeoutError):
            return f"`{self._remote.host}` was silent for {self._limits.timeout_s:.2g} s"
        if isinstance(error, exceptions.ProtocolError):
            return f"`{self._remote.host}` broke off the connection"
        return str(error)
