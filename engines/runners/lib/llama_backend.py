"""A model behind the OpenAI-compatible server, run by llama-cpp-python: one request after another, in their order."""

from __future__ import annotations

import argparse
import asyncio
import codecs
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import llama_cpp
from llama_cpp.llama_chat_format import Jinja2ChatFormatter

from json_grammar import Grammars
from llama_decoding import Context, Left
from llama_sampling import Sampler
from llama_vocabulary import Vocabulary
from openai_backend import Generation, Message, TemplateError, Token, Tool
from openai_server import marks_of, read_template


class LlamaBackend:
    """Encodes and renders in the event loop, generates in one thread, whose queue is that of the requests."""

    name = "llama-cpp-python"
    features = frozenset({"logprobs", "json_schema"})

    def __init__(self, llama: llama_cpp.Llama, arguments: argparse.Namespace) -> None:
        llama.verbose = False
        llama_cpp._logger.set_verbose(False)  # what goes wrong is still in the log
        self.context_length = arguments.ctx_size
        self._vocabulary = Vocabulary(llama, shown=marks_of(arguments))
        self._context = Context(llama)
        self._grammars = Grammars(self._vocabulary.for_grammars)
        self._template = _formatter(llama, arguments.chat_template)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="generate")

    def encode(self, text: str) -> list[int]:
        return self._vocabulary.encode(text)

    def decode(self, token_ids: Sequence[int]) -> str:
        return b"".join(map(self._vocabulary.spell, token_ids)).decode(errors="replace")

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], options: Mapping[str, Any]) -> list[int]:
        if self._template is None:
            raise TemplateError("the model has no chat template, so it takes prompts only")
        try:
            prompt = self._template(messages=list(messages), tools=list(tools) or None, **options).prompt
        except Exception as error:
            raise TemplateError(str(error)) from error
        return self._vocabulary.encode(prompt)

    async def generate(self, generation: Generation) -> AsyncGenerator[Token, None]:
        tokens: asyncio.Queue[Token | Exception | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        has_left = threading.Event()

        def put(token: Token | Exception | None) -> None:
            loop.call_soon_threadsafe(tokens.put_nowait, token)

        job = self._thread.submit(self._work, generation, put, has_left)
        try:
            while (token := await tokens.get()) is not None:
                if isinstance(token, Exception):
                    raise token
                yield token
        finally:
            has_left.set()
            job.cancel()  # which it only is if its turn had not come

    def _work(
        self,
        generation: Generation,
        put: Callable[[Token | Exception | None], None],
        has_left: threading.Event,
    ) -> None:
        """Put the tokens of one answer, and what ended it: an error, or None."""
        try:
            for token in self._tokens(generation, has_left.is_set):
                put(token)
        except Left:
            pass
        except Exception as error:  # noqa: BLE001  it is raised again where the tokens are awaited
            put(error)
        else:
            put(None)

    def _tokens(self, generation: Generation, has_left: Callable[[], bool]) -> Iterator[Token]:
        started = time.perf_counter()
        grammar = None if generation.json_schema is None else self._grammars.make(generation.json_schema)
        characters = codecs.getincrementaldecoder("utf-8")("replace")
        with Sampler(generation, self._context, grammar) as sampler:
            self._context.read(generation.prompt_ids, has_left)
            prompt_s: float | None = time.perf_counter() - started
            for count in range(1, generation.max_tokens + 1):
                token, logprob, top = sampler.next()
                if self._vocabulary.is_end(token):
                    yield Token(token, "", is_end=True, prompt_s=prompt_s)
                    return
                text = characters.decode(self._vocabulary.piece(token))
                spelt = tuple((other, self.decode((other,)), value) for other, value in top)
                yield Token(token, text, logprob, spelt, prompt_s=prompt_s)
                prompt_s = None
                if count < generation.max_tokens:
                    self._context.add(token, has_left)


def _formatter(llama: llama_cpp.Llama, template: str | None) -> Jinja2ChatFormatter | None:
    """Return what renders conversations, in a sandbox: by `template`, a text or a file's name, else the model's own."""
    text = read_template(template) if template else llama.metadata.get("tokenizer.chat_template")
    if text is None:
        return None
    words = (_word(llama, token) for token in (llama.token_eos(), llama.token_bos()))
    return Jinja2ChatFormatter(text, *words)


def _word(llama: llama_cpp.Llama, token: int) -> str:
    return llama.detokenize([token], special=True).decode() if token != -1 else ""
