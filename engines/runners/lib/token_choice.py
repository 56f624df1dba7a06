"""How the next token of a request is chosen from a model's logits, on torch: penalty, grammar, temperature, truncation.

The order is that of Transformers' own `generate`: repetition penalty, then temperature, top-k, top-p, min-p.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from json_grammar import Grammar, Grammars
from openai_backend import Generation

# To sort the whole vocabulary takes longer than all the rest (4 of 5 ms for 49,152 tokens); nearly always the tokens
# that matter are among this many of the likeliest, and where they are not, the whole is sorted.
LIKELIEST = 256


class Scored(NamedTuple):
    """A token's log-probability before any sampling, and those of the likeliest tokens as id and log-probability."""

    logprob: float
    top: tuple[tuple[int, float], ...]


class TokenChoice:
    """Chooses one request's tokens; `scored` has one entry for each, where log-probabilities were asked for.

    It is sent to the processes of all GPUs as what was wanted, and begins in each of them.
    """

    def __init__(self, wanted: Generation, grammar: Grammar | None = None) -> None:
        self.scored: list[Scored] = []
        self.is_begun = False
        self._wanted = wanted
        self._grammar = grammar
        self._seen: torch.Tensor | None = None
        self._random: torch.Generator | None = None

    def __reduce__(self) -> tuple[type[TokenChoice], tuple[Generation]]:
        return TokenChoice, (self._wanted,)

    def begin(self, device: torch.device, grammars: Grammars) -> None:
        """Make ready for the first token."""
        wanted = self._wanted
        self.is_begun = True
        if wanted.json_schema is not None and self._grammar is None:
            self._grammar = grammars.make(wanted.json_schema)
        assert wanted.seed is not None  # all GPUs must draw the same
        self._random = torch.Generator(device).manual_seed(wanted.seed)

    @property
    def takes_likeliest(self) -> bool:
        """True if the token is simply the one with the highest logit."""
        wanted = self._wanted
        return wanted.temperature == 0 and wanted.repetition_penalty == 1 and wanted.json_schema is None

    def choose(self, logits: torch.Tensor) -> int:
        """Return the token that follows, from the logits [vocabulary] of all."""
        wanted = self._wanted
        scores = self._constrained(self._penalized(logits))
        if wanted.temperature == 0:
            return int(scores.argmax())
        probabilities = torch.softmax(scores / wanted.temperature, dim=-1)
        kept, ids = truncated(probabilities, wanted.top_k, wanted.top_p, wanted.min_p)
        chosen = torch.multinomial(kept, 1, generator=self._random)
        return int(chosen if ids is None else ids[chosen])

    def accept(self, token: int, logits: torch.Tensor) -> None:
        """Take note of the chosen token and of what the model thought of it."""
        if self._seen is not None:
            self._seen[token] = True
        if self._grammar is not None:
            self._grammar.accept(token)
        if self._wanted.logprobs is not None:
            self.scored.append(_score(logits, token, self._wanted.logprobs))

    def _penalized(self, logits: torch.Tensor) -> torch.Tensor:
        """Return logits in which the tokens of prompt and answer are less likely (Keskar et al. 2019)."""
        penalty = self._wanted.repetition_penalty
        if penalty == 1:
            return logits
        if self._seen is None:
            self._seen = torch.zeros(logits.shape, dtype=torch.bool, device=logits.device)
            self._seen[self._wanted.prompt_ids] = True
        lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
        return torch.where(self._seen, lowered, logits)

    def _constrained(self, scores: torch.Tensor) -> torch.Tensor:
        if self._grammar is None:
            return scores
        octets = torch.frombuffer(bytearray(self._grammar.allowed()), dtype=torch.uint8)
        bits = (octets.unsqueeze(1) >> torch.arange(8, dtype=torch.uint8)) & 1
        is_allowed = bits.flatten()[: scores.numel()].bool().to(scores.device)
        return scores.masked_fill(~is_allowed, float("-inf"))


def choose_all(choices: Sequence[TokenChoice | None], logits: torch.Tensor) -> list[int]:
    """Return the token of each row of the logits [requests, vocabulary]; None takes the likeliest."""
    tokens: list[int] = logits.argmax(dim=-1).tolist()
    for row, choice in enumerate(choices):
        if choice is not None:
            if not choice.takes_likeliest:
                tokens[row] = choice.choose(logits[row])
            choice.accept(tokens[row], logits[row])
    return tokens


def truncated(
    probabilities: torch.Tensor, top_k: int, top_p: float, min_p: float
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return what the likeliest tokens weigh, and their ids, the likeliest first; ids None: all in their own order.

    `top_k` keeps that many (0: all), `top_p` of those the fewest that together reach this share, `min_p` of those the
    ones with at least this part of the likeliest one's probability. One is always kept.
    """
    if not top_k and top_p >= 1 and not min_p:
        return probabilities, None
    size = probabilities.numel()
    values, ids = probabilities.topk(min(top_k or LIKELIEST, size))
    if not top_k and len(values) < size and not _is_enough(values, top_p, min_p):
        values, ids = probabilities.sort(descending=True)
    if top_k:
        values = values / values.sum()
    before = values.cumsum(dim=-1) - values
    kept = (before < top_p) & (values >= min_p * values[0])
    kept[0] = True
    return values[kept], ids[kept]


def _is_enough(values: torch.Tensor, top_p: float, min_p: float) -> bool:
    """Return whether no token beyond the likeliest `values` can be kept."""
    reaches_share = top_p < 1 and bool(values.sum() >= top_p)
    return reaches_share or bool(values[-1] < min_p * values[0])


def _score(logits: torch.Tensor, token: int, alternatives: int) -> Scored:
    logprobs: Any = torch.log_softmax(logits, dim=-1)
    values, ids = logprobs.topk(alternatives)
    return Scored(float(logprobs[token]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))
