"""Sessions against the echo engine as a real process, sync and async."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engines.base import Address
from engines.session import AsyncSession, Session
from registry.errors import ContextOverflowError, GenerationError, InvalidRequestError
from registry.spec import GenerationDefaults
from tests.fakes.echo import RunningEcho, running_echo

TALK = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße, 世界 and 🙂 to all"}]
LONG = " ".join(["word"] * 400)


@pytest.fixture(scope="module")
def echo() -> Iterator[RunningEcho]:
    with running_echo() as running:
        yield running


@pytest.fixture
def session(echo: RunningEcho) -> Session:
    return Session(echo.address, echo.target)


# --- sync ------------------------------------------------------------------------------------------------------------


def test_chat_answers_with_usage_and_a_reason(session: Session) -> None:
    reply = session.chat(TALK, temperature=0)
    assert reply.text == "Grüße, 世界 and 🙂 to all"
    assert reply.finish_reason == "stop"
    assert reply.usage.completion_tokens == 6
    assert session.chat(TALK, temperature=0).text == reply.text


def test_generate_takes_the_prompt_as_it_stands(session: Session) -> None:
    result = session.generate("one two three", max_tokens=2)
    assert (result.text, result.finish_reason, result.usage.prompt_tokens) == ("one two", "length", 4)


def test_stop_texts_end_the_answer_and_are_not_in_it(session: Session) -> None:
    reply = session.chat("one two three four", stop=["o thr", "four"])
    assert (reply.text, reply.finish_reason) == ("one tw", "stop")


def test_a_streams_chunks_add_up_to_its_result(session: Session) -> None:
    with session.chat_stream(TALK) as stream:
        chunks = list(stream)
    assert "".join(chunk.text for chunk in chunks) == stream.result.text
    assert [chunk.finish_reason for chunk in chunks][-1] == "stop"
    assert stream.result.message == {"role": "assistant", "content": "Grüße, 世界 and 🙂 to all"}


def test_a_stream_has_no_result_before_its_end(session: Session) -> None:
    with session.generate_stream("one two") as stream, pytest.raises(GenerationError, match="not whole yet"):
        _ = stream.result


def test_requests_are_refused_before_anything_is_sent(echo: RunningEcho) -> None:
    nobody = Session(Address("http://localhost", Path("/nonexistent/e.sock")), echo.target)
    with pytest.raises(InvalidRequestError):
        nobody.chat_stream("Hi", temperature=9)
    with pytest.raises(GenerationError, match="`echo` is not running"):
        nobody.chat("Hi")


def test_a_prompt_beyond_the_context_is_refused_with_both_numbers(session: Session) -> None:
    with pytest.raises(ContextOverflowError) as raised:
        session.generate("word " * 600)
    assert (raised.value.prompt_tokens, raised.value.context_length) == (601 + 1, 512)


def test_the_context_ends_the_answer_with_length(session: Session) -> None:
    result = session.generate("word " * 300)
    assert (result.finish_reason, result.usage.total_tokens) == ("length", 512)


def test_counted_tokens_are_those_of_the_chat(session: Session) -> None:
    assert session.count_tokens(TALK) == session.chat(TALK).usage.prompt_tokens
    assert session.count_tokens("Hi") == session.chat("Hi").usage.prompt_tokens


def test_the_catalogues_defaults_are_sent() -> None:
    with running_echo(defaults=GenerationDefaults(max_tokens=2)) as echo:
        assert Session(echo.address, echo.target).chat("one two three").text == "one two"


def test_eight_threads_get_their_own_answers(session: Session) -> None:
    prompts = [f"number {number} of eight" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        assert [reply.text for reply in pool.map(session.chat, prompts)] == prompts


def test_leaving_a_stream_frees_the_slot() -> None:
    with running_echo("--tokens-per-second", "20", slots=1) as echo:
        session = Session(echo.address, echo.target)
        with session.chat_stream(LONG) as stream:
            next(stream)
        assert session.chat("free", timeout_s=10).text == "free"


def test_dropping_a_stream_frees_the_slot() -> None:
    with running_echo("--tokens-per-second", "20", slots=1) as echo:
        session = Session(echo.address, echo.target)
        for _ in session.chat_stream(LONG):
            break
        assert session.chat("free", timeout_s=10).text == "free"


def test_closing_from_another_thread_ends_the_iteration() -> None:
    with running_echo("--tokens-per-second", "0.01") as echo:
        stream = Session(echo.address, echo.target).chat_stream(LONG)
        timer = threading.Timer(0.2, stream.close)
        timer.start()
        assert list(stream) == []
        timer.join()


def test_the_time_limit_holds_for_the_whole_answer() -> None:
    with running_echo("--tokens-per-second", "20") as echo:
        session = Session(echo.address, echo.target)
        with pytest.raises(GenerationError, match=r"`echo` did not finish within 0\.3 s"):
            session.chat(LONG, timeout_s=0.3)


def test_an_engine_that_dies_breaks_the_stream() -> None:
    with running_echo("--tokens-per-second", "20") as echo:
        stream = Session(echo.address, echo.target).chat_stream(LONG)
        next(stream)
        echo.process.kill()
        with pytest.raises(GenerationError, match="`echo` ended while it answered"):
            stream.read()


def test_a_closed_session_refuses(echo: RunningEcho) -> None:
    with Session(echo.address, echo.target) as session:
        assert session.chat("Hi").text == "Hi"
    with pytest.raises(GenerationError, match="The session is closed"):
        session.chat("Hi")


def test_an_engine_on_a_port_is_spoken_to_as_well() -> None:
    async def talk(echo: RunningEcho) -> None:
        assert (await AsyncSession(echo.address, echo.target).chat("Hi")).text == "Hi"

    with running_echo(on_port=True) as echo:
        assert Session(echo.address, echo.target).chat("Hi").text == "Hi"
        asyncio.run(talk(echo))


# --- async -----------------------------------------------------------------------------------------------------------


def test_async_sessions_have_the_same_methods() -> None:
    def methods(session: type) -> set[str]:
        return {name for name in vars(session) if not name.startswith("_")}

    assert methods(Session) == methods(AsyncSession)


def test_async_answers_streams_and_counts(echo: RunningEcho) -> None:
    async def talk() -> None:
        async with AsyncSession(echo.address, echo.target) as session:
            reply = await session.chat(TALK)
            assert reply.text == "Grüße, 世界 and 🙂 to all"
            assert (await session.generate("one two", stop=" tw")).text == "one"
            assert await session.count_tokens(TALK) == reply.usage.prompt_tokens
            async with session.chat_stream(TALK) as stream:
                assert "".join([chunk.text async for chunk in stream]) == reply.text
            assert stream.result.usage == reply.usage
            with pytest.raises(ContextOverflowError):
                await session.generate("word " * 600)
        with pytest.raises(GenerationError, match="The session is closed"):
            await session.chat("Hi")

    asyncio.run(talk())


def test_async_answers_eight_at_once(echo: RunningEcho) -> None:
    async def talk() -> None:
        session = AsyncSession(echo.address, echo.target)
        prompts = [f"number {number} of eight" for number in range(8)]
        replies = await asyncio.gather(*(session.chat(prompt) for prompt in prompts))
        assert [reply.text for reply in replies] == prompts

    asyncio.run(talk())


def test_async_leaving_a_stream_or_cancelling_frees_the_slot() -> None:
    async def talk(session: AsyncSession) -> None:
        async with session.chat_stream(LONG) as stream:
            assert (await anext(stream)).text == "word"
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(session.chat(LONG), 0.2)
        assert (await session.chat("free", timeout_s=10)).text == "free"

    with running_echo("--tokens-per-second", "20", slots=1) as echo:
        asyncio.run(talk(AsyncSession(echo.address, echo.target)))


def test_async_time_limit_and_death_are_named() -> None:
    async def talk(echo: RunningEcho) -> None:
        session = AsyncSession(echo.address, echo.target)
        with pytest.raises(GenerationError, match="did not finish within"):
            await session.chat(LONG, timeout_s=0.3)
        async with session.chat_stream(LONG) as stream:
            await anext(stream)
            echo.process.kill()
            with pytest.raises(GenerationError, match="ended while it answered"):
                await stream.read()
        with pytest.raises(GenerationError, match=r"is not running|ended while"):
            await session.chat("Hi")

    with running_echo("--tokens-per-second", "20") as echo:
        asyncio.run(talk(echo))
