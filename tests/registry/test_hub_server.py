"""The fake hub, seen by the real clients: what they accept of it is what our own code is tested against."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RemoteEntryNotFoundError, RevisionNotFoundError
from modelscope_hub import HubApi, HubConfig
from modelscope_hub.errors import FileDownloadError, FileIntegrityError, NotExistError, PermissionDeniedError

from tests.fakes.hub import Fault, HubServer

REPO = "org/name-GGUF"
WEIGHTS = b"GGUF" + bytes(range(256)) * 4000
FILES = {"x.Q4_K_M.gguf": WEIGHTS, "config.json": b'{"a": 1}', "deep/README.md": b"read me"}


def modelscope(hub: HubServer, tmp_path: Path, token: str = "") -> HubApi:
    return HubApi(
        HubConfig(endpoint=hub.modelscope_url, token=token, cache_dir=tmp_path / "ms", config_dir=tmp_path / "config")
    )


class TestHuggingFaceClient:
    def test_downloads_a_snapshot(self, hub: HubServer, tmp_path: Path) -> None:
        commit = hub.add_repo(REPO, FILES)
        folder = Path(snapshot_download(REPO, endpoint=hub.huggingface_url, cache_dir=tmp_path))
        assert folder.name == commit
        assert {path: (folder / path).read_bytes() for path in FILES} == FILES

    def test_names_blobs_by_their_hashes(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add_repo(REPO, FILES)
        for name, expected in (("x.Q4_K_M.gguf", hashlib.sha256(WEIGHTS).hexdigest()), ("config.json", None)):
            path = Path(hf_hub_download(REPO, name, endpoint=hub.huggingface_url, cache_dir=tmp_path))
            assert path.resolve().name == (expected or hub.repos[REPO].files[name].git_sha1)

    def test_gets_weights_from_another_origin_without_the_token(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add_repo(REPO, FILES, gated=True, token="hf_right")
        hf_hub_download(REPO, "x.Q4_K_M.gguf", endpoint=hub.huggingface_url, cache_dir=tmp_path, token="hf_right")
        sent = [request for request in hub.requests if request.origin == "cdn"]
        assert sent
        assert not any("authorization" in map(str.lower, request.headers) for request in sent)

    def test_raises_its_own_errors(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add_repo(REPO, FILES)
        hub.add_repo("org/gated", FILES, gated=True, token="hf_right")
        api = HfApi(endpoint=hub.huggingface_url, token=False)
        with pytest.raises(RevisionNotFoundError):
            api.model_info(REPO, revision="no-such-branch")
        with pytest.raises(RemoteEntryNotFoundError):
            hf_hub_download(REPO, "none", endpoint=hub.huggingface_url, cache_dir=tmp_path, token=False)
        with pytest.raises(GatedRepoError):
            hf_hub_download("org/gated", "config.json", endpoint=hub.huggingface_url, cache_dir=tmp_path, token=False)
        with pytest.raises(HfHubHTTPError):
            api.model_info("org/none")

    def test_accepts_a_flipped_byte(self, hub: HubServer, tmp_path: Path) -> None:
        """Why the bytes are moved by a fetcher of ours: huggingface_hub 2.4 checks sizes only."""
        hub.add_repo(REPO, FILES)
        hub.flip_byte("x.Q4_K_M.gguf")
        path = hf_hub_download(REPO, "x.Q4_K_M.gguf", endpoint=hub.huggingface_url, cache_dir=tmp_path)
        assert Path(path).read_bytes() != WEIGHTS


class TestModelScopeClient:
    def test_downloads_a_snapshot(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add_repo(REPO, FILES)
        folder = Path(modelscope(hub, tmp_path).download_repo(REPO, "model"))
        assert {path: (folder / path).read_bytes() for path in FILES} == FILES
        assert any(request.origin == "cdn" for request in hub.requests)

    def test_lists_sizes_and_hashes(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add_repo(REPO, FILES)
        listed = {file.path: file for file in modelscope(hub, tmp_path).list_repo_files(REPO, "model")}
        assert listed["x.Q4_K_M.gguf"].size == len(WEIGHTS)
        assert listed["x.Q4_K_M.gguf"].sha256 == hub.sha256(REPO, "x.Q4_K_M.gguf")

    def test_raises_its_own_errors(self, hub: HubServer, tmp_path: Path) -> None:
        hub.add_repo("org/gated", FILES, gated=True, token="ms_right")
        hub.add_repo("org/other", FILES, token="ms_other")
        with pytest.raises(NotExistError):
            modelscope(hub, tmp_path).list_repo_files("org/none", "model")
        with pytest.raises(PermissionDeniedError):
            modelscope(hub, tmp_path, "ms_other").download_file("org/gated", "model", "config.json")

    @pytest.mark.filterwarnings("ignore")
    def test_catches_a_flipped_byte(self, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_HASH_RETRY_TIMES", 1)
        hub.add_repo(REPO, FILES)
        hub.flip_byte("x.Q4_K_M.gguf")
        with pytest.raises((FileDownloadError, FileIntegrityError)):
            modelscope(hub, tmp_path).download_repo(REPO, "model")


def test_a_cut_body_is_taken_up_by_a_range(hub: HubServer, tmp_path: Path) -> None:
    hub.add_repo(REPO, FILES)
    hub.breaks("x.Q4_K_M.gguf", Fault("cut", after_bytes=100_000))
    folder = Path(modelscope(hub, tmp_path).download_repo(REPO, "model", allow_patterns=["*.gguf"]))
    assert (folder / "x.Q4_K_M.gguf").read_bytes() == WEIGHTS
    cdn = [request for request in hub.requests if request.origin == "cdn"]
    assert [request.status for request in cdn] == [200, 206]
    assert cdn[1].headers["Range"] == "bytes=100000-"
