"""Transformers' continuous batching, with the choice of each token made our way.

Upstream's scheduler, paged cache and forward pass are used as they are; its sampling is replaced, because it lacks
seeds, min-p, penalties, grammars and the log-probabilities of alternatives (5.23). Written to 5.23.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.model_runner import ModelRunner
from transformers.generation.continuous_batching.utils import stream_context

from json_grammar import Grammars
from token_choice import TokenChoice, choose_all

# Prompts are read in pieces of one page, and only pages that were read in one piece are kept for the next prompt that
# begins alike. What is kept was computed as it would be again, so an answer is the same to the bit with and without.
PAGE_TOKENS = 256
CHOICE = "choice"  # its place among the arguments that upstream carries with a request


def cache_pages(context_length: int, slots: int, page_tokens: int = PAGE_TOKENS) -> tuple[int, float]:
    """Return the pages that give each slot its whole context, and the share of them that is to stay free.

    Upstream forgets the beginnings of old prompts only when fewer than that share are free, so there are as many more:
    one for each slot and two for the prompt that is being read.
    """
    spare = slots + 2
    pages = slots * -(-context_length // page_tokens) + spare
    return pages, (spare - 0.5) / pages


def batching_config(context_length: int, slots: int, page_tokens: int = PAGE_TOKENS) -> Any:
    """Return upstream's settings for `slots` requests at once, each with `context_length` tokens."""
    page_tokens = max(page_tokens, slots)
    pages, spare_share = cache_pages(context_length, slots, page_tokens)
    return ContinuousBatchingConfig(
        page_size=page_tokens,
        num_blocks=pages,
        safety_margin=spare_share,
        max_batch_tokens=page_tokens,
        max_requests_per_batch=slots,
        max_memory_percent=1.0,
        use_async_batching=False,  # it plans a step before the last one's token is known, which grammars need
        auto_switch_to_flash=False,  # it would look for kernels on a hub
    )


class Batching(ContinuousBatchingManager):  # type: ignore[misc]  # upstream is not here when types are checked
    """Upstream's manager, whose requests carry a `TokenChoice` each."""

    def __init__(self, model: Any, config: Any, grammars: Grammars) -> None:
        super().__init__(model, GenerationConfig(do_sample=False, eos_token_id=-1), config)
        self._grammars = grammars
        self.logit_processor.supported_keys[CHOICE] = TokenChoice

    def choice_of(self, state: Any) -> TokenChoice | None:
        """Return how a request's tokens are chosen; None for those that upstream makes up to warm up."""
        choice: TokenChoice | None = state.logit_processor_kwargs.get(CHOICE)
        if choice is not None and not choice.is_begun:
            choice.begin(self.model.device, self._grammars)
        return choice

    def _create_batch_processor(self) -> Any:
        processor = super()._create_batch_processor()
        if not isinstance(processor.model_runner, ChoosingRunner):
            processor.model_runner = ChoosingRunner(self, processor)
            processor.cache.count_new_complete_blocks = partial(_count_whole_pages, processor.cache)
        return processor


def _count_whole_pages(cache: Any, state: Any, request_tokens: int) -> Any:
    """Return the blocks that a step makes which later prompts may share, by kind of layer, as upstream counts them."""
    is_whole = request_tokens == cache.max_batch_tokens
    return type(cache).count_new_complete_blocks(cache, state, request_tokens) if is_whole else {}


class ChoosingRunner(ModelRunner):  # type: ignore[misc]
    """Runs the model as upstream does, and chooses the tokens after it, where nothing is captured in a CUDA graph."""

    def __init__(self, batching: Batching, processor: Any) -> None:
        super().__init__(
            logit_processor=processor.logit_processor,
            cb_config=processor.cb_config,
            inputs_and_outputs=processor.inputs_and_outputs,
            cache=processor.cache,
            do_sample=False,
            return_logprobs=False,
        )
        self._batching = batching
        shape = (processor.cb_config.max_requests_per_batch, processor.config.vocab_size)
        self._logits = torch.zeros(shape, dtype=torch.float32, device=processor.model_device)

    def compute_batch(self, model: Any, batch_data: Any) -> None:
        super().compute_batch(model, batch_data)
        batch = self.inputs_and_outputs
        states = [request.state for request in batch.requests_in_batch if request.has_new_token]
        if not states:
            return
        with stream_context(batch.compute_stream):
            tokens = choose_all([self._batching.choice_of(state) for state in states], self._logits[: len(states)])
            batch.output_ids[0, : len(tokens)] = torch.tensor(tokens, dtype=torch.int32)

    def _sample(self, scores: torch.Tensor, output_ids: torch.Tensor) -> None:
        """Keep the logits [1, requests, vocabulary] of this step."""
        self._logits[: scores.shape[1]].copy_(scores[0])
