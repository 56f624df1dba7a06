"""Unpacks archives that nobody vouches for: which files one holds, and their bytes, never outside the folder."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from registry.selection import check_path
from registry.tar_header import Readable, damaged, read_entries, refused

MAX_FILES = 1000
_COPY_BYTES = 1 << 20


class Member(NamedTuple):
    """A regular file in an archive: its path, checked, and where its bytes are."""

    path: str
    size_bytes: int
    offset: int


class ArchiveFile:
    """An archive on disk, as its headers' reader wants it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size_bytes = file.seek(0, 2)

    def read_at(self, position: int, count: int) -> bytes:
        self._file.seek(position)
        return self._file.read(count)


class Part:
    """The bytes of one member, wherever its archive is."""

    def __init__(self, archive: Readable, member: Member) -> None:
        self._archive = archive
        self._offset = member.offset
        self.size_bytes = member.size_bytes

    def read_at(self, position: int, count: int) -> bytes:
        return self._archive.read_at(self._offset + position, max(0, min(count, self.size_bytes - position)))


def read_members(archive: Readable, title: str) -> tuple[Member, ...]:
    """Return the files of an archive in its order, without the one folder that may hold them all.

    Raises UnsafeFileError for whatever is not a plain file or folder, for names that leave the folder, come twice or
    are in each other's way, for too many files, and for an archive that is damaged.
    """
    members: dict[str, Member] = {}
    for entry in read_entries(archive, title):
        path = entry.name.removeprefix("./")
        if entry.is_folder:
            path = path.removesuffix("/")
            if path in ("", "."):
                continue
        check_path(path)
        if not entry.is_folder:
            _add(members, Member(path, entry.size_bytes, entry.offset), title)
    _check_no_file_is_a_folder(members, title)
    return _without_common_folder(tuple(members.values()))


def extract(archive: BinaryIO, members: Sequence[Member], folder: Path) -> Mapping[str, str]:
    """Write the members' bytes under `folder`, which is ours and empty, and return the SHA-256 of each path."""
    return {member.path: _extract_one(archive, member, folder / member.path) for member in members}


def _extract_one(archive: BinaryIO, member: Member, target: Path) -> str:
    import hashlib

    target.parent.mkdir(parents=True, exist_ok=True)
    hasher = hashlib.sha256()
    archive.seek(member.offset)
    left = member.size_bytes
    with target.open("xb") as file:
        while left:
            block = archive.read(min(left, _COPY_BYTES))
            if not block:
                raise damaged(member.path, "it ends early")
            hasher.update(block)
            file.write(block)
            left -= len(block)
    return hasher.hexdigest()


def _add(members: dict[str, Member], member: Member, title: str) -> None:
    # On some systems names are one file that differ in case, or in how a letter with its accent is written.
    key = unicodedata.normalize("NFC", unicodedata.normalize("NFC", member.path).casefold())
    if key in members:
        raise refused(title, f"`{member.path}` twice")
    members[key] = member
    if len(members) > MAX_FILES:
        raise refused(title, f"more than {MAX_FILES} files")


def _check_no_file_is_a_folder(members: Mapping[str, Member], title: str) -> None:
    for key, member in members.items():
        parts = key.split("/")
        if any("/".join(parts[:count]) in members for count in range(1, len(parts))):
            raise refused(title, f"`{member.path}`, which lies under a file")


def _without_common_folder(members: tuple[Member, ...]) -> tuple[Member, ...]:
    tops = {member.path.partition("/")[0] for member in members}
    if len(tops) != 1 or not all("/" in member.path for member in members):
        return members
    return tuple(member._replace(path=member.path.partition("/")[2]) for member in members)
