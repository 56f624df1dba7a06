"""Pulling and finding, on both hubs, beside their own clients."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, snapshot_download
from modelscope_hub import HubApi, HubConfig

from registry.errors import DigestError, NotOnHubError, OfflineError, UnsafeFileError
from registry.gguf import NotGgufError
from registry.hubs import huggingface
from registry.progress import Progress
from registry.spec import PinnedFile, Source, Spec
from registry.store import FileSet, find, pull
from tests.fakes.hub import Fault, HubServer

GGUF_REPO = "TheBloke/X-GGUF"
QUANTIZATIONS = tuple(f"Q{bits}_{kind}" for bits in (2, 4, 5, 8) for kind in ("0", "K_S", "K_M"))
NAME = "x.Q4_K_M.gguf"
WEIGHTS = b"GGUF" + hashlib.shake_256(b"weights").digest(2_000_000)
FOLDER_REPO = "org/folder"
FOLDER = {
    "config.json": b'{"model_type": "mistral"}',
    "model.safetensors": hashlib.shake_256(b"tensors").digest(500_000),
    "pytorch_model.bin": b"pickle",
    "tokenizer.json": b"{}",
    "README.md": b"read me",
}
NEEDED = ("model.safetensors", "config.json", "tokenizer.json")
BOTH = pytest.mark.parametrize("name", ["huggingface", "modelscope"])

Pull = Callable[..., FileSet]


def gguf(hub_name: str, revision: str | None = None, pinned: PinnedFile | None = None) -> tuple[Spec, Source, str]:
    pins = {} if pinned is None else {NAME: pinned}
    source = Source(hub_name, GGUF_REPO, revision, QUANTIZATIONS, file="x.{quantization}.gguf", files=pins)
    return Spec("gguf", 7, QUANTIZATIONS, (source,)), source, "Q4_K_M"


def folder(hub_name: str, revision: str | None = None) -> tuple[Spec, Source, str]:
    source = Source(hub_name, FOLDER_REPO, revision)
    return Spec("pytorch", 7, ("none",), (source,)), source, "none"


@pytest.fixture
def commit(hub: HubServer) -> str:
    files = {f"x.{quantization}.gguf": b"GGUF" + quantization.encode() for quantization in QUANTIZATIONS}
    return hub.add_repo(GGUF_REPO, {**files, NAME: WEIGHTS, "README.md": b"read me"})


@pytest.fixture
def folder_commit(hub: HubServer) -> str:
    return hub.add_repo(FOLDER_REPO, FOLDER)


def paths_moved(hub: HubServer) -> list[str]:
    """Return which files' bytes were sent."""
    cdn = {request.path.partition("?")[0].rpartition("/")[2] for request in hub.requests if request.origin == "cdn"}
    small = {
        path
        for repo in hub.repos.values()
        for path in repo.files
        for request in hub.requests
        if request.origin == "hub" and request.status == 200 and request.path.endswith((f"/{path}", f"FilePath={path}"))
    }
    return sorted(cdn | small)


def modelscope_client(hub: HubServer) -> HubApi:
    return HubApi(HubConfig(endpoint=hub.modelscope_url, token=""))


def hf_cache() -> Path:
    return huggingface.hub_cache()


# --- one file of many ------------------------------------------------------------------------------------------------


@BOTH
def test_only_the_needed_file_moves(hub: HubServer, commit: str, name: str) -> None:
    spec, source, quantization = gguf(name, commit)
    before = find(spec, source, quantization)
    assert (before.is_known, before.is_complete, before.download_bytes) == (True, False, None)
    told: list[Progress] = []
    pulled = pull(spec, source, quantization, progress=told.append)
    assert pulled.path.read_bytes() == WEIGHTS
    assert pulled.path.name == NAME
    assert pulled.path.parent.name == commit
    assert paths_moved(hub) == [NAME]
    assert told[0] == Progress("resolve", 0, None, GGUF_REPO)
    assert told[-1] == Progress("download", len(WEIGHTS), len(WEIGHTS), NAME, len(WEIGHTS), len(WEIGHTS))
    assert find(spec, source, quantization) == pulled


@BOTH
def test_a_complete_pinned_source_asks_nobody(hub: HubServer, commit: str, name: str) -> None:
    pull(*gguf(name, commit))
    hub.requests.clear()
    assert pull(*gguf(name, commit)).is_complete
    assert pull(*gguf(name, commit), offline=True).is_complete
    assert hub.requests == []


@BOTH
def test_a_branch_is_asked_for_and_its_commit_remembered(hub: HubServer, commit: str, name: str) -> None:
    first = pull(*gguf(name))
    assert first.path.parent.name == commit
    assert find(*gguf(name)) == first
    newer = hub.add_repo(GGUF_REPO, {NAME: WEIGHTS + b"more"})
    second = pull(*gguf(name))
    assert second.path.parent.name == newer
    assert (first.path.read_bytes(), second.path.read_bytes()) == (WEIGHTS, WEIGHTS + b"more")


@BOTH
def test_a_branch_is_served_from_the_disk_where_the_hub_is_gone(
    hub: HubServer, commit: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = pull(*gguf(name))
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with HubServer() as gone:
        url = gone.huggingface_url
    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", url)
    assert pull(*gguf(name)) == first


def test_modelscope_without_its_commits_uses_the_branchs_folder(hub: HubServer, commit: str) -> None:
    hub.knows_commits = False
    pulled = pull(*gguf("modelscope"))
    assert pulled.path.parent.name == "master"
    assert find(*gguf("modelscope")) == pulled


def test_parts_come_in_order(hub: HubServer) -> None:
    parts = {f"x-0000{n}-of-00002.gguf": b"GGUF" + bytes([n]) for n in (1, 2)}
    hub.add_repo(GGUF_REPO, parts)
    source = Source(
        "huggingface",
        GGUF_REPO,
        part_file="x-{part}.gguf",
        parts={"Q8_0": ("00001-of-00002", "00002-of-00002")},
    )
    pulled = pull(Spec("gguf", 7, ("Q8_0",), (source,)), source, "Q8_0")
    assert [file.path for file in pulled.files] == list(parts)
    assert pulled.path.name == "x-00001-of-00002.gguf"


# --- folders ---------------------------------------------------------------------------------------------------------


@BOTH
def test_a_folder_is_known_once_it_was_listed(hub: HubServer, folder_commit: str, name: str) -> None:
    before = find(*folder(name, folder_commit))
    assert (before.is_known, before.files, before.download_bytes) == (False, (), None)
    pulled = pull(*folder(name, folder_commit))
    assert tuple(file.path for file in pulled.files) == NEEDED
    assert {path.name for path in pulled.path.iterdir()} == set(NEEDED)
    assert paths_moved(hub) == sorted(NEEDED)
    assert find(*folder(name, folder_commit)) == pulled


@BOTH
def test_what_is_missing_of_a_folder_is_known(hub: HubServer, folder_commit: str, name: str) -> None:
    pulled = pull(*folder(name, folder_commit))
    (pulled.path / "model.safetensors").resolve().unlink()
    found = find(*folder(name, folder_commit))
    assert not found.is_complete
    assert found.download_bytes == len(FOLDER["model.safetensors"])
    with pytest.raises(OfflineError, match=r"`model\.safetensors` of `org/folder` is not in the cache"):
        pull(*folder(name, folder_commit), offline=True)
    assert pull(*folder(name, folder_commit)) == pulled


@BOTH
def test_pickles_are_refused(hub: HubServer, name: str) -> None:
    hub.add_repo(FOLDER_REPO, {"config.json": b"{}", "pytorch_model.bin": b"pickle"})
    with pytest.raises(UnsafeFileError):
        pull(*folder(name))
    assert paths_moved(hub) == []


@BOTH
def test_hostile_listings_write_nothing(hub: HubServer, tmp_path: Path, name: str) -> None:
    hub.add_repo(FOLDER_REPO, {**FOLDER, "../../../../evil.json": b"{}"})
    before = sorted(tmp_path.rglob("*evil*"))
    with pytest.raises(UnsafeFileError):
        pull(*folder(name))
    assert paths_moved(hub) == []
    assert sorted(tmp_path.rglob("*evil*")) == before == []


# --- verification ----------------------------------------------------------------------------------------------------


@BOTH
def test_a_flipped_byte_is_caught(hub: HubServer, commit: str, tmp_path: Path, name: str) -> None:
    hub.flip_byte(NAME)
    with pytest.raises(DigestError) as caught:
        pull(*gguf(name, commit))
    assert caught.value.path == NAME
    assert not find(*gguf(name, commit)).is_complete
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_size >= len(WEIGHTS)]


@BOTH
def test_a_flipped_byte_of_a_small_file_is_caught(hub: HubServer, folder_commit: str, name: str) -> None:
    hub.flip_byte("config.json")
    with pytest.raises(DigestError, match=r"config\.json"):
        pull(*folder(name, folder_commit))


@BOTH
@pytest.mark.parametrize("pinned", [PinnedFile(4_368_439_584), PinnedFile(sha256="ab" * 32)], ids=["size", "sha256"])
def test_another_file_than_pinned_is_refused_before_a_byte_moves(
    hub: HubServer, commit: str, name: str, pinned: PinnedFile
) -> None:
    with pytest.raises(DigestError, match="than the one that is pinned"):
        pull(*gguf(name, commit, pinned=pinned))
    assert paths_moved(hub) == []


@BOTH
def test_another_revision_replaces_the_pins(hub: HubServer, commit: str, name: str) -> None:
    branch = "main" if name == "huggingface" else "master"
    pinned = gguf(name, "0" * 40, pinned=PinnedFile(4_368_439_584))
    with pytest.raises(NotOnHubError):
        pull(*pinned)
    assert pull(*pinned, revision=branch).path.parent.name == commit


def test_an_estimated_size_is_not_enforced(hub: HubServer, commit: str) -> None:
    assert pull(*gguf("huggingface", commit, pinned=PinnedFile(7, estimated=True))).is_complete


def test_pins_of_files_that_the_hub_has_no_sha256_for(hub: HubServer, folder_commit: str) -> None:
    spec, source, quantization = folder("huggingface", folder_commit)
    right = hashlib.sha256(FOLDER["config.json"]).hexdigest()
    with pytest.raises(DigestError):
        pull(spec, source._replace(files={"config.json": PinnedFile(sha256="ab" * 32)}), quantization)
    assert pull(spec, source._replace(files={"config.json": PinnedFile(sha256=right)}), quantization).is_complete


@BOTH
def test_a_file_that_changed_is_not_trusted(hub: HubServer, commit: str, name: str) -> None:
    pulled = pull(*gguf(name, commit))
    with pulled.path.open("r+b") as file:
        file.seek(1000)
        file.write(b"!")
    assert not find(*gguf(name, commit)).is_complete
    assert pull(*gguf(name, commit)).path.read_bytes() == WEIGHTS
    assert find(*gguf(name, commit)).is_complete


@BOTH
def test_what_is_not_gguf_is_said_so(hub: HubServer, name: str) -> None:
    hub.add_repo(GGUF_REPO, {NAME: b"<html>"})
    with pytest.raises(NotGgufError, match=r"`x\.Q4_K_M\.gguf` is not a GGUF file"):
        pull(*gguf(name))


# --- beside the hubs' own clients ------------------------------------------------------------------------------------


def test_huggingfaces_client_finds_what_was_pulled(hub: HubServer, commit: str, folder_commit: str) -> None:
    weights, whole = pull(*gguf("huggingface", commit)), pull(*folder("huggingface", folder_commit))
    found = hf_hub_download(GGUF_REPO, NAME, revision=commit, local_files_only=True, cache_dir=hf_cache())
    assert Path(found) == weights.path
    snapshot = snapshot_download(
        FOLDER_REPO,
        revision=folder_commit,
        allow_patterns=list(NEEDED),
        local_files_only=True,
        cache_dir=hf_cache(),
    )
    assert Path(snapshot) == whole.path
    assert not (hf_cache() / "models--TheBloke--X-GGUF" / "refs").exists()


def test_huggingfaces_client_finds_a_branch_that_was_asked_for(hub: HubServer, commit: str) -> None:
    pulled = pull(*gguf("huggingface"))
    assert Path(hf_hub_download(GGUF_REPO, NAME, local_files_only=True, cache_dir=hf_cache())) == pulled.path


def test_modelscopes_client_finds_what_was_pulled(hub: HubServer, commit: str) -> None:
    pulled = pull(*gguf("modelscope", commit))
    hub.requests.clear()
    client = modelscope_client(hub)
    assert client.download_file(GGUF_REPO, "model", NAME, revision=commit, local_files_only=True) == pulled.path
    assert Path(client.download_repo(GGUF_REPO, "model", revision=commit, allow_patterns=[NAME])) == pulled.path.parent
    assert paths_moved(hub) == []


@pytest.mark.parametrize("has_tree", [True, False])
def test_what_huggingfaces_client_fetched_is_used(hub: HubServer, commit: str, has_tree: bool) -> None:
    if has_tree:
        snapshot_download(GGUF_REPO, allow_patterns=[NAME], endpoint=hub.huggingface_url, cache_dir=hf_cache())
    else:
        hf_hub_download(GGUF_REPO, NAME, endpoint=hub.huggingface_url, cache_dir=hf_cache())
    hub.requests.clear()
    found = find(*gguf("huggingface", commit))
    assert (found.is_complete, found.download_bytes) == (False, 0)
    told: list[Progress] = []
    assert pull(*gguf("huggingface", commit), offline=True, progress=told.append).is_complete
    assert {progress.stage for progress in told} == {"verify"}
    assert find(*gguf("huggingface", commit)).is_complete
    assert hub.requests == []


@pytest.mark.parametrize("revision", [None, "commit"])
def test_what_modelscopes_client_fetched_is_used(hub: HubServer, commit: str, revision: str | None) -> None:
    modelscope_client(hub).download_file(GGUF_REPO, "model", NAME, revision=revision and commit)
    hub.requests.clear()
    assert pull(*gguf("modelscope", commit)).path.read_bytes() == WEIGHTS
    assert paths_moved(hub) == []


def test_modelscopes_old_layout_is_used(hub: HubServer, commit: str) -> None:
    old = Path(os.environ["MODELSCOPE_CACHE"]) / "hub/models/TheBloke/X-GGUF" / NAME
    old.parent.mkdir(parents=True)
    old.write_bytes(WEIGHTS)
    assert pull(*gguf("modelscope", commit)).path.read_bytes() == WEIGHTS
    assert paths_moved(hub) == []


def test_a_wrong_byte_that_the_client_accepted_is_fetched_again(hub: HubServer, commit: str) -> None:
    hub.flip_byte(NAME)
    path = Path(hf_hub_download(GGUF_REPO, NAME, endpoint=hub.huggingface_url, cache_dir=hf_cache()))
    assert path.read_bytes() != WEIGHTS
    hub.repos[GGUF_REPO].files[NAME] = hub.repos[GGUF_REPO].files[NAME]._replace(flipped=None)
    assert pull(*gguf("huggingface", commit)).path == path
    assert path.read_bytes() == WEIGHTS


# --- without the network ---------------------------------------------------------------------------------------------


@BOTH
def test_offline_names_what_is_missing(hub: HubServer, commit: str, folder_commit: str, name: str) -> None:
    with pytest.raises(OfflineError, match=r"`x\.Q4_K_M\.gguf` of `TheBloke/X-GGUF` is not in the cache"):
        pull(*gguf(name, commit, pinned=PinnedFile(len(WEIGHTS))), offline=True)
    with pytest.raises(OfflineError, match=r"only .* can tell which files `org/folder` has"):
        pull(*folder(name, folder_commit), offline=True)
    assert hub.requests == []


def test_huggingfaces_own_variable_forbids_the_network(
    hub: HubServer, commit: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError):
        pull(*gguf("huggingface", commit))
    assert hub.requests == []


# --- several processes -----------------------------------------------------------------------------------------------

CHILD = """
import sys
from registry.spec import Source, Spec
from registry.store import pull
hub, repo_id, revision, file = sys.argv[1:]
source = Source(hub, repo_id, revision, file=file)
print(pull(Spec("gguf", 7, ("Q4_K_M",), (source,)), source, "Q4_K_M").path)
"""


def start_child(name: str, commit: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CHILD, name, GGUF_REPO, commit, NAME]
    return subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, stdout=subprocess.PIPE, text=True
    )


@BOTH
def test_a_killed_pull_goes_on_where_it_was(hub: HubServer, commit: str, tmp_path: Path, name: str) -> None:
    hub.breaks(NAME, Fault("stall", after_bytes=700_000))
    child = start_child(name, commit)
    try:
        deadline = time.monotonic() + 60
        while not any(" 700000" in path.read_text() for path in tmp_path.rglob("*.journal")):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    hub.requests.clear()
    assert pull(*gguf(name, commit)).path.read_bytes() == WEIGHTS
    sent = sum(request.sent_bytes for request in hub.requests if request.origin == "cdn")
    assert sent == len(WEIGHTS) - 700_000
    assert not list(tmp_path.rglob("*.partial")) + list(tmp_path.rglob("*.journal"))


@BOTH
def test_two_processes_fetch_once(hub: HubServer, commit: str, name: str) -> None:
    children = [start_child(name, commit) for _ in range(2)]
    printed = {child.communicate()[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0]
    assert printed == {str(find(*gguf(name, commit)).path)}
    sent = sum(request.sent_bytes for request in hub.requests if request.origin == "cdn")
    assert sent == len(WEIGHTS)


FIND = """
import sys
from registry.spec import Source, Spec
from registry.store import find
for hub in ("huggingface", "modelscope", "pypi", "local"):
    source = Source(hub, "org/name", "1" * 40, file="x.gguf")
    find(Spec("gguf", 7, ("Q4_K_M",), (source,)), source, "Q4_K_M")
heavy = {"huggingface_hub", "modelscope_hub", "httpx2", "requests", "filelock", "pydantic", "yaml", "asyncio"}
print(sorted(heavy & set(sys.modules)))
"""


def test_finding_imports_no_hubs_library() -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", FIND], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
