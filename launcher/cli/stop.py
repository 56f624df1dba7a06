"""`launch stop NAME…`: ends what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher import instances, servers
from launcher.cli.options import Printing, UsageError, option
from launcher.control import ask_to_unload
from launcher.instances import Record
from launcher.output import Output
from launcher.overview import Running, called, models_of, running_models
from launcher.processes import Process
from launcher.servers import Server
from registry.errors import LaunchError

Names = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NAME]...", help="What `launch ps` calls them; `serve`, or its file's name, is a whole server."
    ),
]


def command(
    printing: Printing,
    names: Names = None,
    all_of_them: Annotated[bool, option("--all", None, "Everything that runs.")] = False,
) -> None:
    if all_of_them == bool(names):
        raise UsageError("Name what to stop, or say `--all`", hint="launch ps")
    output = printing.output()
    if all_of_them:
        _stop_all(output)
    for name in names or ():
        _stop_called(name, output)


def end_server(server: Server, output: Output) -> None:
    """End an endpoint with its engines and say so; raises LaunchError where something does not end."""
    output.say(f"stopping {server.name}, pid {server.process.pid}")
    _say_end(server.name, server.process.pid, servers.stop(server), output)


def _end_instance(instance: Record, output: Output) -> None:
    output.say(f"stopping {instance.name}, pid {instance.pid}")
    _say_end(instance.name, instance.pid, instances.stop(instance), output)


def _say_end(name: str, pid: int, left: Process | None, output: Output) -> None:
    if left is not None:
        raise LaunchError(
            f"`{name}` does not end: process {left.pid} is still there",
            hint=f"kill -9 {left.pid}, then: launch ps",
        )
    output.event("stopped", {"name": name, "pid": pid})


def _stop_all(output: Output) -> None:
    ours = [each for each in servers.running_servers() if not each.is_embedded]
    for server in ours:
        end_server(server, output)
    left = instances.running_instances()
    for instance in left:
        _end_instance(instance, output)
    if not ours and not left:
        output.say("nothing runs")


def _stop_called(name: str, output: Output) -> None:
    running = running_models()
    whole = [each for each in servers.running_servers() if each.is_called(name) and not each.is_embedded]
    for server in whole:
        end_server(server, output)
    found = [each for each in called(name, running) if each.server not in whole]
    for each in found:
        _stop_model(each, running, output)
    if not whole and not found:
        output.event("not_running", {"name": name})
        output.say(f"`{name}` does not run")


def _stop_model(model: Running, running: list[Running], output: Output) -> None:
    """End a model's engine; where it is all that a server of ours has, the server."""
    if model.server is None or model.server.is_embedded:
        if model.instance is not None:
            _end_instance(model.instance, output)
    elif len(models_of(model.server, running)) == 1:
        end_server(model.server, output)
    elif not model.is_answering:
        raise LaunchError(
            f"`{model.server.name}` does not answer, so that `{model.status.name}` cannot be unloaded",
            hint=f"launch stop {model.server.name}",
        )
    else:
        _unload(model.server, model.status.name, output)


def _unload(server: Server, name: str, output: Output) -> None:
    was_loaded = ask_to_unload(server, name)
    output.event("unloaded", {"name": name, "was_loaded": was_loaded})
    output.say(f"{name} is {'unloaded' if was_loaded else 'not loaded'}, until it is asked for")
    output.say(f"to end the server with all its models: launch stop {server.name}")
