"""`launch` in this process, and a look for what a test's launches have left behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.cli.main import main
from tests.fakes.faults import LaunchTrial, Trials
from tests.fakes.hub import HubServer
from tests.fakes.published import publish, write_entry
from tests.fakes.scripted_engine import wait_until_gone
from tests.launcher.aftermath import Aftermath
from tests.launcher.commands import Done, Run, processes_with


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return what runs the command line here, which is quicker than as a program of its own."""

    def run(*arguments: str) -> Done:
        code = main(arguments)
        printed = capsys.readouterr()
        return Done(code, printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def byte_code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for byte code where none may be written beside the sources."""
    return tmp_path_factory.mktemp("byte-code")


@pytest.fixture(autouse=True)
def _started_from_byte_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, byte_code: Path) -> None:
    """Spare the programs that tests start half of their time: without byte code each compiles what it imports.

    The environments of real engines are made with theirs inside.
    """
    if "PYTHONDONTWRITEBYTECODE" in os.environ and request.node.get_closest_marker("engine") is None:
        monkeypatch.delenv("PYTHONDONTWRITEBYTECODE")
        monkeypatch.setenv("PYTHONPYCACHEPREFIX", str(byte_code))


@pytest.fixture(autouse=True)
def _no_orphans(_own_home: None, runtime_folder: Path) -> Iterator[None]:
    """Fail a test that leaves a process behind: every launch of it has this folder in its environment."""
    assert os.environ["XDG_RUNTIME_DIR"] == str(runtime_folder)
    yield
    left = wait_until_gone(processes_with("XDG_RUNTIME_DIR", str(runtime_folder)), 2)
    assert not left, f"processes {left} are left"


@pytest.fixture
def published(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Publish the model `own` on both hubs, name it in the catalogue, and return its commit."""
    monkeypatch.setenv("LAUNCH_REGISTRY", str(write_entry(tmp_path)))
    return publish(hub)


@pytest.fixture
def aftermath(run: Run, launch_trials: Trials[LaunchTrial]) -> Iterator[Aftermath]:
    """Return what notes trials; after the test nothing may be left, and the next launch must work."""
    noted = Aftermath(run)
    yield noted
    noted.close(launch_trials)
