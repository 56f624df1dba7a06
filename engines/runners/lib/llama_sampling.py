"""How llama.cpp chooses the next token: its own samplers, in its own order, by the names of our parameters."""

from __future__ import annotations

from types import TracebackType
from typing import Any, NamedTuple, Self

import llama_cpp
import numpy as np

from json_grammar import Grammar
from llama_decoding import Context
from openai_backend import Generation

RANDOM_SEED = llama_cpp.LLAMA_DEFAULT_SEED


class Choice(NamedTuple):
    """A token, and where they are wanted its log-probability and the likeliest tokens with theirs."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


class Sampler:
    """Chooses the tokens of one answer; the text satisfies `grammar`."""

    def __init__(self, generation: Generation, context: Context, grammar: Grammar | None) -> None:
        self._context = context
        self._grammar = grammar
        self._logprobs = generation.logprobs
        self._chain = llama_cpp.llama_sampler_chain_init(llama_cpp.llama_sampler_chain_default_params())
        for sampler in _samplers(generation, context):
            llama_cpp.llama_sampler_chain_add(self._chain, sampler)

    def next(self) -> Choice:
        """Return the choice of the token that follows what the context holds."""
        logprobs = None if self._logprobs is None else _log_softmax(self._context.logits())
        if self._grammar is not None:
            _allow(self._context.logits(), self._grammar.allowed())
        token = int(llama_cpp.llama_sampler_sample(self._chain, self._context.handle, -1))
        if self._grammar is not None:
            self._grammar.accept(token)
        if logprobs is None:
            return Choice(token)
        return Choice(token, float(logprobs[token]), _likeliest(logprobs, self._logprobs or 0))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        llama_cpp.llama_sampler_free(self._chain)


def _samplers(generation: Generation, context: Context) -> list[Any]:
    """Return llama.cpp's samplers in the order of its own server; the chain owns them."""
    penalties = _penalties(generation, context)
    if generation.temperature == 0:
        return [*penalties, llama_cpp.llama_sampler_init_greedy()]
    return [
        *penalties,
        llama_cpp.llama_sampler_init_top_k(generation.top_k),
        llama_cpp.llama_sampler_init_top_p(generation.top_p, 1),
        llama_cpp.llama_sampler_init_min_p(generation.min_p, 1),
        llama_cpp.llama_sampler_init_temp(generation.temperature),
        llama_cpp.llama_sampler_init_dist(RANDOM_SEED if generation.seed is None else generation.seed),
    ]


def _penalties(generation: Generation, context: Context) -> list[Any]:
    """Return the penalty on every token that the context holds, those of the prompt among them, if there is one."""
    if generation.repetition_penalty == 1.0:
        return []
    penalty, window = generation.repetition_penalty, context.length
    sampler = llama_cpp.llama_sampler_init_penalties(context.vocabulary_size, window, penalty, 0.0, 0.0)
    for token in generation.prompt_ids:
        llama_cpp.llama_sampler_accept(sampler, token)
    return [sampler]


def _allow(logits: Any, allowed: bytes) -> None:
    """Make all tokens impossible whose bit is not set."""
    bits = np.unpackbits(np.frombuffer(allowed, dtype=np.uint8), bitorder="little")
    logits[bits[: len(logits)] == 0] = -np.inf


def _log_softmax(logits: Any) -> Any:
    """Return the log-probabilities [vocabulary], before any sampler changes them."""
    shifted = logits.astype(np.float64) - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


def _likeliest(logprobs: Any, count: int) -> tuple[tuple[int, float], ...]:
    if count == 0:
        return ()
    tokens = np.argpartition(logprobs, -count)[-count:]
    return tuple((int(token), float(logprobs[token])) for token in tokens[np.argsort(-logprobs[tokens])])
