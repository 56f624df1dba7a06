"""Sampling values that weights carry: read where they are meant, and nothing where they are not."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from registry.own_defaults import merged_defaults, read_own_defaults
from registry.spec import GenerationDefaults


def test_a_folders_configuration_counts_where_it_samples(tmp_path: Path) -> None:
    config = tmp_path / "generation_config.json"
    assert read_own_defaults(tmp_path) == GenerationDefaults()
    config.write_text(json.dumps({"do_sample": True, "temperature": 0.6, "top_k": 20, "eos_token_id": 2}))
    assert read_own_defaults(tmp_path) == GenerationDefaults(temperature=0.6, top_k=20)
    config.write_text(json.dumps({"temperature": 0.6}))
    assert read_own_defaults(tmp_path) == GenerationDefaults()
    config.write_text("not JSON")
    assert read_own_defaults(tmp_path) == GenerationDefaults()


def test_a_ggufs_header_has_them_too(tmp_path: Path) -> None:
    def key(name: str, kind: int, value: bytes) -> bytes:
        return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value

    keys = [
        key("general.sampling.temp", 6, struct.pack("<f", 0.6)),
        key("general.sampling.top_k", 5, struct.pack("<i", 20)),
    ]
    path = tmp_path / "m.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, 0, len(keys)) + b"".join(keys))
    assert read_own_defaults(path) == GenerationDefaults(temperature=0.6, top_k=20)
    path.write_bytes(b"no GGUF")
    assert read_own_defaults(path) == GenerationDefaults()


def test_the_catalogue_comes_first() -> None:
    merged = merged_defaults(GenerationDefaults(temperature=0.2), GenerationDefaults(temperature=0.6, top_p=0.9))
    assert merged == GenerationDefaults(temperature=0.2, top_p=0.9)
