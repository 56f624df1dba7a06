"""Locks as uv installs them on this machine: everything is there, in the pinned version, and nothing is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest
import uv

from engines.base import Requirements
from engines.builds import PACKAGES, requirements_for_build, requirements_of
from engines.environment import LOCKS
from engines.installing import build_environment
from engines.machine import read_machine
from registry.package_index import uv_variables


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


COMPLETE = [
    requirements
    for engine, package in PACKAGES.items()
    for requirements in (requirements_for_build(engine, build) for build in package.builds)
    if not requirements.index_url and requirements.variant in ("cpu", "cuda13")
]


@pytest.mark.index
@pytest.mark.parametrize("requirements", COMPLETE, ids=lambda each: each.lock)
def test_uv_adds_nothing_to_a_lock(requirements: Requirements, tmp_path: Path) -> None:
    """What a lock pins is all that is needed: uv would install just that, as far as it is for this system."""
    environment = tmp_path / "environment"
    lock = LOCKS / requirements.lock
    without = lock.with_suffix(".without")
    variables = {**os.environ, **uv_variables()}
    if requirements.variant != "cpu":
        variables.pop("UV_FIND_LINKS", None)  # folders of wheels hold torch's CPU build, if any
    subprocess.run((uv.find_uv_bin(), "venv", "--quiet", "--python", sys.executable, environment), check=True)
    command = ("pip", "install", "--dry-run", "--python", environment / "bin" / "python", "--requirements", lock)
    done = subprocess.run(
        (uv.find_uv_bin(), *command, *(("--excludes", without) if without.is_file() else ())),
        capture_output=True,
        text=True,
        cwd=LOCKS,
        env=variables,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"(?m)^ \+ ([\w.-]+)==([^\s+]+)", done.stderr))
    assert {_plain(name): version for name, version in found.items()} == _pins(lock)


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
