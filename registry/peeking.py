"""Looks into weights before they are fetched: reads the small files that decide, and the header of a GGUF file.

`read_facts` takes what is on disk; `download_facts` asks the hub for those files alone, which a later pull then finds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.facts import WeightFacts, facts_of_config, facts_of_gguf, facts_of_params
from registry.spec import Source, Spec

if TYPE_CHECKING:
    from registry.store import FileSet
    from registry.tar_header import Readable

# What decides, and what says so in Mistral AI's own layout.
_DECIDING = ("config.json", "quantize_config.json")
_DECIDING_OF_MISTRAL = ("params.json",)
_LARGEST_JSON_BYTES = 4 << 20


def read_facts(spec: Spec, files: FileSet) -> WeightFacts | None:
    """Return the facts of what is on disk, or None where what says them is not all there; reads a few kilobytes."""
    if spec.model_format == "gguf":
        first = files.files[0].location if files.files else None
        return None if first is None else _facts_of_header(first)
    names = deciding_files(spec)
    deciding = {file.path: file.location for file in files.files if file.path in names}
    if not deciding or None in deciding.values():
        return None
    return _facts_of({path: _read_json(place.read_bytes()) for path, place in deciding.items() if place is not None})


def download_facts(spec: Spec, source: Source, quantization: str) -> WeightFacts | None:
    """Return the facts of what a hub has, or None where they show only in what is fetched whole.

    Small weights are not looked into: they are here as soon. Raises DownloadError, as a pull of them would.
    """
    from registry.bringing import SMALL_BYTES
    from registry.hubs import open_hub
    from registry.store import list_needed, pull_some

    if source.hub == "pypi":
        return None
    hub = open_hub(source.hub)
    listing, needed = list_needed(spec, source, quantization)
    if spec.model_format == "gguf" and (needed[0].size_bytes or 0) <= SMALL_BYTES:
        return None
    if spec.model_format != "gguf" and not listing.comes_whole:
        return read_facts(spec, pull_some(spec, source, quantization, listing, deciding_files(spec)))
    deciding = [file for file in needed if spec.model_format == "gguf" or file.path in deciding_files(spec)][:1]
    for file in deciding:
        with hub.peek(listing, file) as content:
            if content is not None:
                return _facts_of_content(file.path, content)
    return None


def deciding_files(spec: Spec) -> tuple[str, ...]:
    """Return the names of the small files that decide who can load a spec's weights."""
    return _DECIDING_OF_MISTRAL if spec.model_format == "mistral" else _DECIDING


def _facts_of_header(path: Path) -> WeightFacts:
    from registry.gguf_header import read_gguf_values_at

    return facts_of_gguf(read_gguf_values_at(path))


def _facts_of_content(name: str, content: Readable) -> WeightFacts:
    from registry.gguf_header import read_gguf_values

    if name.endswith(".json"):
        return _facts_of({name: _read_json(content.read_at(0, min(content.size_bytes, _LARGEST_JSON_BYTES)))})
    return facts_of_gguf(read_gguf_values(content))


def _facts_of(read: Mapping[str, Mapping[str, Any]]) -> WeightFacts:
    if "params.json" in read:
        return facts_of_params(read["params.json"])
    return facts_of_config(read.get("config.json", {}), read.get("quantize_config.json", {}))


def _read_json(content: bytes) -> Mapping[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
