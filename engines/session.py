"""Our client of a running engine: generate, chat and their streams, counted tokens; sync and async.

HTTP is imported with the first request, which a launch makes while the engine loads.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Generic, Self, TypeVar, Unpack

from engines.base import Address
from engines.generation import (
    Chunk,
    Messages,
    Post,
    Reply,
    Result,
    Sampling,
    Target,
    chat_request,
    completion_request,
    read_messages,
)
from engines.streaming import StreamReader, refusal_of
from registry.errors import GenerationError

if TYPE_CHECKING:
    from engines.connection import AsyncConnection, Connection

Answer = TypeVar("Answer", bound=Result)


class Session:
    """A running engine, for any number of threads: each request has a connection of its own.

    All methods raise InvalidRequestError, UnsupportedParameterError and ContextOverflowError before or instead of an
    answer, TypeError for a sampling field that there is not, and GenerationError where the engine breaks.
    """

    def __init__(self, address: Address, target: Target) -> None:
        self._address = address
        self._target = target
        self._is_closed = False

    def generate(self, prompt: str, /, **sampling: Unpack[Sampling]) -> Result:
        """Return what follows `prompt`, which is taken as it stands, without the model's template."""
        with self.generate_stream(prompt, **sampling) as stream:
            return stream.read()

    def generate_stream(self, prompt: str, /, **sampling: Unpack[Sampling]) -> Stream[Result]:
        """Return what follows `prompt` piece by piece; the request is sent when the first piece is asked for."""
        return self._stream(completion_request(self._target, prompt, sampling), StreamReader.result)

    def chat(self, messages: Messages, /, **sampling: Unpack[Sampling]) -> Reply:
        """Return the model's answer to `messages`; a text is one user message."""
        with self.chat_stream(messages, **sampling) as stream:
            return stream.read()

    def chat_stream(self, messages: Messages, /, **sampling: Unpack[Sampling]) -> Stream[Reply]:
        """Return the answer to `messages` piece by piece; the request is sent when the first piece is asked for."""
        return self._stream(chat_request(self._target, messages, sampling), StreamReader.reply)

    def count_tokens(self, messages: Messages, /) -> int:
        """Return the tokens that `messages` are as a prompt, the model's template included."""
        prompt = _read_prompt(self._ask(_template_request(messages)))
        return _read_count(self._ask(_tokenize_request(prompt)))

    def close(self) -> None:
        """Refuse further requests; a stream that is open goes on until it is closed."""
        self._is_closed = True

    def _stream(self, post: Post, finish: Callable[[StreamReader], Answer]) -> Stream[Answer]:
        return Stream(self._connection(), self._target.engine, post, finish)

    def _connection(self) -> Connection:
        from engines.connection import Connection

        _refuse_closed(self._is_closed)
        return Connection(self._target.engine, self._address)

    def _ask(self, post: Post) -> Mapping[str, object]:
        connection = self._connection()
        try:
            status = connection.send(post)
            return _read_answer(self._target.engine, status, connection.read_all())
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncSession:
    """The same for asyncio; usable from any event loop."""

    def __init__(self, address: Address, target: Target) -> None:
        self._address = address
        self._target = target
        self._is_closed = False

    async def generate(self, prompt: str, /, **sampling: Unpack[Sampling]) -> Result:
        """Return what follows `prompt`, which is taken as it stands, without the model's template."""
        async with self.generate_stream(prompt, **sampling) as stream:
            return await stream.read()

    def generate_stream(self, prompt: str, /, **sampling: Unpack[Sampling]) -> AsyncStream[Result]:
        """Return what follows `prompt` piece by piece; the request is sent when the first piece is asked for."""
        return self._stream(completion_request(self._target, prompt, sampling), StreamReader.result)

    async def chat(self, messages: Messages, /, **sampling: Unpack[Sampling]) -> Reply:
        """Return the model's answer to `messages`; a text is one user message."""
        async with self.chat_stream(messages, **sampling) as stream:
            return await stream.read()

    def chat_stream(self, messages: Messages, /, **sampling: Unpack[Sampling]) -> AsyncStream[Reply]:
        """Return the answer to `messages` piece by piece; the request is sent when the first piece is asked for."""
        return self._stream(chat_request(self._target, messages, sampling), StreamReader.reply)

    async def count_tokens(self, messages: Messages, /) -> int:
        """Return the tokens that `messages` are as a prompt, the model's template included."""
        prompt = _read_prompt(await self._ask(_template_request(messages)))
        return _read_count(await self._ask(_tokenize_request(prompt)))

    async def close(self) -> None:
        """Refuse further requests; a stream that is open goes on until it is closed."""
        self._is_closed = True

    def _stream(self, post: Post, finish: Callable[[StreamReader], Answer]) -> AsyncStream[Answer]:
        return AsyncStream(self._connection(), self._target.engine, post, finish)

    def _connection(self) -> AsyncConnection:
        from engines.connection import AsyncConnection

        _refuse_closed(self._is_closed)
        return AsyncConnection(self._target.engine, self._address)

    async def _ask(self, post: Post) -> Mapping[str, object]:
        connection = self._connection()
        try:
            status = await connection.send(post)
            return _read_answer(self._target.engine, status, await connection.read_all())
        finally:
            await connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _Answering(Generic[Answer]):
    """What streams know of the answer on its way."""

    def __init__(self, engine: str, post: Post, finish: Callable[[StreamReader], Answer]) -> None:
        self._engine = engine
        self._post = post
        self._finish = finish
        self._reader: StreamReader | None = None
        self._chunks: deque[Chunk] = deque()
        self._answer: Answer | None = None
        self._is_closed = False

    @property
    def result(self) -> Answer:
        """The whole answer; raises GenerationError before the last chunk."""
        if self._answer is None:
            raise GenerationError("The answer is not whole yet", hint="read the stream to its end first")
        return self._answer


class Stream(_Answering[Answer]):
    """An answer as it is made: iterate its chunks, then `result` holds all of it.

    `close`, from any thread, or leaving `with` before the end stops the generation; so does dropping the stream.
    """

    def __init__(
        self, connection: Connection, engine: str, post: Post, finish: Callable[[StreamReader], Answer]
    ) -> None:
        super().__init__(engine, post, finish)
        self._connection = connection

    def read(self) -> Answer:
        """Return the whole answer when it is there."""
        deque(self, maxlen=0)
        return self.result

    def close(self) -> None:
        """Stop the generation."""
        self._is_closed = True
        self._connection.close()

    def _receive(self) -> None:
        """Wait for the next piece; closes the stream at its end."""
        reader = self._reader or self._send()
        data = self._connection.read()
        self._chunks.extend(reader.feed(data))
        if not data:
            self._answer = self._finish(reader)
            self.close()

    def _send(self) -> StreamReader:
        self._reader = StreamReader(self._engine)
        if (status := self._connection.send(self._post)) != 200:
            raise refusal_of(self._engine, status, self._connection.read_all())
        return self._reader

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        while not self._chunks and not self._is_closed:
            try:
                self._receive()
            except BaseException:
                if self._is_closed:
                    break
                self.close()
                raise
        if not self._chunks:
            raise StopIteration
        return self._chunks.popleft()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class AsyncStream(_Answering[Answer]):
    """The same for asyncio; use `async with`, so that leaving before the end stops the generation at once."""

    def __init__(
        self, connection: AsyncConnection, engine: str, post: Post, finish: Callable[[StreamReader], Answer]
    ) -> None:
        super().__init__(engine, post, finish)
        self._connection = connection

    async def read(self) -> Answer:
        """Return the whole answer when it is there."""
        async for _ in self:
            pass
        return self.result

    async def close(self) -> None:
        """Stop the generation."""
        self._is_closed = True
        await self._connection.close()

    async def _receive(self) -> None:
        reader = self._reader or await self._send()
        data = await self._connection.read()
        self._chunks.extend(reader.feed(data))
        if not data:
            self._answer = self._finish(reader)
            await self.close()

    async def _send(self) -> StreamReader:
        self._reader = StreamReader(self._engine)
        if (status := await self._connection.send(self._post)) != 200:
            raise refusal_of(self._engine, status, await self._connection.read_all())
        return self._reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        while not self._chunks and not self._is_closed:
            try:
                await self._receive()
            except BaseException:
                if self._is_closed:
                    break
                await self.close()
                raise
        if not self._chunks:
            raise StopAsyncIteration
        return self._chunks.popleft()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


# --- what both share -------------------------------------------------------------------------------------------------


def _refuse_closed(is_closed: bool) -> None:
    if is_closed:
        raise GenerationError("The session is closed")


def _template_request(messages: Messages) -> Post:
    return Post("/apply-template", json.dumps({"messages": read_messages(messages)}).encode())


def _tokenize_request(prompt: str) -> Post:
    body = {"content": prompt, "add_special": True, "parse_special": True}
    return Post("/tokenize", json.dumps(body).encode())


def _read_answer(engine: str, status: int, body: bytes) -> Mapping[str, object]:
    answer = json.loads(body) if status == 200 else None
    if not isinstance(answer, dict):
        raise refusal_of(engine, status, body)
    return answer


def _read_prompt(answer: Mapping[str, object]) -> str:
    return str(answer["prompt"])


def _read_count(answer: Mapping[str, object]) -> int:
    tokens = answer["tokens"]
    assert isinstance(tokens, list)
    return len(tokens)
