"""What one hub does wrong, the other makes good: a trial of two hubs that differ, through the Python API."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher import DigestError, Progress, pull
from tests.fakes.faults import Trial, Trials
from tests.fakes.hub import Fault, HubServer
from tests.fakes.published import FILE, NAME, WEIGHTS, publish, write_entry

pytestmark = pytest.mark.downloads


@pytest.fixture
def modelscope(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Return a ModelScope of its own beside the fixture `hub`, where then only Hugging Face is."""
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_entry(tmp_path)))
    with HubServer() as other:
        monkeypatch.setenv("MODELSCOPE_ENDPOINT", other.modelscope_url)
        publish(other)
        yield other


def corrupt_files(home: Path) -> int:
    """Return how many files lie under the model's name, or a blob's, that are not the right one."""
    right = hashlib.sha256(WEIGHTS[FILE]).hexdigest()
    placed = (path for path in home.rglob("*") if path.is_file() and path.name in (FILE, right))
    return sum(path.read_bytes() != WEIGHTS[FILE] for path in placed)


def check(trials: Trials[Trial], home: Path, fault: int, tried: str, reason: str) -> None:
    """Pull, and record that the other hub gave the file with a word on the reason."""
    told: list[Progress] = []
    assert pull(NAME, progress=told.append).read_bytes() == WEIGHTS[FILE]
    (fallback,) = (progress.text for progress in told if progress.stage == "fallback")
    assert reason in fallback
    tried, happened = f"{tried}; ModelScope has the file too", "the right file from there, with a word on why"
    trials.add(Trial(fault, "Hugging Face", tried, happened, corrupt_files(home), None))


@pytest.mark.usefixtures("modelscope")
def test_wrong_bytes(hub: HubServer, trials: Trials[Trial], tmp_path: Path) -> None:
    publish(hub)
    hub.flip_byte(FILE)
    check(trials, tmp_path / "home", 5, "one bit is wrong, every time", "vouched for")


@pytest.mark.usefixtures("modelscope")
def test_a_gated_repo(hub: HubServer, trials: Trials[Trial], tmp_path: Path) -> None:
    publish(hub, gated=True)
    check(trials, tmp_path / "home", 12, "a gated repo, no token", "wants a login")


@pytest.mark.usefixtures("modelscope")
def test_no_such_repo(trials: Trials[Trial], tmp_path: Path) -> None:
    check(trials, tmp_path / "home", 12, "no such repo", "has no repo")


def test_wrong_bytes_on_both(hub: HubServer, modelscope: HubServer, trials: Trials[Trial], tmp_path: Path) -> None:
    for each in (hub, modelscope):
        publish(each)
        each.flip_byte(FILE)
    with pytest.raises(DigestError) as caught:
        pull(NAME)
    assert any("ModelScope" in detail for detail in caught.value.details)
    happened = "the error of the first, with what was wrong with the other; no file"
    tried = "one bit is wrong, every time, on both hubs"
    trials.add(Trial(5, "Hugging Face", tried, happened, corrupt_files(tmp_path / "home"), None))


def test_a_file_that_is_gone_while_it_comes(
    hub: HubServer, modelscope: HubServer, trials: Trials[Trial], tmp_path: Path
) -> None:
    publish(hub)
    hub.breaks(FILE, Fault("cut", after_bytes=50_000), Fault("status", status=404, times=None))
    check(trials, tmp_path / "home", 2, "cut in the middle, then the file is gone", "has no file")
    assert modelscope.sent_of_files == len(WEIGHTS[FILE])
