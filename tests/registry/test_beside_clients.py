"""Sharded weights between us and the hubs' own clients: what one fetched, the other finds, and no byte moves again."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import snapshot_download
from modelscope_hub import HubApi, HubConfig

from registry.hubs import huggingface
from registry.spec import Source
from registry.store import FileSet, find, pull
from tests.fakes.hub import HubServer
from tests.fakes.tensors import REPO, SPEC, publish

SIZES = (300_000, 200_000, 100_000)


@pytest.fixture
def commit(hub: HubServer, tmp_path: Path) -> str:
    folder = tmp_path / "published"
    folder.mkdir()
    return publish(hub, folder, SIZES)


def pull_ours(hub_name: str, commit: str) -> FileSet:
    return pull(SPEC, Source(hub_name, REPO, commit), "none")


def modelscope_client(hub: HubServer) -> HubApi:
    return HubApi(HubConfig(endpoint=hub.modelscope_url, token=""))


def test_huggingfaces_client_finds_our_shards(hub: HubServer, commit: str) -> None:
    pulled = pull_ours("huggingface", commit)
    assert hub.sent_of_files == sum(SIZES)
    hub.requests.clear()
    names = [file.path for file in pulled.files]
    cache = huggingface.hub_cache()
    found = snapshot_download(REPO, revision=commit, allow_patterns=names, local_files_only=True, cache_dir=cache)
    assert Path(found) == pulled.path
    assert hub.requests == []


def test_we_find_the_shards_of_huggingfaces_client(hub: HubServer, commit: str) -> None:
    theirs = snapshot_download(REPO, endpoint=hub.huggingface_url, cache_dir=huggingface.hub_cache())
    hub.requests.clear()
    assert find(SPEC, Source("huggingface", REPO, commit), "none").download_bytes == 0
    assert pull_ours("huggingface", commit).path == Path(theirs)
    assert hub.requests == []


def test_modelscopes_client_finds_our_shards(hub: HubServer, commit: str) -> None:
    pulled = pull_ours("modelscope", commit)
    hub.requests.clear()
    names = [file.path for file in pulled.files]
    found = modelscope_client(hub).download_repo(REPO, "model", revision=commit, allow_patterns=names)
    assert Path(found) == pulled.path
    assert hub.sent_of_files == 0


@pytest.mark.parametrize("is_pinned", [True, False])
def test_we_find_the_shards_of_modelscopes_client(hub: HubServer, commit: str, is_pinned: bool) -> None:
    modelscope_client(hub).download_repo(REPO, "model", revision=commit if is_pinned else "master")
    hub.requests.clear()
    assert pull_ours("modelscope", commit).is_complete
    assert hub.sent_of_files == 0
