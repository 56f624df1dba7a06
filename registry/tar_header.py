"""Reads the headers of a tar archive that nobody vouches for, in the ustar, GNU and pax layouts.

Not by `tarfile`: its safe filter wrote outside its folder on Pythons that are in use (CVE-2025-4517 and its kin), and
its reader could be led in circles (CVE-2025-8194). Here offsets only grow, and no record is read that is not small.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from registry.errors import UnsafeFileError

MAX_HEADERS = 4000
MAX_RECORD_BYTES = 1 << 16
BLOCK_BYTES = 512

_REFUSED_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"6": "a named pipe",
    b"S": "a sparse file",
}


class Readable(Protocol):
    """Bytes that can be read at any place: a file, or an address that answers for ranges."""

    size_bytes: int

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position` on, fewer at the end."""
        ...


class Entry(NamedTuple):
    """A regular file, or a folder, as the archive names it; `offset` is that of its bytes."""

    name: str
    size_bytes: int
    offset: int
    is_folder: bool


class _Header(NamedTuple):
    kind: bytes
    name: bytes
    size_bytes: int


def read_entries(archive: Readable, title: str) -> Iterator[Entry]:
    """Yield the files and folders of the archive called `title`.

    Raises UnsafeFileError for links, devices, pipes, sparse files and whatever else is neither, for damaged headers,
    for bytes beyond the end of the archive, and for too many entries.
    """
    offset = 0
    facts: dict[bytes, bytes] = {}
    for _ in range(MAX_HEADERS):
        block = archive.read_at(offset, BLOCK_BYTES)
        if not block.strip(b"\0"):  # the end, whether or not it is marked by empty blocks
            return
        header = _with(_parse(block, title), facts, title)
        offset += BLOCK_BYTES
        if offset + header.size_bytes > archive.size_bytes:
            raise damaged(title, "it ends early")
        if header.kind in (b"x", b"g", b"L"):
            facts = _facts(archive, header, offset, facts, title)
        else:
            yield _entry(header, offset, title)
            facts = {}
        offset += -(-header.size_bytes // BLOCK_BYTES) * BLOCK_BYTES
    raise refused(title, f"more than {MAX_HEADERS} entries")


def _entry(header: _Header, offset: int, title: str) -> Entry:
    if header.kind not in (b"0", b"\0", b"5"):
        what = _REFUSED_KINDS.get(header.kind, f"an entry of kind {header.kind!r}")
        raise refused(title, f"{what}, {header.name[:80]!r}")
    try:
        name = header.name.decode()
    except UnicodeDecodeError:
        raise refused(title, f"a name that is not UTF-8, {header.name[:80]!r}") from None
    if header.kind == b"5" and header.size_bytes:
        raise damaged(title, "a folder has bytes")
    return Entry(name, header.size_bytes, offset, is_folder=header.kind == b"5")


def _parse(block: bytes, title: str) -> _Header:
    if len(block) < BLOCK_BYTES:
        raise damaged(title, "it ends early")
    unsigned = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
    if _number(block[148:156], title) != unsigned:
        raise damaged(title, "a header's checksum is wrong")
    name, prefix = _text(block[:100]), _text(block[345:500])
    # GNU's own layout, `ustar  `, keeps other facts where the prefix is.
    if block[257:263] == b"ustar\0" and prefix:
        name = prefix + b"/" + name
    return _Header(block[156:157], name, _number(block[124:136], title))


def _number(field: bytes, title: str) -> int:
    """Return an octal number, or GNU's binary one for sizes of 8 GiB and more."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        text = field.strip(b" \0").decode("ascii")
        if text.strip("01234567"):
            raise ValueError(text)
        return int(text or "0", 8)
    except ValueError:
        raise damaged(title, "a number in a header is none") from None


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _with(header: _Header, facts: dict[bytes, bytes], title: str) -> _Header:
    """Return a header with what the records before it say instead."""
    if header.kind in (b"x", b"g", b"L") or not facts:
        return header
    size = facts.get(b"size", str(header.size_bytes).encode())
    if not size.isdigit() or len(size) > 19:
        raise damaged(title, "a size is none")
    return header._replace(name=facts.get(b"path", header.name), size_bytes=int(size))


def _facts(
    archive: Readable, header: _Header, offset: int, known: dict[bytes, bytes], title: str
) -> dict[bytes, bytes]:
    """Return what a record says of the next entry, together with what is known of it."""
    if header.size_bytes > MAX_RECORD_BYTES:
        raise refused(title, "a record of over 64 KiB about a file")
    record = archive.read_at(offset, header.size_bytes)
    if header.kind == b"L":
        return known | {b"path": _text(record)}
    told = dict(_pax(record, title))
    if any(key.startswith(b"GNU.sparse") for key in told):
        raise refused(title, "a sparse file")
    if header.kind == b"g" and {b"path", b"size", b"linkpath"} & set(told):
        raise refused(title, "one name or size for all its files")
    return known if header.kind == b"g" else known | told


def _pax(record: bytes, title: str) -> Iterator[tuple[bytes, bytes]]:
    """Yield the facts of a pax record: each is its own length, a space, `key=value` and a line feed."""
    while record:
        digits = record.partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 6 else 0
        key, equals, value = record[len(digits) + 1 : length - 1].partition(b"=")
        if not equals or length > len(record) or record[length - 1 : length] != b"\n":
            raise damaged(title, "a pax record is wrong")
        yield key, value
        record = record[length:]


def refused(title: str, what: str) -> UnsafeFileError:
    """Return the error for an archive that holds what no archive of weights needs."""
    return UnsafeFileError(
        f"The archive `{title}` holds {what}, and is not unpacked",
        hint="archives of weights hold regular files only; report it to those who published it",
    )


def damaged(title: str, why: str) -> UnsafeFileError:
    """Return the error for an archive that cannot be read."""
    return UnsafeFileError(f"The archive `{title}` is damaged: {why}", hint="check its address and its checksum")
