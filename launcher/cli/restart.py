"""`launch restart NAME`: ends what runs without a terminal, and starts it again with the same options."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher import detaching
from launcher.cli.options import Printing
from launcher.cli.stop import end_server
from launcher.overview import called, models_of, running_models
from launcher.servers import Server, running_servers
from registry.errors import LaunchError

Name = Annotated[str, typer.Argument(metavar="NAME", help="What `launch ps` calls it, or the server's own name.")]


def command(printing: Printing, name: Name) -> None:
    output = printing.output()
    server = _only(name)
    settings = detaching.settings_of(server.process.pid)
    end_server(server, output)
    if code := detaching.start_server(server.arguments, output, folder=server.folder, settings=settings):
        raise typer.Exit(code)


def _only(name: str) -> Server:
    """Return the one server without a terminal that a name means; raises LaunchError."""
    found = [each for each in running_servers() if each.is_called(name)] or _serving(name)
    detached = [each for each in found if each.arguments]
    if not detached:
        raise LaunchError(
            f"`{name}` was not started with `--detach`, so whoever started it has to start it again",
            hint=f"launch stop {name}",
        )
    if len(detached) > 1:
        numbers = ", ".join(each.number for each in detached)
        raise LaunchError(f"{len(detached)} servers are called `{name}`: name one by its number", details=(numbers,))
    return detached[0]


def _serving(name: str) -> list[Server]:
    """Return the servers whose only model has that name; raises LaunchError where there is none."""
    running = running_models()
    found = called(name, running)
    if not found:
        raise LaunchError(f"`{name}` does not run", hint=f"launch {name} --detach")
    for server in (each.server for each in found):
        if server is not None and len(models_of(server, running)) > 1:
            raise LaunchError(
                f"`{name}` is one of several models of a server: all of them are restarted, or none",
                hint=f"launch restart {server.name}",
            )
    return [each.server for each in found if each.server is not None]
