"""Checksums of files, and the record of which files were found right."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, cast, get_args

from registry.cache import cache_folder, read_json, write_json
from registry.errors import DigestError

if TYPE_CHECKING:
    from hashlib import _Hash

BLOCK_BYTES = 1 << 20
Kind = Literal["sha256", "git-sha1", "md5"]


class Digest(NamedTuple):
    """The checksum of a file's bytes; `git-sha1` is Git's own, which counts the length in."""

    kind: Kind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}:{self.value}"

    def hasher(self, size_bytes: int) -> _Hash:
        """Return a hash object for a file of `size_bytes`, to be fed with its bytes."""
        import hashlib  # 3 ms that a cached launch has no need of

        if self.kind == "sha256":
            return hashlib.sha256()
        if self.kind == "md5":
            return hashlib.md5(usedforsecurity=False)
        return hashlib.sha1(b"blob %d\0" % size_bytes, usedforsecurity=False)

    def of_same_kind(self, value: str) -> Self:
        return type(self)(self.kind, value)


def digest_of(path: Path, like: Digest, report: Callable[[int], None] | None = None) -> Digest:
    """Return the digest of a file, of the same kind as `like`; `report` is told the bytes read so far."""
    hasher = like.hasher(path.stat().st_size)
    done = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            hasher.update(block)
            done += len(block)
            if report is not None:
                report(done)
    return like.of_same_kind(hasher.hexdigest())


def is_recorded(path: Path, digest: Digest) -> bool:
    """Return whether the file was found to have `digest` before, and has not changed since; reads no weights."""
    record = read_json(_record_path(path))
    return record is not None and record == _facts(path, digest)


def record(path: Path, digest: Digest) -> None:
    """Remember that the file has `digest`, until its size or time of change differ."""
    with suppress(OSError):  # a cache that cannot be written costs a check each time, nothing more
        write_json(_record_path(path), _facts(path, digest))


def recorded_digest(path: Path) -> Digest | None:
    """Return the digest that the file was found to have, whether it has changed since or not."""
    record = read_json(_record_path(path))
    kind, _, value = str(None if record is None else record.get("digest")).partition(":")
    return Digest(cast("Kind", kind), value) if kind in get_args(Kind) else None


def forget(path: Path) -> None:
    """Forget what the file was found to be."""
    with suppress(OSError):
        _record_path(path).unlink(missing_ok=True)


def _facts(path: Path, digest: Digest) -> dict[str, object]:
    real = path.resolve()
    stat = real.stat()
    return {"path": str(real), "size_bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "digest": str(digest)}


def _record_path(path: Path) -> Path:
    # Keyed by the real file: one blob stands behind the same file of many snapshots.
    real = path.resolve()
    return cache_folder() / "verified" / f"{real.name[:150]}-{zlib.crc32(str(real).encode()):08x}.json"


def wrong_digest(path: str, expected: Digest, actual: Digest) -> DigestError:
    """Return the error for a file whose bytes are not those that were vouched for."""
    return DigestError(
        f"`{path}` is not the file that was vouched for; it was removed",
        path=path,
        expected=str(expected),
        actual=str(actual),
        hint="try again; if it stays so, the hub, its mirror or a proxy on the way changes files",
    )
