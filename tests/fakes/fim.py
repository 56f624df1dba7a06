"""A GGUF that says which of its tokens mark what is filled in between two texts."""

from __future__ import annotations

import struct
from pathlib import Path

ALIGNMENT = 32
UINT32, STRING = 4, 8
# Some of SmolLM2's special tokens, which mean nothing to an engine.
TOKENS = {"fim_pre": 4, "fim_suf": 5, "fim_mid": 6}


def with_fill_in(source: Path, target: Path) -> Path:
    """Write a copy of a GGUF with these keys before its own, by so many bytes that its tensors stay aligned."""
    keys = b"".join(_key(f"tokenizer.ggml.{name}_token_id", UINT32, struct.pack("<I", i)) for name, i in TOKENS.items())
    empty = _key("tests.padding", STRING, struct.pack("<Q", 0))
    padding = -(len(keys) + len(empty)) % ALIGNMENT
    keys += _key("tests.padding", STRING, struct.pack("<Q", padding) + b" " * padding)
    data = source.read_bytes()
    magic, version, tensors, count = struct.unpack_from("<4sIQQ", data)
    head = struct.pack("<4sIQQ", magic, version, tensors, count + len(TOKENS) + 1)
    target.write_bytes(head + keys + data[len(head) :])
    return target


def _key(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value
