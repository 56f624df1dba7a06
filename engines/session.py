"""Our client of a running engine: generate, chat and their streams, what is between texts, vectors, counted tokens.

Sync and async. HTTP is imported with the first request, which a launch makes while the engine loads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack, overload

from engines import exchanges
from engines.base import Address
from engines.exchanges import Exchange
from engines.generation import Chunk, Draft, Reply, Result, Sampling, Target, Template
from engines.messages import Messages
from engines.requests import chat_request, completion_request, fitted, infill_request
from engines.streaming import StreamReader, refusal_of
from engines.structured import parse_answer
from engines.tools import Tool
from registry.errors import GenerationError

if TYPE_CHECKING:
    from engines.connection import AsyncConnection, Connection

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Result)


class Session:
    """A running engine, for any number of threads: each request has a connection of its own.

    All methods raise InvalidRequestError, UnsupportedParameterError and ContextOverflowError before or instead of an
    answer, TypeError for a sampling field that there is not, and GenerationError where the engine breaks.
    """

    def __init__(self, address: Address, target: Target) -> None:
        self._address = address
        self._target = target
        self._template: Template | None = None
        self._is_closed = False

    def generate(self, prompt: str, /, **sampling: Unpack[Sampling]) -> Result:
        """Return what follows `prompt`, which is taken as it stands, without the model's template."""
        with self.generate_stream(prompt, **sampling) as stream:
            return stream.read()

    def generate_stream(self, prompt: str, /, **sampling: Unpack[Sampling]) -> Stream[Result]:
        """Return what follows `prompt` piece by piece; the request is sent when the first piece is asked for."""
        return self._stream(completion_request(self._target, prompt, sampling), _result_of)

    def infill(self, prefix: str, suffix: str, /, **sampling: Unpack[Sampling]) -> Result:
        """Return what belongs between `prefix` and `suffix`, white space as the model makes it."""
        with self.infill_stream(prefix, suffix, **sampling) as stream:
            return stream.read()

    def infill_stream(self, prefix: str, suffix: str, /, **sampling: Unpack[Sampling]) -> Stream[Result]:
        """Return the same piece by piece."""
        return self._stream(infill_request(self._target, prefix, suffix, sampling), _result_of)

    @overload
    def chat(
        self,
        messages: Messages,
        /,
        *,
        tools: Sequence[Tool] = ...,
        tool_choice: str | Mapping[str, Any] = ...,
        **sampling: Unpack[Sampling],
    ) -> Reply[None]: ...
    @overload
    def chat(self, messages: Messages, /, *, json_schema: type[T], **sampling: Unpack[Sampling]) -> Reply[T]: ...
    @overload
    def chat(
        self, messages: Messages, /, *, json_schema: Mapping[str, Any], **sampling: Unpack[Sampling]
    ) -> Reply[Any]: ...
    def chat(self, messages: Messages, /, **asked: Any) -> Reply[Any]:
        """Return the model's answer to `messages`; a text is one user message.

        `tools` are what the model may ask to be called, functions or OpenAI's descriptions of them, and `tool_choice`
        is `auto`, `none`, `required` or a tool's name. With `json_schema`, a schema or a class, the answer is JSON and
        the reply's `parsed` what it says.
        """
        with self.chat_stream(messages, **asked) as stream:
            return stream.read()

    def chat_stream(
        self,
        messages: Messages,
        /,
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | Mapping[str, Any] = "auto",
        json_schema: type[Any] | Mapping[str, Any] | None = None,
        **sampling: Unpack[Sampling],
    ) -> Stream[Reply[Any]]:
        """Return the answer to `messages` piece by piece; the request is sent when the first piece is asked for."""
        draft = chat_request(
            self._target, messages, sampling, tools=tools, tool_choice=tool_choice, json_schema=json_schema
        )
        return self._stream(draft, self._reply_of)

    def embed(self, texts: Sequence[str], /) -> list[list[float]]:
        """Return a vector for each text, in their order."""
        return self._run(exchanges.embed(self._target, texts)).vectors

    def count_tokens(self, messages: Messages, /) -> int:
        """Return the tokens that `messages` are as a prompt, the model's template included."""
        return self._run(exchanges.count_tokens(self._target, messages, self._template))

    def close(self) -> None:
        """Refuse further requests; a stream that is open goes on until it is closed."""
        self._is_closed = True

    def _stream(self, draft: Draft, finish: Callable[[StreamReader, Draft], Answer]) -> Stream[Answer]:
        return Stream(self._connection(), self._target.engine, draft, self._fit, finish)

    def _fit(self, draft: Draft) -> Draft:
        """Return the request as the model's template understands it, which is asked once."""
        if not draft.depends_on_template:
            return draft
        if self._template is None:
            self._template = self._run(exchanges.read_template(self._target))
        return fitted(self._target, draft, self._template)

    def _reply_of(self, reader: StreamReader, draft: Draft) -> Reply[Any]:
        reply = _reply_of(reader, draft)
        if reply.reasoning is None or reply.usage.reasoning_tokens:
            return reply
        return reply.with_reasoning_tokens(self._run(exchanges.count_reasoning(self._target, reply.reasoning)))

    def _connection(self) -> Connection:
        from engines.connection import Connection

        _refuse_closed(self._is_closed)
        return Connection(self._target.engine, self._address)

    def _run(self, exchange: Exchange[T]) -> T:
        from engines.connection import run

        _refuse_closed(self._is_closed)
        return run(self._target.engine, self._address, exchange)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncSession:
    """The same for asyncio; usable from any event loop."""

    def __init__(self, address: Address, target: Target) -> None:
        self._address = address
        self._target = target
        self._template: Template | None = None
        self._is_closed = False

    async def generate(self, prompt: str, /, **sampling: Unpack[Sampling]) -> Result:
        """Return what follows `prompt`, which is taken as it stands, without the model's template."""
        async with self.generate_stream(prompt, **sampling) as stream:
            return await stream.read()

    def generate_stream(self, prompt: str, /, **sampling: Unpack[Sampling]) -> AsyncStream[Result]:
        """Return what follows `prompt` piece by piece; the request is sent when the first piece is asked for."""
        return self._stream(completion_request(self._target, prompt, sampling), _result_soon)

    async def infill(self, prefix: str, suffix: str, /, **sampling: Unpack[Sampling]) -> Result:
        """Return what belongs between `prefix` and `suffix`, white space as the model makes it."""
        async with self.infill_stream(prefix, suffix, **sampling) as stream:
            return await stream.read()

    def infill_stream(self, prefix: str, suffix: str, /, **sampling: Unpack[Sampling]) -> AsyncStream[Result]:
        """Return the same piece by piece."""
        return self._stream(infill_request(self._target, prefix, suffix, sampling), _result_soon)

    @overload
    async def chat(
        self,
        messages: Messages,
        /,
        *,
        tools: Sequence[Tool] = ...,
        tool_choice: str | Mapping[str, Any] = ...,
        **sampling: Unpack[Sampling],
    ) -> Reply[None]: ...
    @overload
    async def chat(self, messages: Messages, /, *, json_schema: type[T], **sampling: Unpack[Sampling]) -> Reply[T]: ...
    @overload
    async def chat(
        self, messages: Messages, /, *, json_schema: Mapping[str, Any], **sampling: Unpack[Sampling]
    ) -> Reply[Any]: ...
    async def chat(self, messages: Messages, /, **asked: Any) -> Reply[Any]:
        """Return the model's answer to `messages`, as `Session.chat` does."""
        async with self.chat_stream(messages, **asked) as stream:
            return await stream.read()

    def chat_stream(
        self,
        messages: Messages,
        /,
        *,
        tools: Sequence[Tool] = (),
        tool_choice: str | Mapping[str, Any] = "auto",
        json_schema: type[Any] | Mapping[str, Any] | None = None,
        **sampling: Unpack[Sampling],
    ) -> AsyncStream[Reply[Any]]:
        """Return the answer to `messages` piece by piece; the request is sent when the first piece is asked for."""
        draft = chat_request(
            self._target, messages, sampling, tools=tools, tool_choice=tool_choice, json_schema=json_schema
        )
        return self._stream(draft, self._reply_of)

    async def embed(self, texts: Sequence[str], /) -> list[list[float]]:
        """Return a vector for each text, in their order."""
        return (await self._run(exchanges.embed(self._target, texts))).vectors

    async def count_tokens(self, messages: Messages, /) -> int:
        """Return the tokens that `messages` are as a prompt, the model's template included."""
        return await self._run(exchanges.count_tokens(self._target, messages, self._template))

    async def close(self) -> None:
        """Refuse further requests; a stream that is open goes on until it is closed."""
        self._is_closed = True

    def _stream(self, draft: Draft, finish: Callable[[StreamReader, Draft], Awaitable[Answer]]) -> AsyncStream[Answer]:
        return AsyncStream(self._connection(), self._target.engine, draft, self._fit, finish)

    async def _fit(self, draft: Draft) -> Draft:
        """Return the request as the model's template understands it, which is asked once."""
        if not draft.depends_on_template:
            return draft
        if self._template is None:
            self._template = await self._run(exchanges.read_template(self._target))
        return fitted(self._target, draft, self._template)

    async def _reply_of(self, reader: StreamReader, draft: Draft) -> Reply[Any]:
        reply = _reply_of(reader, draft)
        if reply.reasoning is None or reply.usage.reasoning_tokens:
            return reply
        return reply.with_reasoning_tokens(await self._run(exchanges.count_reasoning(self._target, reply.reasoning)))

    def _connection(self) -> AsyncConnection:
        from engines.connection import AsyncConnection

        _refuse_closed(self._is_closed)
        return AsyncConnection(self._target.engine, self._address)

    async def _run(self, exchange: Exchange[T]) -> T:
        from engines.connection import run_async

        _refuse_closed(self._is_closed)
        return await run_async(self._target.engine, self._address, exchange)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _Answering(Generic[Answer]):
    """What streams know of the answer on its way."""

    def __init__(self, engine: str, draft: Draft) -> None:
        self._engine = engine
        self._draft = draft
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
        self,
        connection: Connection,
        engine: str,
        draft: Draft,
        fit: Callable[[Draft], Draft],
        finish: Callable[[StreamReader, Draft], Answer],
    ) -> None:
        super().__init__(engine, draft)
        self._connection = connection
        self._fit = fit
        self._finish = finish

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
            self._answer = self._finish(reader, self._draft)
            self.close()

    def _send(self) -> StreamReader:
        self._draft = self._fit(self._draft)
        self._reader = StreamReader(self._engine, alternatives=self._draft.logprobs, is_call=self._draft.is_call)
        if (status := self._connection.send(self._draft.post())) != 200:
            raise refusal_of(self._engine, status, self._connection.read_all())
        self._draft = self._draft.with_notes(self._connection.notes)
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
        self,
        connection: AsyncConnection,
        engine: str,
        draft: Draft,
        fit: Callable[[Draft], Awaitable[Draft]],
        finish: Callable[[StreamReader, Draft], Awaitable[Answer]],
    ) -> None:
        super().__init__(engine, draft)
        self._connection = connection
        self._fit = fit
        self._finish = finish

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
            self._answer = await self._finish(reader, self._draft)
            await self.close()

    async def _send(self) -> StreamReader:
        self._draft = await self._fit(self._draft)
        self._reader = StreamReader(self._engine, alternatives=self._draft.logprobs, is_call=self._draft.is_call)
        if (status := await self._connection.send(self._draft.post())) != 200:
            raise refusal_of(self._engine, status, await self._connection.read_all())
        self._draft = self._draft.with_notes(self._connection.notes)
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


def _result_of(reader: StreamReader, draft: Draft) -> Result:
    return replace(reader.result(), notes=draft.notes)


async def _result_soon(reader: StreamReader, draft: Draft) -> Result:
    return _result_of(reader, draft)


def _reply_of(reader: StreamReader, draft: Draft) -> Reply[Any]:
    """Return the whole answer, read by the schema that was asked for."""
    reply: Reply[Any] = reader.reply()
    parsed = None
    if draft.schema is not None:
        parsed = parse_answer(draft.schema, reply.text, is_whole=reply.finish_reason != "length")
    return replace(reply, parsed=parsed, notes=draft.notes)
