"""What the endpoint understands of OpenAI's requests: a closed list of fields, nothing dropped in silence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engines.generation import FIELDS, Post, Target, chat_request, check_sampling, completion_request, near_name
from registry.errors import InvalidRequestError, UnsupportedParameterError

SAMPLING = {name: name for name in FIELDS if name != "timeout_s"} | {"max_completion_tokens": "max_tokens"}
OWN = frozenset({"model", "messages", "prompt", "stream", "stream_options"})
# Fields that clients send though they want nothing: only the value that changes nothing is taken.
NEUTRAL: Mapping[str, object] = {
    "n": 1,
    "best_of": 1,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "logprobs": False,
    "echo": False,
    "logit_bias": {},
    "modalities": ["text"],
    "response_format": {"type": "text"},
    "tools": [],
    "tool_choice": "none",
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

    post: Post
    is_stream: bool
    ignored: tuple[str, ...]


def read_chat(target: Target, data: Mapping[str, Any]) -> Call:
    """Return a chat request read; raises InvalidRequestError, UnsupportedParameterError, ContextOverflowError."""
    given = _given(data)
    sampling = _read_sampling(given)
    post = chat_request(target, given.get("messages", ()), sampling, include_usage=_wants_usage(given))
    return _call(post, given)


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


def _given(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that say something: null is how clients write "not given"."""
    return {name: value for name, value in data.items() if value is not None}


def _call(post: Post, given: Mapping[str, Any]) -> Call:
    return Call(post, _flag(given, "stream"), tuple(sorted(IGNORED & given.keys())))


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
    near = near_name(name, (*SAMPLING, *OWN, *NEUTRAL, *IGNORED))
    cure = f"; did you mean `{near}`?" if near else ""
    return InvalidRequestError(f"There is no parameter `{name}`{cure}", parameter=name)
