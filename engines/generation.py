"""What is asked of an engine and what comes back, the same on every engine: requests, their validation, results.

Standard library only and no input or output, so that the sync and the async session, and the gateway, share it.
Conversations are read in `messages.py`, requests made in `requests.py`, and streams become results in `streaming.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Generic, Literal, NamedTuple, Self, TypedDict, TypeVar

from engines.base import Wire
from engines.messages import Message
from engines.structured import Schema
from engines.tools import ToolCall
from registry.errors import InvalidRequestError
from registry.spec import GenerationDefaults, Reasoning

T = TypeVar("T")
FinishReason = Literal["stop", "length", "tool_calls"]


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
    logprobs: int
    reasoning: Literal["on", "off", "auto"] | int
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


class TokenLogprob(NamedTuple):
    """A token of the answer, the logarithm of its probability, and the likeliest tokens in its place with theirs."""

    token: str
    logprob: float
    alternatives: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """The whole answer to a prompt; printing it prints the text.

    `logprobs` has an entry for each token where they were asked for. `notes` say what was done otherwise than asked.
    """

    text: str
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] | None = field(default=None, kw_only=True)
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Reply(Result, Generic[T]):
    """The whole answer to a conversation; `message` is ready to append to it.

    `parsed` is the text read by the `json_schema` that was asked for, None without one.
    """

    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    parsed: T = None  # type: ignore[assignment]

    @property
    def message(self) -> Message:
        calls = {"tool_calls": [call.described() for call in self.tool_calls]} if self.tool_calls else {}
        return {"role": "assistant", "content": self.text, **calls}

    def with_reasoning_tokens(self, tokens: int) -> Self:
        """Return the reply with its reasoning counted, which most engines do not."""
        return replace(self, usage=self.usage._replace(reasoning_tokens=min(tokens, self.usage.completion_tokens)))


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


class Effort(NamedTuple):
    """How much a model may think before it answers: `on`, `off`, as it likes, or a number of tokens."""

    words: tuple[str, ...] = ("on", "off", "auto")

    def check(self, name: str, value: object) -> object:
        """Return a word or a number of tokens; raises InvalidRequestError naming field and value."""
        is_number = isinstance(value, int) and not isinstance(value, bool) and value > 0
        if not is_number and value not in self.words:
            known = ", ".join(f"`{word}`" for word in self.words)
            raise InvalidRequestError(
                f"`{name}` must be {known} or a number of tokens above 0, not `{value!r}`", parameter=name
            )
        return value


# The highest seed is one short of what 32 bits hold: llama.cpp takes that last value for "choose one at random".
FIELDS: Mapping[str, Number | Texts | Effort] = {
    "max_tokens": Number(int, 1),
    "temperature": Number(float, 0, 2),
    "top_p": Number(float, 0, 1, above=True),
    "top_k": Number(int, -1),
    "min_p": Number(float, 0, 1),
    "repetition_penalty": Number(float, 0, above=True),
    "seed": Number(int, 0, 2**32 - 2),
    "stop": Texts(),
    "logprobs": Number(int, 0, 20),
    "reasoning": Effort(),
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


def no_models(ability: str) -> tuple[str, ...]:
    """Return the models of the catalogue with an ability, where there is no catalogue."""
    return ()


class Target(NamedTuple):
    """The running model that a request is made for: its name at the engine, the engine's words, the model's facts.

    `context_length` is in tokens and holds for each request, None where an endpoint does not tell. `features` are the
    engine's, `abilities` the model's; `models_with` names models of the catalogue that have an ability.
    """

    name: str
    engine: str
    wire: Wire
    context_length: int | None
    defaults: GenerationDefaults = GenerationDefaults()
    features: frozenset[str] = frozenset()
    abilities: frozenset[str] = frozenset({"chat"})
    reasoning: Reasoning | None = None
    models_with: Callable[[str], tuple[str, ...]] = no_models


class Post(NamedTuple):
    """A request as an engine takes it: where to, the JSON (None is a GET), and how long its answer may take."""

    path: str
    body: bytes | None
    timeout_s: float | None = None


class Template(NamedTuple):
    """What a model's chat template knows."""

    has_system_role: bool
    has_tools: bool


class Draft(NamedTuple):
    """A request that was checked; if it `depends_on_template`, `fitted` makes it one that the template understands.

    `schema` is what the answer is read by, `logprobs` how many alternatives of each token are wanted. `is_call`: the
    answer is a call of a tool, written as JSON.
    """

    path: str
    body: Mapping[str, object]
    timeout_s: float | None = None
    depends_on_template: bool = False
    schema: Schema | None = None
    logprobs: int | None = None
    notes: tuple[str, ...] = ()
    is_call: bool = False

    def with_notes(self, notes: tuple[str, ...]) -> Self:
        """Return the draft with more that is done otherwise than asked."""
        return self._replace(notes=(*self.notes, *notes))

    def post(self) -> Post:
        return Post(self.path, json.dumps(self.body).encode(), self.timeout_s)
