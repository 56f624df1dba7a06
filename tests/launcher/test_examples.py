"""The documentation's programs, as a reader runs them; the one on a real model is in `test_cli_engine.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.testing import fake_model
from tests.fakes.echo import free_port

pytestmark = pytest.mark.processes

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples"


def run(*arguments: str, **variables: str) -> str:
    """Return what Python prints for `arguments`, which end well."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ, cwd=os.environ["HOME"])
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_model_elsewhere() -> None:
    with fake_model(["A boat.", "Once there was a boat."]) as model:
        url = model.base_url
        said = run(str(EXAMPLES / "connected.py"), LAUNCH_URL=url)
    assert said == f"fake-model 8192 {url}\nA boat.\nOnce there was a boat."


def test_nobody_there_is_told() -> None:
    port = free_port()
    said = run(str(EXAMPLES / "connected.py"), LAUNCH_URL=f"127.0.0.1:{port}")
    assert said.splitlines()[1] == f"launch smollm2-instruct --port {port}"


def test_a_test_with_a_model() -> None:
    recipe = str(EXAMPLES / "test_with_a_model.py")
    assert "1 passed" in run("-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", os.environ["HOME"], recipe)
