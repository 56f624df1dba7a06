"""Engines as processes: how they become ready, what is said when they do not, and that nothing is left of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engines.process import SOCKET_PATH_LIMIT_BYTES, EngineProcess, new_address
from engines.running import is_healthy
from registry.errors import LoadError, OutOfMemoryError
from tests.fakes.scripted_engine import VARIABLES, ScriptedEngine, is_running, read_pids, wait_until_gone

Start = Callable[..., EngineProcess]
LONG_S = 60.0


@pytest.fixture
def log_path(tmp_path: Path) -> Path:
    return tmp_path / "logs" / "engine.log"


@pytest.fixture
def start(log_path: Path) -> Iterator[Start]:
    """Return a function that starts a scripted engine with arguments; all are stopped after the test."""
    started: list[EngineProcess] = []

    def start_engine(*arguments: str) -> EngineProcess:
        engine, address = ScriptedEngine(), new_address()
        command = engine.script(address, *arguments)
        started.append(
            EngineProcess.start(engine, command, address=address, log_path=log_path, variables=VARIABLES, grace_s=0.3)
        )
        return started[-1]

    yield start_engine
    for process in started:
        process.stop()


def test_it_becomes_ready_and_stops_leaving_no_socket(start: Start) -> None:
    process = start("--say", "hello")
    process.wait_ready(LONG_S)
    assert process.is_alive()
    assert process.exit_code is None
    assert is_healthy(process.address)

    process.stop()
    process.stop()

    assert not process.is_alive()
    assert process.exit_code == 128 + signal.SIGTERM
    assert process.address.socket is not None
    assert not process.address.socket.parent.exists()


def test_lines_of_the_log_are_shown_while_it_loads(start: Start) -> None:
    lines: list[str] = []
    start("--say", "first", "--say", "second").wait_ready(LONG_S, lines.append)
    assert lines == ["first", "second"]


def test_a_bar_that_is_drawn_anew_is_a_line_each_time(start: Start) -> None:
    lines: list[str] = []
    start("--say", "\r1 of 2\r2 of 2").wait_ready(LONG_S, lines.append)
    assert lines == ["1 of 2", "2 of 2"]


def test_an_engine_that_ends_while_loading_says_why(start: Start, log_path: Path) -> None:
    process = start("--say", "loading", "--say", "cause: the file is no model", "--exit", "3")
    with pytest.raises(LoadError) as caught:
        process.wait_ready(LONG_S)
    error = caught.value
    assert error.message == "the file is no model"
    assert (error.hint, error.engine, error.exit_code) == ("read this", "scripted", 3)
    assert error.log_path == str(log_path)
    assert error.details == ("loading", "cause: the file is no model", f"log: `{log_path}`")


def test_the_end_of_a_running_engine_is_awaited_and_explained(start: Start) -> None:
    process = start("--say", "cause: it broke", "--exit", "3")
    assert process.wait_ended(LONG_S)
    assert process.failure().message == "it broke"
    assert not start().wait_ended(0.05)


def test_out_of_memory_is_a_kind_of_its_own(start: Start) -> None:
    with pytest.raises(OutOfMemoryError, match="too large"):
        start("--say", "memory cause: too large", "--exit", "1").wait_ready(LONG_S)


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("--exit", "7"), "`scripted` ended with exit code 7", 7),
        (("--die", str(int(signal.SIGKILL))), "`scripted` ended by SIGKILL", 137),
        (("--die", str(int(signal.SIGSEGV))), "`scripted` ended by SIGSEGV", 139),
    ],
)
def test_without_a_cause_the_exit_code_is_named(
    start: Start, arguments: tuple[str, ...], message: str, code: int
) -> None:
    with pytest.raises(LoadError) as caught:
        start(*arguments).wait_ready(LONG_S)
    assert (caught.value.message, caught.value.exit_code) == (message, code)


@pytest.mark.parametrize("how", ["--deaf", "--sick"])
def test_one_that_never_becomes_ready_is_ended(start: Start, how: str) -> None:
    process = start(how)
    with pytest.raises(LoadError, match="was not ready within"):
        process.wait_ready(0.4)
    assert not process.is_alive()


def test_a_command_that_does_not_exist(log_path: Path) -> None:
    process = EngineProcess.start(ScriptedEngine(), ("/no/such/python", "-P"), address=new_address(), log_path=log_path)
    with pytest.raises(LoadError) as caught:
        process.wait_ready(LONG_S)
    assert caught.value.exit_code == 127
    assert "cannot start `/no/such/python`: No such file or directory" in caught.value.details


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    address = new_address()
    (tmp_path / "file").touch()
    with pytest.raises(LoadError, match="`scripted` could not be started"):
        EngineProcess.start(ScriptedEngine(), ("true",), address=address, log_path=tmp_path / "file" / "log")
    assert address.socket is not None
    assert not address.socket.parent.exists()


def test_the_thread_that_starts_an_engine_may_end(start: Start) -> None:
    started: list[EngineProcess] = []
    thread = threading.Thread(target=lambda: started.append(start()))
    thread.start()
    thread.join()
    started[0].wait_ready(LONG_S)
    threading.Event().wait(0.3)
    assert is_healthy(started[0].address)


def test_stop_ends_grandchildren_that_ignore_term(start: Start, tmp_path: Path) -> None:
    process = start("--stubborn", str(tmp_path / "pids"))
    process.wait_ready(LONG_S)
    pids = read_pids(tmp_path / "pids")
    assert len(pids) == 4
    assert all(is_running(pid) for pid in pids)
    process.stop()
    assert wait_until_gone(pids, 2) == []


def test_grandchildren_of_an_engine_that_was_killed_are_ended(start: Start, tmp_path: Path) -> None:
    process = start("--stubborn", str(tmp_path / "pids"))
    process.wait_ready(LONG_S)
    pids = read_pids(tmp_path / "pids")
    os.kill(pids[0], signal.SIGKILL)
    assert wait_until_gone(pids, 5) == []
    process.stop()
    assert process.exit_code == 137


def test_nothing_is_left_of_a_killed_launcher_within_two_seconds(tmp_path: Path) -> None:
    pids_path = tmp_path / "pids"
    command = (sys.executable, "-m", "tests.fakes.launching", str(tmp_path / "log"), str(pids_path))
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as launcher:
        assert launcher.stdout is not None
        guard = int(launcher.stdout.readline())
        pids = [guard, *read_pids(pids_path)]
        assert all(is_running(pid) for pid in pids)
        launcher.kill()
        assert wait_until_gone(pids, 2) == []


def test_a_killed_guard_takes_the_engine_along(start: Start) -> None:
    process = start()
    process.wait_ready(LONG_S)
    os.kill(process.pid, signal.SIGKILL)
    process.stop()
    assert process.exit_code == 137
    assert not is_healthy(process.address)


@pytest.mark.parametrize("folder", ["", "/" + "long" * 30, "/no/such/folder"])
def test_a_socket_fits_every_system_wherever_the_runtime_folder_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: str
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", folder)
    socket = new_address().socket
    assert socket is not None
    assert len(os.fsencode(socket)) <= SOCKET_PATH_LIMIT_BYTES
    assert socket.parent.stat().st_mode & 0o777 == 0o700
    socket.parent.rmdir()


def test_sockets_are_in_the_runtime_folder_where_there_is_one(runtime_folder: Path) -> None:
    first, second = new_address().socket, new_address().socket
    assert first is not None
    assert first != second
    assert first.parent.parent == runtime_folder / "model-launcher"
