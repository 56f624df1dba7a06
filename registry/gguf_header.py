"""Reads the few facts of a GGUF file's header that a launch needs.

Layout as in the format's specification (ggml, docs/gguf.md), versions 2 and 3: magic, version, counts of tensors and
of keys, then keys with typed values, little-endian. Writers put the architecture's keys before the vocabulary, whose
arrays are long: reading stops there, and what comes after them is only looked for. So a header can be read where only
parts of the file are to be had, a few kilobytes from its beginning.
"""

from __future__ import annotations

import mmap
import struct
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from registry.gguf import MAGIC, NotGgufError, check_gguf

if TYPE_CHECKING:
    from registry.tar_header import Readable

# The value types that have a fixed size, by their number: struct codes.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_UINT32, _STRING, _ARRAY = 4, 8, 9
_LONGEST_LIST = 1_000
_LATE_WITHIN_BYTES = 64 * 1024 * 1024

_FILE_TYPE_KEY = "general.file_type"
# Its values as llama.cpp numbers them (llama_ftype).
_FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K_S", 12: "Q3_K_M",
    13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K", 19: "IQ2_XXS", 20: "IQ2_XS",
    21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S", 27: "IQ3_M", 28: "IQ2_S",
    29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16",
}  # fmt: skip


class GgufFacts(NamedTuple):
    """What a header says; None where it does not. `parameters` is the file's own count, rarely there."""

    architecture: str | None
    quantization: str
    context_length: int | None
    parameters: int | None
    has_template: bool


def read_gguf_facts(path: Path) -> GgufFacts:
    """Return the facts of a GGUF file; raises NotGgufError for anything else."""
    check_gguf(path)
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            values = _Reader(_Mapped(content)).scalars()
            has_template = content.find(b"tokenizer.chat_template", 0, _LATE_WITHIN_BYTES) >= 0
            file_type = values.get(_FILE_TYPE_KEY) or _late_number(content, _FILE_TYPE_KEY)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise NotGgufError(
            f"`{path.name}` begins as GGUF, but its header cannot be read", details=(str(path),)
        ) from error
    architecture = values.get("general.architecture")
    return GgufFacts(
        architecture=architecture if isinstance(architecture, str) else None,
        quantization=_FILE_TYPES.get(_whole(file_type) or -1, "none"),
        context_length=_whole(values.get(f"{architecture}.context_length")),
        parameters=_whole(values.get("general.parameter_count")),
        has_template=has_template,
    )


def read_gguf_values(content: Readable) -> dict[str, object]:
    """Return the header's keys with texts and numbers, up to the vocabulary; {} for what is not GGUF or is damaged."""
    try:
        return _Reader(content).scalars() if content.read_at(0, len(MAGIC)) == MAGIC else {}
    except (struct.error, UnicodeDecodeError, ValueError):
        return {}


def read_gguf_values_at(path: Path) -> dict[str, object]:
    """Return the same of a file on disk."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return read_gguf_values(_Mapped(content))


def _late_number(content: mmap.mmap, name: str) -> int | None:
    """Return the value of a key behind the vocabulary, where llama.cpp's quantize puts what it sets anew."""
    found = content.find(name.encode(), 0, _LATE_WITHIN_BYTES)
    kind, value = struct.unpack_from("<II", content, found + len(name)) if found >= 0 else (None, None)
    return value if kind == _UINT32 else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None


class _Mapped:
    """A file in memory, as the header's reader wants it."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self.size_bytes = len(content)

    def read_at(self, position: int, count: int) -> bytes:
        return self._content[position : position + count]


class _Reader:
    def __init__(self, content: Readable) -> None:
        self._content = content
        self._at = len(MAGIC)

    def scalars(self) -> dict[str, object]:
        """Return the keys with texts and numbers, up to the vocabulary."""
        version, _, keys = self._read("I"), self._read("Q"), self._read("Q")
        if version not in (2, 3):
            raise ValueError(f"version {version}")
        values: dict[str, object] = {}
        for _ in range(int(keys)):
            name, kind = self._text(), self._read("I")
            if kind == _ARRAY and not self._skip_array():
                break
            if kind == _STRING:
                values[name] = self._text()
            elif kind in _SCALARS:
                values[name] = self._read(_SCALARS[int(kind)])
            elif kind != _ARRAY:
                raise ValueError(f"value type {kind}")
        return values

    def _skip_array(self) -> bool:
        """Go past an array; False for a long one of texts, which is the vocabulary."""
        kind, count = self._read("I"), int(self._read("Q"))
        if kind in _SCALARS:
            self._at += struct.calcsize(_SCALARS[int(kind)]) * count
        elif kind == _STRING and count <= _LONGEST_LIST:
            for _ in range(count):
                self._text()
        else:
            return False
        return True

    def _read(self, code: str) -> int | float:
        size = struct.calcsize(code)
        value: int | float = struct.unpack(f"<{code}", self._content.read_at(self._at, size))[0]
        self._at += size
        return value

    def _text(self) -> str:
        length = int(self._read("Q"))
        if length > self._content.size_bytes - self._at:
            raise ValueError("the header ends early")
        raw = self._content.read_at(self._at, length)
        if len(raw) != length:
            raise ValueError("the header ends early")
        self._at += length
        return raw.decode("utf-8")
