"""OpenAI's own client, sync and async, as its documentation uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from launcher import LaunchedModel

TALK: list[Any] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two three"}]


class City(BaseModel):
    name: str
    inhabitants: int


@pytest.fixture
def client(model: LaunchedModel) -> Iterator[OpenAI]:
    with OpenAI(base_url=model.base_url, api_key=model.api_key) as client:
        yield client


def test_it_finds_the_model_and_talks(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["fake-model"]
    reply = client.chat.completions.create(model="fake-model", messages=TALK, max_completion_tokens=2, store=False)
    assert (reply.choices[0].message.content, reply.choices[0].finish_reason) == ("one two", "length")
    assert reply.usage is not None
    assert (reply.usage.completion_tokens, reply.usage.total_tokens - reply.usage.prompt_tokens) == (2, 2)


def test_it_streams(client: OpenAI) -> None:
    with client.chat.completions.stream(model="fake-model", messages=TALK) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    assert deltas == ["one", " two", " three"]
    assert stream.get_final_completion().choices[0].finish_reason == "stop"
    pieces = client.completions.create(model="fake-model", prompt="one two", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == "one two"


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_it_gets_vectors(client: OpenAI, model: LaunchedModel, encoding: Any) -> None:
    given = client.embeddings.create(model="fake-model", input=["one", "two"])
    assert [each.embedding for each in given.data] == [pytest.approx(vector) for vector in model.embed(["one", "two"])]
    assert given.usage.prompt_tokens == 4
    raw: Any = client.embeddings.create(model="fake-model", input="one", encoding_format=encoding)
    assert isinstance(raw.data[0].embedding, str if encoding == "base64" else list)


def test_it_parses_answers_and_reads_calls(client: OpenAI) -> None:
    parsed = client.chat.completions.parse(model="fake-model", messages=TALK, response_format=City)
    assert parsed.choices[0].message.parsed == City(name="echo", inhabitants=1)
    tool: Any = openai.pydantic_function_tool(City)
    called = client.chat.completions.parse(model="fake-model", messages=TALK, tools=[tool], tool_choice="required")
    calls = called.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.parsed_arguments == City(name="echo", inhabitants=1)


def test_its_errors_are_those_that_its_documentation_names(client: OpenAI) -> None:
    patient = client.with_options(max_retries=0)
    with pytest.raises(openai.NotFoundError) as missing:
        patient.chat.completions.create(model="gpt-9", messages=TALK)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as wrong:
        patient.chat.completions.create(model="fake-model", messages=TALK, temperature=9)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        patient.completions.create(model="fake-model", prompt="word " * 9000)
    assert long.value.code == "context_length_exceeded"


def test_the_async_client_talks_streams_embeds_and_fails(model: LaunchedModel) -> None:
    async def use() -> None:
        async with AsyncOpenAI(base_url=model.base_url, api_key=model.api_key) as client:
            questions = [f"question {n}" for n in range(16)]
            replies = await asyncio.gather(
                *(
                    client.chat.completions.create(model="fake-model", messages=[{"role": "user", "content": question}])
                    for question in questions
                )
            )
            assert [reply.choices[0].message.content for reply in replies] == questions
            stream = await client.chat.completions.create(model="fake-model", messages=TALK, stream=True)
            pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
            assert "".join(pieces) == "one two three"
            vectors = await client.embeddings.create(model="fake-model", input="one")
            assert vectors.data[0].embedding == pytest.approx(model.embed(["one"])[0])
            with pytest.raises(openai.NotFoundError):
                await client.chat.completions.create(model="gpt-9", messages=TALK)

    asyncio.run(use())
