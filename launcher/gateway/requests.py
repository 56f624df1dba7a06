"""What the endpoint understands of OpenAI's requests: a closed list of fields, nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.generation import FIELDS, Draft, Target, check_sampling, near_name
from engines.requests import chat_request, completion_request
from registry.errors import InvalidRequestError, UnsupportedParameterError

SAMPLING = {name: name for name in FIELDS if name != "timeout_s"} | {"max_completion_tokens": "max_tokens"}
OWN = frozenset({"model", "messages", "prompt", "stream", "stream_options"})
# What only a chat has; `top_logprobs` belongs to `logprobs`, which is a flag there and a number in completions.
CHAT = frozenset(
    {"response_format", "tools", "tool_choice", "logprobs", "top_logprobs", "reasoning_effort", "chat_template_kwargs"}
)
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
# Fields that clients send though they want nothing: only the value that changes nothing is taken.
NEUTRAL: Mapping[str, object] = {
    "n": 1,
    "best_of": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "echo": False,
    "logit_bias": {},
    "modalities": ["text"],
}
# Fields that cannot change an answer; a response header names those that were given.
IGNORED = frozenset(
    {
        "user",
        "metadata",
        "store",
        "service_tier",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "parallel_tool_calls",
    }
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request as read: what the engine is sent, whether the client wants a stream, and what was of no use."""

    draft: Draft
    is_stream: bool
    wants_usage: bool
    ignored: tuple[str, ...]


def read_chat(target: Target, data: Mapping[str, Any]) -> Call:
    """Return a chat request read; raises InvalidRequestError, UnsupportedParameterError, ContextOverflowError."""
    given = _given(data)
    sampling = {
        **_read_sampling({name: value for name, value in given.items() if name not in CHAT}),
        **_read_chat_logprobs(given),
        **_read_reasoning(given),
    }
    draft = chat_request(
        target,
        given.get("messages", ()),
        sampling,
        tools=given.get("tools", ()),
        tool_choice=given.get("tool_choice", "auto"),
        json_schema=_read_response_format(given.get("response_format")),
        include_usage=_wants_usage(given),
    )
    if draft.is_call:  # folded here, whatever the client wants
        draft = draft._replace(body={**draft.body, "stream_options": {"include_usage": True}})
    return _call(draft, given)


def read_completion(target: Target, data: Mapping[str, Any]) -> Call:
    """Return a completion request read; raises as `read_chat`. A list of one prompt is that prompt."""
    given = _given(data)
    sampling = _read_sampling(given)
    prompt = given.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str):
        raise InvalidRequestError("`prompt` must be one text", parameter="prompt")
    return _call(completion_request(target, prompt, sampling, include_usage=_wants_usage(given)), given)


def read_embeddings(data: Mapping[str, Any]) -> tuple[list[str], bool]:
    """Return the texts of a request for vectors, and whether these are wanted in base64."""
    given = _given(data)
    for name in given:
        if name not in ("model", "input", "encoding_format", "user"):
            raise InvalidRequestError(f"There is no parameter `{name}` for embeddings", parameter=name)
    texts = given.get("input")
    encoding = given.get("encoding_format", "float")
    if encoding not in ("float", "base64"):
        raise InvalidRequestError(
            f"`encoding_format` must be `float` or `base64`, not `{encoding}`", parameter="encoding_format"
        )
    texts = [texts] if isinstance(texts, str) else texts
    if not isinstance(texts, list):
        raise InvalidRequestError("`input` must be a text or a list of texts", parameter="input")
    return texts, encoding == "base64"


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


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that say something: null is how clients write "not given"."""
    return {name: value for name, value in data.items() if value is not None}


def _call(draft: Draft, given: Mapping[str, Any]) -> Call:
    return Call(draft, _flag(given, "stream"), _wants_usage(given), tuple(sorted(IGNORED & given.keys())))


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


def _read_sampling(given: Mapping[str, Any]) -> dict[str, object]:
    sampling: dict[str, object] = {}
    for name, value in given.items():
        if name in SAMPLING:
            sampling |= _checked(name, value)
        elif name in NEUTRAL:
            _refuse_effect(name, value)
        elif name not in OWN | IGNORED:
            raise _unknown(name)
    return sampling


def _checked(name: str, value: object) -> dict[str, object]:
    """Return the field by our name, checked by the client's, which is what an error has to say."""
    ours = SAMPLING[name]
    return {ours: FIELDS[ours].check(name, value)} if ours != name else check_sampling({name: value})


def _refuse_effect(name: str, value: object) -> None:
    neutral = NEUTRAL[name]
    if value != neutral:
        raise UnsupportedParameterError(
            f"`{name}` is not supported: only `{neutral!r}` is taken", parameter=name, engine="gateway"
        )


def _unknown(name: str) -> InvalidRequestError:
    near = near_name(name, (*SAMPLING, *OWN, *CHAT, *NEUTRAL, *IGNORED))
    cure = f"; did you mean `{near}`?" if near else ""
    return InvalidRequestError(f"There is no parameter `{name}`{cure}", parameter=name)
