"""`launcher.testing.fake_model`: what a user's tests get of it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any

import pytest

from launcher import (
    ContextOverflowError,
    GenerationError,
    Model,
    ToolCall,
    UnsupportedParameterError,
    aconnect,
    connect,
)
from launcher.testing import fake_model
from tests.launcher.commands import processes_with


@dataclass
class City:
    name: str
    inhabitants: int


def weather(location: str) -> str:
    """Return the current weather at `location`."""
    return f"21 celsius in {location}"


def capital(model: Model, country: str) -> str:
    """Return what a user's own program would: the thing under test."""
    return model.chat(f"The capital of {country}?", max_tokens=5).text


def test_replies_are_given_in_turn() -> None:
    with fake_model(["Paris", "Madrid, of course"]) as model:
        assert (capital(model, "France"), capital(model, "Spain")) == ("Paris", "Madrid, of course")
        with pytest.raises(GenerationError, match="all 2 replies have been given"):
            capital(model, "Portugal")


def test_replies_are_found_by_what_is_asked() -> None:
    with fake_model({"The capital of France?": "Paris", "def f(": "x"}) as model:
        assert [capital(model, "France") for _ in range(2)] == ["Paris", "Paris"]
        assert model.generate("def f(").text == "x"
        with pytest.raises(GenerationError, match=r"there is no reply to `The capital of Spain\?`"):
            capital(model, "Spain")


def test_without_replies_it_repeats() -> None:
    with fake_model() as model:
        reply = model.chat([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two"}])
        assert (reply.text, reply.finish_reason, reply.usage.completion_tokens) == ("one two", "stop", 2)
        assert model.count_tokens("one two") == 6
        assert model.chat("Paris?", json_schema=City).parsed == City("echo", 1)
        assert model.chat("Weather?", tools=[weather], tool_choice="required").tool_calls[0].name == "weather"
        assert model.embed(["one"]) == model.embed(["one"])
        assert model.infill("before", " after").text == "before after"
        with pytest.raises(UnsupportedParameterError, match="does not reason"):
            model.chat("one", reasoning="on")


def test_no_replies_are_none() -> None:
    with fake_model([]) as model, pytest.raises(GenerationError, match="all 0 replies"):
        model.chat("hello")


def test_a_text_is_no_list_of_replies() -> None:
    with pytest.raises(TypeError, match=r"replies=\['Paris'\]"):
        fake_model("Paris")


def test_replies_are_streamed_cut_and_stopped_as_answers_are() -> None:
    with fake_model(["one two three"] * 3) as model:
        with model.chat_stream("count") as stream:
            assert [chunk.text for chunk in stream if chunk.text] == ["one", " two", " three"]
        cut = model.chat("count", max_tokens=2)
        assert (cut.text, cut.finish_reason) == ("one two", "length")
        assert model.chat("count", stop=" three").text == "one two"


def test_replies_can_be_json_and_wrong_json() -> None:
    with fake_model(['{"name": "Paris", "inhabitants": 2}', "Paris"]) as model:
        assert model.chat("Paris?", json_schema=City).parsed == City("Paris", 2)
        with pytest.raises(GenerationError, match="does not satisfy the schema"):
            model.chat("Paris?", json_schema=City)


def test_replies_can_be_calls_of_tools() -> None:
    calls = [ToolCall("a", "weather", {"location": "Paris"}), ToolCall("b", "weather", {"location": "Rome"})]
    with fake_model([calls[0], calls, "It is warm"]) as model:
        talk: list[Any] = [{"role": "user", "content": "Weather?"}]
        first = model.chat(talk, tools=[weather])
        assert (first.tool_calls, first.finish_reason) == ((calls[0],), "tool_calls")
        talk += [first.message, first.tool_calls[0].answer(weather(**first.tool_calls[0].arguments))]
        assert model.chat(talk, tools=[weather]).tool_calls == tuple(calls)
        assert model.chat(talk, tools=[weather]).text == "It is warm"


def test_it_thinks_before_it_answers() -> None:
    with fake_model(["Paris"], reasoning="let me see") as model:
        reply = model.chat("France?")
        assert (reply.text, reply.reasoning, reply.usage.reasoning_tokens) == ("Paris", "let me see", 3)


def test_its_name_context_and_speed() -> None:
    with fake_model(name="my-model", context_length=16, tokens_per_s=20) as model:
        assert (model.name, model.context_length, model.plan.engine) == ("my-model", 16, "echo")
        with pytest.raises(ContextOverflowError):
            model.chat("word " * 20)
        assert model.plan.command[-2:] == ("--tokens-per-second", "20")


def test_others_reach_it_by_its_address() -> None:
    async def use(url: str) -> str:
        async with aconnect(url) as model:
            return (await model.chat("Spain?")).text

    with fake_model(["Paris", "Madrid"]) as model:
        assert connect(model.base_url).chat("France?").text == "Paris"
        assert asyncio.run(use(model.base_url)) == "Madrid"


def test_two_have_nothing_to_do_with_each_other() -> None:
    with fake_model(["one"]) as one, fake_model(["two"]) as two:
        assert (two.chat("hello").text, one.chat("hello").text) == ("two", "one")


def test_it_needs_no_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_REGISTRY", "/nonexistent/broken.yaml")
    with fake_model(["Paris"]) as model:
        assert model.chat("France?").text == "Paris"


def test_its_block_leaves_nothing() -> None:
    with fake_model() as model:
        model.chat("hello")
        assert processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"]) or not os.path.isdir("/proc")
    assert processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"]) == []
