from collections.abc import Iterator

import pytest

from launcher import Message, Model, ToolCall
from launcher.testing import fake_model


def weather(location: str) -> str:
    """Return the current weather at `location`."""
    return f"21 celsius in {location}"


def ask_about_weather(model: Model, question: str) -> str:
    """Return an answer that may need a tool: the program that is tested."""
    talk: list[Message] = [{"role": "user", "content": question}]
    while (reply := model.chat(talk, tools=[weather])).tool_calls:
        talk += [reply.message, *(call.answer(weather(**call.arguments)) for call in reply.tool_calls)]
    return reply.text


@pytest.fixture
def model() -> Iterator[Model]:
    with fake_model([ToolCall("1", "weather", {"location": "Paris"}), "It is warm."]) as model:
        yield model


def test_it_asks_for_the_weather_first(model: Model) -> None:
    assert ask_about_weather(model, "Is it warm in Paris?") == "It is warm."
