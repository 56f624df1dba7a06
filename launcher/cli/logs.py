"""`launch logs NAME`: what an engine said, and goes on saying."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from launcher.cli.options import Printing, option
from launcher.instances import Record, is_running, named
from registry.cache import cache_folder
from registry.errors import LaunchError

POLL_S = 0.1
READ_BYTES = 1 << 16

Instance = Annotated[str, typer.Argument(metavar="NAME", help="What `launch ps` calls it.")]


def command(
    printing: Printing,
    name: Instance,
    follow: Annotated[bool, option("-f --follow", None, "Go on until it ends, or Ctrl-C.")] = False,
    server: Annotated[bool, option("--server", None, "What the endpoint said that runs without a terminal.")] = False,
) -> None:
    output = printing.output()
    found = named(name)
    instance = found[-1] if found else None
    path = _last_log(name) if instance is None else _log_of(instance, server=server)
    if instance is None:
        output.say(f"`{name}` does not run; this is what it said last")
    for text in _read(path, instance if follow else None):
        output.write(text)


def _log_of(instance: Record, *, server: bool) -> Path:
    if server and instance.server_log is None:
        raise LaunchError(f"`{instance.name}` runs in a terminal, which has what its endpoint said")
    return Path(instance.server_log or "") if server else Path(instance.log)


def _last_log(name: str) -> Path:
    """Return the newest log of a model that does not run any more."""
    found = (cache_folder() / "logs").glob(f"{glob.escape(name)}-2*.log")
    logs = sorted(found, key=lambda path: path.stat().st_mtime_ns)
    if not logs:
        raise LaunchError(f"There is no log of `{name}`: nothing of that name ran here lately", hint="launch ps")
    return logs[-1]


def _read(path: Path, followed: Record | None) -> Iterator[str]:
    """Yield what is in a file, and what is added while an instance runs."""
    with open(path, encoding="utf-8", errors="replace") as log:
        while True:
            is_over = followed is None or not is_running(followed.guard)  # before reading: what it said last counts
            while text := log.read(READ_BYTES):
                yield text
            if is_over:
                return
            time.sleep(POLL_S)
