"""Brings what plain addresses serve, from the first of several that does: single files, and archives to be unpacked.

What came is remembered by a key: the SHA-256 of everything, to which a later pull is held even where the catalogue
knows an MD5 only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from registry.cache import cache_folder, is_true, read_json, write_json
from registry.digest import Digest, digest_of, is_recorded, record
from registry.errors import DownloadError, NotOnHubError
from registry.exclusive import exclusive
from registry.hubs.base import RemoteFile
from registry.progress import Told
from registry.selection import is_unsafe

if TYPE_CHECKING:
    from registry.tar_header import Readable

_T = TypeVar("_T")
_SHA256 = Digest("sha256", "")


def folder_of(key: str) -> Path:
    """Return where files are put; it need not exist."""
    return cache_folder() / "url" / key


def read_record(key: str) -> dict[str, Any] | None:
    """Return what is remembered: `sha256` of what was fetched, and of an archive `files`, size and sha256 by path."""
    return read_json(_record_path(key))


def digest_when_unpacked(path: Path) -> Digest:
    """Return the checksum that a file of an archive had, or one that no file has where nothing is remembered."""
    key, _, name = path.relative_to(folder_of("")).as_posix().partition("/")
    kept = read_record(key) or {}
    return Digest("sha256", kept.get("files", {}).get(name, {}).get("sha256", ""))


def _record_path(key: str) -> Path:
    return cache_folder() / "listings" / "url" / f"{key}.json"


def first_that_answers(addresses: Sequence[str], ask: Callable[[str], _T]) -> _T:
    """Return the answer of the first address that has one; raises the first's error, with what the others said."""
    failures: list[DownloadError] = []
    for address in addresses:
        try:
            return ask(address)
        except DownloadError as error:
            if not error.elsewhere_helps:
                raise
            failures.append(error)
    failures[0].details += tuple(error.message for error in failures[1:])
    raise failures[0]


def bring_file(key: str, addresses: Sequence[str], file: RemoteFile, target: Path, report: Told) -> None:
    """Put a verified file at `target`, and remember its SHA-256."""
    kept = read_record(key)
    digest = file.digest if kept is None else Digest("sha256", kept["sha256"])
    _fetch(file.path, addresses, target, digest, report)
    if kept is None:
        write_json(_record_path(key), {"sha256": digest_of(target, _SHA256).value})


def _fetch(name: str, addresses: Sequence[str], target: Path, digest: Digest | None, report: Told) -> None:
    from registry.fetcher import fetch
    from registry.ranges import RangeReader, refusal
    from registry.remote_bytes import Download, RefusedError

    def fetch_from(address: str) -> None:
        with RangeReader(address) as remote:
            size = remote.size_bytes
        try:
            fetch(Download(name, address, target, size, digest), report)
        except RefusedError as error:
            raise refusal(error.status, address) from error

    first_that_answers(addresses, fetch_from)


class Archive(NamedTuple):
    """A tar archive at several addresses; `checksum` is of the whole."""

    key: str
    addresses: tuple[str, ...]
    checksum: Digest

    @property
    def title(self) -> str:
        return self.addresses[0].rpartition("/")[2]

    @property
    def path(self) -> Path:
        """Where it is until it is unpacked."""
        return folder_of(self.key).with_name(f"{self.key}.tar")

    def read_files(self) -> tuple[RemoteFile, ...]:
        """Return the files in it, before it is fetched where the server gives parts of files; hashes are not known."""
        return first_that_answers(self.addresses, self._read_files_at)

    def _read_files_at(self, address: str) -> tuple[RemoteFile, ...]:
        from registry.archive import ArchiveFile, read_members
        from registry.ranges import RangeReader
        from registry.trouble import writing

        with RangeReader(address) as remote:
            if remote.has_ranges:
                members = read_members(remote, self.title)
                return tuple(RemoteFile(member.path, member.size_bytes) for member in members)
        with writing(self.path.parent), exclusive(self.path, lambda: None):
            path = self._fetch(lambda *told: None)
        with path.open("rb") as file:
            return tuple(RemoteFile(each.path, each.size_bytes) for each in read_members(ArchiveFile(file), self.title))

    @contextmanager
    def peek(self, path: str) -> Iterator[Readable | None]:
        """Let the file at `path` in it be read without fetching the rest, where the server gives parts of files."""
        from registry.archive import Part, read_members
        from registry.ranges import RangeReader

        with first_that_answers(self.addresses, RangeReader) as remote:
            members = read_members(remote, self.title) if remote.has_ranges else ()
            yield next((Part(remote, each) for each in members if each.path == path), None)

    def bring(self, file: RemoteFile, size_bytes: int, report: Told) -> None:
        """Fetch, verify and unpack it, so that `file`, one of those in it, is there; then remove it.

        `size_bytes` is what all files in it take together. The archive stays where LAUNCH_KEEP_ARCHIVES is set;
        engines read what was unpacked, which takes as much again.
        """
        own_bytes = file.size_bytes or 0

        def told(done_bytes: int, note: str = "", /) -> None:
            report(min(done_bytes, own_bytes), note)

        with exclusive(self.path, lambda: report(0, "waiting for another process that is fetching its archive")):
            if not self._has(file.path):
                self._check_room(size_bytes)
                path = self._fetch(told)
                report(own_bytes, f"unpacking `{self.title}`")
                self._unpack(path)
            if not self._has(file.path):
                raise NotOnHubError(f"The archive `{self.title}` lacks `{file.path}`, which its server said is in it")
            report(own_bytes)
            if not is_true("LAUNCH_KEEP_ARCHIVES"):
                self.path.unlink(missing_ok=True)

    def _check_room(self, size_bytes: int) -> None:
        """Raise DiskFullError unless the archive and what is in it fit beside each other."""
        from registry.partial import arrived_bytes
        from registry.trouble import check_room

        whole = self.path.stat().st_size if self.path.exists() else 0
        check_room(self.path, 2 * size_bytes - whole - arrived_bytes(self.path))

    def _has(self, path: str) -> bool:
        """Return whether a file was unpacked before, and has not changed since."""
        target = folder_of(self.key) / path
        return target.exists() and is_recorded(target, digest_when_unpacked(target))

    def _fetch(self, report: Told) -> Path:
        """Return where the verified archive is; one that a killed process left whole is not fetched again."""
        kept = read_record(self.key)
        digest = self.checksum if kept is None else Digest("sha256", kept["sha256"])
        if not self.path.exists() or digest_of(self.path, digest) != digest:
            _fetch(self.title, self.addresses, self.path, digest, report)
        return self.path

    def _unpack(self, path: Path) -> None:
        from registry.archive import ArchiveFile, extract, read_members

        folder = folder_of(self.key)
        fresh = folder.with_name(f".{self.key}")
        with path.open("rb") as file:
            members = [each for each in read_members(ArchiveFile(file), self.title) if not is_unsafe(each.path)]
            shutil.rmtree(fresh, ignore_errors=True)  # what a killed process left
            fresh.mkdir()
            hashes = extract(file, members, fresh)
        files = {each.path: {"size_bytes": each.size_bytes, "sha256": hashes[each.path]} for each in members}
        write_json(_record_path(self.key), {"sha256": digest_of(path, _SHA256).value, "files": files})
        _move(fresh, folder, hashes)


def _move(fresh: Path, folder: Path, hashes: Mapping[str, str]) -> None:
    """Put whole files in their place, where an earlier pull may have left some of them."""
    for name, value in hashes.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).replace(target)
        record(target, Digest("sha256", value))
    shutil.rmtree(fresh)
