"""`launch restart NAME`: ends what runs without a terminal, and starts it again with the same options."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher import detaching
from launcher.cli.options import Printing
from launcher.cli.stop import end
from launcher.instances import Record, named
from registry.errors import LaunchError

Instance = Annotated[str, typer.Argument(metavar="NAME", help="What `launch ps` calls it.")]


def command(printing: Printing, name: Instance) -> None:
    output = printing.output()
    instance = _only(name)
    settings = detaching.settings_of(instance.owner.pid)
    end(instance, output)
    if code := detaching.start_server(instance.arguments, output, folder=instance.folder, settings=settings):
        raise typer.Exit(code)


def _only(name: str) -> Record:
    found = named(name)
    if not found:
        raise LaunchError(f"`{name}` does not run", hint=f"launch {name} --detach")
    detached = [each for each in found if each.arguments]
    if not detached:
        raise LaunchError(
            f"`{name}` was not started with `--detach`, so whoever started it has to start it again",
            hint=f"launch stop {name}",
        )
    if len(detached) > 1:
        numbers = ", ".join(each.number for each in detached)
        raise LaunchError(f"{len(detached)} instances are called `{name}`: name one by its number", details=(numbers,))
    return detached[0]
