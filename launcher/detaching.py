"""A server without a terminal: started in a session of its own, watched until it is ready or has failed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import BinaryIO

from launcher.output import Output
from launcher.servers import Server, running_servers
from registry.cache import cache_folder

# Set for the server: its log. It serves although its command line says `--detach`.
VARIABLE = "LAUNCH_SERVER_LOG"
POLL_S = 0.1
_OURS = "LAUNCH_"


def start_server(
    arguments: Sequence[str], output: Output, *, folder: str | None = None, settings: Mapping[str, str] | None = None
) -> int:
    """Run `launch` with these arguments without a terminal until it is ready, passing on what it says.

    `settings` are the variables LAUNCH_… that it gets, by default our own. Returns 0, or the exit code of one that
    ended before, which has said why.
    """
    log = cache_folder() / "logs" / f"server-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(os.open(log, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as written:
        server = subprocess.Popen(
            (sys.executable, "-P", "-m", "launcher", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            cwd=folder,
            env={**_environment(settings), VARIABLE: str(log)},
            start_new_session=True,
        )
    with open(log, "rb") as read:
        ready = _wait(server, read, output)
    if ready is None:
        return server.wait()
    output.say(f"launch ps · launch logs {ready.name} -f · launch stop {ready.name}")
    return 0


def settings_of(pid: int) -> dict[str, str] | None:
    """Return the variables LAUNCH_… that a process was started with, its key among them; None if it has ended."""
    import psutil

    try:
        return {name: value for name, value in psutil.Process(pid).environ().items() if name.startswith(_OURS)}
    except psutil.Error:
        return None


def _environment(settings: Mapping[str, str] | None) -> Mapping[str, str]:
    if settings is None:
        return os.environ
    return {**{name: value for name, value in os.environ.items() if not name.startswith(_OURS)}, **settings}


def _wait(server: subprocess.Popen[bytes], log: BinaryIO, output: Output) -> Server | None:
    """Return the server's record once it serves, None where it has ended."""
    while True:
        has_ended, ready = server.poll() is not None, _record_of(server.pid)
        for line in log.read().decode(errors="replace").splitlines():
            output.pass_on(line)
        if has_ended or ready is not None:
            return None if has_ended else ready
        time.sleep(POLL_S)


def _record_of(pid: int) -> Server | None:
    return next((each for each in running_servers() if each.process.pid == pid), None)


def own_log() -> str | None:
    """Return where this process's words go, if it is such a server."""
    return os.environ.get(VARIABLE)
