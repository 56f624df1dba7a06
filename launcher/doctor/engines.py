"""The engines: which are here and run, which environments are broken or of no use, and why a GPU has no part in one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from engines.base import Requirements
from engines.builds import remedy_for
from engines.environment import DONE, Environment, folders_of, installed_version, is_within, managed_folder
from engines.index import engine_named
from engines.installing import has_compiler
from engines.machine import read_machine
from engines.probing import start_probe
from launcher.cache_leftovers import is_locked
from launcher.doctor.checks import Check, side_by_side
from launcher.doctor.findings import Finding
from launcher.inspection import EngineInfo, list_engines
from launcher.output import format_bytes
from registry.spec import Machine

AREA = "engine"
LIMIT_S = 25.0


def examine() -> list[Finding]:
    """Return what is to be said of each engine, in their order; their environments are tried at once."""
    machine = read_machine()
    checks: dict[str, Check] = {engine.name: partial(_examine, engine, machine) for engine in list_engines()}
    return side_by_side(checks, LIMIT_S, area=AREA)


def _examine(engine: EngineInfo, machine: Machine) -> list[Finding]:
    requirements = engine_named(engine.name).requirements_for(machine)
    if requirements is None:
        return [Finding(AREA, engine.name, "ok", "built in", facts={"state": engine.state})]
    found = [judge_environment(engine.name, requirements, each) for each in engine.environments]
    if not found:
        found.append(_absent(engine, requirements))
    if engine.unused:
        found.append(_without_gpu(engine, machine))
    return [*found, *_half_made(engine.name)]


def judge_environment(name: str, requirements: Requirements, environment: Environment) -> Finding:
    """Return whether an engine starts in an environment, and whether a launch would take that one."""
    variant = f", {environment.variant}" if environment.variant else ""
    text = f"{environment.version}, {environment.origin}{variant}"
    facts = {
        "state": environment.origin,
        "version": environment.version,
        "variant": environment.variant,
        "python": environment.python,
    }
    update = f"launch engines update {name}"
    if environment.is_locked and environment.folder != managed_folder(requirements):
        text += ": of another lock than this launch's, or for another machine"
        return Finding(AREA, name, "warning", text, update, facts)
    again = f"launch engines remove {name} && launch engines install {name}"
    if trouble := start_probe(environment, requirements):
        return Finding(AREA, name, "error", f"{text}: {trouble}", again, facts)
    return Finding(AREA, name, "ok", text, facts=facts)


def _absent(engine: EngineInfo, requirements: Requirements) -> Finding:
    """Return what setting an engine up will fetch, and do without; and why one in this Python does not count."""
    facts = {"state": engine.state, "variant": engine.variant, "setup_bytes": engine.setup_bytes}
    parts = ["not installed"]
    if engine.setup_bytes:
        parts.append(f"{format_bytes(engine.setup_bytes)} to set up for {engine.variant} when it is first needed")
    if requirements.compiled and not has_compiler():
        parts.append(f"without {' and '.join(requirements.compiled)}, since there is no C compiler here")
    here = installed_version(requirements.distribution, sys.path)
    if here is not None and not is_within(here, requirements.versions):
        parts.append(f"{here} in this Python is not within {requirements.versions}")
    return Finding(AREA, engine.name, "ok", ", ".join(parts), facts=facts)


def _without_gpu(engine: EngineInfo, machine: Machine) -> Finding:
    remedy = remedy_for(engine.name, machine) or "`launch engines` says which engines use it"
    return Finding(AREA, engine.name, "warning", f"does not use the GPU: {engine.unused}", remedy)


def _half_made(name: str) -> Iterator[Finding]:
    for folder in folders_of(name):
        if not (folder / DONE).is_file() and not is_locked(Path(f"{folder}.lock")):
            facts = {"state": "half made", "folder": str(folder)}
            text = f"{folder} was not set up to its end"
            yield Finding(AREA, name, "warning", text, f"launch engines update {name}", facts)
