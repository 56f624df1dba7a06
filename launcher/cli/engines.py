"""`launch engines`: which are here, what they run; installs and removes them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from launcher.cli.options import Printing, UsageError, grouped
from launcher.inspection import EngineInfo, engine_named, list_engines
from launcher.output import format_bytes

HEADINGS = ("ENGINE", "VERSION", "WHERE", "RUNS", "SET-UP")
EngineName = Annotated[str, typer.Argument(metavar="ENGINE", help="llama.cpp, …")]


def group(settings: dict[str, Any], command_class: Any) -> typer.Typer:
    """Return the commands under `launch engines`; without one, they are listed."""
    app = typer.Typer(invoke_without_command=True, help="List, install and remove engines.", **settings)
    app.callback()(grouped(_list_unless_told))
    for name, function in (("list", _list), ("install", _install), ("remove", _remove)):
        app.command(name, cls=command_class, context_settings=settings["context_settings"])(grouped(function))
    return app


def _list_unless_told(context: typer.Context, printing: Printing) -> None:
    if context.invoked_subcommand is None:
        _list(printing)


def _list(printing: Printing) -> None:
    """List the engines: which are here, and what each runs."""
    engines = list_engines()
    printing.output().table(HEADINGS, [_row(engine) for engine in engines], [_record(engine) for engine in engines])


def _install(engine: EngineName, printing: Printing) -> None:
    """Set up an engine in an environment of its own."""
    from launcher.instance import install

    output = printing.output()
    environment = install(engine_named(engine), output.progress)
    output.end_progress()
    output.event("installed", {"engine": engine, "version": environment.version, "python": environment.python})
    output.say(f"{engine} {environment.version} is installed")


def _remove(engine: EngineName, printing: Printing) -> None:
    """Remove an engine's environments."""
    from engines.environment import folders_of, remove_folder
    from launcher.cache_use import check_unheld

    output = printing.output()
    name = engine_named(engine)
    if engine != name and not name:
        raise UsageError(f"There is no engine `{engine}`")
    check_unheld(name)
    folders = folders_of(name)
    for folder in folders:
        remove_folder(folder)
    removed = len(folders)
    output.event("removed", {"engine": name, "environments": removed})
    output.say(f"{name}: {removed} environment{'s' if removed != 1 else ''} removed")


def _row(engine: EngineInfo) -> tuple[str, ...]:
    set_up = "" if engine.version or not engine.setup_bytes else format_bytes(engine.setup_bytes)
    return (engine.name, engine.version or "", engine.state, " ".join(engine.formats), set_up)


def _record(engine: EngineInfo) -> dict[str, Any]:
    return {
        "name": engine.name,
        "version": engine.version,
        "state": engine.state,
        "python": engine.python,
        "formats": list(engine.formats),
        "setup_bytes": engine.setup_bytes,
    }
