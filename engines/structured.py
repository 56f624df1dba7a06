"""Answers that are JSON: a schema from a class, and what the model wrote as an instance of it."""

from __future__ import annotations

import json
import sys
import typing
from collections.abc import Mapping
from typing import Any

from registry.errors import GenerationError, InvalidRequestError

SHOWN_CHARACTERS = 200

Schema = type[Any] | Mapping[str, Any]


def read_schema(source: object) -> dict[str, Any]:
    """Return the JSON schema of a mapping, which is one, or of a class: a dataclass, a pydantic model, a TypedDict.

    Objects made from classes have no more than their fields. Raises InvalidRequestError for anything else.
    """
    if isinstance(source, Mapping):
        schema = dict(source)
    elif isinstance(source, type):
        schema = _close(_adapter(source).json_schema())
    else:
        raise _no_schema(f"`json_schema` must be a JSON schema or a class, not `{source!r}`")
    try:
        json.dumps(schema)
    except (TypeError, ValueError) as error:
        raise _no_schema(f"`json_schema` cannot be written as JSON: {error}") from error
    return schema


def parse_answer(source: Schema, text: str, *, is_whole: bool) -> Any:
    """Return what `text` says: plain data for a schema, an instance for a class. Raises GenerationError.

    An answer is not whole where `max_tokens` or the context ended it.
    """
    try:
        return json.loads(text) if isinstance(source, Mapping) else _parse_instance(source, text)
    except ValueError as error:  # pydantic's is one too
        shown = text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}…"
        if not is_whole:
            message = f"The answer was cut after {len(text):,} characters, and so is not whole JSON"
            raise GenerationError(message, hint="give it more `max_tokens`", details=[shown]) from error
        raise GenerationError(f"The answer does not satisfy the schema: {error}", details=[shown]) from error


def _parse_instance(source: type[Any], text: str) -> Any:
    parsed = _adapter(source).validate_json(text)
    return parsed.model_dump(exclude_unset=True) if typing.is_typeddict(source) and _is_stand_in(parsed) else parsed


def _adapter(source: type[Any]) -> Any:
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    try:
        return TypeAdapter(_stand_in(source) if typing.is_typeddict(source) else source)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise _no_schema(f"`json_schema` cannot be made from `{source.__name__}`: {error}") from error


def _stand_in(source: type[Any]) -> type[Any]:
    """Return what pydantic takes for a TypedDict, which it refuses before Python 3.12: a model of the same fields."""
    if sys.version_info >= (3, 12):
        return source
    from pydantic import create_model

    required = source.__required_keys__
    hints = typing.get_type_hints(source, include_extras=True)
    fields: dict[str, Any] = {name: (hint, ... if name in required else None) for name, hint in hints.items()}
    model: type[Any] = create_model(source.__name__, **fields)
    return model


def _is_stand_in(parsed: object) -> bool:
    return not isinstance(parsed, dict)


def _close(schema: Any) -> Any:
    """Return the schema with every object closed: engines differ in what they take an open one to allow."""
    if isinstance(schema, list):
        return [_close(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _close(value) for key, value in schema.items()}
    return {"additionalProperties": False, **closed} if "properties" in schema else closed


def _no_schema(message: str) -> InvalidRequestError:
    return InvalidRequestError(message, parameter="json_schema")
