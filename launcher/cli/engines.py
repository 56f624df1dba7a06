"""`launch engines`: which are here, what they run on this machine; installs, updates and removes them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from engines.environment import Environment, is_within
from launcher.cli.options import Printing, grouped
from launcher.inspection import EngineInfo, describe_format, list_engines
from launcher.output import Output, format_bytes, format_count
from registry.spec import FEATURES

HEADINGS = ("ENGINE", "VERSION", "WHERE", "RUNS HERE", "SET-UP")
EngineName = Annotated[
    str, typer.Argument(metavar="ENGINE[==VERSION]", help="llama.cpp, vllm, …; VERSION beside the one that is tested.")
]
EngineOrAll = Annotated[str | None, typer.Argument(metavar="[ENGINE]", help="One engine; else all that are set up.")]


def group(settings: dict[str, Any], command_class: Any) -> typer.Typer:
    """Return the commands under `launch engines`; without one, they are listed."""
    app = typer.Typer(invoke_without_command=True, help="List, install, update and remove engines.", **settings)
    app.callback()(grouped(_list_unless_told))
    for name, function in (
        *(("list", _list), ("features", _features)),
        *(("install", _install), ("update", _update), ("remove", _remove)),
    ):
        app.command(name, cls=command_class, context_settings=settings["context_settings"])(grouped(function))
    return app


def _list_unless_told(context: typer.Context, printing: Printing) -> None:
    if context.invoked_subcommand is None:
        _list(printing)


def _list(printing: Printing) -> None:
    """List the engines: which are here, and what each runs on this machine."""
    engines = list_engines()
    output = printing.output()
    rows = [row for engine in engines for row in _rows(engine)]
    output.table(HEADINGS, rows, [_record(engine) for engine in engines])
    for engine in engines:
        if engine.unused:
            output.warn(f"`{engine.name}` does not use the GPU: {engine.unused}")


def _features(printing: Printing) -> None:
    """Show which engine offers what besides text: JSON by a schema, tools, log-probabilities, …."""
    offers = {engine.name: engine.capability.features for engine in list_engines()}
    rows = [(feature, *("yes" if feature in own else "" for own in offers.values())) for feature in FEATURES]
    records = [
        {"feature": feature, "meaning": meaning, "engines": [name for name, own in offers.items() if feature in own]}
        for feature, meaning in FEATURES.items()
    ]
    printing.output().table(("FEATURE", *offers), rows, records)


def _install(engine: EngineName, printing: Printing) -> None:
    """Set up an engine in an environment of its own; another version stands beside the tested one."""
    from launcher.setups import install, read_wanted, requirements_here

    output = printing.output()
    name, release = read_wanted(engine)
    requirements = requirements_here(name)._replace(release=release)
    if release and not is_within(release, requirements.versions):
        output.warn(f"`{name}` is made for versions {requirements.versions}: {release} may not understand it")
    environment = install(name, requirements, output.progress)
    _say_installed(output, name, environment)
    if release:
        output.say(f"use it with: --engine {name} --environment {environment.version}")


def _update(printing: Printing, engine: EngineOrAll = None) -> None:
    """Move to the versions that this launch is tested with, and remove the older ones that nothing runs on."""
    from launcher.setups import installed_by_lock, read_wanted, update

    output = printing.output()
    names = installed_by_lock() if engine is None else (read_wanted(engine)[0],)
    for name in names:
        done = update(name, output.progress)
        _say_installed(output, name, done.environment)
        for folder in done.removed:
            output.say(f"{name}: removed `{folder}`")
        for folder in done.kept:
            output.warn(f"`{folder}` stays: it is in use")
    if not names:
        output.say("no engine is set up")


def _remove(engine: EngineName, printing: Printing) -> None:
    """Remove an engine's environments, or those of one version."""
    from launcher.setups import read_wanted, remove

    output = printing.output()
    name, release = read_wanted(engine)
    removed = remove(name, release=release)
    output.event("removed", {"engine": name, "environments": removed})
    output.say(f"{name}: {format_count(removed, 'environment')} removed")


def _say_installed(output: Output, name: str, environment: Environment) -> None:
    output.end_progress()
    facts = {"engine": name, "version": environment.version, "python": environment.python}
    output.event("installed", {**facts, "variant": environment.variant})
    output.say(f"{name} {environment.version} is installed, build for {environment.variant}")


def _rows(engine: EngineInfo) -> list[tuple[str, ...]]:
    """Return a line for each environment, or the one that says that there is none."""
    formats = "; ".join(map(describe_format, engine.formats_here))
    if engine.environments:
        first, *others = engine.environments
        own = (engine.name, first.version, _where(first), formats, "")
        return [own, *((engine.name, other.version, _where(other), "", "") for other in others)]
    set_up = format_bytes(engine.setup_bytes) if engine.setup_bytes else ""
    return [(engine.name, "", engine.state, formats, set_up)]


def _where(environment: Environment) -> str:
    return environment.origin if environment.variant is None else f"{environment.origin} ({environment.variant})"


def _record(engine: EngineInfo) -> dict[str, Any]:
    first = next(iter(engine.environments), None)
    return {
        "name": engine.name,
        "version": None if first is None else first.version,
        "state": engine.state,
        "python": None if first is None else first.python,
        "variant": engine.variant,
        "formats": [support.model_format for support in engine.formats_here],
        "reads": [{"format": each.model_format, "bits": each.bits} for each in engine.formats_here],
        "features": sorted(engine.capability.features),
        "systems": list(engine.capability.systems),
        "automatic": engine.capability.automatic,
        "setup_bytes": engine.setup_bytes,
        "unused_gpu": engine.unused or None,
        "environments": [
            {
                "version": each.version,
                "where": each.origin,
                "variant": each.variant,
                "python": each.python,
                "locked": each.is_locked,
            }
            for each in engine.environments
        ],
    }
