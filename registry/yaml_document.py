"""Reads YAML files: plain data with the line of every key, and errors that point there.

The resolver follows YAML 1.2's core schema, so that `no` is Norwegian, `0_5` is text and a date stays as written.
Anchors and aliases are refused: our files need none, and they can make a small file expand without end.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import yaml
from pydantic import ValidationError

from registry.errors import CatalogueError, SchemaError

Key = tuple[str | int, ...]
# How a key is spelled that a file has below another key.
Spelling = Callable[[Key, str], str]
Schema = Mapping[str, Any]

_Validated = TypeVar("_Validated")

# Deeper than any entry, and far from where a parser's recursion would end the process.
_DEEPEST = 32
_LONGEST_MESSAGE = 200
_COLLECTION_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")

_WRONG_TYPES = {
    "missing": "is missing",
    "model_type": "is not a mapping of keys",
    "dict_type": "is not a mapping of keys",
    "list_type": "is not a list",
    "string_type": "is not text",
    "int_type": "is not a whole number",
    "float_type": "is not a number",
    "float_parsing": "is not a number",
    "bool_type": "is neither true nor false",
    "too_short": "is empty",
    "string_too_short": "is empty",
}


class _CoreLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """A safe loader with the scalars of YAML 1.2's core schema."""

    yaml_implicit_resolvers: ClassVar[dict[str, list[tuple[str, Any]]]] = {}


def _resolve(tag: str, pattern: str, first: str) -> None:
    _CoreLoader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


_resolve("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF")
_resolve("null", r"^(?:null|Null|NULL|~|)$", "nN~")
_CoreLoader.yaml_implicit_resolvers.setdefault("", []).extend(_CoreLoader.yaml_implicit_resolvers["~"])
_resolve("int", r"^[-+]?[0-9]+$", "-+0123456789")
_resolve("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789")


def as_written(_key: Key, name: str) -> str:
    """Return a key's name as the file has it."""
    return name


@dataclass
class Document:
    """One YAML document as plain data, and the line of each key."""

    file: str
    spell: Spelling = as_written
    lines: dict[Key, int] = field(default_factory=dict)
    data: Any = None

    def line_of(self, key: Key) -> int:
        """Return the line of a key, or of the innermost that the file has on the way to it."""
        return next(self.lines[key[:n]] for n in range(len(key), -1, -1) if key[:n] in self.lines)

    def error(self, message: str, key: Key, *, hint: str | None = None) -> SchemaError:
        line, dotted = self.line_of(key), ".".join(str(part) for part in key)
        where = f"{self.file}:{line}" + (f": `{shown(dotted)}`" if dotted else "")
        return SchemaError(f"{where} {message}", file=self.file, line=line, key=dotted, hint=hint)

    def validated(
        self, validate: Callable[[Any], _Validated], schema: Callable[[], Schema], key: Key = ()
    ) -> _Validated:
        """Return what `validate` makes of the data at `key`; raises SchemaError, with the near name by its schema."""
        data = self.data
        for part in key:
            data = data[part]
        try:
            return validate(data)
        except ValidationError as error:
            raise _schema_error(self, error, schema, key) from error

    def build(self, node: yaml.Node, key: Key = ()) -> Any:
        self.lines.setdefault(key, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode) and node.tag not in _COLLECTION_TAGS:
            raise self._foreign_tag(node, key)
        if isinstance(node, yaml.MappingNode):
            return self._build_mapping(node, key)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*key, index)) for index, child in enumerate(node.value)]
        return self._build_scalar(node, key)

    def _build_mapping(self, node: yaml.MappingNode, key: Key) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for name_node, value_node in node.value:
            name = self.spell(key, str(name_node.value))
            here = (*key, name)
            if not isinstance(name_node, yaml.ScalarNode):
                raise self.error("has a key that is not text", key)
            self.lines[here] = name_node.start_mark.line + 1
            if name in result:
                raise self.error("is given twice", here)
            result[name] = self.build(value_node, here)
        return result

    def _build_scalar(self, node: yaml.Node, key: Key) -> Any:
        match node.tag.rpartition(":")[2]:
            case "null":
                return None
            case "bool":
                return node.value.lower() == "true"
            case "int":
                return self._number(int, node, key)
            case "float":
                return self._number(float, node, key)
            case "str":
                return node.value
        raise self._foreign_tag(node, key)

    def _number(self, kind: type[int] | type[float], node: yaml.Node, key: Key) -> int | float:
        try:
            return kind(node.value)
        except ValueError as error:
            raise self.error(f"is not a number: `{shown(node.value)}`", key) from error

    def _foreign_tag(self, node: yaml.Node, key: Key) -> SchemaError:
        return self.error(f"has the tag `{shown(node.tag)}`, which is not used here", key)


def read_documents(path: Path, spell: Spelling = as_written) -> list[Document]:
    """Return the documents of a file that are not empty.

    Raises SchemaError with file, line and key, CatalogueError for a file that cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
        _refuse_bombs(text, str(path))
        nodes = list(yaml.compose_all(text, Loader=_CoreLoader))
    except UnicodeDecodeError as error:
        raise SchemaError(f"{path} is not UTF-8 text", file=str(path), line=1, key="") from error
    except OSError as error:
        raise CatalogueError(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise _syntax_error(path, text, error) from error
    return [_read_document(path, node, spell) for node in nodes if node.value]


def _refuse_bombs(text: str, file: str) -> None:
    """Refuse what makes a small file large or deep, by its events alone."""
    depth = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        line = 1 if event.start_mark is None else event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            message = f"uses the alias `*{shown(event.anchor)}`; write the value out"
            raise SchemaError(f"{file}:{line} {message}", file=file, line=line, key="")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise SchemaError(f"{file}:{line} is nested too deep", file=file, line=line, key="")


def _syntax_error(path: Path, text: str, error: yaml.YAMLError) -> SchemaError:
    mark = getattr(error, "problem_mark", None)
    # Of a character that YAML does not allow, libyaml tells the byte alone.
    line = text.encode().count(b"\n", 0, getattr(error, "position", 0)) if mark is None else mark.line
    cause = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be parsed"
    return SchemaError(f"{path}:{line + 1} is not YAML: {cause}", file=str(path), line=line + 1, key="")


def _read_document(path: Path, node: yaml.Node, spell: Spelling) -> Document:
    document = Document(str(path), spell)
    document.data = document.build(node)
    return document


def _schema_error(document: Document, error: ValidationError, schema: Callable[[], Schema], prefix: Key) -> SchemaError:
    """Return the first thing wrong, unknown keys before all, since a typo also makes the right key missing."""
    first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    cause = first.get("ctx", {}).get("error")
    key = tuple(part for part in first["loc"] if part != "[key]") + getattr(cause, "key", ())
    if first["type"] == "extra_forbidden":
        near = _did_you_mean(str(key[-1]), _allowed_beside(schema(), key))
        return document.error("is not a key", (*prefix, *key), hint=near)
    if first["type"] == "literal_error":
        message, hint = _not_a_choice(first["input"], _choices_at(schema(), key))
        return document.error(message, (*prefix, *key), hint=hint)
    message = _WRONG_TYPES.get(first["type"]) or first["msg"].removeprefix("Value error, ").removeprefix("Input ")
    given = first["input"]
    message = shown(message, longest=_LONGEST_MESSAGE)
    if isinstance(given, str | int | float) and f"`{shown(given)}`" not in message:
        message += f", but `{shown(given)}` was given"
    unquoted = first["type"] == "string_type" and isinstance(given, int | float)
    hint = "put it in quotes" if unquoted else getattr(cause, "hint", None)
    return document.error(message[0].lower() + message[1:], (*prefix, *key), hint=hint)


def _not_a_choice(given: object, choices: list[str]) -> tuple[str, str | None]:
    message = f"must be one of {', '.join(f'`{choice}`' for choice in choices)}, but `{shown(given)}` was given"
    return message, _did_you_mean(str(given), choices)


def _did_you_mean(name: str, known: list[str]) -> str | None:
    near = get_close_matches(name[:100].lower(), known, n=1)
    return f"did you mean `{near[0]}`?" if near else None


def shown(value: object, *, longest: int = 80) -> str:
    """Return a value from a file as a message may show it: short, and without control characters."""
    text = str(value).lower() if isinstance(value, bool) else str(value)[: longest + 1]
    text = "".join(character if character.isprintable() else "�" for character in text)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _choices_at(schema: Schema, key: Key) -> list[str]:
    node = _step(schema, _schema_beside(schema, key), key[-1])
    return list(next((choice["enum"] for choice in (node, *node.get("anyOf", ())) if "enum" in choice), ()))


def _allowed_beside(schema: Schema, key: Key) -> list[str]:
    return list(_dereference(schema, _schema_beside(schema, key)).get("properties", {}))


def _schema_beside(schema: Schema, key: Key) -> Any:
    current: Any = schema
    for part in key[:-1]:
        current = _step(schema, current, part)
    return current


def _step(schema: Schema, current: Any, part: str | int) -> Any:
    node = _dereference(schema, current)
    if isinstance(part, int):
        return node.get("items", {})
    patterns = node.get("patternProperties", {}).values()
    return node.get("properties", {}).get(part) or node.get("additionalProperties") or next(iter(patterns), {})


def _dereference(schema: Schema, node: Any) -> Any:
    for choice in node.get("anyOf", ()):
        if "$ref" in choice:
            node = choice
    if "$ref" in node:
        return schema["$defs"][node["$ref"].rpartition("/")[2]]
    return node
