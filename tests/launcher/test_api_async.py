"""`alaunch` and its handle, on echo."""

from __future__ import annotations

import asyncio
import contextlib
import os

import pytest

from launcher import AsyncModel, ContextOverflowError, GenerationError, Progress, Reply, ResolutionError, alaunch, plan
from tests.fakes.scripted_engine import wait_until_gone
from tests.launcher.commands import processes_with


def ours() -> list[int]:
    return processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"])


def test_its_methods() -> None:
    async def use() -> None:
        async with alaunch("smollm2", engine="echo", context_length=64) as model:
            assert isinstance(model, AsyncModel)
            assert (await model.generate("as  given")).text == "as  given"
            assert (await model.chat("hello")).text == "hello"
            assert await model.count_tokens("hello") == 5
            async with model.chat_stream("one two") as stream:
                assert [chunk.text async for chunk in stream if chunk.text] == ["one", " two"]
            assert stream.result.text == "one two"
            assert model.base_url.startswith("http://127.0.0.1:")

    asyncio.run(use())


def test_a_batch_keeps_its_order_and_can_hold_errors() -> None:
    questions = [f"question {n}" for n in range(20)]

    async def use() -> None:
        async with alaunch(plan("smollm2", engine="echo", context_length=64)) as model:
            replies = await model.chat_batch(questions)
            assert [reply.text for reply in replies if isinstance(reply, Reply)] == questions
            with pytest.raises(ContextOverflowError):
                await model.chat_batch(["one", "x " * 100])
            one, other = await model.chat_batch(["one", "x " * 100], return_errors=True)
            assert isinstance(one, Reply)
            assert isinstance(other, ContextOverflowError)

    asyncio.run(use())


def test_many_at_once() -> None:
    async def use() -> None:
        async with alaunch("smollm2", engine="echo") as model:
            replies = await asyncio.gather(*(model.chat(f"word {n}") for n in range(40)))
            assert [reply.text for reply in replies] == [f"word {n}" for n in range(40)]

    asyncio.run(use())


def test_leaving_a_stream_frees_the_engine() -> None:
    async def use() -> None:
        async with alaunch("smollm2", engine="echo", concurrency=1, engine_args={"tokens_per_second": 50}) as model:
            async with model.generate_stream("word " * 4000) as stream:
                async for _ in stream:
                    break
            assert (await model.generate("hello", timeout_s=40)).text == "hello"  # the first would take 80 s

    asyncio.run(use())


def test_closed_it_stays_closed() -> None:
    async def use() -> None:
        async with alaunch("smollm2", engine="echo") as model:
            await model.close()
            await model.close()
            with pytest.raises(GenerationError, match="closed"):
                await model.chat("hello")

    asyncio.run(use())


def test_what_cannot_run_is_said_on_entering() -> None:
    async def use() -> None:
        with pytest.raises(ResolutionError):
            async with alaunch("mistral-instruct-v0.2", engine="vllm", model_format="gguf"):
                pass

    asyncio.run(use())


def test_a_block_left_by_an_error_ends_the_engine() -> None:
    async def use() -> None:
        async with alaunch("smollm2", engine="echo"):
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(use())
    assert wait_until_gone(ours(), 2) == []


def test_cancelled_while_it_starts_it_leaves_nothing() -> None:
    """However often it is cancelled."""
    seen: list[Progress] = []

    async def cancel() -> None:
        loop = asyncio.get_running_loop()

        def cancel_it(progress: Progress) -> None:
            seen.append(progress)
            with contextlib.suppress(RuntimeError):  # the loop may be closed by then
                loop.call_soon_threadsafe(task.cancel)

        async def use() -> None:
            async with alaunch("smollm2", engine="echo", progress=cancel_it):
                raise AssertionError("it was cancelled before")

        task = asyncio.ensure_future(use())
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert seen[0].stage == "load"
    assert wait_until_gone(ours(), 2) == []
