"""What ends an engine, and what does not: handles, garbage collection, programs, threads, forks."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading

import pytest

from launcher import Model, launch
from tests.fakes.scripted_engine import wait_until_gone
from tests.launcher.commands import LIMIT_S, processes_with

pytestmark = pytest.mark.processes

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are found by /proc")
BEGIN = "import os, sys\nfrom launcher import launch\nmodel = launch('smollm2', engine='echo')\n"


def ours() -> list[int]:
    return processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"])


def run_script(body: str, code: int = 0) -> str:
    """Run a program that has a model, and return what it printed, and complained of."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + body], capture_output=True, text=True, timeout=LIMIT_S, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


@needs_proc
def test_a_closed_handle_ends_it() -> None:
    model = launch("smollm2", engine="echo")
    assert len(ours()) == 2  # the guard, and the engine
    model.close()
    assert ours() == []


@needs_proc
def test_a_lost_handle_ends_it() -> None:
    model = launch("smollm2", engine="echo")
    model.chat("hello")
    assert model.base_url
    del model
    gc.collect()
    assert wait_until_gone(ours(), 2) == []


def test_the_programs_end_ends_it() -> None:
    assert run_script("print(model.chat('hello').text)") == "hello\n"
    assert wait_until_gone(ours(), 2) == []


def test_the_programs_end_ends_it_with_its_address() -> None:
    assert run_script("print(model.base_url[:17])") == "http://127.0.0.1:\n"
    assert wait_until_gone(ours(), 2) == []


def test_an_uncaught_error_ends_it() -> None:
    assert "ZeroDivisionError" in run_script("1 / 0", code=1)
    assert wait_until_gone(ours(), 2) == []


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM"])
def test_a_killed_programs_end_ends_it(name: str) -> None:
    run_script(f"import signal; os.kill(os.getpid(), signal.{name})", code=-signal.Signals[name])
    assert wait_until_gone(ours(), 2) == []


def test_a_thread_that_started_it_may_end() -> None:
    started: list[Model] = []
    thread = threading.Thread(target=lambda: started.append(launch("smollm2", engine="echo")))
    thread.start()
    thread.join()
    with started[0] as model:
        assert model.chat("still there").text == "still there"


def test_a_forked_child_does_not_end_it() -> None:
    """Neither by closing the handle, nor by losing it, nor by ending as programs do."""
    for childs in ("model.close()", "del model", "pass"):
        body = (
            "child = os.fork()\n"
            f"if not child:\n    {childs}\n    sys.exit(0)\n"
            "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
            "print(model.chat('still there').text)\n"
        )
        assert run_script(body) == "still there\n"


def test_a_forked_child_can_ask() -> None:
    body = (
        "child = os.fork()\n"
        "if not child:\n    os._exit(model.chat('hello').text != 'hello')\n"
        "print(model.chat('parent').text, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert run_script(body) == "parent 0\n"


def test_progress_is_shown_while_it_lasts() -> None:
    """What a program prints after the launch is not disturbed by a display that goes on."""
    body = (
        "import threading\n"
        "with launch('smollm2', engine='echo', progress=True) as other:\n"
        "    print(other.chat('hello').text, len(threading.enumerate()))\n"
    )
    assert run_script(body) == "hello 1\n"
