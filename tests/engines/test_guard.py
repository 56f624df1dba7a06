"""The guard as a program of its own: exit codes, signals, a parent that is gone."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
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


# --- who uses it -----------------------------------------------------------------------------------------------------

# What a user of the engine does: connect, say something, and read until the guard closes its end.
USER = """
import socket, sys, time
path, said = sys.argv[1:]
connection = socket.socket(socket.AF_UNIX)
for attempt in range(500):
    try:
        connection.connect(path)
        break
    except OSError:
        time.sleep(0.01)
connection.sendall(said.encode())
print("connected", flush=True)
sys.stdin.readline()
connection.shutdown(socket.SHUT_WR)
print("it goes on" if connection.recv(1) == b"+" else "it has ended", flush=True)
"""


def shared(folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start a command whose guard has a socket for its users."""
    command = (*GUARDED, "--grace", "20", "--socket", str(folder / "e.sock"), "--handles", str(folder / "g.sock"))
    return subprocess.Popen((*command, *options, str(os.getpid()), "--", "sleep", "600"))


def user(folder: Path, said: str = "") -> subprocess.Popen[str]:
    command = (sys.executable, "-c", USER, str(folder / "g.sock"), said)
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "connected\n"
    return process


def let_go(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate("\n", timeout=20)
    return out.strip()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    return folder


def connect(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(folder / "g.sock"))
    return connection


def close(connection: socket.socket) -> bool:
    """Let go, and return whether the engine goes on."""
    with connection:
        connection.settimeout(20)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(1) == b"+"


def test_the_last_who_lets_go_ends_it(folder: Path) -> None:
    with shared(folder) as guard, user(folder) as first, user(folder) as second:
        assert close(connect(folder))  # the parent itself, which counts by its connection alone from then on
        assert let_go(first) == "it goes on"
        assert guard.poll() is None
        assert let_go(second) == "it has ended"
        assert not folder.exists()
        assert guard.wait(20) == 128 + signal.SIGTERM


def test_a_user_that_is_killed_has_let_go(folder: Path) -> None:
    with shared(folder) as guard, user(folder) as other:
        close(connect(folder))
        other.kill()
        assert guard.wait(20) == 128 + signal.SIGTERM


def test_a_parent_that_is_connected_and_forked_counts_once(folder: Path) -> None:
    """A copy of its connection stays open in the child; that the parent has let go is what counts."""
    with shared(folder) as guard, user(folder):
        connection = connect_when_up(folder)
        child = subprocess.Popen(("sleep", "600"), pass_fds=(connection.fileno(),))
        assert close(connection)
        assert guard.poll() is None
        child.kill()
        child.wait()
        guard.terminate()
        assert guard.wait(20) == 128 + signal.SIGTERM


def test_it_is_kept_for_a_while_after_the_last(folder: Path) -> None:
    with shared(folder, "--keep", "600") as guard:
        close(connect_when_up(folder))
        with user(folder) as later:
            assert let_go(later) == "it goes on"
        assert guard.poll() is None
        guard.terminate()
        assert guard.wait(20) == 128 + signal.SIGTERM


def test_a_user_may_ask_to_keep_it(folder: Path) -> None:
    with shared(folder) as guard, user(folder, "keep 600\n") as asking:
        close(connect(folder))
        assert let_go(asking) == "it goes on"
        assert guard.poll() is None
        guard.terminate()
        assert guard.wait(20) == 128 + signal.SIGTERM


def test_kept_for_no_time_it_ends(folder: Path) -> None:
    with shared(folder, "--keep", "0.2") as guard:
        close(connect_when_up(folder))
        assert guard.wait(20) == 128 + signal.SIGTERM


def test_locks_that_it_was_given_last_as_long_as_it_does(folder: Path, tmp_path: Path) -> None:
    record = tmp_path / "record"
    with open(record, "w") as held, open(record) as other, shared(folder, "--keep", "600") as guard:
        fcntl.flock(held, fcntl.LOCK_SH)
        connection = connect_when_up(folder)
        socket.send_fds(connection, [b"hold\n"], [held.fileno()])
        assert close(connection)
        held.close()
        with pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        guard.terminate()
        assert guard.wait(20) == 128 + signal.SIGTERM
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


def connect_when_up(folder: Path) -> socket.socket:
    with user(folder) as waiting:
        connection = connect(folder)
        let_go(waiting)
    return connection
