"""Reads YAML catalogue files: plain data with the line of every key, and errors that point there.

The resolver follows YAML 1.2's core schema, so that `no` is Norwegian, `0_5` is text and a date stays as written.
Anchors and aliases are refused: a catalogue needs none, and they can make a small file expand without end.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from registry.errors import SchemaError
from registry.schema import json_schema, validate_entry

_Key = tuple[str | int, ...]


class _CoreLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, Any]]] = {}


def _resolve(tag: str, pattern: str, first: str) -> None:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("null", r"^(?:null|Null|NULL|~|)$", "nN~")
_CoreLoader.yaml_implicit_resolvers.setdefault("", []).extend(_CoreLoader.yaml_implicit_resolvers["~"])
_resolve("int", r"^[-+]?[0-9]+$", "-+0123456789")
_resolve("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789")


@dataclass
class _Document:
    """One YAML document as plain data, and the line of each key."""

    file: str
    lines: dict[_Key, int] = field(default_factory=dict)

    def error(self, message: str, key: _Key, *, hint: str | None = None) -> SchemaError:
        line = next(self.lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in self.lines)
        dotted = ".".join(str(part) for part in key)
        where = f"{self.file}:{line}" + (f": `{dotted}`" if dotted else "")
        return SchemaError(f"{where} {message}", file=self.file, line=line, key=dotted, hint=hint)

    def build(self, node: yaml.Node, key: _Key = ()) -> Any:
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*key, index)) for index, child in enumerate(node.value)]
        return self._build_scalar(node, key)

    def _build_mapping(self, node: yaml.MappingNode, key: _Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = str(name_node.value)
            here = (*key, name)
            if not isinstance(name_node, yaml.ScalarNode):
                raise self.error("has a key that is not text", key)
            if name in result:
                raise self.error("is given twice", here)
            self.lines[here] = name_node.start_mark.line + 1
            result[name] = self.build(value_node, here)
        return result

    def _build_scalar(self, node: yaml.Node, key: _Key) -> Any:
        match node.tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return node.value.lower() == "true"
            case "int":
                return int(node.value)
            case "float":
                return float(node.value)
            case "str":
                return node.value
        raise self.error(f"has the tag `{node.tag}`, which a catalogue does not use", key)


def read_entries(path: Path) -> list[dict[str, Any]]:
    """Return the canonical JSON of every entry in a file; raises SchemaError with file, line and key."""
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_aliases(text, str(path))
        nodes = list(yaml.compose_all(text, Loader=_CoreLoader))
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path} is not UTF-8 text", file=str(path), line=1, key="") from error
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(path, error) from error
    return [_read_entry(path, node) for node in nodes if node.value]


def _refuse_aliases(text: str, file: str) -> None:
    for event in yaml.parse(text, Loader=_CoreLoader):
        if isinstance(event, yaml.AliasEvent):
            line = event.start_mark.line + 1
            raise SchemaError(
                f"{file}:{line} uses the alias `*{event.anchor}`; write the value out", file=file, line=line, key=""
            )


def _syntax_error(path: Path, error: yaml.MarkedYAMLError) -> SchemaError:
    mark = error.problem_mark
    line = 1 if mark is None else mark.line + 1
    return SchemaError(f"{path}:{line} is not YAML: {error.problem}", file=str(path), line=line, key="")


def _read_entry(path: Path, node: yaml.Node) -> dict[str, Any]:
    document = _Document(str(path))
    data = document.build(node)
    try:
        return validate_entry(data)
    except ValidationError as error:
        raise _schema_error(document, error) from error


def _schema_error(document: _Document, error: ValidationError) -> SchemaError:
    """Return the first thing wrong, unknown keys before all, since a typo also makes the right key missing."""
    first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    key = tuple(part for part in first["loc"] if part != "[key]")
    if first["type"] == "extra_forbidden":
        near = get_close_matches(str(key[-1]), _allowed_beside(key), n=1)
        return document.error("is not a key", key, hint=f"did you mean `{near[0]}`?" if near else None)
    if first["type"] == "missing":
        return document.error("is missing", key)
    if first["type"] == "model_type":
        return document.error("is not a mapping of keys", key)
    message = first["msg"].removeprefix("Value error, ")
    given = first["input"]
    if isinstance(given, str | int | float) and f"{given}" not in message:
        message += f", but `{given}` was given"
    return document.error(message[0].lower() + message[1:], key)


def _allowed_beside(key: _Key) -> list[str]:
    schema = json_schema()
    current: Any = schema
    for part in key[:-1]:
        current = _step(schema, current, part)
    return list(_dereference(schema, current).get("properties", {}))


def _step(schema: Any, current: Any, part: str | int) -> Any:
    node = _dereference(schema, current)
    if isinstance(part, int):
        return node.get("items", {})
    return node.get("properties", {}).get(part) or node.get("additionalProperties") or _first_pattern(node)


def _first_pattern(node: Any) -> Any:
    return next(iter(node.get("patternProperties", {}).values()), {})


def _dereference(schema: Any, node: Any) -> Any:
    for choice in node.get("anyOf", ()):
        if "$ref" in choice:
            node = choice
    if "$ref" in node:
        return schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node
