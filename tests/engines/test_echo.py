"""The echo engine: the shape of its server, and its place among the engines."""

from __future__ import annotations

import http.client
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engines.base import Address, Engine, Settings
from engines.echo import Echo
from engines.machine import read_machine
from tests.fakes.echo import RunningEcho, running_echo

ENGINE: Engine = Echo()
TALK = [{"role": "user", "content": "one two three"}]


@pytest.fixture(scope="module")
def echo() -> Iterator[RunningEcho]:
    with running_echo(on_port=True) as running:
        yield running


def ask(echo: RunningEcho, path: str, data: object = None) -> tuple[int, dict[str, Any]]:
    parts = urlsplit(echo.address.url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    body = data if isinstance(data, bytes) else None if data is None else json.dumps(data)
    try:
        connection.request("GET" if data is None else "POST", path, body)
        answer = connection.getresponse()
        return answer.status, json.load(answer)
    finally:
        connection.close()


def test_it_is_used_only_when_named_and_opens_no_file() -> None:
    assert not ENGINE.capability.automatic
    assert ENGINE.requirements_for(read_machine()) is None
    support = ENGINE.capability.support_of("gguf")
    assert support is not None
    assert support.bits is None


def test_its_command_says_everything_that_settings_do() -> None:
    settings = Settings("m", Path("/m.gguf"), 512, 4, threads=1, batch_threads=2, arguments=("--reply", "yes"))
    command = ENGINE.command(sys.executable, settings, Address("http://localhost", Path("/e.sock")))
    assert command[:2] == (sys.executable, "-I")
    assert command[3:] == (
        *("--model", "/m.gguf", "--alias", "m", "--ctx-size", "512", "--parallel", "4"),
        *("--socket", "/e.sock", "--reply", "yes"),
    )


def test_its_last_words_are_the_cause() -> None:
    cause = ENGINE.cause_of("Traceback …\nOSError: no room\n")
    assert cause is not None
    assert cause.message == "OSError: no room"
    assert ENGINE.cause_of("") is None


def test_health_and_models_are_answered(echo: RunningEcho) -> None:
    assert ask(echo, "/health") == (200, {"status": "ok"})
    assert ask(echo, "/v1/models")[1]["data"][0]["id"] == "echo-model"


def test_an_answer_without_a_stream_is_whole(echo: RunningEcho) -> None:
    status, answer = ask(echo, "/v1/chat/completions", {"messages": TALK, "max_tokens": 2, "seed": 1})
    assert status == 200
    assert answer["choices"][0] == {
        "index": 0,
        "message": {"role": "assistant", "content": "one two"},
        "finish_reason": "length",
    }
    assert answer["usage"]["completion_tokens"] == 2


def test_the_template_and_its_tokens_are_those_of_the_chat(echo: RunningEcho) -> None:
    _, template = ask(echo, "/apply-template", {"messages": TALK})
    _, tokens = ask(echo, "/tokenize", {"content": template["prompt"], "add_special": True})
    _, answer = ask(echo, "/v1/chat/completions", {"messages": TALK})
    assert len(tokens["tokens"]) == answer["usage"]["prompt_tokens"]


def test_it_says_what_it_is_told_to() -> None:
    with running_echo("--reply", "Paris. ", on_port=True) as echo:
        _, answer = ask(echo, "/v1/completions", {"prompt": "Capital of France?"})
        assert answer["choices"][0]["text"] == "Paris. "


@pytest.mark.parametrize(
    ("path", "data", "status"),
    [
        ("/nothing", None, 404),
        ("/v1/completions", b"{", 400),
        ("/v1/completions", {}, 400),
        ("/v1/completions", {"prompt": "word " * 600}, 400),
    ],
)
def test_errors_have_the_shape_of_the_engines(echo: RunningEcho, path: str, data: object, status: int) -> None:
    answered, answer = ask(echo, path, data)
    assert (answered, answer["error"]["code"]) == (status, status)
