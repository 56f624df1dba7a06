"""Tools and schemas: how functions and classes are described, and what the model says of them is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

import pytest
from pydantic import BaseModel

from engines.structured import parse_answer, read_schema
from engines.tools import ToolCall, call_schema, parse_call, parse_written_call, read_choice, read_tools
from registry.errors import GenerationError, InvalidRequestError


def weather(location: str, unit: str = "celsius") -> str:
    """Return the weather at `location`."""
    return f"21 {unit} in {location}"


@dataclass
class City:
    name: str
    inhabitants: int


class Harbour(BaseModel):
    city: City


class Boat(TypedDict):
    name: str


def test_a_function_is_described_by_its_signature_and_docstring() -> None:
    (tool,) = read_tools([weather])
    function = tool["function"]
    assert (tool["type"], function["name"]) == ("function", "weather")
    assert function["description"] == "Return the weather at `location`."
    assert function["parameters"]["required"] == ["location"]
    assert read_tools([tool]) == [tool]


def test_a_named_tool_is_the_only_one_and_required() -> None:
    tools = read_tools([weather, read_tools])
    assert read_choice("auto", tools) == ("auto", tools)
    assert read_choice("weather", tools) == ("required", tools[:1])
    assert read_choice({"type": "function", "function": {"name": "weather"}}, tools) == ("required", tools[:1])
    with pytest.raises(InvalidRequestError, match=r"must be one of `auto`, .*`weather`.*, not `tide`"):
        read_choice("tide", tools)


@pytest.mark.parametrize("tools", ["weather", [1], [{"type": "function"}], [{"function": {"name": "a"}}]])
def test_what_is_no_tool_is_refused(tools: Any) -> None:
    with pytest.raises(InvalidRequestError):
        read_tools(tools)


def test_a_call_is_read_and_answered() -> None:
    call = parse_call("e", "1", "weather", '{"location": "Paris"}')
    assert weather(**call.arguments) == "21 celsius in Paris"
    assert call.answer({"degrees": 21}) == {"role": "tool", "tool_call_id": "1", "content": '{"degrees": 21}'}
    with pytest.raises(GenerationError, match="its arguments are not whole"):
        parse_call("e", "1", "weather", '{"location": "Pa')


def test_a_call_written_as_json_is_one_of_the_tools() -> None:
    schema = call_schema(read_tools([weather]))
    assert schema["anyOf"][0]["properties"]["name"] == {"const": "weather"}
    call = parse_written_call("e", '{"name": "weather", "arguments": {"location": "Paris"}}')
    assert (call.name, call.arguments) == ("weather", {"location": "Paris"})
    with pytest.raises(GenerationError, match="not whole"):
        parse_written_call("e", '{"name": "weather", "arg')


def test_calls_are_described_as_they_came() -> None:
    call = ToolCall("1", "weather", {"location": "Köln"})
    assert call.described()["function"] == {"name": "weather", "arguments": '{"location": "Köln"}'}


def test_classes_become_closed_schemas_and_answers_instances() -> None:
    schema = read_schema(Harbour)
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["City"]["additionalProperties"] is False
    answer = parse_answer(Harbour, '{"city": {"name": "Köln", "inhabitants": 1000000}}', is_whole=True)
    assert answer == Harbour(city=City("Köln", 1_000_000))
    assert parse_answer(City, '{"name": "Bonn", "inhabitants": 3}', is_whole=True) == City("Bonn", 3)
    assert read_schema(Boat)["required"] == ["name"]
    assert parse_answer(Boat, '{"name": "Nyx"}', is_whole=True) == {"name": "Nyx"}
    assert parse_answer({"type": "array"}, "[1]", is_whole=True) == [1]


@pytest.mark.parametrize("source", ["object", 1, {"type": {1}}, type("Strange", (), {})])
def test_what_is_no_schema_is_refused(source: Any) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        read_schema(source)
    assert raised.value.parameter == "json_schema"


def test_an_answer_that_is_cut_or_wrong_says_so() -> None:
    with pytest.raises(GenerationError, match="not whole JSON") as raised:
        parse_answer(City, '{"name": "Bo', is_whole=False)
    assert raised.value.details == ('{"name": "Bo',)
    with pytest.raises(GenerationError, match="does not satisfy the schema"):
        parse_answer(City, '{"name": 1}', is_whole=True)
