"""Calls of tools: what a model that must make one has to write, and what it wrote read as calls."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from openai_backend import Tool
from stop_strings import held_back


class Format(NamedTuple):
    """What a model writes before its calls, each a JSON object or a list of them, and after each."""

    start: str
    end: str = ""


FORMATS: Mapping[str, Format] = {
    "hermes": Format("<tool_call>", "</tool_call>"),
    "qwen": Format("<tool_call>", "</tool_call>"),
    "mistral": Format("[TOOL_CALLS]"),
}
ANYTHING = Format("")  # what must be a call is one from its first character on


class Call(NamedTuple):
    """One call; `arguments` is JSON. Mistral's templates take only identities of nine letters and digits."""

    identity: str
    name: str
    arguments: str


class CallFilter:
    """Keeps the calls at the end of a text that comes in pieces out of the text."""

    def __init__(self, style: Format | None) -> None:
        self._style = style
        self._is_inside = style is ANYTHING
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what is certain to be no call."""
        if self._style is None:
            return text
        self._held += text
        if self._is_inside:
            return ""
        before, start, rest = self._held.partition(self._style.start)
        self._is_inside = bool(start)
        sure = before if start else self._held[: len(self._held) - held_back(self._held, (self._style.start,))]
        self._held = rest if start else self._held[len(sure) :]
        return sure

    def finish(self) -> tuple[str, tuple[Call, ...]]:
        """Return what was held back: text, or calls where it is nothing else."""
        if self._style is None or not self._is_inside:
            return self._held, ()
        try:
            return "", tuple(_read_calls(self._held, self._style))
        except (ValueError, KeyError, TypeError):
            return self._style.start + self._held, ()


def call_schema(tools: Sequence[Tool]) -> Mapping[str, Any]:
    """Return the JSON schema of a call of one of `tools`."""
    return {"anyOf": [_schema_of(tool["function"], index) for index, tool in enumerate(tools)]}


def _schema_of(function: Mapping[str, Any], index: int) -> Mapping[str, Any]:
    given = function.get("parameters") or {"type": "object"}
    place = f"#/anyOf/{index}/properties/arguments/"
    properties = {"name": {"const": function["name"]}, "arguments": _moved(given, place)}
    return {
        "type": "object",
        "properties": properties,
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _moved(schema: Any, place: str) -> Any:
    """Return a schema whose references into itself hold where it now stands."""
    if isinstance(schema, list):
        return [_moved(each, place) for each in schema]
    if not isinstance(schema, Mapping):
        return schema
    moved = {key: _moved(value, place) for key, value in schema.items()}
    if isinstance(moved.get("$ref"), str) and moved["$ref"].startswith("#/"):
        moved["$ref"] = place + moved["$ref"].removeprefix("#/")
    return moved


def _read_calls(text: str, style: Format) -> Iterator[Call]:
    """Yield the calls; raises ValueError, KeyError or TypeError where the text is something else too."""
    decoder = json.JSONDecoder()
    while text := text.strip():
        value, end = decoder.raw_decode(text)
        for each in value if isinstance(value, list) else [value]:
            arguments = json.dumps(each["arguments"], ensure_ascii=False)
            yield Call(secrets.token_hex(5)[:9], str(each["name"]), arguments)
        text = text[end:].strip().removeprefix(style.end).strip().removeprefix(style.start)
