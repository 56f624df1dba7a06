"""The command `llm`, with the endpoint as an extra model of OpenAI's kind."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from launcher import LaunchedModel

pytestmark = pytest.mark.clients


@pytest.fixture
def folder(model: LaunchedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configure `llm` in a folder of its own."""
    described = {"model_id": "local", "model_name": model.name, "api_base": model.base_url}
    more = {"supports_schema": True, "supports_tools": True}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([{**described, **more}]))
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    return tmp_path


def llm(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "llm", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("how", [(), ("--no-stream",), ("--async",)])
def test_it_answers(folder: Path, how: tuple[str, ...]) -> None:
    assert llm("-m", "local", "--system", "Be brief.", *how, "one two") == "one two\n"


def test_its_options_hold(folder: Path) -> None:
    assert llm(
        "-m", "local", "-o", "max_tokens", "2", "-o", "temperature", "0", "-o", "seed", "1", "one two three"
    ) == ("one two\n")


def test_it_goes_on_with_a_conversation(folder: Path) -> None:
    llm("-m", "local", "one")
    assert llm("-c", "two") == "two\n"


def test_it_gets_json(folder: Path) -> None:
    assert json.loads(llm("-m", "local", "--schema", "name, inhabitants int", "Paris?")) == {
        "name": "echo",
        "inhabitants": 1,
    }
