"""Sampling values that weights carry themselves: `generation_config.json` beside them, or keys of a GGUF's header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from registry.gguf_header import read_gguf_values_at
from registry.spec import GenerationDefaults

CONFIG = "generation_config.json"
# A GGUF's names for the fields, which llama.cpp's converter takes from that file.
GGUF_KEYS: Mapping[str, str] = {
    "temperature": "general.sampling.temp",
    "top_p": "general.sampling.top_p",
    "top_k": "general.sampling.top_k",
    "min_p": "general.sampling.min_p",
    "repetition_penalty": "general.sampling.penalty_repeat",
}


def read_own_defaults(path: Path) -> GenerationDefaults:
    """Return what the weights at `path`, a GGUF file or a folder, say of sampling; nothing where they do not.

    A configuration that does not sample says nothing: its temperature is a library's default.
    """
    if path.is_dir():
        config = _read_json(path / CONFIG)
        values = {name: config.get(name) for name in GGUF_KEYS} if config.get("do_sample") else {}
    else:
        header = _read_header(path)
        values = {name: header.get(key) for name, key in GGUF_KEYS.items()}
    return GenerationDefaults(**{name: _number(name, value) for name, value in values.items()})  # type: ignore[arg-type]


def merged_defaults(stated: GenerationDefaults, own: GenerationDefaults) -> GenerationDefaults:
    """Return the catalogue's values, and the weights' own where it says nothing."""
    return own._replace(**{name: value for name, value in stated._asdict().items() if value is not None})


def _read_json(path: Path) -> Mapping[str, object]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_header(path: Path) -> Mapping[str, object]:
    try:
        return read_gguf_values_at(path)
    except (OSError, ValueError):
        return {}


def _number(name: str, value: object) -> float | int | None:
    """Return a usable value of a field, rounded to what was written: a GGUF has 4-byte numbers."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
        return None
    return int(value) if name == "top_k" else round(float(value), 6)
