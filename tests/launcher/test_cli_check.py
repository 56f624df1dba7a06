"""`launch check`: three prompts to a real launch, what is told of the answers, and the exit code."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import launcher
from launcher.checking import BEGINNINGS, QUESTIONS, judge_vectors
from launcher.cli.check import SHOWN_CHARACTERS, shortened
from launcher.instance import attach
from launcher.instances import running_instances
from launcher.memory import peak_bytes_below
from tests.launcher.commands import LIMIT_S, Run, processes_with, started

ECHO = ("smollm2-instruct", "--engine", "echo")
ENTRY = """\
name: own
abilities: [{ability}]
context_length: 512
specs:
  - format: gguf
    size_in_billions: 0.5
    quantizations: [Q4_0]
    sources: {{huggingface: {{repo_id: org/own-GGUF, file: own.gguf}}}}
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> tuple[str, ...]:
    """Return the words that check a model with one ability alone."""
    (tmp_path / "own.yaml").write_text(ENTRY.format(ability=request.param))
    monkeypatch.setenv("LAUNCH_REGISTRY", str(tmp_path / "own.yaml"))
    return ("check", "own", "--engine", "echo")


def test_for_people(run: Run) -> None:
    done = run("check", *ECHO)
    lines = done.out.splitlines()
    assert done.code == 0
    assert done.err == "smollm2-instruct as gguf Q4_1 on echo\n"
    assert lines[0::3][:3] == [f"ok      {question}" for question in QUESTIONS]
    assert lines[1::3] == [f"        {question}" for question in QUESTIONS]
    assert lines[2].startswith("        6 tokens, ended by stop, ")
    assert lines[9].startswith("ready in ")
    assert " tokens/s   memory " in lines[9]


def test_for_programs(run: Run) -> None:
    done = run("check", *ECHO, "--json")
    checked = done.json
    assert (done.code, checked["schema"], checked["event"], checked["passed"]) == (0, 1, "check", True)
    chosen = (checked["name"], checked["model_format"], checked["quantization"], checked["engine"])
    assert chosen == ("smollm2-instruct", "gguf", "Q4_1", "echo")
    assert checked["ready_s"] > 0
    assert checked["peak_memory_bytes"] > 1_000_000
    assert [answer["text"] for answer in checked["answers"]] == list(QUESTIONS)
    assert all(answer["first_token_s"] > 0 and answer["tokens_per_s"] > 0 for answer in checked["answers"])
    speeds = sorted(answer["tokens_per_s"] for answer in checked["answers"])
    assert checked["tokens_per_s"] == speeds[1]


def test_the_options_of_a_launch_count(run: Run) -> None:
    slow = run("check", *ECHO, "--concurrency", "1", "--json", "--", "--tokens-per-second", "100", "--reply", "a b c d")
    assert 0 < slow.json["tokens_per_s"] < 110
    assert {answer["text"] for answer in slow.json["answers"]} == {"a b c d"}


def test_answers_without_text_fail(run: Run) -> None:
    done = run("check", *ECHO, "--", "--reply", "")
    assert done.code == 1
    assert done.out.startswith(f"failed  {QUESTIONS[0]}\n        (no text)\n")
    assert f"error: 3 of 3 answers are none\n  `{QUESTIONS[0]}`: it has no text\n" in done.err
    failed = run("check", *ECHO, "--json", "--", "--reply", "")
    assert (failed.code, failed.json["passed"]) == (1, False)
    assert {answer["fault"] for answer in failed.json["answers"]} == {"it has no text"}


def test_a_thought_is_text(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    thinking = ENTRY.format(ability="chat") + 'chat: {reasoning: {start: "<think>", end: "</think>"}}\n'
    (tmp_path / "own.yaml").write_text(thinking)
    monkeypatch.setenv("LAUNCH_REGISTRY", str(tmp_path / "own.yaml"))
    done = run("check", "own", "--engine", "echo", "--json", "--", "--thinks", "so", "--reply", "")
    assert done.code == 0, done.err
    assert {answer["text"] for answer in done.json["answers"]} == {"so"}


@pytest.mark.parametrize("own", ["generate"], indirect=True)
def test_without_a_template_it_is_raw_text(run: Run, own: tuple[str, ...]) -> None:
    done = run(*own, "--json")
    assert done.code == 0, done.err
    assert [(answer["prompt"], answer["text"]) for answer in done.json["answers"]] == [
        *zip(BEGINNINGS, BEGINNINGS, strict=True)
    ]


@pytest.mark.parametrize("own", ["embed"], indirect=True)
def test_vectors_have_a_size(run: Run, own: tuple[str, ...]) -> None:
    done = run(*own)
    assert done.code == 0, done.err
    assert done.out.count("        a vector of 4 numbers\n") == 3
    checked = run(*own, "--json").json
    assert [(answer["size"], answer["text"]) for answer in checked["answers"]] == [(4, None)] * 3
    assert checked["tokens_per_s"] is None


def test_faults_of_vectors() -> None:
    found = judge_vectors(("a", "b", "c", "d"), [[1.0, 0.0], [0.0, 0.0], [1.0, math.nan], [1.0]])
    assert [answer.fault for answer in found] == [
        None,
        "its vector is empty or all zero",
        "its vector has numbers that are none",
        "its vector has 1 numbers, the first one 2",
    ]


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="the engine's process is found by /proc")
def test_an_engine_that_dies_is_the_cause() -> None:
    with started("check", *ECHO, "--json", "--", "--tokens-per-second", "1") as process:
        os.kill(wait_for_engine(), signal.SIGKILL)
        assert process.wait(LIMIT_S) == 1
        assert process.stdout is not None
        error = json.loads(process.stdout.read())
    assert (error["event"], error["kind"], error["facts"]["exit_code"]) == ("error", "load", 137)


def wait_for_engine() -> int:
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        for pid in processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"]):
            line = Path(f"/proc/{pid}/cmdline").read_text()
            if "echo.py" in line and "guard.py" not in line:
                return pid
        time.sleep(0.01)
    raise AssertionError("no engine was started")


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="only Linux keeps a process's peak")
def test_memory_is_what_all_processes_had_at_most() -> None:
    child = "import sys; held = bytearray(64 << 20); del held; print('freed', flush=True); sys.stdin.read()"
    guard = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", guard], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"freed\n"
        peak_bytes = peak_bytes_below(process.pid)
        process.communicate()
    assert 64 << 20 < peak_bytes < 256 << 20
    assert peak_bytes_below(process.pid) == 0


def test_long_answers_are_cut() -> None:
    assert shortened(" a\n\n b ") == "a b"
    assert shortened("word " * 100).endswith("…")
    assert len(shortened("x" * 1000)) == SHOWN_CHARACTERS


def test_no_such_model(run: Run) -> None:
    done = run("check", "no-such-model", "--json")
    assert (done.code, done.json["kind"]) == (1, "unknown_model")


def test_nobody_else_uses_the_engine_while_it_is_measured() -> None:
    arguments = ("--tokens-per-second", "2")
    plan = launcher.plan("smollm2-instruct", engine="echo", engine_args=arguments)
    with started("check", *ECHO, "--", *arguments) as process:
        while not (running := [each for each in running_instances() if each.is_ready]):
            assert process.poll() is None
            time.sleep(0.02)
        assert [each.state for each in running] == ["ready"]
        assert attach(plan) is None
        process.send_signal(signal.SIGINT)
        process.wait(LIMIT_S)
