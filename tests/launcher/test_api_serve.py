"""`launcher.serve`: an endpoint of the user's own program, on echo."""

from __future__ import annotations

import asyncio
import os
import socket

import openai
import pytest

from launcher import AuthenticationError, ExposureError, PortInUseError, aconnect, connect, serve
from tests.fakes.scripted_engine import wait_until_gone
from tests.launcher.commands import processes_with


def ours() -> list[int]:
    return processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"])


def test_it_answers_while_the_block_lasts() -> None:
    async def use() -> str:
        async with serve("smollm2", engine="echo", port=0) as endpoint:
            assert endpoint.url.startswith("http://127.0.0.1:")
            assert (await endpoint.model.chat("hello")).text == "hello"
            async with openai.AsyncOpenAI(base_url=endpoint.url, api_key="none", max_retries=0) as client:
                reply = await client.completions.create(model="smollm2-instruct", prompt="one two")
                assert reply.choices[0].text == "one two"
            async with aconnect(endpoint.url) as model:
                replies = await asyncio.gather(*(model.chat(f"word {n}") for n in range(12)))
                assert [reply.text for reply in replies] == [f"word {n}" for n in range(12)]
            return endpoint.url

    url = asyncio.run(use())
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(url.removesuffix("/v1").rpartition(":")[2]))) != 0
    assert wait_until_gone(ours(), 2) == []


def test_it_wants_its_keys() -> None:
    async def use() -> None:
        async with serve("smollm2", engine="echo", port=0, api_keys=["right", "also-right"]) as endpoint:
            with pytest.raises(AuthenticationError):
                await asyncio.to_thread(connect, endpoint.url)
            async with aconnect(endpoint.url, api_key="also-right") as model:
                assert (await model.chat("hello")).text == "hello"

    asyncio.run(use())


def test_what_cannot_be_is_said_before_anything_starts() -> None:
    async def use(port: int) -> None:
        with pytest.raises(PortInUseError):
            async with serve("smollm2", engine="echo", port=port):
                raise AssertionError("the port is taken")

    with pytest.raises(ExposureError):
        serve("smollm2", engine="echo", host="0.0.0.0")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        asyncio.run(use(taken.getsockname()[1]))
    assert ours() == []


def test_a_block_left_by_an_error_ends_both() -> None:
    async def use() -> None:
        async with serve("smollm2", engine="echo", port=0):
            raise LookupError

    with pytest.raises(LookupError):
        asyncio.run(use())
    assert wait_until_gone(ours(), 2) == []
