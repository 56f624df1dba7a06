"""What goes from the caches and what stays: shared blobs, other programs' files, whatever is in use."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from launcher import plan, pull
from launcher.cache import Entry, read_inventory
from launcher.cache_removal import Removal, choose_named, choose_old, plan_removal, remove
from launcher.cache_use import hold
from registry.digest import Digest, is_recorded
from registry.errors import UnknownModelError
from registry.partial import Partial
from tests.fakes.cached import GGUF, bring, entries, make_environment, only, start_using, write_archive
from tests.fakes.hub import HubServer
from tests.fakes.published import FILE, NAME, REPO, WEIGHTS
from tests.launcher.commands import LIMIT_S

HOLDER = f"""
import sys
from tests.fakes.cached import start_using
held = start_using("{NAME}", "Q4_0")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def hf_cache(tmp_path: Path) -> Path:
    return tmp_path / "home/huggingface/hub"


def pull_both() -> list[Path]:
    return [pull(NAME, quantization=quantization, hub="huggingface") for quantization in ("Q4_0", "Q8_0")]


def remove_all(chosen: Sequence[Entry]) -> Removal:
    planned = plan_removal(chosen)
    done = remove(planned)
    assert done == planned
    return done


def files_in(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if not path.is_dir()}


# --- what goes --------------------------------------------------------------------------------------------------------


def test_a_plan_touches_nothing(published: str) -> None:
    pull_both()
    assert plan_removal(entries(NAME)).freed_bytes == 300_008
    assert len(entries(NAME)) == 2


def test_one_quantization_goes_with_its_blob(published: str, hub: HubServer, hf_cache: Path) -> None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    goes, stays = pull_both()
    blob, digest = goes.resolve(), Digest("sha256", hub.sha256(REPO, FILE))
    assert is_recorded(goes, digest)
    done = remove_all(choose_named(read_inventory(), f"{NAME}:q4_0"))
    assert done.freed_bytes == 100_004
    assert not blob.exists()
    assert not os.path.lexists(goes)
    assert try_to_load_from_cache(REPO, FILE, cache_dir=hf_cache) is None
    theirs = hf_hub_download(REPO, stays.name, revision=published, cache_dir=hf_cache, local_files_only=True)
    assert theirs == str(stays)
    assert [entry.quantization for entry in entries(NAME)] == ["Q8_0"]


def test_a_repo_that_is_empty_goes_whole(published: str, hub: HubServer, hf_cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    hub.add_repo("org/theirs", {"theirs.gguf": GGUF})
    theirs = hf_hub_download("org/theirs", "theirs.gguf", endpoint=hub.huggingface_url, cache_dir=hf_cache)
    before = files_in(hf_cache)
    pull_both()
    pull(NAME, quantization="Q4_0", revision="main", hub="huggingface")  # which leaves a reference
    remove_all(entries(NAME))
    assert [path.name for path in hf_cache.glob("models--*")] == ["models--org--theirs"]
    assert Path(theirs).read_bytes() == GGUF
    assert files_in(hf_cache) == before


def test_what_was_removed_is_pulled_again(published: str) -> None:
    path, _ = pull_both()
    remove_all(entries(NAME))
    assert pull(NAME, quantization="Q4_0", hub="huggingface") == path
    assert path.read_bytes() == WEIGHTS[FILE]


def test_a_blob_of_two_commits_goes_with_the_second(published: str, hub: HubServer) -> None:
    first = pull(NAME, quantization="Q4_0", revision="main", hub="huggingface")
    moved = hub.add_repo(REPO, {**WEIGHTS, "README.md": b"read me again"})
    second = pull(NAME, quantization="Q4_0", revision="main", hub="huggingface")
    assert first.resolve() == second.resolve()
    done = remove_all([entry for entry in entries(NAME) if entry.revision == published])
    assert done.freed_bytes == 0
    assert second.read_bytes() == WEIGHTS[FILE]
    assert not first.parent.exists()
    assert remove_all([only(NAME)]).freed_bytes == 100_004
    assert moved not in str(list(second.parents[2].glob("**/*")))


def test_a_blob_in_the_store_of_all_repos_stays(published: str, hf_cache: Path) -> None:
    path = pull(NAME, quantization="Q4_0")
    blob = path.resolve()
    store = hf_cache / "blobs" / "cd" / ("cd" * 32)
    store.parent.mkdir(parents=True)
    blob.replace(store)
    blob.symlink_to(os.path.relpath(store, blob.parent))
    assert only(NAME).size_bytes == 100_004
    assert remove_all([only(NAME)]).freed_bytes == 0
    assert store.exists()
    assert not blob.is_symlink()


def test_modelscopes_files_go(published: str, tmp_path: Path) -> None:
    for quantization in ("Q4_0", "Q8_0"):
        pull(NAME, quantization=quantization, hub="modelscope")
    assert remove_all(choose_named(read_inventory(), f"{NAME}:Q4_0")).freed_bytes == 100_004
    assert files_in(tmp_path / "home/modelscope") == {"own.Q8_0.gguf"}
    remove_all(entries(NAME))
    assert list((tmp_path / "home/modelscope").iterdir()) == []


def test_an_archives_files_go_and_come_again(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_archive(hub, tmp_path)))
    folder = bring("archived")
    remove_all(entries("archived"))
    assert not folder.exists()
    assert bring("archived") == folder
    assert (folder / "params.json").exists()


def test_an_environment_goes(published: str) -> None:
    folder = make_environment()
    assert remove_all(choose_named(read_inventory(), "llama.cpp")).freed_bytes == 1003
    assert not folder.exists()


def test_leftovers_go_with_their_model(published: str) -> None:
    path = pull(NAME, quantization="Q4_0")
    leave_partial(path)
    remove_all(entries(NAME))
    assert entries() == []
    assert not path.parents[2].exists()


def leave_partial(beside: Path) -> Path:
    partial = Partial(beside.resolve().with_name("more"), 1_000_000, Digest("sha256", "ab" * 32))
    partial.write(0, bytes(4096))
    partial.close()
    return partial.path


# --- what stays -------------------------------------------------------------------------------------------------------


def test_what_an_instance_holds_stays(published: str) -> None:
    paths = pull_both()
    held = start_using(NAME, "Q4_0")
    done = remove_all(entries(NAME))
    assert ([entry.quantization for entry in done.entries], done.freed_bytes) == (["Q8_0"], 200_004)
    assert [entry.quantization for entry in done.kept] == ["Q4_0"]
    assert [path.exists() for path in paths] == [True, False]
    held.release()
    remove_all(entries(NAME))
    assert not paths[0].exists()


def test_another_way_to_it_is_the_same(published: str, hf_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(NAME, quantization="Q4_0")
    other = hf_cache.with_name("other")
    other.symlink_to(hf_cache)
    held = start_using(NAME, "Q4_0")
    monkeypatch.setenv("HF_HUB_CACHE", str(other))
    assert len(remove_all([only(NAME)]).kept) == 1
    held.release()


def test_what_was_started_after_the_plan_stays(published: str) -> None:
    path = pull(NAME, quantization="Q4_0")
    planned = plan_removal(entries(NAME))
    held = start_using(NAME, "Q4_0")
    done = remove(planned)
    assert (done.entries, len(done.kept), done.freed_bytes) == ((), 1, 0)
    assert path.exists()
    held.release()


def test_an_environment_in_use_stays(published: str) -> None:
    folder = make_environment()
    pull(NAME, quantization="Q4_0")
    held = hold(plan(NAME, quantization="Q4_0"), None, str(folder / "bin" / "python"))
    assert len(remove_all([only("llama.cpp")]).kept) == 1
    held.release()
    assert len(remove_all([only("llama.cpp")]).entries) == 1


def test_a_hold_ends_with_its_process_however_that_ends(published: str) -> None:
    pull(NAME, quantization="Q4_0")
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert only(NAME).is_running
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
    assert not only(NAME).is_running


def test_a_download_that_goes_on_stays(published: str) -> None:
    path = pull(NAME, quantization="Q4_0")
    partial = leave_partial(path)
    planned = plan_removal(entries(NAME))
    with partial.with_name("more.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = remove(planned)
    assert [entry.kind for entry in done.kept] == ["leftover"]
    assert partial.exists()
    assert not path.exists()


# --- what is meant ----------------------------------------------------------------------------------------------------


def test_what_a_name_means(published: str) -> None:
    pull_both()
    inventory = read_inventory()
    assert len(choose_named(inventory, NAME.upper())) == 2
    assert len(choose_named(inventory, REPO)) == 2
    assert len(choose_named(inventory, f"{REPO}:Q8_0")) == 1
    assert choose_named(inventory, "smollm2") == ()
    assert choose_named(inventory, "llama.cpp") == ()
    with pytest.raises(UnknownModelError) as caught:
        choose_named(inventory, "smolm2-instruct")
    assert caught.value.suggestions == ("smollm2-instruct",)


def used_at(path: Path, when: float) -> None:
    """Let the last use of a file of the cache have been then."""
    entry = next(entry for entry in entries() if path in entry.files)
    os.utime(entry.uses[0].path, (when, when))


def test_the_old_and_the_too_many(published: str) -> None:
    older, newer = pull_both()
    used_at(older, 1000)
    used_at(newer, 2000)

    def chosen(older_than_s: float | None = None, keep_bytes: int | None = None) -> list[str]:
        found = choose_old(read_inventory(), now=2500, older_than_s=older_than_s, keep_bytes=keep_bytes)
        return [entry.quantization for entry in found]

    assert chosen(older_than_s=1600) == []
    assert chosen(older_than_s=1400) == ["Q4_0"]
    assert chosen(older_than_s=400) == ["Q4_0", "Q8_0"]
    assert chosen(keep_bytes=300_008) == []
    assert chosen(keep_bytes=300_007) == ["Q4_0"]
    assert chosen(keep_bytes=100_000) == ["Q4_0", "Q8_0"]
    assert chosen(older_than_s=1400, keep_bytes=200_004) == ["Q4_0"]
    held = start_using(NAME, "Q4_0")
    assert chosen(keep_bytes=300_007) == ["Q8_0"]
    held.release()


def test_what_only_others_fetched_is_not_pruned(published: str, hub: HubServer, hf_cache: Path) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(REPO, FILE, endpoint=hub.huggingface_url, cache_dir=hf_cache)
    assert choose_old(read_inventory(), now=1e12, older_than_s=0, keep_bytes=0) == ()
    pull(NAME, quantization="Q4_0")
    assert len(choose_old(read_inventory(), now=1e12, older_than_s=0)) == 1
