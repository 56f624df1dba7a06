"""A model without weights behind the OpenAI-compatible server: its tokens are words, its answers are told to it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import re
import tempfile
import threading
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai_server
from engines.base import Address, Wire
from engines.generation import Target
from engines.running import is_healthy
from openai_server import Generation, Message, RequestError, TemplateError, Token, Tool

BEGINNING = 1
END = 2


class WordBackend:
    """Answers with `reply`, token by token; without one with the words of the prompt.

    `slots` requests are answered at once, the others wait. `started` and `closed` are the generations that began and
    ended, `rendered` the last conversation; while `gate` is not set no token comes.
    """

    name = "words"
    features = frozenset({"logprobs", "json_schema"})

    def __init__(self, context_length: int = 64, slots: int = 1) -> None:
        self.context_length = context_length
        self.reply: Sequence[str | Token | Exception] | None = None
        self.opening = ""
        self.gate = threading.Event()
        self.gate.set()
        self.started: list[Generation] = []
        self.rendered: Sequence[Message] = ()
        self.waiting = 0
        self.closed = 0
        self._slots = asyncio.Semaphore(slots)
        self._words = ["", "<s>", "</s>"]

    def encode(self, text: str) -> list[int]:
        return [BEGINNING, *(self._id_of(word) for word in re.findall(r"\s*\S+|\s+$", text))]

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self._words[token_id] for token_id in token_ids)

    def render(self, messages: Sequence[Message], tools: Sequence[Tool], options: Mapping[str, Any]) -> list[int]:
        self.rendered = messages
        turns = "".join(f" [{message['role']}] {message['content']}" for message in messages)
        if "[system]" in turns:
            raise TemplateError("there is no system role")
        known = "".join(f" [tool] {tool['function']['name']}" for tool in tools) if options.get("knows_tools") else ""
        return self.encode(known + turns + " [assistant]" + self.opening)

    async def generate(self, generation: Generation) -> AsyncGenerator[Token, None]:
        self.waiting += 1
        try:
            async with self._slots:
                if generation.json_schema is not None and "$ref" in generation.json_schema:
                    raise RequestError("this schema cannot be followed", "json_schema")
                self.started.append(generation)
                async for token in self._tokens(generation):
                    yield token
        finally:
            self.closed += 1

    async def _tokens(self, generation: Generation) -> AsyncGenerator[Token, None]:
        reply = self.reply if self.reply is not None else [self._words[token] for token in generation.prompt_ids[1:]]
        for said in reply[: generation.max_tokens]:
            while not self.gate.is_set():
                await asyncio.sleep(0.001)
            if isinstance(said, Exception):
                raise said
            yield said if isinstance(said, Token) else self._token(said, generation.logprobs)
        if len(reply) < generation.max_tokens:
            yield Token(END, "", is_end=True)

    def _token(self, text: str, logprobs: int | None) -> Token:
        if logprobs is None:
            return Token(self._id_of(text), text)
        top = tuple((self._id_of(text + "?" * rank), text + "?" * rank, -0.5 - rank) for rank in range(logprobs))
        return Token(self._id_of(text), text, -0.5, top)

    def _id_of(self, word: str) -> int:
        if word not in self._words:
            self._words.append(word)
        return self._words.index(word)


@dataclass(frozen=True)
class Served:
    """A backend that is served at `address`; `target` is what requests to it are made for."""

    backend: WordBackend
    address: Address
    target: Target


@contextlib.contextmanager
def served(backend: WordBackend, *options: str, on_port: int | None = None) -> Iterator[Served]:
    """Serve `backend` from a thread, on a Unix socket or `on_port`, until the end."""
    with tempfile.TemporaryDirectory(prefix="words-", dir="/tmp") as folder:
        socket = Path(folder) / "e.sock"
        where = ("--socket", str(socket)) if on_port is None else ("--port", str(on_port))
        address = Address(f"http://127.0.0.1:{on_port or 0}", socket if on_port is None else None)
        parser = argparse.ArgumentParser()
        openai_server.add_arguments(parser)
        arguments = parser.parse_args(
            ["--model", "none", "--alias", "word-model", "--ctx-size", str(backend.context_length), *where, *options]
        )
        loop = asyncio.new_event_loop()
        task = loop.create_task(openai_server.listen(backend, arguments))
        thread = threading.Thread(target=_run, args=(loop, task))
        thread.start()
        try:
            while not is_healthy(address):
                assert thread.is_alive()
            yield Served(backend, address, Target("word-model", "words", Wire(), backend.context_length))
        finally:
            loop.call_soon_threadsafe(task.cancel)
            thread.join()


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.close()
