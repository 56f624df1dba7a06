"""What of a model runs here and why not the rest; which engines there are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from engines.environment import find_environment, lock_bytes
from engines.index import CAPABILITIES, find_engine
from engines.machine import read_machine
from launcher.planning import find_model, installed_engines
from registry import spec as words
from registry.catalogue import read_layers
from registry.errors import ResolutionError
from registry.request import read_engine
from registry.resolution import resolve


class Inspection(NamedTuple):
    """A model, and what of it runs here: `choice` is what a launch would take."""

    model: words.Model
    choice: words.Resolution | None
    rejected: tuple[words.Rejection, ...]
    siblings: tuple[str, ...]


class EngineInfo(NamedTuple):
    """An engine: where it is installed, and what it reads. `setup_bytes` is what setting it up fetches, if known."""

    name: str
    version: str | None
    state: str
    python: str | None
    formats: tuple[str, ...]
    setup_bytes: int


def inspect(name: str, *, registry: Path | Sequence[Path] = ()) -> Inspection:
    """Return a model's entry, the choice that a launch would make here, and why not the rest."""
    catalogue = read_layers(registry)
    model = find_model(name, catalogue).model
    siblings = catalogue.siblings(model)
    machine = read_machine()
    try:
        choice = resolve(
            words.Request(model.name),
            model,
            capabilities=CAPABILITIES,
            machine=machine,
            installed=installed_engines(machine),
        )
    except ResolutionError as error:
        return Inspection(model, None, error.rejected, siblings)
    return Inspection(model, choice, choice.rejected, siblings)


def list_engines() -> list[EngineInfo]:
    """Return all engines that are known, and which of them are here."""
    machine = read_machine()
    return [_engine_info(capability, machine) for capability in CAPABILITIES]


def engine_named(name: str) -> str:
    """Return an engine's own name; raises ResolutionError with the near one."""
    return read_engine(name, CAPABILITIES)


def _engine_info(capability: words.Capability, machine: words.Machine) -> EngineInfo:
    engine = find_engine(capability.engine)
    formats = tuple(support.model_format for support in capability.formats)
    if engine is None:
        return EngineInfo(capability.engine, None, "not in this version", None, formats, capability.setup_bytes)
    requirements = engine.requirements_for(machine)
    if requirements is None:
        return EngineInfo(capability.engine, None, "built in", None, formats, 0)
    found = find_environment(requirements)
    if found is None:
        size = lock_bytes(requirements) or capability.setup_bytes
        return EngineInfo(capability.engine, None, "not installed", None, formats, size)
    return EngineInfo(capability.engine, found.version, found.origin, found.python, formats, 0)
