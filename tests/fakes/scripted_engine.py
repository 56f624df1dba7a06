"""An engine whose process does what a test tells it: says things, becomes ready, ends, or will not end.

Run as a script it is that process; `processes` tells what it leaves behind.
"""

from __future__ import annotations

import argparse
import http.server
import os
import signal
import socketserver
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from engines.base import Address, Cause, Requirements, Settings, Wire
from registry.spec import Capability, FormatSupport, Machine

SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


VARIABLES = {"PYTHONPATH": str(Path(__file__).parents[2])}


class ScriptedEngine:
    """Satisfies `engines.base.Engine`; the cause of its end is the log's line that has `cause: `."""

    name = "scripted"
    capability = Capability("scripted", (FormatSupport("gguf"),), {"cpu": 9})
    wire = Wire()

    def requirements_for(self, machine: Machine) -> Requirements | None:
        return None

    def command(self, python: str, settings: Settings, address: Address) -> tuple[str, ...]:
        return self.script(address, *settings.arguments, python=python)

    def script(self, address: Address, *arguments: str, python: str = sys.executable) -> tuple[str, ...]:
        return (python, "-P", "-m", __name__, "--socket", str(address.socket), *arguments)

    def variables(self, settings: Settings) -> Mapping[str, str]:
        return VARIABLES

    def stage_of(self, line: str) -> str | None:
        return None

    def cause_of(self, log: str) -> Cause | None:
        for line in log.splitlines():
            kind, colon, words = line.partition("cause: ")
            if colon:
                return Cause(words, hint="read this", is_out_of_memory=kind == "memory ")
        return None


def is_running(pid: int) -> bool:
    """Return whether a process lives; one that has ended and was not fetched by its parent does not."""
    try:
        os.kill(pid, 0)
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except ProcessLookupError:
        return False
    except FileNotFoundError:
        return not Path("/proc/self").exists()
    return state != "Z"


def wait_until_gone(pids: list[int], limit_s: float) -> list[int]:
    """Return which of the processes are left when all are gone, or at the latest after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while (left := [pid for pid in pids if is_running(pid)]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


def read_pids(path: Path, limit_s: float = 20) -> list[int]:
    """Return the process ids that a stubborn engine wrote, once it has written them all."""
    deadline = time.monotonic() + limit_s
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return [int(pid) for pid in path.read_text().split()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", required=True)
    parser.add_argument("--say", action="append", default=[], help="a line for the log")
    parser.add_argument("--exit", type=int, help="end with this code")
    parser.add_argument("--die", type=int, help="end by this signal")
    parser.add_argument("--sick", action="store_true", help="answer 503 for ever")
    parser.add_argument("--deaf", action="store_true", help="never listen")
    parser.add_argument("--stubborn", help="ignore TERM, start grandchildren that do so too, write all pids here")
    return parser.parse_args()


def _start_grandchildren() -> list[int]:
    """Start one process in this session, one in its own, and one whose parent has ended."""
    command = (sys.executable, "-I", "-S", "-c", SLEEP)
    near = subprocess.Popen(command, stdout=subprocess.PIPE)
    far = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
    between = (
        f"import subprocess, sys; p = subprocess.Popen({command!r}, stdout=subprocess.PIPE, start_new_session=True)"
    )
    orphan = subprocess.run(
        (
            sys.executable,
            "-c",
            between + "; p.stdout.readline(); print(p.pid); sys.stdout.flush(); import os; os._exit(0)",
        ),
        stdout=subprocess.PIPE,
        check=True,
    )
    for child in (near, far):
        assert child.stdout is not None
        child.stdout.readline()
    return [near.pid, far.pid, int(orphan.stdout)]


class _Health(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def address_string(self) -> str:
        return "unix"

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    given = _arguments()
    for line in given.say:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()
    if given.stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        written = Path(given.stubborn + ".part")
        written.write_text(" ".join(map(str, (os.getpid(), *_start_grandchildren()))))
        written.rename(given.stubborn)
    if given.die is not None:
        os.kill(os.getpid(), given.die)
    if given.exit is not None:
        sys.exit(given.exit)
    if given.deaf:
        time.sleep(600)
    _Health.status = 503 if given.sick else 200
    socketserver.UnixStreamServer(given.socket, _Health).serve_forever()


if __name__ == "__main__":
    main()
