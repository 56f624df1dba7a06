"""A model behind the OpenAI-compatible server, run by Transformers' continuous batching."""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from json_grammar import Grammars
from openai_backend import Generation, Message, TemplateError, Token, Tool
from openai_server import marks_of, read_template
from text_pieces import TextPieces, hider
from token_choice import Scored, TokenChoice
from transformers_batching import CHOICE, Batching, batching_config
from transformers_loading import Loaded, load, say


class TransformersBackend:
    """All of the model's work is done in one thread of upstream's; this hands over requests and takes tokens."""

    name = "transformers"
    features = frozenset({"logprobs", "json_schema"})

    def __init__(self, loaded: Loaded, batching: Batching, grammars: Grammars, options: argparse.Namespace) -> None:
        self.context_length = options.ctx_size
        self._tokenizer = loaded.tokenizer
        self._is_hidden = hider(loaded.tokenizer, shown=marks_of(options))
        self._end_ids = loaded.end_ids
        self._batching = batching
        self._grammars = grammars

    @property
    def is_driver(self) -> bool:
        """True in the process that takes the requests, of those for several GPUs."""
        return bool(self._batching.is_tp_driver)

    def begin(self) -> None:
        """Start the thread that answers requests."""
        self._batching.start()

    def join(self) -> None:
        """Work for the driver until it ends."""
        self._batching.join(time.perf_counter())

    def encode(self, text: str) -> list[int]:
        ids = list(self._tokenizer(text).input_ids)
        begins_twice = ids[:2] == [self._tokenizer.bos_token_id] * 2  # once in the text, once by the tokenizer
        return ids[1:] if begins_twice else ids

    def decode(self, token_ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=False))

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], options: Mapping[str, Any]) -> list[int]:
        if self._tokenizer.chat_template is None:
            raise TemplateError("the model has no chat template, so it takes prompts only")
        try:
            rendered = self._tokenizer.apply_chat_template(
                list(messages), tools=list(tools) or None, add_generation_prompt=True, return_dict=False, **options
            )
        except Exception as error:
            raise TemplateError(str(error)) from error
        return list(rendered)

    async def generate(self, generation: Generation) -> AsyncGenerator[Token, None]:
        schema = generation.json_schema
        grammar = None if schema is None else await asyncio.to_thread(self._grammars.make, schema)
        if generation.seed is None:
            generation = generation._replace(seed=random.getrandbits(63))
        choice = TokenChoice(generation, grammar)
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        request_id = self._add(generation, choice, outputs)
        try:
            async for token in self._tokens(generation, choice, outputs):
                yield token
        finally:
            self._batching.cancel_request(request_id)
            self._batching.output_router.result_handlers.pop(request_id, None)

    def _add(self, generation: Generation, choice: TokenChoice, outputs: asyncio.Queue[Any]) -> str:
        request_id = f"{time.monotonic_ns()}-{id(choice)}"
        self._batching.register_result_handler(request_id, outputs.put_nowait)
        added = self._batching.add_request(
            generation.prompt_ids,
            request_id=request_id,
            max_new_tokens=generation.max_tokens,
            streaming=True,
            eos_token_id=list(self._end_ids),
            **{CHOICE: choice},
        )
        if added is None:
            self._give_up(str(self._batching.background_thread_status.fatal_error))
        return request_id

    async def _tokens(
        self, generation: Generation, choice: TokenChoice, outputs: asyncio.Queue[Any]
    ) -> AsyncGenerator[Token, None]:
        pieces = TextPieces(self._tokenizer, generation.prompt_ids, self._is_hidden)
        sent = 0
        while True:
            output = await outputs.get()
            if output.error is not None:
                self._give_up(output.error)
            prompt_s = time.perf_counter() - output.lifespan[0] if not sent else None
            for token in output.generated_tokens[sent:]:
                scored = choice.scored[sent] if choice.scored else None
                sent += 1
                yield self._token(token, pieces, scored, prompt_s)
            if output.is_finished():
                return

    def _token(self, token: int, pieces: TextPieces, scored: Scored | None, prompt_s: float | None) -> Token:
        if token in self._end_ids:
            return Token(token, "", is_end=True, prompt_s=prompt_s)
        if scored is None:
            return Token(token, pieces.add(token), prompt_s=prompt_s)
        top = tuple((other, self._spell(other, pieces), logprob) for other, logprob in scored.top)
        return Token(token, pieces.add(token), scored.logprob, top, prompt_s=prompt_s)

    def _spell(self, token: int, pieces: TextPieces) -> str:
        """Return the text of an alternative; those that end the text have a name only."""
        return self.decode([token]) if token in self._end_ids else pieces.look_at(token)

    def _give_up(self, reason: str) -> None:
        """End the process: upstream's thread is gone and does not come back, so no request can be answered any more."""
        print(f"transformers: error: {reason}", file=sys.stderr, flush=True)
        os._exit(1)


def start(options: argparse.Namespace) -> TransformersBackend:
    """Return the model of the options, loaded, with room for every slot's whole context, and at work.

    It is loaded and warmed up in a thread that ends, and its helpers for OpenMP with it: GNU's OpenMP lets helpers wait
    busily only while there are no more of them than cores, and sleeping ones cost a quarter of the tokens per second.
    """
    if options.threads:
        torch.set_num_threads(options.threads)
    with ThreadPoolExecutor(1) as preparing:
        backend = preparing.submit(_prepare, options).result()
    backend.begin()
    return backend


def _prepare(options: argparse.Namespace) -> TransformersBackend:
    loaded = load(options)
    if options.chat_template is not None:
        loaded.tokenizer.chat_template = read_template(options.chat_template)
    grammars = Grammars(lambda: _vocabulary_of(loaded))
    config = batching_config(options.ctx_size, options.parallel, options.max_batch_tokens)
    config.allow_block_sharing = not options.no_prefix_caching
    say(f"making room for {options.parallel} × {options.ctx_size:,} tokens of context")
    with torch.no_grad():
        batching = Batching(loaded.model, config, grammars)
        batching.warmup()
    return TransformersBackend(loaded, batching, grammars, options)


def _vocabulary_of(loaded: Loaded) -> Any:
    """Return llguidance's view of the tokens."""
    import llguidance.hf

    size = loaded.model.config.get_text_config().vocab_size
    return llguidance.hf.from_tokenizer(loaded.tokenizer, size, list(loaded.end_ids))
