"""Locks as uv installs them on this machine: everything is there, in the pinned version, and nothing is missing."""

from __future__ import annotations

import re
import subprocess
from importlib.metadata import distributions
from pathlib import Path

import pytest
import uv

from engines.builds import PACKAGES, requirements_of
from engines.environment import LOCKS
from engines.installing import build_environment
from engines.machine import read_machine


@pytest.mark.engine
@pytest.mark.index
@pytest.mark.parametrize("engine", list(PACKAGES))
def test_an_environment_holds_what_its_lock_says_and_all_that_is_needed(engine: str) -> None:
    requirements = requirements_of(engine, read_machine())
    environment = build_environment(requirements)
    assert environment.folder is not None
    folders = [str(folder) for folder in environment.folder.glob("lib/python3*/site-packages")]
    here = {_plain(each.name): each.version for each in distributions(path=folders)}
    pinned = _pins(LOCKS / requirements.lock)
    assert {name: here.get(name, "").partition("+")[0] for name in pinned} == pinned
    assert _missing(environment.python) == _left_out(LOCKS / requirements.lock)


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(lock: Path) -> dict[str, str]:
    """Return what a lock pins by name, without what is for other Pythons or systems only."""
    entries = re.findall(r"(?m)^([\w.-]+)==([^\s;\\]+)(?: ; ([^\\\n]+))?", lock.read_text("utf-8"))
    from packaging.markers import Marker

    return {_plain(name): version for name, version, marker in entries if not marker or Marker(marker).evaluate()}


def _missing(python: str) -> set[str]:
    """Return the distributions that uv finds wanting in an environment; versions that do not fit fail the test."""
    done = subprocess.run(
        (uv.find_uv_bin(), "pip", "check", "--python", python), capture_output=True, text=True, check=False
    )
    found = re.findall(r"requires `([\w.-]+)[^`]*`, but it's not installed", done.stderr)
    assert len(found) == done.stderr.count("requires `"), done.stderr
    return set(found)


def _left_out(lock: Path) -> set[str]:
    without = lock.with_suffix(".without")
    return set(without.read_text("utf-8").split()) if without.is_file() else set()
