"""What a request's body asks for: a closed list of keys, each with its range; whatever else there is, is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from openai_backend import Message, RequestError, Tool

MOST_LOGPROBS = 20
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


class Asked(NamedTuple):
    """One request, checked. Of `prompt` and `messages` one is there; the rest is as in `Generation`.

    `is_prompt`: what begins a prompt is to stand before the text. `must_call`: the answer is a call of a tool.
    """

    prompt: str | None = None
    messages: Sequence[Message] = ()
    tools: Sequence[Tool] = ()
    template_options: Mapping[str, Any] = {}
    max_tokens: int | None = None
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stops: Sequence[str] = ()
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None
    is_stream: bool = False
    includes_usage: bool = False
    is_prompt: bool = True
    must_call: bool = False

    @property
    def is_chat(self) -> bool:
        return self.prompt is None


def read_chat(body: object, features: frozenset[str]) -> Asked:
    """Return what the body of a conversation asks for; raises RequestError."""
    given = _read(body, {**GENERATING, **CONVERSING, "messages": _messages})
    if "messages" not in given:
        raise RequestError("`messages` is missing", "messages")
    return _asked(given, features)


def read_completion(body: object, features: frozenset[str]) -> Asked:
    """Return what the body of a text to go on with asks for; raises RequestError."""
    given = _read(body, {**GENERATING, "prompt": _prompt})
    if "prompt" not in given:
        raise RequestError("`prompt` is missing", "prompt")
    return _asked(given, features)


def read_tokenize(body: object, features: frozenset[str]) -> Asked:
    """Return the prompt, or the conversation, to tell the tokens of; raises RequestError.

    A prompt that is not `add_special_tokens` is a text by itself, without the beginning that prompts have.
    """
    given = _read(
        body,
        {
            "model": _text,
            **CONVERSING,
            "prompt": _prompt,
            "messages": _messages,
            "add_special_tokens": _truth,
            "add_generation_prompt": _always,
        },
    )
    if ("prompt" in given) == ("messages" in given):
        raise RequestError("one of `prompt` and `messages` must be there", "prompt")
    return _asked(given, features)


def _read(body: object, readers: Mapping[str, Callable[[str, Any], Any]]) -> dict[str, Any]:
    """Return the values that were given, each read by its reader; null stands for what was not given."""
    if not isinstance(body, dict):
        raise RequestError("the body must be a JSON object")
    for key in body:
        if key not in readers:
            raise RequestError(f"`{key}` is not supported", key)
    return {key: readers[key](key, value) for key, value in body.items() if value is not None}


def _asked(given: dict[str, Any], features: frozenset[str]) -> Asked:
    given.pop("model", None)
    given.pop("n", None)
    given["includes_usage"] = given.pop("stream_options", False)
    given["is_stream"] = given.pop("stream", False)
    given["stops"] = given.pop("stop", ())
    given["json_schema"] = given.pop("response_format", None)
    given["logprobs"] = _join_logprobs(given.pop("logprobs", None), given.pop("top_logprobs", None))
    given["template_options"] = given.pop("chat_template_kwargs", {})
    given["is_prompt"] = given.pop("add_special_tokens", True)
    given.pop("add_generation_prompt", None)
    choice = given.pop("tool_choice", "auto")
    if choice == "none":
        given.pop("tools", None)
    given["must_call"] = choice == "required" and bool(given.get("tools"))
    asked = Asked(**given)
    for name in ("tools", "logprobs", "json_schema"):
        if getattr(asked, name) not in (None, ()) and name not in features:
            raise RequestError(f"this engine cannot honour `{name}`", name)
    return asked


def _join_logprobs(wanted: int | None, alternatives: int | None) -> int | None:
    """Return the number of alternatives: `logprobs` is true as in a chat, or a number as in a completion."""
    if alternatives is None:
        return wanted
    if wanted is None:
        raise RequestError("`top_logprobs` needs `logprobs`", "top_logprobs")
    return alternatives


# --- readers of one value --------------------------------------------------------------------------------------------


def _number(
    kind: type[int] | type[float], low: float, high: float = math.inf, *, above: bool = False
) -> Callable[[str, Any], Any]:
    """Return a reader of numbers from `low`, or above it, to `high`."""

    def read(name: str, value: Any) -> Any:
        is_number = isinstance(value, int | kind) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high or (above and value == low):
            least = f"above {low:g}" if above else f"from {low:g}"
            raise RequestError(f"`{name}` must be {kind.__name__} {least} to {high:g}, not `{value!r}`", name)
        return value

    return read


def _truth(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise RequestError(f"`{name}` must be true or false, not `{value!r}`", name)
    return value


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise RequestError(f"`{name}` must be a text, not `{value!r}`", name)
    return value


def _prompt(name: str, value: Any) -> str:
    if not _text(name, value):
        raise RequestError(f"`{name}` must not be empty", name)
    return str(value)


def _mapping(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise RequestError(f"`{name}` must be an object, not `{value!r}`", name)
    return value


def _stops(name: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise RequestError(f"`{name}` must be a text or a list of texts, none of them empty, not `{value!r}`", name)
    return tuple(texts)


def _usage_wanted(name: str, value: Any) -> bool:
    return _truth(f"{name}.include_usage", _mapping(name, value).get("include_usage", False))


def _logprobs(name: str, value: Any) -> int | None:
    """Return how many alternatives; true is none of them, but the chosen token's own."""
    if isinstance(value, bool):
        return 0 if value else None
    return int(_number(int, 0, MOST_LOGPROBS)(name, value))


def _schema(name: str, value: Any) -> Mapping[str, Any] | None:
    kind = _mapping(name, value).get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return ANY_OBJECT
    if kind == "json_schema":
        wanted = _mapping(f"{name}.json_schema", value.get("json_schema"))
        return _mapping(f"{name}.json_schema.schema", wanted.get("schema"))
    raise RequestError(f"`{name}.type` must be `text`, `json_object` or `json_schema`, not `{kind!r}`", name)


def _messages(name: str, value: Any) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise RequestError(f"`{name}` must be a list with at least one message", name)
    return tuple(_message(f"{name}.{index}", message) for index, message in enumerate(value))


def _message(name: str, value: Any) -> Message:
    message = dict(_mapping(name, value))
    _text(f"{name}.role", message.get("role"))
    if isinstance(message.get("content"), list):
        message["content"] = "".join(_part(f"{name}.content", part) for part in message["content"])
    if message.get("content") is not None:
        _text(f"{name}.content", message["content"])
    if message.get("tool_calls"):
        message["tool_calls"] = [_call(f"{name}.tool_calls", call) for call in message["tool_calls"]]
    return message


def _call(name: str, value: Any) -> Mapping[str, Any]:
    """Return a call with its arguments as the object that templates expect, which come as JSON in a text."""
    function = _mapping(f"{name}.function", _mapping(name, value).get("function"))
    arguments = function.get("arguments")
    try:
        read = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError as error:
        raise RequestError(f"`{name}.function.arguments` is not JSON: {error}", name) from error
    return {**value, "function": {**function, "arguments": read}}


def _part(name: str, value: Any) -> str:
    if _mapping(name, value).get("type") != "text":
        raise RequestError(f"`{name}` may only have parts of type `text`", name)
    return _text(f"{name}.text", value.get("text"))


def _tools(name: str, value: Any) -> tuple[Tool, ...]:
    if not isinstance(value, list):
        raise RequestError(f"`{name}` must be a list of functions", name)
    for index, tool in enumerate(value):
        function = _mapping(f"{name}.{index}.function", _mapping(f"{name}.{index}", tool).get("function"))
        _prompt(f"{name}.{index}.function.name", function.get("name"))
    return tuple(value)


def _tool_choice(name: str, value: Any) -> str:
    if value not in ("auto", "none", "required"):
        raise RequestError(f"`{name}` must be `auto`, `none` or `required`, not `{value!r}`", name)
    return str(value)


def _always(name: str, value: Any) -> bool:
    if value is not True:
        raise RequestError(f"`{name}` must be true: a conversation is rendered to be answered", name)
    return True


GENERATING: Mapping[str, Callable[[str, Any], Any]] = {
    "model": _text,
    "n": _number(int, 1, 1),
    "stream": _truth,
    "stream_options": _usage_wanted,
    "max_tokens": _number(int, 1),
    "temperature": _number(float, 0),
    "top_p": _number(float, 0, 1, above=True),
    "top_k": _number(int, 0),
    "min_p": _number(float, 0, 1),
    "repetition_penalty": _number(float, 0, above=True),
    "seed": _number(int, 0, 2**32 - 2),
    "stop": _stops,
    "logprobs": _logprobs,
    "top_logprobs": _number(int, 0, MOST_LOGPROBS),
    "response_format": _schema,
}
CONVERSING: Mapping[str, Callable[[str, Any], Any]] = {
    "tools": _tools,
    "tool_choice": _tool_choice,
    "chat_template_kwargs": _mapping,
}
