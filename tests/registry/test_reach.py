"""Whether a server answers: what stands between is said in plain words, not in those of a client's internals."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from urllib3.exceptions import NameResolutionError

from registry.reach import ask
from registry.trouble import in_words
from tests.fakes.answering import answering
from tests.fakes.echo import free_port


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def silent() -> Iterator[int]:
    """Return a port where connections are taken, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def details(url: str) -> list[str]:
    reached = ask(url, {}, title="The hub", hint="check the network", timeout_s=0.1)
    assert reached.status is None
    assert reached.trouble is not None
    assert reached.trouble.message == "The hub is out of reach"
    return list(reached.trouble.details)


def test_a_status_is_an_answer() -> None:
    with answering(404) as url:
        assert ask(url, {}, title="The hub", hint="", timeout_s=5)[:2] == (404, None)


def test_nobody_listens() -> None:
    assert details(f"http://127.0.0.1:{free_port()}") == ["127.0.0.1: Connection refused"]


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_nothing_is_said(silent: int, scheme: str) -> None:
    assert details(f"{scheme}://127.0.0.1:{silent}") == ["127.0.0.1: it did not answer in time"]


def test_a_name_that_has_no_address() -> None:
    """Looking a real name up would leave this machine."""
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    said = NameResolutionError("hub.example", None, unknown)  # type: ignore[arg-type]
    said.__cause__ = unknown
    assert in_words(said) == "no address is known for this name (Name or service not known)"


def test_what_has_no_cause_says_itself() -> None:
    assert in_words(ValueError("odd")) == "odd"
    assert in_words(ValueError()) == "ValueError"
