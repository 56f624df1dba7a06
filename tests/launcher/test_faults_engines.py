"""Engines that end, hang, will not end or leave others behind, under `launch NAME` as a whole."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.scripted_engine import wait_until_gone
from tests.launcher.aftermath import (
    ECHO,
    GONE_WITHIN_S,
    LIMIT_S,
    SLOWLY,
    Aftermath,
    Asking,
    asking,
    engine_pids,
    launched,
    launching,
    marked,
    metric,
    needs_proc,
    serving,
    wait_for_engine,
    wait_for_metric,
)
from tests.launcher.commands import Run

pytestmark = [pytest.mark.processes, needs_proc]
FAULT = 15


def error_of(out: str) -> dict[str, Any]:
    """Return the error, the last of the events that a launch printed."""
    error: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert error["event"] == "error"
    return error


# --- before it is ready ----------------------------------------------------------------------------------------------


def test_it_ends_while_it_loads(aftermath: Aftermath) -> None:
    with launching(*ECHO, "--", "--ends", "3", misbehaves=True) as launch:
        out, _ = launch.communicate(timeout=LIMIT_S)
    error = error_of(out)
    assert (launch.returncode, error["kind"], error["facts"]["exit_code"]) == (1, "load", 3)
    aftermath.note(FAULT, "launch NAME", "ends with code 3 while it loads", f"“{error['message']}”, exit code 1")


def test_it_ends_while_it_loads_for_a_program(aftermath: Aftermath, monkeypatch: pytest.MonkeyPatch) -> None:
    import launcher
    from registry.errors import LoadError
    from tests.fakes import misbehaving_echo

    with monkeypatch.context() as patched:
        patched.setattr("engines.echo.RUNNER", misbehaving_echo.PATH)
        with pytest.raises(LoadError) as caught:
            launcher.launch("smollm2", engine="echo", engine_args={"ends": 3})
    aftermath.note(FAULT, "Python", "ends with code 3 while it loads", f"LoadError: “{caught.value.message}”")


def test_it_is_killed_while_it_loads(aftermath: Aftermath) -> None:
    with launching(*ECHO, "--", "--hangs", "--leaves", misbehaves=True) as launch:
        os.kill(wait_for_engine(), signal.SIGKILL)
        out, _ = launch.communicate(timeout=LIMIT_S)
    error = error_of(out)
    assert (launch.returncode, error["facts"]["exit_code"]) == (1, 137)
    aftermath.note(FAULT, "launch NAME", "is killed while it loads", f"“{error['message']}”, exit code 1")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_hangs_before_it_is_ready_and_is_stopped(aftermath: Aftermath, number: signal.Signals, code: int) -> None:
    with launching(*ECHO, "--", "--hangs", "--ignores-term", "--leaves", misbehaves=True) as launch:
        wait_for_engine()
        launch.send_signal(number)
        launch.communicate(timeout=LIMIT_S)
    assert launch.returncode in (code, -number)
    aftermath.note(FAULT, "launch NAME", f"hangs before it is ready; {number.name}", "ended with all that it started")


def test_it_hangs_before_it_is_ready_for_too_long(
    aftermath: Aftermath, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.fakes import misbehaving_echo

    with monkeypatch.context() as patched:
        patched.setattr("engines.echo.RUNNER", misbehaving_echo.PATH)
        patched.setattr("launcher.instance.READY_WITHIN_S", 0.5)
        done = run(*ECHO, "-p", "hello", "--", "--hangs")
    assert done.code == 1
    assert "`echo` was not ready within 0.5 s" in done.err
    happened = "“was not ready within” the limit of half an hour; ended"
    aftermath.note(FAULT, "launch NAME -p", "hangs before it is ready for longer than it may", happened)


# --- while it answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "options", "tried"),
    [
        (signal.SIGKILL, (), "is killed in the middle of three streams"),
        (signal.SIGSTOP, ("--hang-after", "1s"), "stands still in the middle of three streams"),
    ],
)
def test_it_ends_while_it_streams(
    aftermath: Aftermath, number: signal.Signals, options: tuple[str, ...], tried: str
) -> None:
    with serving(*ECHO, "--concurrency", "3", *options, *SLOWLY) as server:
        streams = asking(server.url, 3)
        os.kill(engine_pids()[0], number)
        waits = Asking(server.url, "one two")
        heard = [stream.rest() for stream in streams]
        assert all(each.error is not None and not each.is_whole for each in heard)
        assert (waits.rest().text, metric(server.url, "launch_engine_restarts_total")) == ("one two", 1)
        server.process.terminate()
        assert server.end()[0] == 0
    happened = "each stream ended with an error event; started again; who waited was answered"
    aftermath.note(FAULT, "the endpoint", tried, happened, lost=sum(each.is_lost for each in heard))


def test_it_is_killed_while_an_answer_is_gathered(aftermath: Aftermath) -> None:
    with serving(*ECHO, *SLOWLY) as server:
        asked = Asking(server.url, stream=False)
        wait_for_metric(server.url, "launch_requests_running", 1)
        os.kill(engine_pids()[0], signal.SIGKILL)
        heard = asked.rest()
    assert heard.status >= 500
    assert heard.error is not None
    assert "SIGKILL" in heard.error["message"]
    happened = f"status {heard.status} with the cause"
    aftermath.note(FAULT, "the endpoint", "is killed while an answer is gathered", happened, lost=heard.is_lost)


def test_it_is_killed_again_and_again(aftermath: Aftermath) -> None:
    with serving(*ECHO, "--max-restarts", "1") as server:
        first = engine_pids()[0]
        os.kill(first, signal.SIGKILL)
        while not (again := [pid for pid in engine_pids() if pid != first]):
            assert server.process.poll() is None
        os.kill(again[0], signal.SIGKILL)
        code, error = server.end()
    assert (code, error["kind"], error["facts"]["exit_code"]) == (1, "load", 137)
    tried = "is killed more often than `--max-restarts`"
    aftermath.note(FAULT, "launch NAME", tried, f"“{error['message']}”, exit code 1")


FILE = """\
defaults: {engine: echo, context-length: 1024}
models:
  - {model: smollm2-instruct, name: good, load: start}
  - {model: smollm2-instruct, name: bad, engine-args: [--no-such-option]}
"""


def test_one_of_several_cannot_be_loaded(aftermath: Aftermath, tmp_path: Path) -> None:
    file = tmp_path / "launch.yaml"
    file.write_text(FILE)
    with serving("serve", "-c", str(file)) as server:
        for _ in range(2):
            refused = Asking(server.url, "one two", model="bad", stream=False).rest()
            assert refused.status == 503
            assert refused.error is not None
            assert "--no-such-option" in refused.error["message"]
            assert Asking(server.url, "one two", model="good").rest().text == "one two"
        server.process.terminate()
        assert server.end()[0] == 0
    tried = "one of two models cannot be loaded"
    aftermath.note(FAULT, "launch serve", tried, "503 with the cause and Retry-After; the other is served")


# --- when it shall end -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [("--ignores-term",), ("--leaves",), ("--ignores-term", "--leaves")])
def test_it_will_not_end(aftermath: Aftermath, how: tuple[str, ...]) -> None:
    with serving(*ECHO, "--", *how, misbehaves=True) as server:
        theirs = [pid for pid in launched() if marked(pid)]
        assert len(theirs) == (4 if "--leaves" in how else 2)
        server.process.terminate()
        code, _ = server.end()
        assert wait_until_gone(theirs, GONE_WITHIN_S) == []
    assert code == 0
    words = {"--ignores-term": "ignores TERM", "--leaves": "has started others, one in a session of its own"}
    tried = f"{' and '.join(words[option] for option in how)}; TERM to the launch"
    aftermath.note(FAULT, "launch NAME", tried, "killed with all that it started")


def test_it_is_killed_and_leaves_others(aftermath: Aftermath) -> None:
    with serving(*ECHO, "--max-restarts", "0", "--", "--leaves", misbehaves=True) as server:
        theirs = [pid for pid in launched() if marked(pid)]
        os.kill(engine_pids()[0], signal.SIGKILL)
        server.end()
        assert wait_until_gone(theirs, GONE_WITHIN_S) == []
    aftermath.note(FAULT, "launch NAME", "is killed, having started others", "these were killed, too")


def test_it_stands_still_and_is_stopped(aftermath: Aftermath) -> None:
    with serving(*ECHO) as server:
        os.kill(engine_pids()[0], signal.SIGSTOP)
        server.process.terminate()
        code, _ = server.end()
    assert code == 0
    aftermath.note(FAULT, "launch NAME", "stands still; TERM to the launch", "killed")
