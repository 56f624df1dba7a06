"""Whom the endpoint answers, over real sockets, and where it counts by clients that misbehave."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import logging
import re
import socket
import ssl
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.access_log import AccessLog
from launcher.exposure import Exposure, Limits, read_exposure
from launcher.gateway import GatewayThread, Served
from launcher.keys import key_of
from tests.fakes.certificates import make_certificate
from tests.fakes.echo import RunningEcho, running_echo

SECRET, OTHER = "sk-the-first-key-of-two-keys", "sk-the-other-key-of-two-keys"
KEYS = (key_of(SECRET, origin="a test", name="alice"), key_of(OTHER, origin="a test"))
BODY = json.dumps({"prompt": "Hi"}).encode()
LIMIT_S = 10.0

Headers = Sequence[tuple[str, str]]


class Answer(NamedTuple):
    """What the endpoint answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)["error"]
        return found


@pytest.fixture(scope="module")
def echo() -> Iterator[RunningEcho]:
    with running_echo() as echo:
        yield echo


@contextlib.contextmanager
def exposed(echo: RunningEcho, exposure: Exposure, *, slots: int = 4) -> Iterator[str]:
    gateway = GatewayThread(Served(("echo-model",), echo.address, echo.target, slots=slots), exposure)
    try:
        yield gateway.url
    finally:
        gateway.stop()


@pytest.fixture(scope="module")
def local(echo: RunningEcho) -> Iterator[str]:
    with exposed(echo, read_exposure(allowed_hosts=["host.docker.internal", "ui.example:3000"])) as url:
        yield url


@pytest.fixture(scope="module")
def keyed(echo: RunningEcho) -> Iterator[str]:
    with exposed(echo, Exposure(keys=KEYS)) as url:
        yield url


def ask(url: str, headers: Headers = (), *, path: str = "/v1/models", body: bytes | None = None) -> Answer:
    """Send one request with just these headers; Host is the endpoint's own where they have none."""
    address = urlsplit(url)
    with contextlib.closing(http.client.HTTPConnection(str(address.hostname), address.port, LIMIT_S)) as connection:
        has_host = any(name.lower() == "host" for name, _ in headers)
        connection.putrequest("GET" if body is None else "POST", path, skip_host=has_host)
        for name, value in headers:
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def connect(url: str) -> socket.socket:
    address = urlsplit(url)
    return socket.create_connection((str(address.hostname), int(address.port or 0)), LIMIT_S)


def read_all(client: socket.socket) -> bytes:
    """Return what comes until the endpoint closes the connection, which it must do."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(65536):
            received += piece
    return received


# --- keys ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        [("Authorization", f"Bearer {SECRET}")],
        [("authorization", f"bearer  {SECRET}")],
        [("Authorization", f"Bearer {OTHER}")],
        [("x-api-key", SECRET)],
        [("Authorization", "Bearer none"), ("x-api-key", SECRET)],
        [("Authorization", "Basic b3RoZXI="), ("x-api-key", SECRET)],
    ],
)
def test_each_key_is_taken_as_either_api_shows_it(keyed: str, headers: Headers) -> None:
    assert ask(keyed, headers).status == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([], "A key is needed: `Authorization: Bearer KEY`, or `x-api-key: KEY`"),
        ([("Authorization", "Bearer ")], "A key is needed"),
        ([("Authorization", f"Basic {SECRET}")], "A key is needed"),
        ([("Authorization", f"Bearer {SECRET}x")], "The key is not one of those that may ask here"),
        ([("Authorization", f"Bearer {SECRET[:-1]}")], "The key is not one of those"),
        ([("Authorization", "Bearer alice")], "The key is not one of those"),
        ([("x-api-key", "\xff")], "The key is not one of those"),
        ([("x-api-key", "")], "A key is needed"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/metrics", "/ready", "/version", "/docs", "/nothing", "/health/"])
def test_without_a_key_nothing_is_answered(keyed: str, headers: Headers, message: str, path: str) -> None:
    answer = ask(keyed, headers, path=path)
    assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert answer.error["message"].startswith(message)
    assert (answer.error["type"], answer.error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert not re.search("alice|sk-the|two|2", answer.error["message"])


def test_health_needs_no_key(keyed: str) -> None:
    assert ask(keyed, path="/health").status == 200


def test_openais_client_shows_its_key(keyed: str) -> None:
    with openai.OpenAI(base_url=keyed, api_key=SECRET, max_retries=0) as client:
        assert client.completions.create(model="echo-model", prompt="Hi").choices[0].text == "Hi"
    with (
        openai.OpenAI(base_url=keyed, api_key="wrong", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="not one of those that may ask"),
    ):
        client.models.list()


def test_without_a_key_the_body_is_not_waited_for(keyed: str) -> None:
    with connect(keyed) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 30000000\r\n\r\n{")
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")


def test_a_body_is_asked_for_only_with_a_key(keyed: str) -> None:
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(BODY)}\r\nExpect: 100-continue\r\n"
    )
    with connect(keyed) as client:
        client.sendall(f"{head}\r\n".encode())
        assert client.recv(65536).startswith(b"HTTP/1.1 401 ")
    with connect(keyed) as client:
        client.sendall(f"{head}x-api-key: {SECRET}\r\nConnection: close\r\n\r\n".encode())
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(BODY)
        assert read_all(client).startswith(b"HTTP/1.1 200 ")


def test_handlers_learn_the_name_of_the_key_and_no_more(echo: RunningEcho, tmp_path: Path) -> None:
    served = Served(("echo-model",), echo.address, echo.target, slots=4)
    log = tmp_path / "access.jsonl"
    with contextlib.closing(AccessLog(log.open("w"))) as access_log:
        gateway = GatewayThread(served, Exposure(keys=KEYS), access_log=access_log)
        for secret in (SECRET, OTHER, "sk-wrong-key-of-somebody"):
            ask(gateway.url, [("x-api-key", secret)])
        gateway.stop()
    assert [json.loads(line).get("key") for line in log.read_text().splitlines()] == ["alice", "sk-the…", None]
    assert "-key-" not in log.read_text()


# --- Host and Origin -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:1", "127.0.0.1:9000", "127.0.1.1", "[::1]:8000", "host.docker.internal:8000"],
)
def test_names_of_this_machine_and_those_allowed_are_answered(local: str, host: str) -> None:
    assert ask(local, [("Host", host)]).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "0.0.0.0:8000", "ui.example:3001"])
def test_a_name_that_a_foreign_page_may_have_given_is_refused(local: str, host: str) -> None:
    for body in (None, BODY):
        answer = ask(local, [("Host", host)], path="/v1/completions", body=body)
        assert (answer.status, answer.error["param"]) == (403, "Host")
        assert answer.error["message"] == (
            f"The header Host is `{host}`, which is not this endpoint: `--allowed-host {host}` lets it in"
        )


def test_what_is_no_host_or_two_is_refused(local: str) -> None:
    assert ask(local, [("Host", "")]).status in (400, 403)
    assert ask(local, [("Host", "localhost@evil.example")]).error["message"].endswith("no host that could be allowed")
    assert ask(local, [("Host", "localhost"), ("Host", "evil.example")]).status in (400, 403)
    with connect(local) as client:
        client.sendall(b"GET /v1/models HTTP/1.0\r\n\r\n")
        assert b"The header Host is missing" in read_all(client)


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"])))
def test_no_other_name_is_answered(local: str, host: str) -> None:
    is_own = re.fullmatch(
        r"(localhost\.*|127(\.\d{1,3}){3}\.*|\[[0:]*:0*1\]|host\.docker\.internal\.*)(:\d{1,5})?", host, re.I
    )
    assert ask(local, [("Host", host)]).status in (400, 403) or is_own


@given(st.sampled_from(["localhost", "127.0.0.1", "[::1]", "ui.example:3000"]), st.text("abc.:@#-_[]%0/", min_size=1))
def test_no_name_that_has_ours_in_it_is_answered(local: str, own: str, more: str) -> None:
    for host in (own + more, more + own):
        is_own = re.fullmatch(
            r"(localhost\.*|127(\.\d{1,3}){3}\.*|\[::1\]|host\.docker\.internal)(:\d{1,5})?|ui\.example\.*:0*3000",
            host,
        )
        assert ask(local, [("Host", host)]).status in (400, 403) or is_own


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost:8000", "http://localhost:8000", 200),
        ("localhost:8000", "HTTP://LOCALHOST:8000", 200),
        ("localhost", "http://localhost", 200),
        ("host.docker.internal", "https://host.docker.internal", 200),  # behind a proxy that speaks https
        ("localhost:8000", "http://ui.example:3000", 200),
        ("localhost:8000", "vscode-webview://host.docker.internal", 200),
        ("localhost:8000", "http://localhost:3000", 403),
        ("localhost:8000", "http://127.0.0.1:8000", 403),
        ("localhost:8000", "https://evil.example", 403),
        ("localhost:8000", "http://ui.example", 403),
        ("localhost:8000", "null", 403),
        ("localhost:8000", "file://", 403),
    ],
)
def test_pages_of_others_are_refused(local: str, host: str, origin: str, status: int) -> None:
    answer = ask(local, [("Host", host), ("Origin", origin)])
    assert answer.status == status
    assert not [name for name in answer.headers if name.startswith("access-control-")]
    if status == 403:
        assert answer.error["message"].startswith(f"The header Origin is `{origin}`, which is not this endpoint")
        assert (
            "`--allowed-host " in answer.error["message"] or "no host that could be allowed" in answer.error["message"]
        )


def test_what_is_refused_is_let_in_as_the_message_says(local: str, echo: RunningEcho) -> None:
    headers = [("Host", "gpu1:8000"), ("Origin", "http://ui.example:5173")]
    allowed: list[str] = []
    for _ in headers:
        with exposed(echo, read_exposure(allowed_hosts=allowed)) as url:
            said = re.search(r"`--allowed-host (\S+)`", ask(url, headers).error["message"])
            assert said is not None
            allowed.append(said[1])
    with exposed(echo, read_exposure(allowed_hosts=allowed)) as url:
        assert ask(url, headers).status == 200


def test_beyond_this_machine_names_are_free_unless_they_are_given(echo: RunningEcho) -> None:
    headers = [("x-api-key", SECRET), ("Host", "gpu1.example")]
    with exposed(echo, read_exposure(host="0.0.0.0", keys=KEYS)) as url:
        assert ask(url, headers).status == 200
        assert ask(url, [*headers, ("Origin", "http://gpu1.example")]).status == 200
        assert ask(url, [*headers, ("Origin", "http://evil.example")]).status == 403
    with exposed(echo, read_exposure(host="0.0.0.0", keys=KEYS, allowed_hosts=["gpu2.example"])) as url:
        assert ask(url, headers).status == 403
        assert ask(url, [headers[0], ("Host", "gpu2.example:80")]).status == 200
        assert ask(url, [("Host", "10.0.0.7:8000")], path="/health").status == 200  # as probes ask


# --- large and slow clients ------------------------------------------------------------------------------------------

SMALL = Exposure(limits=Limits(body_bytes=100, body_within_s=0.3, headers_within_s=0.3))


@pytest.fixture(scope="module")
def small(echo: RunningEcho) -> Iterator[str]:
    with exposed(echo, SMALL) as url:
        yield url


def test_a_large_body_is_refused_before_it_comes(small: str) -> None:
    with connect(small) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 101\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
    answer = ask(small, path="/v1/completions", body=b"x" * 3_000_000)
    assert (answer.status, answer.error["code"]) == (413, "request_too_large")
    assert answer.error["message"] == "The body is larger than 100 bytes"


def test_a_body_that_does_not_say_its_size_or_unpacks_is_held_to_it(small: str) -> None:
    with connect(small) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"C8\r\n" + b"x" * 200 + b"\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")
    bomb = gzip.compress(b" " * 60_000)
    assert len(bomb) <= 100
    assert ask(small, [("Content-Encoding", "gzip")], path="/v1/completions", body=bomb).status == 413


def test_a_body_that_is_broken_is_a_bad_request(small: str) -> None:
    answer = ask(small, [("Content-Encoding", "gzip")], path="/v1/completions", body=b"no gzip")
    assert (answer.status, answer.error["param"]) == (400, "body")


def test_a_body_that_comes_too_slowly_ends_the_connection(small: str) -> None:
    with connect(small) as client:
        client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 90\r\n\r\n{")
        received = read_all(client)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not come within" in received


@pytest.mark.parametrize("sent", [b"", b"GET /v1/models HTTP/1.1\r\nHost: local"])
def test_headers_that_do_not_come_end_the_connection(small: str, sent: bytes) -> None:
    with connect(small) as client:
        client.sendall(sent)
        assert read_all(client) == b""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems wait longer")
def test_a_client_that_reads_no_more_frees_the_slot(caplog: pytest.LogCaptureFixture) -> None:
    body = json.dumps({"prompt": "word " * 60_000, "stream": True}).encode()  # more than all buffers between hold
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    with (
        running_echo(context_length=200_000, slots=1) as echo,
        exposed(echo, Exposure(limits=Limits(answer_taken_within_s=0.3)), slots=1) as url,
        socket.socket() as client,
    ):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((urlsplit(url).hostname, urlsplit(url).port))
        client.sendall(head + body)
        assert client.recv(1) == b"H"
        assert ask(url, path="/v1/completions", body=BODY).status == 200
    assert not caplog.records


def test_headers_have_a_size(local: str) -> None:
    for head in (b"x: " + b"y" * 9000, b"\r\n".join(b"x%d: y" % number for number in range(200))):
        with connect(local) as client:
            client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n\r\n")
            assert read_all(client).startswith(b"HTTP/1.0 400 ")


def test_what_clients_send_wrong_is_not_logged(keyed: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        for line in (f"Authorization: Bearer {SECRET}\x01", f"Authorization Bearer {SECRET}", f"Bad Name: {SECRET}"):
            with connect(keyed) as client:
                client.sendall(f"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n{line}\r\n\r\n".encode())
                assert read_all(client).startswith(b"HTTP/1.0 400 ")
        ask(keyed, [("Authorization", f"Bearer {SECRET}x")])
    assert SECRET not in caplog.text


# --- https -----------------------------------------------------------------------------------------------------------


def test_https_with_the_users_certificate(echo: RunningEcho, tmp_path: Path) -> None:
    chain, private_key = make_certificate(tmp_path)
    exposure = read_exposure(tls_cert=chain, tls_key=private_key, allowed_hosts=["secure.example:443"])
    with exposed(echo, exposure) as url:
        assert url.startswith("https://127.0.0.1:")
        context = ssl.create_default_context(cafile=str(chain))
        address = urlsplit(url)
        with contextlib.closing(http.client.HTTPSConnection("127.0.0.1", address.port, context=context)) as client:
            client.request("POST", "/v1/completions", BODY)
            assert json.load(client.getresponse())["choices"][0]["text"] == "Hi"
            for host, status in (("secure.example", 200), ("other.example", 403)):
                client.request("GET", "/v1/models", headers={"Host": host})
                answer = client.getresponse()
                answer.read()
                assert answer.status == status
        with connect(url) as plain:
            plain.sendall(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 200 " not in read_all(plain)
