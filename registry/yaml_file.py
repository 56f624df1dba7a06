"""Reads the entries of catalogue files, and those that a `launch.yaml` has of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry.schema import json_schema, validate_entry
from registry.yaml_document import Document, Key, read_documents

# The sections of a `launch.yaml`, none of which is a key of an entry.
SECTIONS = ("defaults", "models", "registry")


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Return the canonical JSON of every entry in a file; of a `launch.yaml`, those below `registry`.

    Raises SchemaError with file, line and key, CatalogueError for a file that cannot be read.
    """
    return [
        document.validated(validate_entry, json_schema, key)
        for document in read_documents(path)
        for key in _places_of(document)
    ]


def check_own_entries(document: Document) -> None:
    """Raise SchemaError for a wrong one among the entries of a `launch.yaml`'s own, which stand among its layers."""
    for key in _own_places(document):
        document.validated(validate_entry, json_schema, key)


def _places_of(document: Document) -> list[Key]:
    return _own_places(document) if _has_sections(document.data) else [()]


def _has_sections(data: Any) -> bool:
    return isinstance(data, dict) and not data.keys().isdisjoint(SECTIONS) and data.keys().isdisjoint(("name", "specs"))


def _own_places(document: Document) -> list[Key]:
    layers = document.data.get("registry") or []
    if not isinstance(layers, list):
        raise document.error("is not a list", ("registry",))
    return [("registry", index) for index, layer in enumerate(layers) if not isinstance(layer, str)]
