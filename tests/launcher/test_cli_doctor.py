"""`launch doctor`: what it says of hubs, caches and settings, its report for programs, its exit code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.cache import read_inventory
from registry.partial import Partial
from tests.fakes.answering import answering
from tests.fakes.echo import free_port
from tests.fakes.hub import HubServer
from tests.launcher.commands import Done, Run

AREAS = ["program", "machine", "gpu", "disk", "cache", "hub", "engine", "setting"]
KEYS = {"area", "name", "state", "text", "remedy", "facts"}
# What programs may rely on within schema 1.
FACTS = {
    ("program", "launch"): "path version",
    ("program", "python"): "path prefix version",
    ("program", "uv"): "path version",
    ("machine", "system"): "architecture bfloat16 release system",
    ("machine", "cores"): "allowed installed time_limit usable",
    ("machine", "memory"): "available_bytes installed_bytes limit_bytes swap_bytes usable_bytes",
    ("machine", "sockets"): "folder",
    ("disk", "huggingface"): "files_free free_bytes has_links has_locks is_full kind path refused runs",
    ("cache", "catalogue"): "models",
    ("cache", "models"): "entries size_bytes",
    ("cache", "environments"): "entries size_bytes",
    ("hub", "huggingface"): "has_token status took_s url",
    ("hub", "modelscope"): "has_token status took_s url",
    ("hub", "package index"): "status took_s url",
    ("engine", "llama.cpp"): "setup_bytes state variant",
    ("engine", "echo"): "state",
    ("setting", "HF_ENDPOINT"): "value",
}


@pytest.fixture
def asked() -> list[str]:
    return []


@pytest.fixture(autouse=True)
def index(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> Iterator[str]:
    """Let a server of this machine be the package index."""
    with answering(200, b"<html>", asked) as url:
        monkeypatch.setenv("UV_DEFAULT_INDEX", f"{url}/simple/")
        yield url


def finding(done: Done, area: str, name: str) -> dict[str, Any]:
    return next(each for each in done.json["findings"] if (each["area"], each["name"]) == (area, name))


def test_the_report(run: Run, hub: HubServer, index: str, asked: list[str]) -> None:
    done = run("doctor", "--json")
    report = done.json
    assert set(report) == {"schema", "event", "errors", "warnings", "findings"}
    assert (report["schema"], report["event"]) == (1, "doctor")
    found = report["findings"]
    assert list(dict.fromkeys(each["area"] for each in found)) == AREAS
    assert all(set(each) == KEYS for each in found)
    assert all(each["remedy"] for each in found if each["state"] != "ok")
    states = [each["state"] for each in found]
    assert (report["errors"], report["warnings"]) == (states.count("error"), states.count("warning"))
    assert done.code == (1 if report["errors"] else 0)
    assert finding(done, "hub", "huggingface")["facts"]["url"] == hub.huggingface_url
    assert finding(done, "hub", "modelscope")["state"] == "ok"
    assert finding(done, "hub", "package index")["text"].startswith(f"{index}/simple/ answers in ")
    assert asked == ["/simple/uv/"]


def test_the_names_of_its_facts(run: Run, hub: HubServer) -> None:
    done = run("doctor", "--json")
    assert {each: " ".join(sorted(finding(done, *each)["facts"])) for each in FACTS} == FACTS


def test_for_people(run: Run, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XINFERENCE_MODEL_SRC", "modelscope")
    done = run("doctor")
    lines = done.out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == AREAS
    at = next(index for index, line in enumerate(lines) if "XINFERENCE_MODEL_SRC" in line)
    assert lines[at].startswith("  warning  XINFERENCE_MODEL_SRC")
    assert lines[at + 1].strip() == "remedy: export LAUNCH_HUB=modelscope"
    assert " warning" in done.err.splitlines()[-1]
    assert str(tmp_path / "home") not in done.out
    assert "~/launch" in done.out


@pytest.mark.parametrize("how", ["option", "variable"])
def test_offline_asks_nobody(
    run: Run, hub: HubServer, asked: list[str], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    if how == "variable":
        monkeypatch.setenv("LAUNCH_OFFLINE", "1")
    done = run("doctor", "--json", *(["--offline"] if how == "option" else []))
    assert hub.requests == []
    assert asked == []
    assert finding(done, "hub", "huggingface")["text"] == f"{hub.huggingface_url}, not asked: offline"


def test_a_hub_that_a_variable_forbids(run: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    found = finding(run("doctor", "--json"), "hub", "huggingface")
    assert (found["state"], found["remedy"]) == ("warning", "unset HF_HUB_OFFLINE TRANSFORMERS_OFFLINE")


def test_tokens_are_tried_and_never_told(
    run: Run, hub: HubServer, index: str, asked: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add_repo("org/gated", {}, gated=True, token="right-token")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "right-token")
    monkeypatch.setenv("HF_TOKEN", "wrong-token")
    monkeypatch.setenv("UV_DEFAULT_INDEX", f"{index.replace('://', '://me:pass%40word@')}/simple")
    done = run("doctor", "--json")
    assert finding(done, "hub", "modelscope")["text"].endswith(", token accepted")
    refused = finding(done, "hub", "huggingface")
    assert (refused["state"], refused["remedy"]) == ("warning", "log in anew with `hf auth login` or HF_TOKEN")
    assert asked == ["/simple/uv/ Basic bWU6cGFzc0B3b3Jk"]
    assert finding(done, "setting", "HF_TOKEN")["text"] == "set"
    told = done.out + done.err + run("doctor").out
    assert not [secret for secret in ("right-token", "wrong-token", "pass%40word", "pass@word") if secret in told]


def test_a_hub_out_of_reach_is_worse_where_it_is_the_last(
    run: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    one = finding(run("doctor", "--json"), "hub", "huggingface")
    assert (one["state"], one["facts"]["kind"]) == ("warning", "offline")
    assert one["text"] == "Hugging Face is out of reach: 127.0.0.1: Connection refused"
    assert one["remedy"] == "check the network, or name a mirror with HF_ENDPOINT"
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    both = run("doctor", "--json")
    assert [finding(both, "hub", name)["state"] for name in ("huggingface", "modelscope")] == ["error", "error"]
    assert both.code == 1


@pytest.mark.parametrize(("status", "state"), [(401, "warning"), (404, "error"), (503, "error")])
def test_an_index_that_gives_nothing(
    run: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch, status: int, state: str
) -> None:
    with answering(status) as url:
        monkeypatch.setenv("UV_DEFAULT_INDEX", url)
        found = finding(run("doctor", "--json"), "hub", "package index")
    assert (found["state"], found["facts"]["status"]) == (state, status)


def test_a_proxy_is_named(run: Run, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://me:word@127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    found = finding(run("doctor", "--json"), "hub", "huggingface")
    assert found["text"].startswith("The proxy `http://127.0.0.1:")
    assert "http_proxy" in found["remedy"]
    assert "me:word" not in str(found)


def test_an_unfinished_download(run: Run, hub: HubServer, published: str) -> None:
    assert run("pull", "own", "-q", "Q4_0", "--hub", "huggingface").code == 0
    entry = next(entry for entry in read_inventory() if "own" in entry.names)
    partial = Partial(entry.folder / "own.Q8_0.gguf", 200_000, None)
    partial.write(0, bytes(100_000))
    partial.close()
    found = finding(run("doctor", "--json"), "cache", "unfinished")
    assert found["state"] == "warning"
    assert found["text"].startswith("own, ")
    assert found["remedy"] == "`launch pull own` goes on with them; `launch cache rm own` removes all of it"
    assert run("cache", "rm", "own", "--yes").code == 0
    assert "  unfinished  " not in run("doctor", "--offline").out


def test_a_catalogue_that_cannot_be_read(
    run: Run, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text("name: own\nspecz: []\n")
    monkeypatch.setenv("LAUNCH_REGISTRY", str(tmp_path / "own.yaml"))
    done = run("doctor", "--offline", "--json")
    found = finding(done, "cache", "catalogue")
    assert (done.code, found["state"], found["facts"]["kind"]) == (1, "error", "schema")
    assert "own.yaml" in found["text"]


def test_a_setting_that_nobody_reads(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_CONTEXT_LENGHT", "10")
    monkeypatch.setenv("LAUNCH_PORT", "8001")
    done = run("doctor", "--offline", "--json")
    wrong = finding(done, "setting", "LAUNCH_CONTEXT_LENGHT")
    assert (wrong["state"], wrong["text"]) == ("warning", "nobody reads it; did you mean LAUNCH_CONTEXT_LENGTH?")
    assert finding(done, "setting", "LAUNCH_PORT")["state"] == "ok"
