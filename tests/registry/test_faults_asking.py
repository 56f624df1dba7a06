"""What cannot be had or must not be taken, through both hubs' clients: hostile names, closed and missing repos."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path

import pytest

from registry.errors import DownloadError, GatedRepoError, NotOnHubError, OfflineError, UnsafeFileError
from registry.spec import Source, Spec
from registry.store import pull
from tests.fakes.faults import Trial, Trials
from tests.fakes.hub import HubServer
from tests.fakes.weights import COMMIT_FILES, REPO
from tests.registry.archives import entry, pack_entries
from tests.registry.pulls import CONTENT, Pulls, said, whole

pytestmark = pytest.mark.downloads

HOSTILE = {
    "`../`": "../../../../evil.gguf",
    "an absolute path": "/tmp/evil.gguf",
    "a drive": "C:\\evil.gguf",
    "a NUL": "evil\0.gguf",
}


@pytest.fixture(params=["huggingface", "modelscope"])
def pulls(request: pytest.FixtureRequest, hub: HubServer, trials: Trials[Trial], tmp_path: Path) -> Pulls:
    return Pulls(hub, request.param, trials, tmp_path / "home")


def evil_files(folder: Path) -> list[Path]:
    return sorted(path for path in (*folder.rglob("*"), *Path("/tmp").glob("*")) if "evil" in path.name)


# --- 7: names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_listing(pulls: Pulls, tmp_path: Path, kind: str) -> None:
    pulls.commit = pulls.hub.add_repo(REPO, {**COMMIT_FILES, HOSTILE[kind]: b"evil"})
    before = evil_files(tmp_path)
    pulls.fails(UnsafeFileError)
    assert evil_files(tmp_path) == before
    assert pulls.hub.sent_of_files == 0
    assert not pulls.is_whole()
    pulls.add(7, f"a listing names a file with {kind}", "refused before the first byte; nothing written")


ENTRIES = {
    "`../`": entry("../../evil.safetensors", 4),
    "an absolute path": entry("/tmp/evil.safetensors", 4),
    "a symbolic link": entry("evil.safetensors", 0, tarfile.SYMTYPE, "/etc/passwd"),
    "a hard link": entry("evil.safetensors", 0, tarfile.LNKTYPE, "/etc/passwd"),
    "a device": entry("evil.safetensors", 0, tarfile.CHRTYPE),
}


@pytest.mark.parametrize("kind", ENTRIES)
def test_a_hostile_archive(hub: HubServer, trials: Trials[Trial], tmp_path: Path, kind: str) -> None:
    archive = pack_entries([(entry("params.json", 2), b"{}"), (ENTRIES[kind], b"evil"[: ENTRIES[kind].size])])
    commit = hub.add_repo("files/here", {"Small.tar": archive})
    facts = {"address": f"{hub.cdn_url}/files/here/{commit}/Small.tar", "md5": hashlib.md5(archive).hexdigest()}
    source = Source.from_json("url", facts)
    before = evil_files(tmp_path)
    with pytest.raises(UnsafeFileError):
        pull(Spec("mistral", 7, ("none",), (source,)), source, "none")
    assert evil_files(tmp_path) == before
    placed = list(tmp_path.rglob("params.json"))
    trials.add(Trial(7, "an archive", f"it holds {kind}", "refused; nothing unpacked", len(placed), None))


# --- 12: what cannot be had ------------------------------------------------------------------------------------------


def test_a_gated_repo(pulls: Pulls) -> None:
    pulls.publish(gated=True, token="granted")
    pulls.add(12, "a gated repo, no token", said(pulls, pulls.fails(GatedRepoError)))


def test_a_gated_repo_that_was_not_granted(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    pulls.publish(gated=True, token="granted")
    pulls.hub.add_repo("org/mine", {}, token="mine")
    monkeypatch.setenv("HF_TOKEN", "mine")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "mine")
    pulls.add(12, "a gated repo, access not granted", said(pulls, pulls.fails(GatedRepoError)))


def test_a_wrong_token(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    pulls.publish(token="right")
    monkeypatch.setenv("HF_TOKEN", "wrong")
    monkeypatch.setenv("MODELSCOPE_API_TOKEN", "wrong")
    pulls.add(12, "a token that the hub does not know", said(pulls, pulls.fails(DownloadError)))


def test_no_such_repo(pulls: Pulls) -> None:
    pulls.hub.repos.clear()
    pulls.add(12, "no such repo", said(pulls, pulls.fails(NotOnHubError)))


@pytest.mark.parametrize("revision", ["0" * 40, "no-such-branch"])
def test_no_such_revision(pulls: Pulls, revision: str) -> None:
    tried = "no such commit" if revision[0] == "0" else "no such branch"
    pulls.add(12, tried, said(pulls, pulls.fails(NotOnHubError, revision)))


def test_no_such_file(pulls: Pulls) -> None:
    pulls.commit = pulls.hub.add_repo(REPO, {"weights.Q4_K_S.gguf": CONTENT})
    error = pulls.fails(NotOnHubError)
    assert error.details == ("it has `weights.Q4_K_S.gguf`",)
    pulls.add(12, "no such file", said(pulls, error))


def test_a_listing_that_is_cut(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # its client waits between its tries
    pulls.hub.cuts_listings = True
    pulls.add(12, "the listing breaks off", said(pulls, pulls.fails(DownloadError)))


def go_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let both hubs be out of reach, and their clients not wait between their tries."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with HubServer() as gone:
        url = gone.huggingface_url
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", url)


def test_a_hub_out_of_reach(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    go_away(monkeypatch)
    pulls.add(12, "the hub is out of reach", said(pulls, pulls.fails(OfflineError)))


def test_a_hub_out_of_reach_with_a_cache(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    pulls.pull(None)
    pulls.hub.requests.clear()
    go_away(monkeypatch)
    pulls.pull(None)
    tried = "the hub is out of reach, the branch was pulled before"
    pulls.add(12, tried, whole(pulls, "the cache is used"), needed_bytes=0)


def test_offline(pulls: Pulls) -> None:
    error = pulls.fails(OfflineError, offline=True)
    assert pulls.hub.requests == []
    pulls.add(12, "`--offline`, and not in the cache", said(pulls, error))


def test_a_pinned_model_in_the_cache_needs_no_network(pulls: Pulls) -> None:
    pulls.pull()
    pulls.hub.requests.clear()
    pulls.pull()
    assert pulls.hub.requests == []
    pulls.add(12, "pinned, and in the cache", whole(pulls, "no request was made"), needed_bytes=0)


@pytest.mark.parametrize("pulls", ["huggingface"], indirect=True)
def test_a_proxy_that_is_not_there(pulls: Pulls, monkeypatch: pytest.MonkeyPatch) -> None:
    with HubServer() as gone:
        proxy = gone.huggingface_url
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # the hub's listing goes past it, the CDN's files do not
    error = pulls.fails(OfflineError)
    assert "http_proxy" in f"{error.details} {error.hint}"
    assert proxy in error.message
    assert not pulls.is_whole()
    pulls.add(12, "the proxy before the CDN is not there", "the proxy and its variable are named; no file")
