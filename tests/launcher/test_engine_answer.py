"""An engine's answer as it is handed over: in the moment that it comes, in order, and not taken for whole too early."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path

import pytest

from engines.base import Address
from engines.generation import Post
from launcher.gateway.engine_answer import EngineAnswer, ask
from registry.errors import GenerationError

CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
LIMIT_S = 10

End = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Test = Callable[[EngineAnswer, asyncio.StreamWriter], Coroutine[None, None, None]]


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@contextlib.asynccontextmanager
async def engine(socket: Path) -> AsyncIterator[asyncio.Queue[End]]:
    """Listen, and yield where the other ends of requests come."""
    asked: asyncio.Queue[End] = asyncio.Queue()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.put_nowait((reader, writer))

    async with await asyncio.start_unix_server(connected, socket):
        yield asked


def with_answer(socket: Path, begins: bytes, test: Test) -> None:
    """Run `test` with an answer that begins so, and with the engine's end of it."""

    async def run() -> None:
        async with asyncio.timeout(LIMIT_S), engine(socket) as asked:
            asking = asyncio.ensure_future(ask("echo", Address("http://localhost", socket), Post("/health", None)))
            _, writer = await asked.get()
            writer.write(begins)
            with await asking as answer:
                try:
                    await test(answer, writer)
                finally:
                    writer.close()

    asyncio.run(run())


@pytest.fixture
def socket(tmp_path: Path) -> Path:
    return tmp_path / "e.sock"


def test_pieces_are_taken_as_they_come(socket: Path) -> None:
    async def test(answer: EngineAnswer, engine: asyncio.StreamWriter) -> None:
        taken: list[bytes] = []

        def take(piece: bytes) -> bool:
            taken.append(piece)
            engine.write(chunk(b"two") + END if len(taken) == 1 else b"")
            return True

        assert await answer.hand_over(take)
        assert taken == [b"one", b"two"]
        assert (answer.status, answer.content_type) == (200, "text/event-stream")

    with_answer(socket, CHUNKED + chunk(b"one"), test)


def test_who_has_enough_gets_the_rest_together(socket: Path) -> None:
    async def test(answer: EngineAnswer, engine: asyncio.StreamWriter) -> None:
        taken: list[bytes] = []

        def take_one(piece: bytes) -> bool:
            taken.append(piece)
            return len(taken) > 1

        assert not await answer.hand_over(take_one)
        engine.write(chunk(b"two"))
        engine.write(chunk(b"three") + END)
        await engine.drain()
        assert taken == [b"one"]
        assert await answer.hand_over(take_one)
        assert taken[0] == b"one"
        assert b"".join(taken) == b"onetwothree"

    with_answer(socket, CHUNKED + chunk(b"one"), test)


def test_what_whoever_takes_raises_comes_back(socket: Path) -> None:
    async def test(answer: EngineAnswer, engine: asyncio.StreamWriter) -> None:
        def take(piece: bytes) -> bool:
            raise ConnectionResetError("the client left")

        engine.write(chunk(b"one"))
        with pytest.raises(ConnectionResetError, match="the client left"):
            await answer.hand_over(take)

    with_answer(socket, CHUNKED, test)


@pytest.mark.parametrize("broken", [b"", b"no length\r\n"])
def test_an_answer_that_breaks_off_is_an_error_after_all_that_came(socket: Path, broken: bytes) -> None:
    async def test(answer: EngineAnswer, engine: asyncio.StreamWriter) -> None:
        taken: list[bytes] = []

        def take(piece: bytes) -> bool:
            taken.append(piece)
            engine.write(broken)
            engine.close()
            return True

        with pytest.raises(GenerationError, match="ended while it answered"):
            await answer.hand_over(take)
        with pytest.raises(GenerationError, match="ended while it answered"):
            await answer.read()
        assert taken == [b"one"]

    with_answer(socket, CHUNKED + chunk(b"one"), test)


@pytest.mark.parametrize("headers", [b"Content-Length: 4\r\n", b""])
def test_a_body_ends_by_its_length_or_with_the_connection(socket: Path, headers: bytes) -> None:
    async def test(answer: EngineAnswer, engine: asyncio.StreamWriter) -> None:
        engine.write(b"dy")
        if not headers:
            engine.close()
        assert (answer.status, await answer.read()) == (400, b"body")

    with_answer(socket, b"HTTP/1.1 400 Bad Request\r\n" + headers + b"\r\nbo", test)


def test_an_engine_that_hangs_up_at_once_is_an_error(socket: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(LIMIT_S), engine(socket) as asked:
            asking = asyncio.ensure_future(ask("echo", Address("http://localhost", socket), Post("/x", b"{}")))
            (await asked.get())[1].close()
            with pytest.raises(GenerationError, match="ended while it answered"):
                await asking

    asyncio.run(run())


def test_closing_hangs_up(socket: Path) -> None:
    async def run() -> None:
        async with asyncio.timeout(LIMIT_S), engine(socket) as asked:
            asking = asyncio.ensure_future(ask("echo", Address("http://localhost", socket), Post("/x", b"{}")))
            reader, writer = await asked.get()
            writer.write(CHUNKED)
            (await asking).close()
            assert await reader.read() == b"{}"
            writer.close()

    asyncio.run(run())


def test_where_nothing_listens_the_engine_is_not_running(socket: Path) -> None:
    with pytest.raises(GenerationError, match="is not running"):
        asyncio.run(ask("echo", Address("http://localhost", socket), Post("/health", None)))
