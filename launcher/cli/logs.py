"""`launch logs NAME`: what an engine or a server said, and goes on saying."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer

from launcher.cli.options import Printing, option
from launcher.instances import log_name
from launcher.output import Output
from launcher.overview import called, running_models
from launcher.processes import Process, is_running
from launcher.servers import Server, running_servers
from registry.cache import cache_folder
from registry.errors import LaunchError

POLL_S = 0.1
READ_BYTES = 1 << 16

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="What `launch ps` calls it; the server's own name for what it said.")
]


class _Log(NamedTuple):
    """A file, and the process that writes to it if one does."""

    path: Path
    writer: Process | None


def command(
    printing: Printing,
    name: Name,
    follow: Annotated[bool, option("-f --follow", None, "Go on until it ends, or Ctrl-C.")] = False,
    server: Annotated[bool, option("--server", None, "What the endpoint said that runs without a terminal.")] = False,
) -> None:
    output = printing.output()
    log = _log_of_server(name) if server else _log_of(name, output)
    for text in _read(log.path, log.writer if follow else None):
        output.write(text)


def _log_of(name: str, output: Output) -> _Log:
    """Return the log of a model's engine, also of one that has ended; else of the server that has this name."""
    found = called(name, running_models())
    if instance := next((each.instance for each in reversed(found) if each.instance is not None), None):
        return _Log(Path(instance.log), instance.guard)
    if not found and (server := _server_called(name)):
        return _own_log(server)
    last = _last_log(found[-1].status.name if found else name)
    output.say(f"`{name}` {'is not loaded' if found else 'does not run'}; this is what it said last")
    return _Log(last, None)


def _log_of_server(name: str) -> _Log:
    """Return what the server said that has this name, or a model of this name."""
    behind = (each.server for each in reversed(called(name, running_models())) if each.server is not None)
    server = _server_called(name) or next(behind, None)
    if server is None:
        raise LaunchError(f"No server runs for `{name}`", hint="launch ps")
    return _own_log(server)


def _own_log(server: Server) -> _Log:
    if server.log is None:
        raise LaunchError(f"`{server.name}` runs in a terminal, which has what its endpoint said")
    return _Log(Path(server.log), server.process)


def _server_called(name: str) -> Server | None:
    return next((each for each in reversed(running_servers()) if each.is_called(name)), None)


def _last_log(name: str) -> Path:
    """Return the newest log of a model that does not run any more."""
    found = (cache_folder() / "logs").glob(f"{glob.escape(log_name(name))}-2*.log")
    logs = sorted(found, key=lambda path: path.stat().st_mtime_ns)
    if not logs:
        raise LaunchError(f"There is no log of `{name}`: nothing of that name ran here lately", hint="launch ps")
    return logs[-1]


def _read(path: Path, followed: Process | None) -> Iterator[str]:
    """Yield what is in a file, and what is added while a process runs."""
    with open(path, encoding="utf-8", errors="replace") as log:
        while True:
            is_over = followed is None or not is_running(followed)  # before reading: what it said last counts
            while text := log.read(READ_BYTES):
                yield text
            if is_over:
                return
            time.sleep(POLL_S)
