"""What the OpenAI-compatible server asks of a model behind it, whatever runs that model."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

Message = Mapping[str, Any]
Tool = Mapping[str, Any]


class RequestError(Exception):
    """A request that cannot be answered as it stands: an answer of status 400, with `facts` in its error."""

    def __init__(self, message: str, parameter: str | None = None, **facts: int) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.facts = facts


class TemplateError(Exception):
    """The model's chat template refuses a conversation, or there is none; says why."""


class Generation(NamedTuple):
    """One text to make: what it follows, when it ends, and how each token is chosen.

    `top_k` of 0 allows all tokens, a `temperature` of 0 takes the likeliest. `logprobs` is the number of alternatives
    to tell the log-probabilities of, None for no log-probabilities at all; the text satisfies `json_schema`.
    """

    prompt_ids: list[int]
    max_tokens: int
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None


class Token(NamedTuple):
    """One token of an answer: `text` is what it adds, empty while a character is incomplete.

    `top` are the likeliest tokens as id, text and log-probability. The token with `is_end` ends the text and is no part
    of it. `prompt_s` may be on the first token: the seconds since the model began to read the prompt.
    """

    id: int
    text: str
    logprob: float | None = None
    top: tuple[tuple[int, str, float], ...] = ()
    is_end: bool = False
    prompt_s: float | None = None


class Backend(Protocol):
    """A loaded model. All methods are called from one event loop.

    `name` is the engine's, `context_length` is promised to each request in tokens, `features` are those of the engine's
    capability that the server has to know: `logprobs`, `json_schema`.
    """

    @property
    def name(self) -> str: ...
    @property
    def context_length(self) -> int: ...
    @property
    def features(self) -> frozenset[str]: ...

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a prompt, the beginning of the text among them as the model wants it."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, the special ones spelt out."""
        ...

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], options: Mapping[str, Any]) -> list[int]:
        """Return the tokens of a conversation through the model's template; raises TemplateError.

        `options` are further variables of the template, such as `enable_thinking`.
        """
        ...

    def generate(self, generation: Generation) -> AsyncGenerator[Token, None]:
        """Yield tokens until `max_tokens` of them are made, or one that `is_end`; may wait for its turn first.

        An async generator: its `aclose` stops the work at once. Raises RequestError before the first token for what
        the model cannot do, and any other error where it breaks.
        """
        ...
