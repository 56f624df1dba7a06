"""What the endpoint understands of OpenAI's requests: a closed list of fields, nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from engines.generation import FIELDS, Draft, Target, near_name
from engines.requests import chat_request, completion_request
from launcher.gateway.parameters import PATHS, Parameter, Route, parameters_of
from registry.errors import InvalidRequestError, UnsupportedParameterError

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


@dataclass(frozen=True, slots=True)
class Call:
    """A request as read: what the engine is sent, how the client wants the answer, and which fields were of no use.

    The engine is always asked for its usage; a stream ends with it only if the client `wants_usage`.
    """

    draft: Draft
    is_stream: bool
    wants_usage: bool
    ignored: tuple[str, ...]


def read_chat(target: Target, data: Mapping[str, Any]) -> Call:
    """Return a chat request read; raises InvalidRequestError, UnsupportedParameterError, ContextOverflowError."""
    given, sampling, ignored = _sorted("chat", data)
    sampling = {**sampling, **_read_chat_logprobs(given), **_read_reasoning(given)}
    draft = chat_request(
        target,
        given.get("messages", ()),
        sampling,
        tools=given.get("tools", ()),
        tool_choice=given.get("tool_choice", "auto"),
        json_schema=_read_response_format(given.get("response_format")),
    )
    return Call(draft, _flag(given, "stream"), _wants_usage(given), ignored)


def read_completion(target: Target, data: Mapping[str, Any]) -> Call:
    """Return a completion request read; raises as `read_chat`. A list of one prompt is that prompt."""
    given, sampling, ignored = _sorted("completions", data)
    prompt = given.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InvalidRequestError("`prompt` must be one text", parameter="prompt")
    return Call(completion_request(target, prompt, sampling), _flag(given, "stream"), _wants_usage(given), ignored)


class Texts(NamedTuple):
    """A request for vectors: of which texts, whether in base64, and which fields were of no use."""

    texts: list[str]
    in_base64: bool
    ignored: tuple[str, ...]


def read_embeddings(data: Mapping[str, Any]) -> Texts:
    """Return a request for vectors read; raises InvalidRequestError, UnsupportedParameterError."""
    given, _, ignored = _sorted("embeddings", data)
    texts = given.get("input")
    encoding = given.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidRequestError(
            f"`encoding_format` must be `float` or `base64`, not `{encoding}`", parameter="encoding_format"
        )
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list):
        raise InvalidRequestError("`input` must be a text or a list of texts", parameter="input")
    return Texts(texts, encoding == "base64", ignored)


def _read_chat_logprobs(given: Mapping[str, Any]) -> dict[str, object]:
    """Return how many alternatives of each token are wanted: OpenAI says by two fields what we say by one."""
    is_wanted = _flag(given, "logprobs")
    if "top_logprobs" in given and not is_wanted:
        raise InvalidRequestError("`top_logprobs` needs `logprobs` to be true", parameter="top_logprobs")
    return {"logprobs": FIELDS["logprobs"].check("top_logprobs", given.get("top_logprobs", 0))} if is_wanted else {}


def _read_response_format(given: object) -> Mapping[str, Any] | None:
    match given:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return ANY_OBJECT
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            return schema
    raise InvalidRequestError(
        "`response_format` must have the type `text`, `json_object` or `json_schema` with a schema",
        parameter="response_format",
    )


def _read_reasoning(given: Mapping[str, Any]) -> dict[str, object]:
    """Return our `reasoning` for what clients say: vLLM's switch for the template, or OpenAI's effort `none`."""
    match given.get("chat_template_kwargs"):
        case None:
            pass
        case {"enable_thinking": bool() as thinks, **rest} if not rest:
            return {"reasoning": "on" if thinks else "off"}
        case _:
            raise InvalidRequestError(
                "`chat_template_kwargs` may only have `enable_thinking`", parameter="chat_template_kwargs"
            )
    effort = given.get("reasoning_effort")
    if effort not in (None, "none"):
        raise InvalidRequestError(
            "`reasoning_effort` may only be `none`: `reasoning` takes `on`, `off` or a number of tokens",
            parameter="reasoning_effort",
        )
    return {} if effort is None else {"reasoning": "off"}


class _Sorted(NamedTuple):
    """The fields given, those of sampling under our names, and the names of those that change nothing."""

    given: dict[str, Any]
    sampling: dict[str, object]
    ignored: tuple[str, ...]


def _sorted(route: Route, data: Mapping[str, Any]) -> _Sorted:
    """Return a request's fields sorted; null is how clients write "not given".

    Raises InvalidRequestError for a field that there is not, UnsupportedParameterError for one that is refused.
    """
    known = parameters_of(route)
    given = {name: value for name, value in data.items() if value is not None}
    sampling: dict[str, object] = {}
    for name, value in given.items():
        if name not in known:
            raise _unknown(name, route, known)
        _refuse(known[name], value)
        if (field := known[name].field) is not None:
            sampling[field] = FIELDS[field].check(name, value)
    return _Sorted(given, sampling, tuple(sorted(name for name in given if known[name].treatment == "ignored")))


def _wants_usage(given: Mapping[str, Any]) -> bool:
    """Return whether the stream is to end with the usage; without a stream it is always wanted, for the answer."""
    options = given.get("stream_options", {})
    if not isinstance(options, Mapping) or not options.keys() <= {"include_usage", "include_obfuscation"}:
        raise InvalidRequestError("`stream_options` may only have `include_usage`", parameter="stream_options")
    return not _flag(given, "stream") or _flag(options, "include_usage")


def _flag(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, False)
    if not isinstance(value, bool):
        raise InvalidRequestError(f"`{name}` must be true or false, not `{value!r}`", parameter=name)
    return value


def _refuse(parameter: Parameter, value: object) -> None:
    name = parameter.name
    if parameter.treatment == "refused":
        raise UnsupportedParameterError(
            f"`{name}` is not supported: {parameter.meaning}",
            parameter=name,
            engine="gateway",
            hint=f"use `{parameter.instead}`" if parameter.instead else None,
        )
    if parameter.treatment == "neutral" and value != parameter.neutral:
        raise UnsupportedParameterError(
            f"`{name}` is not supported: only `{parameter.neutral!r}` is taken", parameter=name, engine="gateway"
        )


def _unknown(name: str, route: Route, known: Mapping[str, Parameter]) -> InvalidRequestError:
    near = near_name(name, [each.name for each in known.values() if each.treatment != "refused"])
    cure = f"; did you mean `{near}`?" if near else ""
    return InvalidRequestError(f"There is no parameter `{name}` for `{PATHS[route]}`{cure}", parameter=name)
