"""Clients that may not ask, or misbehave, with a launch as a whole: refused or let go, and no key is written down."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from launcher.exposure import Exposure, Limits
from launcher.gateway import GatewayThread, Served
from tests.fakes.echo import running_echo
from tests.launcher.aftermath import (
    ECHO,
    LIMIT_S,
    SLOWLY,
    STORY,
    Aftermath,
    Asking,
    asking,
    launched,
    line_of,
    metric,
    needs_proc,
    serving,
    wait_for_metric,
)
from tests.launcher.commands import Run
from tests.launcher.commands import launch as launch_program
from tests.weights.built import BuiltWeights

pytestmark = pytest.mark.processes

FAULT = 17
KEY = "sk-of-somebody-who-may-ask-here"
WRONG = "sk-of-somebody-who-may-not-ask"


def status_of(url: str, headers: dict[str, str], *, body: str | None = None) -> int:
    address = urlsplit(url)
    connection = http.client.HTTPConnection(str(address.hostname), address.port, LIMIT_S)
    try:
        connection.request("GET" if body is None else "POST", f"{address.path}/models", body, headers)
        return connection.getresponse().status
    finally:
        connection.close()


def connect(url: str, sent: str) -> socket.socket:
    """Return a connection over which this much of a request was sent."""
    address = urlsplit(url)
    client = socket.create_connection((str(address.hostname), int(address.port or 0)), LIMIT_S)
    client.sendall(sent.encode())
    return client


# --- who may ask -----------------------------------------------------------------------------------------------------


@needs_proc
def test_a_key_is_asked_for_and_written_nowhere(
    aftermath: Aftermath, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("LAUNCH_API_KEY", KEY)
        log = tmp_path / "access.jsonl"
        done = launch_program(*ECHO, "--detach", "--port", "0", "--access-log", str(log), "-v")
    assert done.code == 0, done.err
    (shown,) = run("ps", "--json").json
    statuses = [status_of(shown["url"], headers) for headers in ({}, bearer(WRONG), bearer(KEY), {"x-api-key": KEY})]
    assert statuses == [401, 401, 200, 200]
    written = [
        run(*words) for words in (("ps",), ("ps", "--json"), ("logs", "smollm2"), ("logs", "smollm2", "--server"))
    ]
    said = [done.out + done.err, *(each.out + each.err for each in written), *map(line_of, launched())]
    run("stop", "--all")
    files = [path.read_text(errors="replace") for path in tmp_path.rglob("*") if path.is_file()]
    noted = [json.loads(line).get("key") for line in log.read_text().splitlines()]
    assert noted == [None, None, f"{KEY[:6]}…", f"{KEY[:6]}…"]
    assert not [text for text in (*said, *files) if KEY in text or WRONG in text]
    for tried in ("no key", "a wrong key"):
        aftermath.note(FAULT, "launch NAME --detach", tried, "401; the body is not waited for")
    where = "command lines, `launch ps`, logs, the access log, records, any file of the cache"
    aftermath.note(
        FAULT, "launch NAME --detach", f"looked for the key in {where}", "its first letters alone, where it asked"
    )


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_requests_of_foreign_pages(aftermath: Aftermath) -> None:
    with serving(*ECHO) as server:
        foreign = ({"Host": "evil.example"}, {"Origin": "https://evil.example"}, {"Origin": "null"})
        assert [status_of(server.url, headers) for headers in foreign] == [403, 403, 403]
        assert status_of(server.url, {}) == 200
    aftermath.note(
        FAULT, "the endpoint", "a foreign Host; a foreign Origin; Origin null", "403, naming `--allowed-host`"
    )


# --- too much and too slow -------------------------------------------------------------------------------------------


def test_a_huge_body(aftermath: Aftermath) -> None:
    with serving(*ECHO) as server:
        before = metric(server.url, "launch_resident_memory_bytes", part="endpoint")
        huge = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10000000000\r\n\r\n"
        with connect(server.url, huge) as client:
            assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with connect(server.url, head) as client:
            assert pour(client).startswith(b"HTTP/1.1 413 ")
        grown = metric(server.url, "launch_resident_memory_bytes", part="endpoint") - before
        assert grown < 3 * Limits().body_bytes
        assert status_of(server.url, {}) == 200
    for tried in ("a body of 10 GB, as it says", "a body without end, which does not say its size"):
        aftermath.note(FAULT, "the endpoint", tried, "413; the connection is closed")


def pour(client: socket.socket) -> bytes:
    """Send chunks until the endpoint has enough, and return what it says."""
    chunk = b"100000\r\n" + b" " * 0x100000 + b"\r\n"
    try:
        for _ in range(1000):
            client.sendall(chunk)
    except OSError:
        pass
    try:
        return client.recv(65536)
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("sent", "what", "status"),
    [
        ("GET /v1/models HTTP/1.1\r\nHost: local", "headers that do not end", (b"", b"408")),
        (
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n{",
            "a body that does not end",
            (b"408",),
        ),
    ],
)
def test_a_client_that_is_slow(aftermath: Aftermath, sent: str, what: str, status: tuple[bytes, ...]) -> None:
    limits = Limits(body_within_s=0.3, headers_within_s=0.3)
    with running_echo() as echo:
        gateway = GatewayThread(Served(("m",), echo.address, echo.target, slots=4), Exposure(limits=limits))
        try:
            with connect(gateway.url, sent) as client:
                assert client.recv(65536)[9:12] in status
                assert client.recv(65536) == b""
        finally:
            gateway.stop()
    aftermath.note(FAULT, "the endpoint", what, "the connection is closed after the time that there is for it")


def test_a_client_that_reads_no_more(aftermath: Aftermath) -> None:
    """The limit of the time is set here; what is sent is more than all buffers between hold."""
    limits = Limits(answer_taken_within_s=0.3)
    with running_echo(context_length=200_000, slots=1) as echo:
        gateway = GatewayThread(Served(("m",), echo.address, echo.target, slots=1), Exposure(limits=limits))
        try:
            stuck = Asking(gateway.url, "word " * 60_000)
            stuck.wait_for_text()
            heard = Asking(gateway.url, "one two").rest()
            stuck.leave()
        finally:
            gateway.stop()
    assert heard.text == "one two"
    happened = "its slot is free for the next request after the time that there is for it"
    aftermath.note(FAULT, "the endpoint", "a client that reads no more", happened, lost=heard.is_lost)


# --- gone ------------------------------------------------------------------------------------------------------------


def test_clients_that_leave_in_the_middle(aftermath: Aftermath) -> None:
    with serving(*ECHO, "--concurrency", "1", *SLOWLY) as server:
        for is_stream in (True, False):
            leaving = Asking(server.url, STORY, stream=is_stream)
            wait_for_metric(server.url, "launch_requests_running", 1)
            leaving.leave()
            heard = Asking(server.url, "one two").rest()
            assert (heard.text, heard.is_whole) == ("one two", True)
        assert metric(server.url, "launch_requests_total", status="499") == 2
    happened = "the engine stops; its slot is free for the next request"
    aftermath.note(FAULT, "the endpoint", "the client leaves in the middle, of a stream or not", happened)


def test_clients_that_leave_while_they_wait(aftermath: Aftermath) -> None:
    with serving(*ECHO, "--concurrency", "1", *SLOWLY) as server:
        (first,) = asking(server.url, 1)
        waiting = [Asking(server.url, STORY) for _ in range(5)]
        wait_for_metric(server.url, "launch_requests_waiting", 5)
        for each in waiting:
            each.leave()
        wait_for_metric(server.url, "launch_requests_waiting", 0)
        first.leave()
        heard = Asking(server.url, "one two").rest()
        assert (heard.text, heard.is_whole) == ("one two", True)
    aftermath.note(
        FAULT, "the endpoint", "five clients leave the queue", "never asked of the engine; the next is answered"
    )


@pytest.mark.engine
@pytest.mark.index
def test_llama_cpp_stops_when_its_client_has_left(aftermath: Aftermath, built_weights: BuiltWeights) -> None:
    """With one slot, the next would wait for thousands of tokens otherwise."""
    weights = str(built_weights.smollm2_gguf)
    with serving(weights, "--engine", "llama.cpp", "--concurrency", "1", "--context-length", "8192") as server:
        for _ in range(3):
            leaving = Asking(server.url, "A long story:", max_tokens=8000)
            leaving.wait_for_text()
            leaving.leave()
        heard = Asking(server.url, "Hello", max_tokens=2).rest()
        assert (heard.is_whole, heard.error) == (True, None)
        server.process.terminate()
        assert server.end()[0] == 0
    happened = "the engine stops; its slot is free for the next request"
    aftermath.note(FAULT, "llama.cpp", "three clients leave in the middle of 8,000 tokens", happened)
