"""Functions that a model may ask to be called: described to it, and its calls read."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from registry.errors import GenerationError, InvalidRequestError

# A typed function, or OpenAI's description of one.
Tool = Callable[..., Any] | Mapping[str, Any]
CHOICES = ("auto", "none", "required")


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model asks to be called, and with what."""

    id: str
    name: str
    arguments: dict[str, Any]

    def answer(self, value: object) -> Mapping[str, Any]:
        """Return the message that tells the model what the call returned."""
        content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        return {"role": "tool", "tool_call_id": self.id, "content": content}

    def described(self) -> dict[str, Any]:
        """Return the call in OpenAI's shape."""
        arguments = json.dumps(self.arguments, ensure_ascii=False)
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": arguments}}


def read_tools(tools: object) -> list[dict[str, Any]]:
    """Return tools in OpenAI's shape; raises InvalidRequestError for what is neither a function nor that shape."""
    if not isinstance(tools, list | tuple):
        raise _refused("`tools` must be a list of functions or of descriptions of them", "tools")
    return [_read_tool(tool, f"tools.{index}") for index, tool in enumerate(tools)]


def read_choice(
    choice: object, tools: Sequence[Mapping[str, Any]], *, parameter: str = "tool_choice"
) -> tuple[str, list[Mapping[str, Any]]]:
    """Return `auto`, `none` or `required`, and the tools to offer: the name of one offers that one and requires it.

    So it means the same to all engines: llama.cpp takes a name for `auto` (2026.10), and vLLM ends with `stop`.
    """
    name = _name_in(choice)
    if name in CHOICES:
        return name, list(tools)
    named = [tool for tool in tools if tool["function"]["name"] == name]
    if not named:
        known = ", ".join(f"`{each}`" for each in (*CHOICES, *(tool["function"]["name"] for tool in tools)))
        raise _refused(f"`{parameter}` must be one of {known}, not `{choice}`", parameter)
    return "required", named


def call_schema(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the JSON schema of a call of one of the tools."""
    return {"anyOf": [_schema_of_call(tool["function"]) for tool in tools]}


def _schema_of_call(function: Mapping[str, Any]) -> dict[str, Any]:
    arguments = function.get("parameters") or {"type": "object"}
    properties = {"name": {"const": function["name"]}, "arguments": arguments}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def parse_written_call(engine: str, text: str) -> ToolCall:
    """Return the call that an answer by `call_schema` is; raises GenerationError where it is cut."""
    import uuid

    try:
        call = json.loads(text)
    except ValueError:
        call = {}
    name = call.get("name", "a tool")
    arguments = json.dumps(call["arguments"]) if "arguments" in call else text
    return parse_call(engine, f"call_{uuid.uuid4().hex[:24]}", name, arguments)


def read_calls(calls: object, where: str) -> list[dict[str, Any]]:
    """Return the calls of an assistant's message in OpenAI's shape; raises InvalidRequestError."""
    if not isinstance(calls, list | tuple) or not calls:
        raise _refused(f"`{where}` must be a list of calls", where)
    return [_read_call(call, f"{where}.{index}") for index, call in enumerate(calls)]


def parse_call(engine: str, identity: str, name: str, arguments: str) -> ToolCall:
    """Return a call that an engine sent; raises GenerationError for arguments that are no JSON object."""
    try:
        parsed = json.loads(arguments or "{}")
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise GenerationError(
            f"`{engine}` broke off a call of `{name}`: its arguments are not whole",
            hint="give it more `max_tokens`",
            details=[arguments[:200]],
        )
    return ToolCall(identity, name, parsed)


def _name_in(choice: object) -> object:
    if isinstance(choice, Mapping) and choice.get("type") == "function" and isinstance(choice.get("function"), Mapping):
        return choice["function"].get("name")
    return choice


def _read_tool(tool: object, where: str) -> dict[str, Any]:
    if isinstance(tool, Mapping):
        function = tool.get("function")
        if tool.get("type") != "function" or not isinstance(function, Mapping) or not function.get("name"):
            raise _refused(f"`{where}` must have the type `function`, and a `function` with a name", where)
        return {"type": "function", "function": dict(function)}
    if callable(tool):
        return {"type": "function", "function": _describe(tool, where)}
    raise _refused(f"`{where}` must be a function or a description of one, not `{tool!r}`", where)


def _describe(function: Callable[..., Any], where: str) -> dict[str, Any]:
    """Return what a function's signature and docstring say of it."""
    from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter

    name = getattr(function, "__name__", type(function).__name__)
    try:
        described: TypeAdapter[Any] = TypeAdapter(cast("Any", function))
        parameters = described.json_schema()
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise _refused(f"`{where}`: the parameters of `{name}` cannot be described: {error}", where) from error
    return {"name": name, "description": inspect.getdoc(function) or "", "parameters": parameters}


def _read_call(call: object, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise _refused(f"`{where}` must have a `function` with a name and arguments", where)
    arguments = function.get("arguments", "{}")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    named = {"name": function["name"], "arguments": text}
    return {"id": str(call.get("id") or function["name"]), "type": "function", "function": named}


def _refused(message: str, parameter: str) -> InvalidRequestError:
    return InvalidRequestError(message, parameter=parameter)
