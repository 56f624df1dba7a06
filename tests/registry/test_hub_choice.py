"""Which hub is asked first: one that answers, measured once and remembered."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from registry.hub_choice import REMEMBERED_FOR_S, forget, reachable_first
from registry.spec import Source
from tests.fakes.hub import HubServer

HUGGING_FACE = Source("huggingface", "org/m")
MODELSCOPE = Source("modelscope", "org/m")
BOTH = (HUGGING_FACE, MODELSCOPE)
CLOSED = "http://127.0.0.1:9"


def memory() -> Path:
    return Path(os.environ["LAUNCH_CACHE"]) / "hubs.json"


def test_where_both_answer_the_order_stays(hub: HubServer) -> None:
    assert reachable_first(BOTH) == BOTH
    assert reachable_first(BOTH[::-1]) == BOTH[::-1]


def test_one_that_does_not_answer_comes_last(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    assert reachable_first(BOTH) == (MODELSCOPE, HUGGING_FACE)


def test_it_is_measured_once(hub: HubServer) -> None:
    reachable_first(BOTH)
    assert [request.method for request in hub.requests] == ["HEAD", "HEAD"]
    reachable_first(BOTH)
    assert len(hub.requests) == 2


def test_another_endpoint_is_another_measurement(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reachable_first(BOTH) == BOTH
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    assert reachable_first(BOTH) == (MODELSCOPE, HUGGING_FACE)


@pytest.mark.parametrize("age_s", [REMEMBERED_FOR_S + 1, -60])
def test_what_is_old_or_of_the_future_does_not_count(hub: HubServer, age_s: float) -> None:
    reachable_first(BOTH)
    kept = json.loads(memory().read_text())
    kept["measured_at"] -= age_s
    memory().write_text(json.dumps(kept))
    reachable_first(BOTH)
    assert len(hub.requests) == 4


def test_what_proved_wrong_is_forgotten(hub: HubServer) -> None:
    reachable_first(BOTH)
    forget()
    forget()
    reachable_first(BOTH)
    assert len(hub.requests) == 4


def test_no_network_at_all_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", CLOSED)
    assert reachable_first(BOTH) == BOTH
    assert not memory().exists()


@pytest.mark.parametrize("sources", [(HUGGING_FACE,), (Source("pypi", "m"), MODELSCOPE), ()])
def test_nothing_is_asked_where_there_is_no_choice(hub: HubServer, sources: tuple[Source, ...]) -> None:
    assert reachable_first(sources) == sources
    assert hub.requests == []


def test_a_proxy_on_the_way_is_used(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv("http_proxy", hub.huggingface_url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert reachable_first(BOTH) == BOTH
    assert any("hub.invalid" in request.path for request in hub.requests)
