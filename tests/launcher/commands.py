"""The command line as tests use it: called in this process, or as the program that users start, also on a terminal."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The console script's own words; it may be missing where the packages are only on the path.
PROGRAM = "import sys; from launcher.cli.main import main; sys.exit(main())"
# Ctrl-C reaches only what has the terminal as its own.
TERMINAL_PROGRAM = f"import fcntl, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); {PROGRAM}"
LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: its exit code, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The JSON objects on stdout, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


def command(*arguments: str, program: str = PROGRAM) -> list[str]:
    """Return the command that runs `launch` with `arguments`."""
    return [sys.executable, "-P", "-c", program, *arguments]


def launch(*arguments: str, stdin: str | None = None, folder: Path | None = None) -> Done:
    """Run `launch` as a program of its own; `stdin` is piped into it, None is /dev/null."""
    done = subprocess.run(
        command(*arguments),
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=LIMIT_S,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Start `launch` and go on while it runs; what is left of it at the end is killed."""
    process = subprocess.Popen(
        command(*arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def wait_for_event(process: subprocess.Popen[str], name: str) -> dict[str, Any]:
    """Return the next event of that name that a `launch … --json` prints."""
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == name:
            return event
    assert process.stderr is not None
    raise AssertionError(f"it ended without `{name}`: {process.stderr.read()}")


class Terminal:
    """`launch` on a terminal of its own, where stdout and stderr are one."""

    def __init__(self, *arguments: str, kind: str = "dumb", columns: int = 120) -> None:
        self._ours, theirs = pty.openpty()
        environ = {**os.environ, "TERM": kind, "COLUMNS": str(columns)}
        self.process = subprocess.Popen(
            command(*arguments, program=TERMINAL_PROGRAM),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            start_new_session=True,
        )
        os.close(theirs)
        self._seen = ""

    def type(self, text: str) -> None:
        """Press the keys of `text`."""
        os.write(self._ours, text.encode())

    def press_ctrl_c(self) -> None:
        self.type("\x03")

    def press_ctrl_c_until(self, text: str) -> None:
        """Press it again where nothing comes: CPython's `input` misses one between its prompt and its wait for keys."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self._seen and time.monotonic() < deadline:
            self.press_ctrl_c()
            again_at = time.monotonic() + 2
            while text not in self._seen and self._read_more(again_at - time.monotonic()):
                pass
        self.read_until(text)

    def press_ctrl_d(self) -> None:
        self.type("\x04")

    def read_until(self, text: str) -> str:
        """Return what is printed up to `text`, with it, since the last call."""
        deadline = time.monotonic() + LIMIT_S
        while text not in self._seen:
            if not self._read_more(deadline - time.monotonic()):
                raise AssertionError(f"`{text}` did not come, but: {self._seen!r}")
        before, found, self._seen = self._seen.partition(text)
        return before + found

    def read_all(self) -> str:
        """Return what is printed up to the end."""
        deadline = time.monotonic() + LIMIT_S
        while self._read_more(deadline - time.monotonic()):
            pass
        seen, self._seen = self._seen, ""
        return seen

    def _read_more(self, limit_s: float) -> bool:
        if not select.select([self._ours], [], [], max(0.0, limit_s))[0]:
            return False
        try:
            data = os.read(self._ours, 65536)
        except OSError:  # Linux's way to say that nobody has the other end
            return False
        self._seen += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def wait(self) -> int:
        """Return the exit code."""
        return self.process.wait(LIMIT_S)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._ours)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def processes_with(variable: str, value: str) -> list[int]:
    """Return the processes whose environment at their start had this variable: a launch and all that it started.

    Empty where there is no /proc.
    """
    wanted = f"{variable}={value}".encode()
    own = os.getpid()
    return [pid for pid in _process_ids() if pid != own and wanted in _environment_of(pid)]


def _process_ids() -> list[int]:
    proc = Path("/proc")
    return [int(entry.name) for entry in proc.iterdir() if entry.name.isdigit()] if proc.is_dir() else []


def _environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
