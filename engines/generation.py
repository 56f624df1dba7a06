"""What is asked of an engine and what comes back, the same on every engine: requests, their validation, results.

Standard library only and no input or output, so that the sync and the async session, and the gateway, share it.
How an engine's stream becomes chunks and a result is in `streaming.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict

from engines.base import Wire
from registry.errors import ContextOverflowError, InvalidRequestError, UnsupportedParameterError
from registry.spec import GenerationDefaults

Message = Mapping[str, Any]
Messages = str | Sequence[Message]
FinishReason = Literal["stop", "length", "tool_calls"]

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"


class Sampling(TypedDict, total=False):
    """How to choose the next token, when to stop, and how long to wait; what is left out has the model's default."""

    max_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int
    stop: str | Sequence[str]
    timeout_s: float


# --- results ---------------------------------------------------------------------------------------------------------


class Usage(NamedTuple):
    """How many tokens went in and came out; those of the reasoning are among those of the completion."""

    prompt_tokens: int
    completion_tokens: int
    reasoning_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Timings(NamedTuple):
    """How long it took, in seconds from sending the request, and the speed of decoding after the first token.

    `queue_s` is the part of `first_token_s` before the engine began to read the prompt, 0 where it does not tell.
    """

    queue_s: float
    first_token_s: float
    total_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Result:
    """The whole answer to a prompt; printing it prints the text."""

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Reply(Result):
    """The whole answer to a conversation; `message` is ready to append to it."""

    reasoning: str | None = None

    @property
    def message(self) -> Message:
        return {"role": "assistant", "content": self.text}


class Chunk(NamedTuple):
    """A piece of an answer; the last one carries the `finish_reason`."""

    text: str
    reasoning: str = ""
    finish_reason: FinishReason | None = None


# --- the closed list of fields ---------------------------------------------------------------------------------------


class Number(NamedTuple):
    """A finite number from `low` to `high`; `above` says that `low` itself is out. A bool is not a number."""

    kind: type[int] | type[float]
    low: float
    high: float = math.inf
    above: bool = False

    def check(self, name: str, value: object) -> object:
        """Return `value`; raises InvalidRequestError naming field, value and range."""
        if not self._allows(value):
            raise InvalidRequestError(f"`{name}` must be {self}, not `{value!r}`", parameter=name)
        return value

    def _allows(self, value: object) -> bool:
        number = isinstance(value, int) or (self.kind is float and isinstance(value, float))
        if not number or isinstance(value, bool):
            return False
        assert isinstance(value, int | float)
        return math.isfinite(value) and self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        noun = "a whole number" if self.kind is int else "a number"
        if math.isinf(self.high):
            return f"{noun} {'above' if self.above else 'of at least'} {self.low:g}"
        top = f"{self.high:.0f}" if self.kind is int else f"{self.high:g}"
        return f"{noun} above {self.low:g} and at most {top}" if self.above else f"{noun} from {self.low:g} to {top}"


class Texts(NamedTuple):
    """A text or a list of texts, none of them empty."""

    def check(self, name: str, value: object) -> object:
        """Return a list of texts; raises InvalidRequestError naming field and value."""
        texts = [value] if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
            raise InvalidRequestError(
                f"`{name}` must be a text or a list of texts, none of them empty, not `{value!r}`", parameter=name
            )
        return list(texts)


# The highest seed is one short of what 32 bits hold: llama.cpp takes that last value for "choose one at random".
FIELDS: Mapping[str, Number | Texts] = {
    "max_tokens": Number(int, 1),
    "temperature": Number(float, 0, 2),
    "top_p": Number(float, 0, 1, above=True),
    "top_k": Number(int, -1),
    "min_p": Number(float, 0, 1),
    "repetition_penalty": Number(float, 0, above=True),
    "seed": Number(int, 0, 2**32 - 2),
    "stop": Texts(),
    "timeout_s": Number(float, 0, above=True),
}
DEFAULTS: Mapping[str, object] = {
    "temperature": 0.7,
    "top_p": 0.95,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
}
# The likeliest token is among any share of the likely ones. Not to look for that share saves llama.cpp from sorting the
# vocabulary: 6 % of SmolLM2-135M's tokens per second.
WHOLE: Mapping[str, object] = {"top_p": 1.0, "top_k": 0, "min_p": 0.0}


def near_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` is probably a slip of, or None."""
    import difflib

    return next(iter(difflib.get_close_matches(name.lower(), tuple(known), n=1, cutoff=0.5)), None)


def check_sampling(sampling: Mapping[str, object]) -> dict[str, object]:
    """Return the fields given, checked, with `stop` as a list.

    Raises TypeError for a field that there is not, naming the near one, and InvalidRequestError for a bad value.
    """
    for name in sampling:
        if name not in FIELDS:
            near = near_name(name, FIELDS)
            raise TypeError(f"there is no `{name}`" + (f"; did you mean `{near}`?" if near else ""))
    return {name: FIELDS[name].check(name, value) for name, value in sampling.items()}


# --- requests --------------------------------------------------------------------------------------------------------


class Target(NamedTuple):
    """The running model that a request is made for: its name at the engine, the engine's words, the model's facts.

    `context_length` is in tokens and holds for each request.
    """

    name: str
    engine: str
    wire: Wire
    context_length: int
    defaults: GenerationDefaults = GenerationDefaults()


class Post(NamedTuple):
    """A request as an engine takes it: where to, the JSON, and how long its answer may take."""

    path: str
    body: bytes
    timeout_s: float | None = None


def completion_request(
    target: Target, prompt: str, sampling: Mapping[str, object], *, include_usage: bool = True
) -> Post:
    """Return the request that goes on with `prompt` as it stands; raises the errors of `check_sampling` and more.

    InvalidRequestError for an empty prompt, UnsupportedParameterError, ContextOverflowError for `max_tokens`.
    """
    return _request(target, COMPLETION_PATH, {"prompt": _read_prompt(prompt)}, sampling, include_usage)


def chat_request(
    target: Target, messages: Messages, sampling: Mapping[str, object], *, include_usage: bool = True
) -> Post:
    """Return the request that answers `messages` through the model's template; raises as `completion_request`."""
    return _request(target, CHAT_PATH, {"messages": read_messages(messages)}, sampling, include_usage)


def _request(
    target: Target, path: str, subject: Mapping[str, object], sampling: Mapping[str, object], include_usage: bool
) -> Post:
    given = check_sampling(sampling)
    timeout_s = given.pop("timeout_s", None)
    assert timeout_s is None or isinstance(timeout_s, int | float)
    values = _complete(target, given)
    body = {
        "model": target.name,
        **subject,
        **{target.wire.names.get(name, name): value for name, value in values.items()},
        "stream": True,
        "stream_options": {"include_usage": include_usage},
    }
    return Post(path, json.dumps(body).encode(), timeout_s)


def _complete(target: Target, given: Mapping[str, object]) -> dict[str, object]:
    """Return every field that the engine is sent: what servers would choose themselves differs between them."""
    _refuse_unsupported(target, given)
    _refuse_overflow(target, given)
    limit = min(target.defaults.max_tokens or target.context_length, target.context_length)
    values = {**DEFAULTS, "max_tokens": limit, **_defaults_of(target.defaults), **given}
    if values["top_k"] == -1:
        values["top_k"] = 0
    if values["temperature"] == 0:
        values.update(WHOLE)
    return {name: value for name, value in values.items() if name not in target.wire.unsupported}


def _defaults_of(defaults: GenerationDefaults) -> dict[str, object]:
    values = {name: value for name, value in defaults._asdict().items() if name != "max_tokens"}
    return {name: value for name, value in values.items() if value is not None}


def _refuse_unsupported(target: Target, given: Iterable[str]) -> None:
    for name in given:
        if name in target.wire.unsupported:
            raise UnsupportedParameterError(
                f"`{target.engine}` cannot honour `{name}`", parameter=name, engine=target.engine
            )


def _refuse_overflow(target: Target, given: Mapping[str, object]) -> None:
    max_tokens = given.get("max_tokens")
    if isinstance(max_tokens, int) and max_tokens > target.context_length:
        raise ContextOverflowError(
            f"`max_tokens` of {max_tokens:,} is more than the context of {target.context_length:,} tokens",
            prompt_tokens=0,
            context_length=target.context_length,
            hint="`--context-length` sets the context of each request",
        )


# --- messages --------------------------------------------------------------------------------------------------------

ROLES: Mapping[str, str] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


def read_messages(messages: Messages) -> list[dict[str, str]]:
    """Return the conversation as roles and texts; a text is one user message, parts of text are joined.

    Raises InvalidRequestError for no messages, and for roles, keys and contents that are not text.
    """
    given: object = [{"role": "user", "content": messages}] if isinstance(messages, str) and messages else messages
    if not isinstance(given, list | tuple) or not given:
        raise InvalidRequestError("There must be a message, or a text that is not empty", parameter="messages")
    return [_read_message(message, f"messages.{index}") for index, message in enumerate(given)]


def _read_prompt(prompt: object) -> str:
    if not isinstance(prompt, str) or not prompt:
        raise InvalidRequestError("The prompt must be a text that is not empty", parameter="prompt")
    return prompt


def _read_message(message: object, where: str) -> dict[str, str]:
    if not isinstance(message, Mapping):
        raise InvalidRequestError(f"`{where}` must have a role and a content, not be `{message!r}`", parameter=where)
    given = {key: value for key, value in message.items() if value is not None}
    for key in given:
        if key not in ("role", "content"):
            raise InvalidRequestError(f"`{where}` has the key `{key}`, which is not supported", parameter=where)
    role = ROLES.get(str(given.get("role")))
    if role is None:
        known = ", ".join(f"`{name}`" for name in ROLES)
        raise InvalidRequestError(
            f"`{where}.role` must be one of {known}, not `{given.get('role')}`", parameter=f"{where}.role"
        )
    return {"role": role, "content": _read_content(given.get("content"), f"{where}.content")}


def _read_content(content: object, where: str) -> str:
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list | tuple):
        raise InvalidRequestError(f"`{where}` must be a text or a list of text parts", parameter=where)
    return "".join(_read_part(part, f"{where}.{index}") for index, part in enumerate(parts))


def _read_part(part: object, where: str) -> str:
    text = part.get("text") if isinstance(part, Mapping) and part.get("type") == "text" else None
    if not isinstance(text, str):
        raise InvalidRequestError(f"`{where}` must be of type `text`: the model reads text only", parameter=where)
    return text
