"""From which hub a plan's files come, and what is said where it is not the first."""

from __future__ import annotations

import pytest

from launcher import GatedRepoError, OfflineError, Progress, plan, pull
from registry.errors import NotOnHubError
from tests.fakes.hub import Fault, HubServer
from tests.fakes.published import FILE, NAME, REPO, WEIGHTS, publish
from tests.launcher.commands import Run

CLOSED = "http://127.0.0.1:9"

pytestmark = pytest.mark.usefixtures("published")


@pytest.fixture
def huggingface_closed(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)


def routes(hub: HubServer) -> set[str]:
    """Return whose protocols were spoken."""
    paths = [request.path for request in hub.requests if request.method == "GET" and request.origin == "hub"]
    return {"modelscope" if path.startswith("/api/v1/") else "huggingface" for path in paths}


def test_the_catalogues_order_is_kept_where_both_answer(run: Run, hub: HubServer) -> None:
    assert run("pull", NAME).code == 0
    assert routes(hub) == {"huggingface"}


@pytest.mark.usefixtures("huggingface_closed")
def test_a_hub_out_of_reach_is_not_asked(run: Run, hub: HubServer) -> None:
    done = run("pull", NAME)
    assert done.code == 0
    assert "  fetch     ModelScope; only the hub can tell" in done.err
    assert "out of reach" not in done.err
    assert routes(hub) == {"modelscope"}


def test_the_users_order(run: Run, hub: HubServer) -> None:
    assert run("pull", NAME, "--hub", "modelscope,hf").code == 0
    assert routes(hub) == {"modelscope"}
    assert plan(NAME, hub="hf,ms").hub == "modelscope"  # where the files are


@pytest.mark.usefixtures("huggingface_closed")
def test_the_users_order_is_not_measured_but_falls_back(run: Run, hub: HubServer) -> None:
    done = run("pull", NAME, "--hub", "huggingface,modelscope", "--json")
    fallbacks = [event for event in done.events if event["event"] == "fallback"]
    assert done.code == 0
    assert [event["message"] for event in fallbacks] == ["Hugging Face is out of reach; trying ModelScope"]
    assert all(request.method != "HEAD" for request in hub.requests)


def test_a_word_on_stderr_says_why(run: Run, hub: HubServer) -> None:
    hub.breaks(FILE, Fault("status", times=1, status=404))
    done = run("pull", NAME)
    assert done.code == 0
    assert f"  Hugging Face has no file `{FILE}` in `{REPO}`; trying ModelScope\n" in done.err
    assert done.out.strip().endswith(FILE)


def test_wrong_bytes_are_looked_for_elsewhere(hub: HubServer) -> None:
    told: list[Progress] = []
    hub.flip_byte(FILE)
    with pytest.raises(Exception, match="vouched for"):
        pull(NAME, progress=told.append)
    assert [progress.text.endswith("; trying ModelScope") for progress in told if progress.stage == "fallback"] == [
        True
    ]


def test_one_hub_that_was_named_is_the_only_one(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    with pytest.raises(OfflineError, match="Hugging Face is out of reach"):
        pull(NAME, hub="huggingface")
    assert hub.requests == []


def test_where_both_fail_the_first_error_tells_of_the_other(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # ModelScope's client waits between its tries
    publish(hub, gated=True)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", CLOSED)
    with pytest.raises(GatedRepoError) as caught:
        pull(NAME)
    assert "ModelScope is out of reach" in caught.value.details


def test_a_revision_must_be_on_the_other_hub_too(hub: HubServer) -> None:
    with pytest.raises(NotOnHubError, match="Hugging Face has no revision `v9`"):
        pull(NAME, revision="v9")


def test_what_is_on_either_hubs_shelf_is_used(hub: HubServer) -> None:
    pull(NAME, hub="modelscope")
    hub.requests.clear()
    chosen = plan(NAME)
    assert (chosen.hub, chosen.download_bytes) == ("modelscope", 0)
    assert pull(NAME).read_bytes() == WEIGHTS[FILE]
    assert pull(NAME, offline=True, hub="huggingface,modelscope").exists()
    assert hub.requests == []


def test_offline_says_what_is_missing_on_every_hub(run: Run, hub: HubServer) -> None:
    done = run("pull", NAME, "--offline")
    assert done.code == 1
    assert f"`{FILE}` of `{REPO}` is not in the cache" in done.err
    assert "trying" not in done.err
    assert hub.requests == []


def test_a_hubs_own_offline_variable_keeps_the_other_quiet_too(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError):
        pull(NAME)
    assert hub.requests == []


@pytest.mark.parametrize("words", [("--dry-run",), ("--explain",), ("--dry-run", "--hub", "ms,hf")])
@pytest.mark.usefixtures("huggingface_closed")
def test_what_is_only_shown_asks_nobody(run: Run, hub: HubServer, words: tuple[str, ...]) -> None:
    assert run(NAME, *words).code == 0
    assert run("inspect", NAME).code == run("list").code == 0
    assert hub.requests == []


def test_events_tell_of_each_file_and_of_all(run: Run) -> None:
    events = [event for event in run("pull", NAME, "--json").events if event["event"] == "download"]
    size = len(WEIGHTS[FILE])
    assert events[-1] | {"bytes_per_s": None} == {
        "schema": 1,
        "event": "download",
        "file": FILE,
        "done": size,
        "total": size,
        "total_done": size,
        "total_bytes": size,
        "bytes_per_s": None,
    }
