"""Anthropic's own client, against an engine whose server speaks its language."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from launcher import LaunchedModel
from launcher.gateway import Served
from tests.fakes.gateway import gateway_to
from tests.fakes.messages_engine import NAME, running_messages_engine

pytestmark = pytest.mark.clients

ASKED: Any = {"model": NAME, "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}]}


@pytest.fixture
def url() -> Iterator[str]:
    """Return what ANTHROPIC_BASE_URL would be: without `/v1`."""
    with (
        running_messages_engine() as (_, address, target),
        gateway_to(Served((NAME,), address, target, slots=4)) as url,
    ):
        yield url.removesuffix("/v1")


def test_it_talks_streams_and_counts(url: str) -> None:
    from anthropic import Anthropic

    with Anthropic(base_url=url, api_key="none", max_retries=0) as client:
        reply = client.messages.create(**ASKED)
        assert (reply.content[0].text, reply.stop_reason, reply.usage.output_tokens) == ("one two", "end_turn", 2)
        with client.messages.stream(**ASKED) as stream:
            assert list(stream.text_stream) == ["one", "two"]
        assert stream.get_final_message().stop_reason == "end_turn"
        counted = client.messages.count_tokens(model=NAME, messages=ASKED["messages"])
        assert counted.input_tokens == 2


def test_the_async_client_streams(url: str) -> None:
    from anthropic import AsyncAnthropic

    async def use() -> None:
        async with (
            AsyncAnthropic(base_url=url, api_key="none", max_retries=0) as client,
            client.messages.stream(**ASKED) as stream,
        ):
            assert [text async for text in stream.text_stream] == ["one", "two"]

    asyncio.run(use())


def test_its_errors_say_what_is_wrong(url: str, model: LaunchedModel) -> None:
    from anthropic import Anthropic, APIStatusError, NotFoundError

    with (
        Anthropic(base_url=url, api_key="none", max_retries=0) as client,
        pytest.raises(NotFoundError, match="There is no model `claude` here; served: `word-model`"),
    ):
        client.messages.create(**{**ASKED, "model": "claude"})
    with Anthropic(base_url=model.base_url.removesuffix("/v1"), api_key="none", max_retries=0) as client:
        with pytest.raises(APIStatusError, match="`echo` has no `/v1/messages` of its own") as refused:
            client.messages.create(**{**ASKED, "model": model.name})
        assert refused.value.status_code == 501
