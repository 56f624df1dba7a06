"""`launch stop NAME…`: ends what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.cli.options import Printing, UsageError, option
from launcher.instances import Record, named, running_instances, stop
from launcher.output import Output
from registry.errors import LaunchError

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="What `launch ps` calls them.")]


def command(
    printing: Printing,
    names: Names = None,
    all_of_them: Annotated[bool, option("--all", None, "Everything that runs.")] = False,
) -> None:
    if all_of_them == bool(names):
        raise UsageError("Name what to stop, or say `--all`", hint="launch ps")
    output = printing.output()
    if all_of_them:
        found = running_instances()
        if not found:
            output.say("nothing runs")
    else:
        found = [instance for name in names or () for instance in _found(name, output)]
    for instance in found:
        end(instance, output)


def end(instance: Record, output: Output) -> None:
    """End an instance and say so; raises LaunchError where it does not end."""
    output.say(f"stopping {instance.name}, pid {instance.pid}")
    if not stop(instance):
        raise LaunchError(
            f"`{instance.name}` does not end: process {instance.guard.pid} is still there",
            hint=f"kill -9 {instance.guard.pid}, then: launch ps",
        )
    output.event("stopped", {"name": instance.name, "pid": instance.pid})


def _found(name: str, output: Output) -> list[Record]:
    found = named(name)
    if not found:
        output.event("not_running", {"name": name})
        output.say(f"`{name}` does not run")
    return found
