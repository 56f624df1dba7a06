"""Reads every byte of the models in the caches again, and says which files are not what was vouched for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from launcher.cache import Entry, bytes_of
from registry.digest import Digest, digest_of, forget, record, recorded_digest
from registry.hubs import Listing, open_hub
from registry.progress import Progress, Report

State = Literal["right", "wrong", "missing", "unknown"]


class Finding(NamedTuple):
    """What one file is: `missing` where a link leads nowhere, `unknown` where nobody vouches for it."""

    entry: Entry
    location: Path
    state: State
    expected: Digest | None = None
    actual: Digest | None = None

    @property
    def path(self) -> str:
        return self.location.relative_to(self.entry.folder).as_posix()


def verify(entries: Sequence[Entry], report: Report) -> Iterator[Finding]:
    """Yield a finding for every file of these models; a wrong one is forgotten, so that a launch fetches it anew."""
    models = [entry for entry in entries if entry.kind == "model"]
    hasher = _Hasher(bytes_of(models), report)
    for entry in models:
        listing = None if entry.source is None else open_hub(entry.hub).read_listing(entry.source, entry.quantization)
        for location in entry.files:
            yield _find(entry, location, listing, hasher)


class _Hasher:
    """Hashes files, each once however many names it has, and tells how far that is."""

    def __init__(self, total_bytes: int, report: Report) -> None:
        self._total = total_bytes
        self._done = 0
        self._report = report
        self._known: dict[tuple[int, int, str], Digest] = {}

    def digest_of(self, location: Path, like: Digest) -> Digest:
        stat = location.stat()
        key = stat.st_dev, stat.st_ino, like.kind
        if key not in self._known:
            self._known[key] = digest_of(location, like, lambda done: self._tell(location.name, done, stat.st_size))
            self._done += stat.st_size
        return self._known[key]

    def _tell(self, name: str, done: int, size_bytes: int) -> None:
        self._report(Progress("verify", self._done + done, self._total, name, done, size_bytes))


def _find(entry: Entry, location: Path, listing: Listing | None, hasher: _Hasher) -> Finding:
    if not location.exists():
        return Finding(entry, location, "missing")
    expected = _vouched(entry, location, listing)
    if expected is None:
        return Finding(entry, location, "unknown")
    actual = hasher.digest_of(location, expected)
    if actual == expected:
        record(location, expected)
        return Finding(entry, location, "right", expected, actual)
    forget(location)
    return Finding(entry, location, "wrong", expected, actual)


def _vouched(entry: Entry, location: Path, listing: Listing | None) -> Digest | None:
    """Return what the file must be: by the catalogue, by the hub, by its own name, or as it was when it came."""
    path = location.relative_to(entry.folder).as_posix()
    if entry.source is not None:
        pinned = entry.source.files.get(path)
        if pinned is not None and pinned.sha256 is not None:
            return Digest("sha256", pinned.sha256)
        listed = None if listing is None else listing.file(path)
        vouched = (listed and listed.digest) or open_hub(entry.hub).vouched(location)
        if vouched is not None:
            return vouched
    return recorded_digest(location)
