"""The launcher is killed with -9, at any moment: its engine goes too, `launch ps` shows nothing, the next works."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.fakes.hub import Fault, HubServer
from tests.fakes.published import FILE
from tests.fakes.scripted_engine import is_running, wait_until_gone
from tests.launcher.aftermath import (
    ECHO,
    GONE_WITHIN_S,
    LIMIT_S,
    SLOWLY,
    Aftermath,
    asking,
    engine_pids,
    guard_pids,
    launched,
    launching,
    marked,
    needs_proc,
    serving,
    wait_for_engine,
)
from tests.launcher.commands import Run, command
from tests.launcher.commands import launch as launch_program

pytestmark = [pytest.mark.processes, needs_proc]
FAULT = 16
ENDED = "the engine ended; `launch ps` shows nothing; the next launch works"
HANDLE = "from launcher import launch\nmodel = launch('smollm2', engine='echo')\n"
# As test runners and web servers do it: threads that ask, and the main thread that waits for them.
THREADS = (
    "import threading\n"
    f"{HANDLE}"
    "def ask():\n"
    "    while True: model.chat('hello')\n"
    "threads = [threading.Thread(target=ask) for _ in range(4)]\n"
    "for thread in threads: thread.start()\n"
)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(LIMIT_S)


# --- the command line ------------------------------------------------------------------------------------------------


def test_while_it_fetches(aftermath: Aftermath, hub: HubServer, published: str, run: Run) -> None:
    hub.breaks(FILE, Fault("stall", after_bytes=50_000))
    with subprocess.Popen(command("pull", "own"), stderr=subprocess.PIPE, text=True) as pull:
        while not any(path for path in hub.requests if FILE in str(path)):
            assert pull.poll() is None
            time.sleep(0.02)
        kill(pull)
    assert run("pull", "own").code == 0
    aftermath.note(FAULT, "launch pull", "killed while it fetches", "the next pull went on; the right file")


def test_while_it_loads(aftermath: Aftermath) -> None:
    with launching(*ECHO, "--", "--hangs", "--ignores-term", "--leaves", misbehaves=True) as launch:
        wait_for_engine()
        kill(launch)
    aftermath.note(FAULT, "launch NAME", "killed while the engine loads", ENDED)


def test_while_nobody_asks(aftermath: Aftermath, run: Run) -> None:
    with serving(*ECHO) as server:
        kill(server.process)
        began = time.monotonic()
        shown = run("ps", "--json").json
        assert time.monotonic() - began < LIMIT_S
    assert [each["state"] for each in shown] in ([], ["stopping"])
    aftermath.note(FAULT, "launch NAME", "killed while nobody asks", ENDED)


def test_while_it_streams(aftermath: Aftermath) -> None:
    with serving(*ECHO, *SLOWLY) as server:
        streams = asking(server.url, 3)
        kill(server.process)
        heard = [stream.rest() for stream in streams]
    assert all(each.is_broken and not each.is_whole for each in heard)
    lost = sum(each.is_lost for each in heard)
    happened = f"{ENDED}; each client's connection broke in mid-body"
    aftermath.note(FAULT, "launch NAME", "killed in the middle of three streams", happened, lost=lost)


def test_while_it_drains(aftermath: Aftermath) -> None:
    with serving(*ECHO, *SLOWLY) as server:
        (stream,) = asking(server.url, 1)
        server.process.terminate()
        kill(server.process)
        heard = stream.rest()
    happened = f"{ENDED}; each client's connection broke in mid-body"
    aftermath.note(FAULT, "launch NAME", "killed while it drains after TERM", happened, lost=heard.is_lost)


def test_without_a_terminal(aftermath: Aftermath, run: Run) -> None:
    assert launch_program(*ECHO, "--detach", "--port", "0").code == 0
    (shown,) = run("ps", "--json").json
    os.kill(shown["pid"], signal.SIGKILL)
    aftermath.note(FAULT, "launch NAME --detach", "killed while nobody asks", ENDED)


# --- programs --------------------------------------------------------------------------------------------------------


@contextmanager
def program(text: str) -> Iterator[subprocess.Popen[str]]:
    """Run a Python program that has a model and does not end."""
    script = f"{text}print('up', flush=True)\nimport time; time.sleep(600)\n"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(("text", "what"), [(HANDLE, "a handle"), (THREADS, "a handle and four threads that ask")])
def test_a_program(aftermath: Aftermath, text: str, what: str) -> None:
    with program(text) as user:
        kill(user)
    aftermath.note(FAULT, "Python", f"a program with {what} is killed", ENDED)


def test_a_program_that_has_forked(aftermath: Aftermath) -> None:
    forked = f"{HANDLE}import os, time\nif not os.fork():\n    time.sleep(600)\n"
    with program(forked) as user:
        engine, guard = engine_pids()[0], guard_pids()[0]
        kill(user)
        assert wait_until_gone([engine, guard], GONE_WITHIN_S) == []
        for child in launched():
            os.kill(child, signal.SIGKILL)
    aftermath.note(FAULT, "Python", "a program is killed, a fork of it lives on", ENDED)


def test_a_server_in_a_thread(aftermath: Aftermath) -> None:
    text = (
        "import asyncio, threading\nimport launcher\n"
        "ready = threading.Event()\n"
        "async def main():\n"
        "    async with launcher.serve('smollm2', engine='echo', port=0):\n"
        "        ready.set()\n"
        "        await asyncio.sleep(600)\n"
        "threading.Thread(target=lambda: asyncio.run(main())).start()\n"
        "ready.wait()\n"
    )
    with program(text) as user:
        kill(user)
    aftermath.note(FAULT, "Python", "a program that serves in a thread is killed", ENDED)


# --- with its guard --------------------------------------------------------------------------------------------------


def test_the_guard_alone(aftermath: Aftermath) -> None:
    with serving(*ECHO, "--max-restarts", "0") as server:
        os.kill(guard_pids()[0], signal.SIGKILL)
        code, error = server.end()
    assert (code, error["kind"]) == (1, "load")
    aftermath.note(FAULT, "launch NAME", "the guard alone is killed", "the engine ended, and the launch with its cause")


def test_the_guard_too(aftermath: Aftermath, run: Run) -> None:
    """What the engine started is nobody's then, until `launch ps` finds it by its mark."""
    with serving(*ECHO, "--", "--leaves", "--ignores-term", misbehaves=True) as server:
        theirs = [pid for pid in launched() if marked(pid)]
        for pid in (server.process.pid, *guard_pids()):
            os.kill(pid, signal.SIGKILL)
        server.process.wait(LIMIT_S)
        assert any(map(is_running, theirs))
        assert run("ps", "--json").json == []
        assert wait_until_gone(theirs, GONE_WITHIN_S) == []
    tried = "killed together with the guard; the engine has started others"
    aftermath.note(FAULT, "launch NAME", tried, f"{ENDED}; `launch ps` ended what the engine had started")


def test_at_random_moments(aftermath: Aftermath) -> None:
    """From the first import to the first answer."""
    for tenths in range(0, 8, 2):
        with launching(*ECHO) as launch:
            threading.Event().wait(tenths / 10)
            kill(launch)
    aftermath.note(FAULT, "launch NAME", "killed at four moments of its first second", ENDED)


def test_with_several_models(aftermath: Aftermath, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "launch.yaml"
    names = ("one", "two", "three")
    models = "".join(f"  - {{model: smollm2-instruct, name: {name}, load: start}}\n" for name in names)
    file.write_text(f"defaults: {{engine: echo, context-length: 1024}}\nmodels:\n{models}")
    with serving("serve", "-c", str(file)) as server:
        assert len(engine_pids()) == len(names)
        kill(server.process)
        assert [each["state"] for each in run("ps", "--json").json if each["state"] == "ready"] == []
    aftermath.note(FAULT, "launch serve", "killed with three models loaded", ENDED.replace("engine", "engines"))
