"""The guard as a program of its own: exit codes, signals, a parent that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engines.process import GUARD
from tests.fakes.scripted_engine import wait_until_gone

GUARDED = (sys.executable, "-I", "-S", str(GUARD))


def guarded(*command: str, grace_s: float = 0.3, parent: int | None = None) -> subprocess.Popen[bytes]:
    parent = os.getpid() if parent is None else parent
    return subprocess.Popen(
        (*GUARDED, "--grace", str(grace_s), str(parent), "--", *command), stdout=subprocess.PIPE, text=False
    )


def first_line(process: subprocess.Popen[bytes]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -KILL $$", 137), ("kill -SEGV $$", 139)]
)
def test_its_exit_code_is_the_commands(script: str, code: int) -> None:
    with guarded("sh", "-c", script) as guard:
        assert guard.wait(20) == code


def test_a_command_that_does_not_exist_is_127() -> None:
    with guarded("/no/such/command") as guard:
        assert guard.wait(20) == 127


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_end_the_command_in_good_order(number: signal.Signals, tmp_path: Path) -> None:
    script = f"trap 'echo told > {tmp_path}/told; exit 5' TERM; echo up; while :; do sleep 0.01; done"
    with guarded("sh", "-c", script, grace_s=20) as guard:
        assert first_line(guard) == "up"
        guard.send_signal(number)
        assert guard.wait(20) == 5
    assert (tmp_path / "told").exists()


def test_its_socket_and_the_folder_go_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = folder / "e.sock"
    command = (*GUARDED, "--socket", str(path), str(os.getpid()), "--", "touch", str(path))
    assert subprocess.run(command, check=False).returncode == 0
    assert not folder.exists()


def test_a_command_that_ignores_term_is_killed_after_the_grace() -> None:
    with guarded("sh", "-c", "trap '' TERM; echo $$; while :; do sleep 0.01; done") as guard:
        pid = int(first_line(guard))
        guard.terminate()
        assert guard.wait(20) == 137
    assert wait_until_gone([pid], 2) == []


def test_what_the_command_leaves_behind_is_ended() -> None:
    with guarded("sh", "-c", "trap '' TERM; sleep 600 & echo $!; exit 4") as guard:
        pid = int(first_line(guard))
        assert guard.wait(20) == 4
    assert wait_until_gone([pid], 2) == []


def test_a_parent_that_is_gone_at_the_start_starts_nothing(tmp_path: Path) -> None:
    ended = subprocess.Popen(("true",))
    ended.wait()
    with guarded("touch", str(tmp_path / "started"), parent=ended.pid) as guard:
        assert guard.wait(20) == 143
    assert not (tmp_path / "started").exists()


def test_the_command_leads_a_session_and_has_no_signals_blocked() -> None:
    script = "import os, signal; print(os.getsid(0) == os.getpid(), signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    with guarded(sys.executable, "-c", script) as guard:
        assert first_line(guard) == "True set()"
        guard.wait(20)
