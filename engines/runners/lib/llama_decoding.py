"""One context of llama.cpp: reads prompts, keeping what it shares with the last one, and adds tokens.

A token's numbers depend, in their last digits, on how many were read at once. So that an answer is the same whatever
was asked before, prompts are read in steps of `n_batch` tokens, and only whole steps are kept for the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import takewhile
from operator import eq
from typing import Any

import llama_cpp
import numpy as np

ABORTED = 2
Abort = llama_cpp.ggml_abort_callback


class Left(Exception):
    """Nobody waits for the answer any more."""


class Context:
    """What the model has read: the tokens of `held`, in their order."""

    def __init__(self, llama: llama_cpp.Llama) -> None:
        self.handle = llama.ctx
        self.length = llama.n_ctx()
        self.vocabulary_size = llama.n_vocab()
        self.held: list[int] = []
        self._memory = llama_cpp.llama_get_memory(llama.ctx)
        self._window = llama_cpp.llama_model_n_swa(llama.model)
        self._step = llama.n_batch
        self._steps_end = 0  # of the held tokens, those that were read in whole steps

    def read(self, prompt_ids: Sequence[int], has_left: Callable[[], bool]) -> None:
        """Hold the prompt and nothing else; raises Left as soon as `has_left`."""
        shared = _shared(self.held[: self._steps_end], prompt_ids[:-1])
        kept = self._keep(shared - shared % self._step)
        abort = Abort(lambda _: has_left())
        llama_cpp.llama_set_abort_callback(self.handle, abort, None)
        try:
            for start in range(kept, len(prompt_ids), self._step):
                self._decode(prompt_ids[start : start + self._step], has_left)
                self._steps_end = len(self.held) - len(self.held) % self._step
        finally:
            llama_cpp.llama_set_abort_callback(self.handle, Abort(), None)

    def add(self, token: int, has_left: Callable[[], bool]) -> None:
        """Hold one token more; raises Left if `has_left`."""
        self._decode((token,), has_left)

    def logits(self) -> Any:
        """Return the logits of the next token [vocabulary], the very memory that samplers read."""
        pointer = llama_cpp.llama_get_logits_ith(self.handle, -1)
        return np.ctypeslib.as_array(pointer, shape=(self.vocabulary_size,))

    def _keep(self, count: int) -> int:
        """Forget all but the first `count` tokens, or all of them where that cannot be; return how many are held."""
        if not self._can_keep(count):
            llama_cpp.llama_memory_seq_rm(self._memory, 0, 0, -1)  # never fails, and leaves the cache's bytes alone
            count = 0
        del self.held[count:]
        self._steps_end = count
        return count

    def _can_keep(self, count: int) -> bool:
        """Return whether the tokens behind `count` were removed and all that the next ones look at is still there.

        Recurrent models cannot go back; those with a sliding window have forgotten what lies before it.
        """
        if not count or not llama_cpp.llama_memory_seq_rm(self._memory, 0, count, -1):
            return False
        return not self._window or llama_cpp.llama_memory_seq_pos_min(self._memory, 0) <= max(0, count - self._window)

    def _decode(self, tokens: Sequence[int], has_left: Callable[[], bool]) -> None:
        if has_left():
            raise Left
        array = (llama_cpp.llama_token * len(tokens))(*tokens)
        code = llama_cpp.llama_decode(self.handle, llama_cpp.llama_batch_get_one(array, len(tokens)))
        if code == ABORTED:
            raise Left
        if code != 0:
            raise RuntimeError(f"llama.cpp could not read {len(tokens)} tokens: llama_decode returned {code}")
        self.held.extend(tokens)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """Return with how many tokens both begin."""
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))
