"""The table of parameters: all of OpenAI's are in it, and each is treated as it says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from openai.types import completion_create_params as completions
from openai.types import embedding_create_params as embeddings
from openai.types.chat import completion_create_params as chat

from launcher.gateway.parameters import PARAMETERS, PATHS, Parameter, Route, parameters_of
from tests.fakes.echo import running_echo
from tests.fakes.gateway import ask, gateway_to, served_by

OPENAIS: Mapping[Route, Any] = {
    "chat": chat.CompletionCreateParamsBase,
    "completions": completions.CompletionCreateParamsBase,
    "embeddings": embeddings.EmbeddingCreateParams,
}
SUBJECTS: Mapping[Route, Mapping[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "completions": {"prompt": "Hi"},
    "embeddings": {"input": "Hi"},
}
BOTH = [(route, each) for each in PARAMETERS for route in each.routes]


@pytest.fixture(scope="module")
def root() -> Iterator[str]:
    with running_echo(abilities=frozenset({"chat", "embed"})) as echo, gateway_to(served_by(echo)) as url:
        yield url.removesuffix("/v1")


@pytest.mark.parametrize("route", OPENAIS)
def test_every_parameter_of_openais_is_sorted(route: Route) -> None:
    known = parameters_of(route)
    assert set(OPENAIS[route].__annotations__) - known.keys() == set()
    assert all(each.instead in known for each in known.values() if each.instead is not None)


def test_no_parameter_is_there_twice() -> None:
    pairs = [(route, each.name) for route, each in BOTH]
    assert len(pairs) == len(set(pairs))


def of(treatment: str) -> list[Any]:
    return [pytest.param(*pair, id=f"{pair[0]}-{pair[1].name}") for pair in BOTH if pair[1].treatment == treatment]


@pytest.mark.parametrize(("route", "parameter"), of("ignored"))
def test_what_is_ignored_is_named(root: str, route: Route, parameter: Parameter) -> None:
    answer = ask(root + PATHS[route], {**SUBJECTS[route], parameter.name: "x"})
    assert (answer.status, answer.headers["x-ignored-parameters"]) == (200, parameter.name)


@pytest.mark.parametrize(("route", "parameter"), of("neutral"))
def test_what_is_neutral_has_one_value(root: str, route: Route, parameter: Parameter) -> None:
    assert ask(root + PATHS[route], {**SUBJECTS[route], parameter.name: parameter.neutral}).status == 200
    answer = ask(root + PATHS[route], {**SUBJECTS[route], parameter.name: "x"})
    assert (answer.status, answer.json["error"]["param"]) == (400, parameter.name)
    assert answer.json["error"]["code"] == "unsupported_parameter"


@pytest.mark.parametrize(("route", "parameter"), of("refused"))
def test_what_is_refused_says_what_to_use(root: str, route: Route, parameter: Parameter) -> None:
    error = ask(root + PATHS[route], {**SUBJECTS[route], parameter.name: "x"}).json["error"]
    assert (error["param"], error["code"]) == (parameter.name, "unsupported_parameter")
    assert parameter.meaning in error["message"]
    assert (f"`{parameter.instead}`" in error.get("hint", "")) is (parameter.instead is not None)


def test_an_image_is_refused_by_its_name(root: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    talk = [{"role": "user", "content": [{"type": "text", "text": "What is this?"}, image]}]
    error = ask(root + PATHS["chat"], {"messages": talk}).json["error"]
    assert error["param"] == "messages.0.content.1"
    assert (
        error["message"] == "`messages.0.content.1` must be of type `text`, not `image_url`: the model reads text only"
    )


def test_both_names_of_the_limit_are_honoured(root: str) -> None:
    talk = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": "one two three"}]
    for name in ("max_tokens", "max_completion_tokens"):
        choice = ask(root + PATHS["chat"], {"messages": talk, name: 2}).json["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("one two", "length")
