"""The tests that every engine passes behind the endpoint: mix it into a subclass of `EngineConformance`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import pytest

from engines.base import RESPONSES
from engines.conformance import QUESTION, SLOTS, SMALL_CONTEXT, WORDS, Running
from launcher.gateway import GatewayThread, Served


class GatewayConformance:
    """What OpenAI's own client gets is what the session gets."""

    @pytest.fixture
    def client(self, running: Running) -> Iterator[openai.OpenAI]:
        gateway = GatewayThread(Served((running.target.name,), running.address, running.target, slots=SLOTS))
        with openai.OpenAI(base_url=gateway.url, api_key="none", max_retries=0) as client:
            yield client
        gateway.stop()

    def test_the_endpoint_answers_as_the_session_does(self, running: Running, client: openai.OpenAI) -> None:
        name = running.target.name
        reply = running.session.chat(QUESTION, temperature=0, max_tokens=12)
        answer = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_tokens=12
        )
        assert answer.choices[0].message.content == reply.text
        assert answer.choices[0].finish_reason == reply.finish_reason
        assert answer.usage is not None
        assert answer.usage.total_tokens == reply.usage.total_tokens
        text = client.completions.create(model=name, prompt=WORDS, temperature=0, max_tokens=8).choices[0].text
        assert text == running.session.generate(WORDS, temperature=0, max_tokens=8).text

    def test_the_endpoint_streams_to_many(self, running: Running, client: openai.OpenAI) -> None:
        def stream(_: int) -> str:
            chunks = client.completions.create(
                model=running.target.name, prompt=WORDS, temperature=0, max_tokens=8, stream=True
            )
            return "".join(chunk.choices[0].text for chunk in chunks)

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(stream, range(6)))

    def test_the_endpoint_refuses_what_is_too_long(self, running: Running, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model=running.target.name, prompt="word " * 2 * SMALL_CONTEXT)
        assert caught.value.code == "context_length_exceeded"

    def test_the_endpoint_hands_on_what_the_server_has_itself(self, running: Running, client: openai.OpenAI) -> None:
        if "chat" not in running.target.abilities:
            pytest.skip("the model does not chat")
        if RESPONSES not in running.target.wire.routes:
            with pytest.raises(openai.InternalServerError) as caught:
                client.responses.create(model=running.target.name, input=QUESTION)
            assert caught.value.status_code == 501
            return
        assert client.responses.create(model=running.target.name, input=QUESTION, max_output_tokens=16).output
        asked = {"model": running.target.name, "messages": [{"role": "user", "content": QUESTION}], "max_tokens": 8}
        message: Any = client.post("/messages", body=asked, cast_to=object)
        assert (message["type"], message["role"]) == ("message", "assistant")
        assert message["usage"]["output_tokens"] > 0
        count: Any = client.post("/messages/count_tokens", body=asked, cast_to=object)
        assert count["input_tokens"] > 0
