"""Small catalogue entries for tests: plain data that tests change where they need it otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from registry.schema import validate_entry
from registry.spec import Model

# A busy machine may take its time.
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def entry(name: str = "small", *, specs: list[dict[str, Any]] | None = None, **facts: Any) -> dict[str, Any]:
    """Return an entry as YAML would hold it, with one GGUF spec unless others are given."""
    return {"name": name, **facts, "specs": specs if specs is not None else [spec()]}


def spec(
    model_format: str = "gguf",
    size: float | str = 1,
    quantizations: tuple[str, ...] = ("Q4_K_M",),
    hubs: tuple[str, ...] = ("huggingface",),
    **source: Any,
) -> dict[str, Any]:
    """Return a spec that is published on `hubs` in one repo of the same name."""
    published = {"repo_id": f"org/small-{size}b-{model_format}", **source}
    return {
        "format": model_format,
        "size_in_billions": size,
        "quantizations": list(quantizations),
        "sources": {hub: dict(published) for hub in hubs},
    }


def model(name: str = "small", *, specs: list[dict[str, Any]] | None = None, **facts: Any) -> Model:
    """Return `entry` as the rest of the product sees it."""
    return Model.from_json(validate_entry(entry(name, specs=specs, **facts)))


def write_yaml(path: Path, text: str) -> Path:
    """Write a catalogue file, folders and all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def yaml_entry(name: str, *, repo_id: str = "org/small", quantization: str = "Q4_K_M", more: str = "") -> str:
    """Return the YAML of an entry with one GGUF spec; `more` are further lines of the entry."""
    return f"""\
name: {name}
{more}specs:
  - format: gguf
    size_in_billions: 1
    quantizations: [{quantization}]
    sources:
      huggingface:
        repo_id: {repo_id}
        file: small.{{quantization}}.gguf
"""
