"""Files at plain addresses: an archive with its checksum, or a folder whose files have theirs."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from registry.address import Archive, bring_file, digest_when_unpacked, first_that_answers, folder_of, read_record
from registry.digest import Digest
from registry.errors import NotOnHubError
from registry.hubs.base import Listing, RemoteFile
from registry.progress import Told
from registry.spec import Source

if TYPE_CHECKING:
    from registry.tar_header import Readable


class Url:
    """The web. A source's `repo_id` is the address of a tar archive, or of a folder.

    An archive's headers are read by ranges, so that its files are known, and judged, before the rest of it is fetched.
    It is verified as a whole, unpacked and removed; what was unpacked is remembered with a SHA-256 of each file, and so
    is that of the archive, to which a later pull holds it.
    """

    name = "url"
    title = "its address"

    # --- disk only

    def read_listing(self, source: Source, quantization: str) -> Listing | None:
        if not _is_archive(source):
            return (
                None
                if source.revision is not None
                else _listing(
                    source, quantization, [RemoteFile.pinned(path, pin) for path, pin in source.files.items()]
                )
            )
        kept = read_record(_key(source.repo_for(quantization), source.revision))
        if kept is None or _checksum(source.revision) is None:
            return None
        return _listing(source, quantization, [RemoteFile(path, **facts) for path, facts in kept["files"].items()])

    def snapshot(self, source: Source, quantization: str) -> Path:
        return folder_of(_key(source.repo_for(quantization), source.revision))

    def kept(self, listing: Listing, file: RemoteFile) -> tuple[Path, ...]:
        return (folder_of(_key(listing.repo_id, listing.revision)) / file.path,)

    def place(self, listing: Listing, file: RemoteFile, kept: Path) -> Path:
        return kept

    def vouched(self, path: Path) -> Digest | None:
        return digest_when_unpacked(path)

    def is_offline(self) -> bool:
        return False

    # --- network

    def list_files(self, source: Source, quantization: str) -> Listing:
        known = self.read_listing(source, quantization)
        if known is not None:
            return known._replace(files=tuple(_sized(source, quantization, known)))
        if _checksum(source.revision) is None:
            raise NotOnHubError(
                f"`{source.repo_for(quantization)}` is an address, which has no revision `{source.revision}`",
                hint="leave --revision out, or name another hub with --hub",
            )
        listing = _listing(source, quantization, ())
        return listing._replace(files=_archive(listing).read_files())

    def peek(self, listing: Listing, file: RemoteFile) -> AbstractContextManager[Readable | None]:
        if listing.comes_whole:
            return _archive(listing).peek(file.path)
        from registry.ranges import RangeReader

        return first_that_answers(_addresses(listing, file), RangeReader)

    def bring(self, listing: Listing, file: RemoteFile, target: Path, report: Told) -> None:
        if not listing.comes_whole:
            addresses = _addresses(listing, file)
            bring_file(_key(addresses[0], listing.revision), addresses, file, target, report)
        else:
            _archive(listing).bring(file, sum(each.size_bytes or 0 for each in listing.files), report)

    def record(self, listing: Listing) -> None:
        pass

    def record_reference(self, listing: Listing) -> None:
        pass


# --- listings --------------------------------------------------------------------------------------------------------


def _is_archive(source: Source) -> bool:
    return not source.repo_id.endswith("/")


def _checksum(revision: str | None) -> Digest | None:
    """Return the checksum that is an archive's revision, or None where somebody asked for another one."""
    found = re.fullmatch(r"(sha256:[0-9a-f]{64}|md5:[0-9a-f]{32})", revision or "")
    if found is None:
        return None
    kind, _, value = found[0].partition(":")
    return Digest(cast(Literal["sha256", "md5"], kind), value)


def _archive(listing: Listing) -> Archive:
    checksum = _checksum(listing.revision)
    assert checksum is not None
    return Archive(_key(listing.repo_id, listing.revision), listing.addresses, checksum)


def _key(address: str, revision: str | None) -> str:
    """Return a name for what comes from an address: readable, and another one for other bytes."""
    name = address.rstrip("/").rpartition("/")[2].removesuffix(".tar")
    return f"{name[:100]}-{zlib.crc32(f'{address} {revision or str()}'.encode()):08x}"


def _listing(source: Source, quantization: str, files: Sequence[RemoteFile]) -> Listing:
    addresses = tuple(text.replace("{quantization}", quantization) for text in (source.repo_id, *source.mirrors))
    revision = source.revision or ""
    return Listing("url", addresses[0], revision, revision, tuple(files), addresses, comes_whole=_is_archive(source))


def _sized(source: Source, quantization: str, listing: Listing) -> Iterator[RemoteFile]:
    """Yield the files, those that are needed with their sizes: the host is asked where the catalogue has none."""
    needed = source.file_names(quantization) or source.files
    for file in listing.files:
        if file.size_bytes is None and file.path in needed:
            yield file._replace(size_bytes=first_that_answers(_addresses(listing, file), _size_at))
        else:
            yield file


def _addresses(listing: Listing, file: RemoteFile) -> list[str]:
    from urllib.parse import quote

    return [address + quote(file.path) for address in listing.addresses]


def _size_at(address: str) -> int:
    from registry.ranges import RangeReader

    with RangeReader(address) as remote:
        return remote.size_bytes
