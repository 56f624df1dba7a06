"""What the endpoint tells of itself, what it hands on as it is, how many it lets wait, what it notes of requests."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from engines.base import Address, Wire
from engines.generation import Target
from launcher.access_log import AccessLog, open_access_log
from launcher.exposure import Exposure
from launcher.gateway import GatewayThread, Served
from launcher.gateway.parameters import PARAMETERS
from launcher.keys import key_of
from tests.fakes.echo import running_echo
from tests.fakes.gateway import LIMIT_S, ask, client_of, gateway_to, served_by
from tests.fakes.messages_engine import NAME, MessagesEngine, running_messages_engine

LONG = " ".join(["word"] * 400)
SLOW = ("--tokens-per-second", "20")


class Lines(io.StringIO):
    """An access log in memory; `wait` returns its objects once there are so many."""

    def wait(self, count: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + LIMIT_S
        while len(lines := self.getvalue().splitlines()) < count:
            assert time.monotonic() < deadline, lines
            time.sleep(0.01)
        return [json.loads(line) for line in lines]


def root_of(url: str) -> str:
    return url.removesuffix("/v1")


def measured(url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Return the metrics by name and labels."""
    text = ask(root_of(url) + "/metrics").body.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def one(measures: dict[tuple[str, frozenset[tuple[str, str]]], float], name: str, **labels: str) -> float:
    return measures[name, frozenset(labels.items())]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_echo() as echo, gateway_to(served_by(echo)) as url:
        yield url


@pytest.fixture
def words() -> Iterator[tuple[MessagesEngine, str, Lines]]:
    log = Lines()
    with running_messages_engine() as (engine, address, target):
        served = Served((NAME, "short"), address, target, slots=2)
        with gateway_to(served, AccessLog(log)) as url:
            yield engine, url, log


# --- about the endpoint ----------------------------------------------------------------------------------------------


def test_it_is_ready_while_every_engine_answers() -> None:
    with running_echo() as echo, gateway_to(served_by(echo)) as url:
        assert ask(root_of(url) + "/ready").json == {"status": "ready", "models": {"echo-model": "ready"}}
        echo.process.kill()
        echo.process.wait()
        answer = ask(root_of(url) + "/ready")
        assert (answer.status, answer.json) == (503, {"status": "not ready", "models": {"echo-model": "not answering"}})


def test_versions_are_ours_and_the_engines(url: str) -> None:
    assert ask(root_of(url) + "/version").json == {
        "version": version("model-launcher"),
        "models": {"echo-model": {"engine": "echo", "version": "1.0"}},
    }


class Page(HTMLParser):
    """The text of a page, and what it would fetch."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.fetched: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.fetched += [tag for name, _ in attrs if name in ("src", "href")] + ([tag] if tag == "script" else [])

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_names_all_that_there_is_and_fetches_nothing(url: str) -> None:
    answer = ask(root_of(url) + "/docs")
    page = Page(answer.body.decode())
    assert answer.headers["Content-Type"].startswith("text/html")
    assert page.fetched == []
    assert {parameter.name for parameter in PARAMETERS} <= set(page.texts)
    assert {"/v1/chat/completions", "/v1/messages", "/metrics", "acme/Echo-Model-GGUF"} <= set(page.texts)
    assert any(f"curl {url}/chat/completions" in text and '"model": "echo-model"' in text for text in page.texts)


# --- counted ---------------------------------------------------------------------------------------------------------


def test_requests_tokens_and_times_are_counted() -> None:
    with running_echo() as echo, gateway_to(served_by(echo)) as url, client_of(url) as client:
        client.completions.create(model="echo", prompt="one two three")
        list(client.completions.create(model="echo", prompt="one two three", stream=True))
        ask(f"{url}/completions", {"prompt": 1})
        ask(f"{url}/nowhere/{'x' * 50}")
        measures = measured(url)
    completions = {"route": "/v1/completions", "model": "echo-model"}
    assert one(measures, "launch_requests_total", **completions, status="200") == 2
    assert one(measures, "launch_requests_total", **completions, status="400") == 1
    assert one(measures, "launch_requests_total", route="other", model="", status="404") == 1
    assert one(measures, "launch_prompt_tokens_total", model="echo-model") == 2 * 4
    assert one(measures, "launch_completion_tokens_total", model="echo-model") == 2 * 3
    assert one(measures, "launch_time_to_first_token_seconds_count", model="echo-model") == 2
    assert one(measures, "launch_request_duration_seconds_count", **completions) == 3
    assert one(measures, "launch_requests_running", model="echo-model") == 0
    assert one(measures, "launch_engine_up", model="echo-model") == 1
    if Path("/proc/self/statm").exists():
        assert one(measures, "launch_resident_memory_bytes", part="engine", model="echo-model") > 1e6
        assert one(measures, "launch_resident_memory_bytes", part="endpoint", model="") > 1e6


def test_the_engines_own_metrics_have_the_models_name(words: tuple[MessagesEngine, str, Lines]) -> None:
    _, url, _ = words
    ask(f"{url}/messages/count_tokens", {"messages": [{"role": "user", "content": "one two"}]})
    assert one(measured(url), "words:asked_total", model=NAME) == 1


# --- handed on -------------------------------------------------------------------------------------------------------


def test_a_message_is_handed_on_and_noted(words: tuple[MessagesEngine, str, Lines]) -> None:
    engine, url, log = words
    data = {"model": "SHORT", "max_tokens": 9, "messages": [{"role": "user", "content": "one two"}], "odd": 1}
    answer = ask(f"{url}/messages", data)
    assert answer.json["content"] == [{"type": "text", "text": "one two"}]
    assert engine.asked == [{**data, "model": NAME}]
    noted = log.wait(1)[0]
    assert (noted["model"], noted["prompt_tokens"], noted["completion_tokens"]) == (NAME, 3, 2)
    assert (noted["finish_reason"], noted["stream"]) == ("end_turn", False)


def test_a_streamed_message_passes_untouched(words: tuple[MessagesEngine, str, Lines]) -> None:
    _, url, log = words
    data = {"stream": True, "messages": [{"role": "user", "content": "one two three"}]}
    answer = ask(f"{url}/messages", data)
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.body.startswith(b"event: message_start\n")
    assert answer.body.endswith(b'event: message_stop\ndata: {"type": "message_stop"}\n\n')
    noted = log.wait(1)[0]
    assert (noted["prompt_tokens"], noted["completion_tokens"], noted["finish_reason"]) == (3, 3, "end_turn")
    assert noted["first_token_ms"] <= noted["total_ms"]


def test_openais_client_gets_responses(words: tuple[MessagesEngine, str, Lines]) -> None:
    _, url, log = words
    with client_of(url) as client:
        events: list[Any] = list(client.responses.create(model="short", input="one two", stream=True))
    assert [event.delta for event in events[:-1]] == ["one", "two"]
    assert events[-1].response.usage.output_tokens == 2
    assert (log.wait(1)[0]["prompt_tokens"], log.wait(1)[0]["completion_tokens"]) == (2, 2)


def test_an_engines_refusal_of_a_message_has_anthropics_shape(words: tuple[MessagesEngine, str, Lines]) -> None:
    _, url, _ = words
    answer = ask(f"{url}/messages", {"model": NAME}, {"X-Request-Id": "mine"})
    assert answer.status == 400
    assert answer.json == {
        "type": "error",
        "error": {
            "type": "invalid_request_error",
            "message": "`words` refused the request: 'messages' is required",
        },
        "request_id": "mine",
    }
    assert ask(f"{url}/messages", {"model": "other"}).json["error"]["type"] == "not_found_error"


def test_what_an_engine_does_not_serve_is_refused_with_those_that_do(url: str) -> None:
    with client_of(url) as client, pytest.raises(openai.InternalServerError) as raised:
        client.responses.create(model="echo", input="Hi")
    assert raised.value.status_code == 501
    assert "`echo` has no `/v1/responses` of its own" in str(raised.value)
    body: Any = raised.value.body
    assert body["hint"] == "`llama.cpp` or `vllm` can: `--engine`"
    answer = ask(f"{url}/messages", {"model": "echo"})
    assert (answer.status, answer.json["type"], answer.json["error"]["type"]) == (501, "error", "not_supported_error")
    assert answer.headers["x-should-retry"] == "false"


def test_an_answer_that_nobody_understands_is_an_error_of_ours(
    words: tuple[MessagesEngine, str, Lines], caplog: pytest.LogCaptureFixture
) -> None:
    _, url, log = words
    answer = ask(f"{url}/embeddings", {"input": "Hi"}, {"X-Request-Id": "mine"})
    assert (answer.status, answer.json["error"]["code"]) == (500, "internal_error")
    assert answer.json["error"]["request_id"] == "mine"
    assert (log.wait(1)[0]["status"], log.wait(1)[0]["error"]) == (500, "error")
    assert "request mine" in caplog.text


# --- waiting ---------------------------------------------------------------------------------------------------------


def start_stream(url: str, prompt: str = LONG) -> socket.socket:
    """Begin a stream and do not read it; closing the socket leaves."""
    host, port = root_of(url).removeprefix("http://").split(":")
    body = json.dumps({"prompt": prompt, "stream": True}).encode()
    asking = socket.create_connection((host, int(port)), timeout=LIMIT_S)
    asking.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    return asking


def wait_for(url: str, **wanted: int) -> None:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        measures = measured(url)
        if all(one(measures, f"launch_requests_{name}", model="echo-model") == n for name, n in wanted.items()):
            return
        time.sleep(0.02)
    raise AssertionError(wanted)


def test_so_many_wait_and_no_more() -> None:
    with (
        running_echo(*SLOW, slots=1) as echo,
        gateway_to(served_by(echo, slots=1, max_queue=1)) as url,
        contextlib.closing(start_stream(url)) as runs,
    ):
        assert runs.recv(1)
        with contextlib.closing(start_stream(url)):
            wait_for(url, running=1, waiting=1)
            answer = ask(f"{url}/completions", {"prompt": "Hi"})
            assert answer.status == 429
            assert int(answer.headers["Retry-After"]) >= 1
            error = answer.json["error"]
            assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
            assert error["message"] == "`echo-model` answers 1 requests and 1 wait: no more may"
        wait_for(url, running=1, waiting=0)  # who waited has left, and is forgotten
        with contextlib.closing(start_stream(url, "next")) as waits:
            wait_for(url, running=1, waiting=1)
            runs.close()
            assert b"200 OK" in waits.recv(1000)


def test_who_waits_is_answered_in_turn() -> None:
    with running_echo(slots=2) as echo, gateway_to(served_by(echo, slots=2)) as url, client_of(url) as client:
        said: list[str] = []

        def complete(number: int) -> None:
            said.append(client.completions.create(model="echo", prompt=f"number {number}").choices[0].text)

        threads = [threading.Thread(target=complete, args=(number,)) for number in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(said) == sorted(f"number {number}" for number in range(12))


# --- request ids -----------------------------------------------------------------------------------------------------


def test_a_request_id_is_taken_over_if_it_is_harmless(url: str) -> None:
    for route, data in (("/models", None), ("/completions", {"prompt": "Hi"}), ("/nowhere", None)):
        assert ask(url + route, data, {"X-Request-Id": "abc-1.2:x"}).headers["X-Request-Id"] == "abc-1.2:x"
    for harmful in ("a b", "x" * 129, '"', "<", ""):
        made = ask(f"{url}/models", None, {"X-Request-Id": harmful}).headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", made)


def test_an_error_says_its_request_id(url: str) -> None:
    answer = ask(f"{url}/completions", {"prompt": 1}, {"X-Request-Id": "mine"})
    assert answer.json["error"]["request_id"] == "mine"
    with client_of(url) as client, pytest.raises(openai.NotFoundError) as raised:
        client.completions.create(model="gpt-9", prompt="Hi", extra_headers={"X-Request-Id": "theirs"})
    assert raised.value.request_id == "theirs"


def test_an_overflow_has_both_numbers(url: str) -> None:
    error = ask(f"{url}/completions", {"prompt": "word " * 600}).json["error"]
    assert (error["n_prompt_tokens"], error["n_ctx"]) == (602, 512)


# --- the access log --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_line_tells_of_a_request_and_never_its_text(is_stream: bool) -> None:
    log = Lines()
    with running_echo() as echo, gateway_to(served_by(echo), AccessLog(log)) as url:
        headers = {"X-Request-Id": "mine", "Authorization": "Bearer sesame"}
        data = {"model": "echo", "prompt": "open now", "stream": is_stream, "max_tokens": 1}
        assert ask(f"{url}/completions", data, headers).status == 200
        line = log.wait(1)[0]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    times = [line.pop(name) for name in ("queued_ms", "first_token_ms", "total_ms")]
    assert times == sorted(times)
    assert line == {
        "request_id": "mine",
        "client": "127.0.0.1",
        "route": "/v1/completions",
        "model": "echo-model",
        "status": 200,
        "stream": is_stream,
        "prompt_tokens": 3,
        "completion_tokens": 1,
        "finish_reason": "length",
    }
    assert "open" not in log.getvalue()
    assert "sesame" not in log.getvalue()


def test_a_line_has_the_keys_name_and_not_the_key() -> None:
    log = Lines()
    exposure = Exposure(keys=(key_of("open-sesame-please", origin="the test", name="ci"),))
    with running_echo() as echo:
        gateway = GatewayThread(served_by(echo), exposure, access_log=AccessLog(log))
        ask(f"{gateway.url}/models", None, {"Authorization": "Bearer open-sesame-please"})
        ask(f"{gateway.url}/models", None, {"Authorization": "Bearer something-else"})
        gateway.stop()
    named, unknown = log.wait(2)
    assert (named["key"], named["status"]) == ("ci", 200)
    assert (unknown["status"], unknown["error"]) == (401, "authentication")
    assert "key" not in unknown
    assert "sesame" not in log.getvalue()


def test_a_line_tells_why_there_was_no_answer() -> None:
    log = Lines()
    with running_echo(*SLOW) as echo, gateway_to(served_by(echo), AccessLog(log)) as url:
        ask(f"{url}/completions", {"prompt": 1})
        ask(f"{url}/nowhere")
        with contextlib.closing(start_stream(url)) as leaver:
            assert leaver.recv(1)
        lines = log.wait(3)
        assert [(line["status"], line["error"]) for line in lines] == [
            (400, "invalid_request"),
            (404, "http_404"),
            (499, "client_left"),
        ]
        with contextlib.closing(start_stream(url)) as broken:
            assert broken.recv(1)
            echo.process.kill()
            line = log.wait(4)[3]
        assert (line["status"], line["error"], line["model"]) == (200, "engine_ended", "echo-model")


class NeverHangsUp(socketserver.StreamRequestHandler):
    """An engine that has said all, and keeps the connection."""

    def handle(self) -> None:
        while self.rfile.readline() != b"\r\n":
            pass
        events = b'data: {"choices": [{"text": "Hi", "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        self.wfile.write(head + b"%x\r\n%b\r\n" % (len(events), events))
        while self.rfile.read1():
            pass


def test_a_client_that_leaves_at_the_last_event_has_its_answer(tmp_path: Path) -> None:
    log, path = Lines(), tmp_path / "e.sock"
    target = Target("m", "echo", Wire(), 512)
    with socketserver.ThreadingUnixStreamServer(str(path), NeverHangsUp) as engine:
        thread = threading.Thread(target=engine.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served = Served(("m",), Address("http://localhost", path), target, slots=1)
        with gateway_to(served, AccessLog(log)) as url, contextlib.closing(start_stream(url, "Hi")) as client:
            received = b""
            while b"[DONE]" not in received:
                received += client.recv(4096)
            client.close()
            (line,) = log.wait(1)
        engine.shutdown()
        thread.join()
    assert (line["status"], line.get("error")) == (200, None)


def test_the_log_goes_to_a_file_for_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    path.write_text('{"older": 1}\n')
    log = open_access_log(str(path))
    assert log is not None
    with running_echo() as echo, gateway_to(served_by(echo), log) as url:
        ask(f"{url}/models")
        ask(f"{url}/models/echo")
    log.close()
    routes = [json.loads(line).get("route") for line in path.read_text().splitlines()]
    assert routes == [None, "/v1/models", "/v1/models/{name}"]
    assert open_access_log("off") is None
    new = open_access_log(str(tmp_path / "new.jsonl"))
    assert new is not None
    new.close()
    assert (tmp_path / "new.jsonl").stat().st_mode & 0o777 == 0o600
