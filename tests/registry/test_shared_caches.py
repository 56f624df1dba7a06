"""Caches of several: other programs' weights are linked to, and a group's cache stays the group's."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.progress import Progress
from registry.store import pull
from tests.fakes.hub import Fault, HubServer
from tests.fakes.weights import COMMIT_FILES, NAME, REPO, WEIGHTS, gguf_source

BOTH = pytest.mark.parametrize("name", ["huggingface", "modelscope"])
Place = Callable[[str, Path], Path]


@pytest.fixture
def commit(hub: HubServer) -> str:
    return hub.add_repo(REPO, COMMIT_FILES)


def in_ollama(sha256: str, home: Path) -> Path:
    return home / ".ollama/models/blobs" / f"sha256-{sha256}"


def in_lm_studio(sha256: str, home: Path) -> Path:
    return home / ".lmstudio/models" / REPO / NAME


def in_old_lm_studio(sha256: str, home: Path) -> Path:
    return home / ".cache/lm-studio/models" / REPO / NAME


def keep(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


@BOTH
@pytest.mark.parametrize("place", [in_ollama, in_lm_studio, in_old_lm_studio])
def test_what_another_program_fetched_is_linked_to(hub: HubServer, commit: str, name: str, place: Place) -> None:
    theirs = keep(place(hub.sha256(REPO, NAME), Path.home()), WEIGHTS)
    told: list[Progress] = []
    pulled = pull(*gguf_source(name, commit), progress=told.append)
    assert pulled.path.samefile(theirs)
    assert hub.sent_of_files == 0
    assert "download" not in {progress.stage for progress in told}


def test_ollamas_folder_may_be_elsewhere(
    hub: HubServer, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "large disk"))
    theirs = keep(tmp_path / "large disk/blobs" / f"sha256-{hub.sha256(REPO, NAME)}", WEIGHTS)
    assert pull(*gguf_source("huggingface", commit)).path.samefile(theirs)
    assert hub.sent_of_files == 0


@pytest.mark.parametrize("content", [WEIGHTS[:-1] + b"?", WEIGHTS[:-1]], ids=["wrong byte", "short"])
def test_another_programs_wrong_file_is_left_alone(hub: HubServer, commit: str, content: bytes) -> None:
    theirs = keep(in_ollama(hub.sha256(REPO, NAME), Path.home()), content)
    assert pull(*gguf_source("huggingface", commit)).path.read_bytes() == WEIGHTS
    assert theirs.read_bytes() == content
    assert theirs.stat().st_nlink == 1


def test_a_changed_file_of_another_program_is_not_written_to(hub: HubServer, commit: str) -> None:
    theirs = keep(in_ollama(hub.sha256(REPO, NAME), Path.home()), WEIGHTS)
    pulled = pull(*gguf_source("huggingface", commit))
    damaged = WEIGHTS[:-1] + b"?"
    theirs.write_bytes(damaged)
    assert pull(*gguf_source("huggingface", commit)).path == pulled.path
    assert pulled.path.read_bytes() == WEIGHTS
    assert theirs.read_bytes() == damaged


# --- a group's -------------------------------------------------------------------------------------------------------


@pytest.fixture
def group_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "group"
    folder.mkdir()
    folder.chmod(0o2775)
    for variable in ("HF_HOME", "MODELSCOPE_CACHE", "LAUNCH_CACHE"):
        monkeypatch.setenv(variable, str(folder / variable))
    before = os.umask(0o002)
    yield folder
    os.umask(before)


@BOTH
def test_a_groups_cache_stays_the_groups(hub: HubServer, commit: str, name: str, group_cache: Path) -> None:
    pull(*gguf_source(name, commit))
    modes = {path: path.stat().st_mode for path in group_cache.rglob("*") if not path.is_symlink()}
    assert any(stat.S_ISREG(mode) for mode in modes.values())
    for path, mode in modes.items():
        wanted = 0o2775 if stat.S_ISDIR(mode) else 0o664
        assert stat.S_IMODE(mode) == wanted, f"{path.relative_to(group_cache)} is {stat.S_IMODE(mode):o}"


@BOTH
def test_what_a_killed_pull_leaves_is_the_groups_too(hub: HubServer, commit: str, name: str, group_cache: Path) -> None:
    hub.breaks(NAME, Fault("status", status=404, times=None))
    with pytest.raises(Exception, match="has no file"):
        pull(*gguf_source(name, commit))
    left = list(group_cache.rglob("*.partial"))
    assert left
    assert {stat.S_IMODE(path.stat().st_mode) for path in left} == {0o664}
