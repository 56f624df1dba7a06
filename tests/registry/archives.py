"""Tar archives as they should be, and as nobody should unpack them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping

MISTRAL = {
    "params.json": b'{"dim": 8}',
    "consolidated.safetensors": b"tensors" * 4000,
    "tokenizer.model.v3": b"words" * 50,
}


def pack(files: Mapping[str, bytes], *, layout: int = tarfile.GNU_FORMAT) -> bytes:
    """Return an archive of regular files."""
    return pack_entries([(entry(name, len(content)), content) for name, content in files.items()], layout=layout)


def entry(name: str, size_bytes: int = 0, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return an entry of any kind; `target` is where a link leads."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size_bytes, kind, target
    return info


def pack_entries(
    entries: Iterable[tuple[tarfile.TarInfo, bytes]],
    *,
    layout: int = tarfile.GNU_FORMAT,
    facts: Mapping[str, str] | None = None,
) -> bytes:
    """Return an archive of the entries; `facts` stand in a pax record for all of them."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout, pax_headers=facts) as archive:
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def patched(archive: bytes, offset: int, field: bytes) -> bytes:
    """Return the archive with a field of its first header replaced, and the header's checksum right again."""
    header = bytearray(archive[:512])
    header[offset : offset + len(field)] = field
    total = sum(header[:148]) + sum(header[156:]) + 8 * ord(" ")
    header[148:156] = b"%06o\0 " % total
    return bytes(header) + archive[512:]
