"""Facts on disk of what runs: a file for each thing, in a folder for each kind of them.

Whether they still hold is asked of the system by whoever reads them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from registry.cache import cache_folder, read_json, write_json

SCHEMA = 1


def write_record(kind: str, number: str, facts: Mapping[str, Any]) -> None:
    """Write facts, or write them anew."""
    path = _path(kind, number)
    with suppress(OSError):  # without a cache that can be written nobody else knows of it
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # a command line may hold a key
        write_json(path, {"schema": SCHEMA, **facts})


def remove_record(kind: str, number: str) -> None:
    """Remove facts, if they are there."""
    with suppress(OSError):
        _path(kind, number).unlink(missing_ok=True)


def read_records(kind: str) -> Iterator[dict[str, Any]]:
    """Yield the facts of each; what another version wrote may have other keys."""
    for path in sorted((cache_folder() / kind).glob("*.json")):
        facts = read_json(path) or {}
        if facts.pop("schema", None) == SCHEMA:
            yield facts


def _path(kind: str, number: str) -> Path:
    return cache_folder() / kind / f"{number}.json"
