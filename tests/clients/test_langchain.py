"""LangChain's ChatOpenAI and OpenAIEmbeddings, told where the endpoint is and nothing else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from pydantic import BaseModel

from launcher import LaunchedModel, ToolCall
from launcher.testing import fake_model

pytestmark = pytest.mark.clients


class City(BaseModel):
    """A city."""

    name: str
    inhabitants: int


def weather(location: str) -> str:
    """Return the current weather at `location`."""
    return f"21 celsius in {location}"


def chat_of(model: LaunchedModel) -> Any:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model=model.name, base_url=model.base_url, api_key=model.api_key)


def test_it_talks_and_streams(model: LaunchedModel) -> None:
    chat = chat_of(model)
    reply = chat.invoke([("system", "Be brief."), ("human", "one two three")])
    assert reply.content == "one two three"
    assert reply.usage_metadata["output_tokens"] == 3
    assert [chunk.content for chunk in chat.stream("one two") if chunk.content] == ["one", " two"]
    assert [each.content for each in chat.batch(["one", "two"])] == ["one", "two"]


def test_it_talks_and_streams_asynchronously(model: LaunchedModel) -> None:
    async def use() -> None:
        chat = chat_of(model)
        assert (await chat.ainvoke("one two")).content == "one two"
        assert "".join([chunk.content async for chunk in chat.astream("one two")]) == "one two"

    asyncio.run(use())


def test_it_gets_objects(model: LaunchedModel) -> None:
    assert chat_of(model).with_structured_output(City).invoke("Paris?") == City(name="echo", inhabitants=1)


def test_it_has_tools_called_and_tells_what_they_returned() -> None:
    with fake_model([ToolCall("a", "weather", {"location": "Paris"}), "It is warm"]) as model:
        chat = chat_of(model).bind_tools([weather])
        talk: list[Any] = [("human", "Weather in Paris?")]
        reply = chat.invoke(talk)
        assert [(call["name"], call["args"]) for call in reply.tool_calls] == [("weather", {"location": "Paris"})]
        talk += [reply, {"role": "tool", "content": weather("Paris"), "tool_call_id": reply.tool_calls[0]["id"]}]
        assert chat.invoke(talk).content == "It is warm"


def test_it_gets_vectors(model: LaunchedModel) -> None:
    from langchain_openai import OpenAIEmbeddings

    # Otherwise it sends the numbers of OpenAI's own tokens instead of the texts.
    vectors = OpenAIEmbeddings(
        model=model.name, base_url=model.base_url, api_key=model.api_key, check_embedding_ctx_length=False
    )
    assert vectors.embed_documents(["one", "two"]) == [pytest.approx(each) for each in model.embed(["one", "two"])]
