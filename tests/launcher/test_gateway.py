"""The endpoint in front of the echo engine, spoken to by OpenAI's own client and by bare HTTP."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam

from launcher.exposure import Exposure
from launcher.gateway import GatewayThread
from registry.errors import LaunchError, PortInUseError
from tests.fakes.echo import running_echo
from tests.fakes.gateway import ask, client_of, gateway_to, served_by

TALK: list[ChatCompletionMessageParam] = [
    {"role": "developer", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Grüße, 世界 "}, {"type": "text", "text": "and 🙂"}]},
]
CHAT = "/v1/chat/completions"
SLOW = ("--tokens-per-second", "20")
LONG = " ".join(["word"] * 400)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_echo() as echo, gateway_to(served_by(echo)) as url:
        yield url


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    with client_of(url) as client:
        yield client


def post(url: str, data: object) -> tuple[int, dict[str, Any], Mapping[str, str]]:
    """Return status, answer and headers."""
    answer = ask(url, data)
    return answer.status, answer.json, answer.headers


# --- what OpenAI's client gets ---------------------------------------------------------------------------------------


def test_models_are_listed_and_found_by_any_name(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["echo-model"]
    assert client.models.retrieve("ACME/echo-model-gguf").id == "echo-model"


def test_chat_is_answered_whole(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="echo-model", messages=TALK, user="me")
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Grüße, 世界 and 🙂", "stop")
    assert answer.model == "echo-model"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 4


def test_an_answer_goes_back_as_a_message(client: OpenAI) -> None:
    message = client.chat.completions.create(model="echo", messages=TALK).choices[0].message
    talk: list[Any] = [*TALK, message, {"role": "user", "content": "again"}]
    assert client.chat.completions.create(model="echo", messages=talk).choices[0].message.content == "again"


@pytest.mark.parametrize("wants_usage", [False, True])
def test_chat_is_streamed_with_usage_only_on_demand(client: OpenAI, wants_usage: bool) -> None:
    stream = client.chat.completions.create(
        model="echo", messages=TALK, stream=True, stream_options={"include_usage": wants_usage}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "Grüße, 世界 and 🙂"
    assert any(chunk.usage for chunk in chunks) is wants_usage
    assert all(chunk.choices for chunk in chunks) is not wants_usage


def test_completions_are_answered_and_streamed(client: OpenAI) -> None:
    answer = client.completions.create(model="echo", prompt=["one two three"], max_tokens=2)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("one two", "length")
    stream = client.completions.create(model="echo", prompt="one two three", stop="three", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "one two "


def test_a_bare_request_with_a_repo_id_is_answered(url: str) -> None:
    status, answer, _ = post(
        f"{url}/completions",
        {"model": "acme/echo-model-gguf", "prompt": "My favourite condiment is", "max_tokens": 25},
    )
    assert (status, answer["choices"][0]["text"]) == (200, "My favourite condiment is")


def test_where_there_is_one_model_its_name_may_be_left_out(url: str) -> None:
    assert post(f"{url}/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]})[0] == 200


def test_what_changes_nothing_is_taken_and_named(url: str) -> None:
    data = {"prompt": "Hi", "user": "me", "metadata": {}, "n": 1, "frequency_penalty": 0.0, "seed": None}
    status, _, headers = post(f"{url}/completions", data)
    assert (status, headers["x-ignored-parameters"]) == (200, "metadata, user")


# --- what is refused -------------------------------------------------------------------------------------------------


def test_an_unknown_model_is_not_found_and_those_served_are_named(client: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="There is no model `gpt-9` here; served: `echo-model`") as raised:
        client.chat.completions.create(model="gpt-9", messages=TALK)
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("data", "param", "message"),
    [
        (
            {"temprature": 0},
            "temprature",
            "There is no parameter `temprature` for `/v1/chat/completions`; did you mean `temperature`?",
        ),
        ({"timeout_s": 1}, "timeout_s", "There is no parameter `timeout_s`"),
        ({"temperature": 3}, "temperature", "`temperature` must be a number from 0 to 2, not `3`"),
        ({"n": 2}, "n", "`n` is not supported: only `1` is taken"),
        ({"tools": [{}]}, "tools.0", "`tools.0` must have the type `function`, and a `function` with a name"),
        ({"tool_choice": "none", "tools": "x"}, "tools", "`tools` must be a list of functions"),
        ({"response_format": {"type": "xml"}}, "response_format", "`response_format` must have the type `text`"),
        ({"top_logprobs": 2}, "top_logprobs", "`top_logprobs` needs `logprobs` to be true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "`top_logprobs` must be a whole number from 0 to 20"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "`reasoning_effort` may only be `none`"),
        ({"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs", "`chat_template_kwargs` may only have"),
        ({"stream": "yes"}, "stream", "`stream` must be true or false, not `'yes'`"),
        ({"stream_options": {"x": 1}}, "stream_options", "`stream_options` may only have `include_usage`"),
        (
            {"max_completion_tokens": 0},
            "max_completion_tokens",
            "`max_completion_tokens` must be a whole number of at least 1, not `0`",
        ),
        ({"messages": []}, "messages", "There must be a message, or a text that is not empty"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(url: str, data: dict[str, object], param: str, message: str) -> None:
    status, answer, _ = post(f"{url}/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], **data})
    assert status == 400
    assert answer["error"]["message"].startswith(message)
    assert (answer["error"]["param"], answer["error"]["type"]) == (param, "invalid_request_error")


@pytest.mark.parametrize("prompt", ["", ["a", "b"], None, 1])
def test_a_prompt_that_is_not_one_text_is_refused(url: str, prompt: object) -> None:
    status, answer, _ = post(f"{url}/completions", {"prompt": prompt})
    assert (status, answer["error"]["param"]) == (400, "prompt")


def test_a_body_that_is_no_object_is_refused(url: str) -> None:
    assert post(f"{url}/completions", b"{")[1]["error"]["message"].startswith("The body is not JSON")
    assert post(f"{url}/completions", [])[0] == 400


def test_the_context_is_named_when_it_is_too_short(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="The prompt has 602 tokens, the context 512") as raised:
        client.completions.create(model="echo", prompt="word " * 600, stream=True)
    assert raised.value.code == "context_length_exceeded"


def test_paths_and_methods_that_there_are_not_have_the_same_shape(url: str) -> None:
    assert post(f"{url}/images", {})[1]["error"]["message"] == "Not Found: `POST /v1/images`"
    assert post(f"{url}/models", {})[0] == 405


# --- when somebody leaves --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_client_that_leaves_frees_the_slot(is_stream: bool) -> None:
    with running_echo(*SLOW, slots=1) as echo, gateway_to(served_by(echo)) as url:
        host, port = url.removeprefix("http://").removesuffix("/v1").split(":")
        body = json.dumps({"prompt": LONG, "stream": is_stream}).encode()
        with socket.create_connection((host, int(port))) as leaver:
            leaver.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            leaver.settimeout(0.3)
            with contextlib.suppress(TimeoutError):
                leaver.recv(1)
        with client_of(url) as client:
            assert client.completions.create(model="echo", prompt="free").choices[0].text == "free"


def test_an_engine_that_dies_ends_the_stream_with_an_error() -> None:
    with (
        running_echo(*SLOW) as echo,
        gateway_to(served_by(echo)) as url,
        client_of(url) as client,
    ):
        stream = client.completions.create(model="echo", prompt=LONG, stream=True)
        next(stream)
        echo.process.kill()
        with pytest.raises(openai.APIError, match="`echo` ended while it answered"):
            list(stream)
        with pytest.raises(openai.InternalServerError) as raised:
            client.completions.create(model="echo", prompt="Hi")
        assert raised.value.status_code == 502


def test_the_endpoints_health_is_its_own_and_ready_tells_of_the_engine() -> None:
    with running_echo() as echo, gateway_to(served_by(echo)) as url:
        health, ready = (url.removesuffix("v1") + path for path in ("health", "ready"))
        assert (ask(health).json, ask(ready).status) == ({"status": "ok"}, 200)
        echo.process.kill()
        echo.process.wait()
        assert ask(health).status == 200
        answer = ask(ready)
        assert (answer.status, answer.json["models"]) == (503, {"echo-model": "not answering"})


# --- serving ---------------------------------------------------------------------------------------------------------


def test_a_port_in_use_is_named() -> None:
    with running_echo() as echo, socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError, match=f"Port {port} of 127.0.0.1 is in use") as raised:
            GatewayThread(served_by(echo), Exposure(port=port))
        assert raised.value.hint == "--port 0"
        with pytest.raises(LaunchError, match=r"Nothing can listen on port 0 of `192\.0\.2\.1`"):
            GatewayThread(served_by(echo), Exposure(host="192.0.2.1"))


def test_a_gateway_stops_once_and_for_all() -> None:
    with running_echo() as echo:
        gateway = GatewayThread(served_by(echo))
        gateway.stop()
        gateway.stop()
        with pytest.raises(urllib.error.URLError):
            urllib.request.urlopen(gateway.url + "/models")


FOREGROUND = """
import sys
from pathlib import Path
from engines.base import Address, Wire
from engines.generation import Target
from launcher.exposure import Exposure
from launcher.gateway import FixedFleet, Served, run_gateway
from launcher.servers import Origin
served = Served(("m",), Address("http://localhost", Path(sys.argv[1])), Target("m", "echo", Wire(), 512), slots=1)
tell = lambda url: print(url, flush=True)
print(repr(run_gateway(FixedFleet(served), Exposure(), origin=Origin("m"), on_ready=tell)))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_a_signal_ends_it_in_order(number: signal.Signals) -> None:
    with running_echo() as echo:
        command = [sys.executable, "-c", FOREGROUND, str(echo.address.socket)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            assert post(f"{url}/completions", {"prompt": "Hi"})[1]["choices"][0]["text"] == "Hi"
            process.send_signal(number)
            rest = process.stdout.read()
        assert (process.returncode, rest.strip()) == (0, repr(number))


# --- more than text for text -----------------------------------------------------------------------------------------

SCHEMA = {"type": "object", "properties": {"boat": {"const": "Nyx"}}, "required": ["boat"]}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"place": {"const": "Paris"}}, "required": ["place"]},
    },
}


def test_a_schema_log_probabilities_and_vectors_reach_clients(client: OpenAI) -> None:
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "boat", "schema": SCHEMA}}
    answer = client.chat.completions.create(
        model="echo", messages=TALK, response_format=wanted, logprobs=True, top_logprobs=1
    )
    choice = answer.choices[0]
    assert json.loads(choice.message.content or "") == {"boat": "Nyx"}
    assert choice.logprobs is not None
    assert [each.token for each in choice.logprobs.content or ()] == ['{"boat":', ' "Nyx"}']
    old = client.completions.create(model="echo", prompt="one two", logprobs=1).choices[0].logprobs
    assert old is not None
    assert (old.tokens, old.text_offset) == (["one", " two"], [0, 3])


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_of_a_tool_reaches_clients_whole_and_streamed(client: OpenAI, choice: Any) -> None:
    asked: Any = {"model": "echo", "messages": TALK, "tools": [WEATHER], "tool_choice": choice}
    answer = client.chat.completions.create(**asked).choices[0]
    assert answer.finish_reason == "tool_calls"
    calls: Any = answer.message.tool_calls
    assert [(each.function.name, json.loads(each.function.arguments)) for each in calls] == [
        ("weather", {"place": "Paris"})
    ]
    chunks = list(client.chat.completions.create(**asked, stream=True))
    streamed: list[Any] = [each for chunk in chunks for each in chunk.choices[0].delta.tool_calls or ()]
    assert [each.function.name for each in streamed] == ["weather"]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_vectors_are_refused_where_the_model_makes_none(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="has not the ability `embed`"):
        client.embeddings.create(model="echo", input=["a boat"])


def test_what_a_model_can_do_is_listed(client: OpenAI) -> None:
    listed = client.models.retrieve("echo").model_dump()
    assert (listed["owned_by"], listed["context_length"], listed["abilities"]) == ("echo", 512, ["chat"])
    assert {"tools", "json_schema"} < set(listed["features"])
    assert "infill" not in listed["features"]
    assert listed["concurrency"] == 4


def test_tokens_are_counted_as_vllms_server_does(url: str, client: OpenAI) -> None:
    tokenize = url.removesuffix("/v1") + "/tokenize"
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "one two"}]
    status, counted, _ = post(tokenize, {"model": "echo", "messages": talk})
    answer: Any = client.chat.completions.create(model="echo", messages=talk)  # type: ignore[arg-type]
    assert (status, counted["count"], counted["max_model_len"]) == (200, answer.usage.prompt_tokens, 512)
    assert len(post(tokenize, {"prompt": "one two"})[1]["tokens"]) == 2
    assert post(tokenize, {"prompt": 1})[1]["error"]["param"] == "prompt"


def test_too_long_a_prompt_is_told_with_both_numbers(url: str) -> None:
    _, answer, _ = post(f"{url}/completions", {"prompt": "word " * 600})
    assert (answer["error"]["n_prompt_tokens"], answer["error"]["n_ctx"]) == (602, 512)
    _, answer, _ = post(f"{url}/completions", {"prompt": "word", "max_tokens": 600})
    assert "n_ctx" not in answer["error"]
