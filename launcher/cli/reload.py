"""`launch reload`: applies a server's changed file without dropping a request."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.cli.options import Printing, UsageError
from launcher.control import ask_to_reload
from launcher.servers import Server, running_servers
from registry.errors import LaunchError

Name = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="The server's name, file or number, where several run.")
]


def command(printing: Printing, name: Name = None) -> None:
    output = printing.output()
    server = _only(name)
    try:
        changes = ask_to_reload(server)
    except LaunchError as error:
        error.details = (*error.details, "nothing has changed")
        raise
    output.event("reloaded", {"file": server.file, "changes": changes})
    for change in changes or ("the file says what is served already",):
        output.say(change)


def _only(name: str | None) -> Server:
    """Return the server that was started from a file, and has that name if one is given; raises LaunchError."""
    running = running_servers()
    found = [each for each in running if (each.file if name is None else each.is_called(name))]
    if not found:
        raise LaunchError(
            "No server runs that was started from a file" if name is None else f"No server called `{name}` runs",
            hint="launch serve -c launch.yaml" if name is None else "launch ps",
        )
    if len(found) > 1:
        lines = tuple(f"{each.number}: {each.file or each.name}, {each.url}" for each in found)
        raise UsageError(f"{len(found)} servers run: name one by its number", details=lines)
    return found[0]
