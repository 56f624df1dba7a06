"""What of a model runs here and why not the rest; which engines there are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from engines.base import Requirements
from engines.environment import Environment, find_environment, list_environments
from engines.index import capabilities_for, engine_named
from engines.machine import read_machine
from launcher.planning import find_model, installed_engines
from registry import spec as words
from registry.catalogue import read_layers
from registry.errors import ResolutionError
from registry.resolution import resolve


class Inspection(NamedTuple):
    """A model, and what of it runs here: `choice` is what a launch would take."""

    model: words.Model
    choice: words.Resolution | None
    rejected: tuple[words.Rejection, ...]
    siblings: tuple[str, ...]


class EngineInfo(NamedTuple):
    """An engine here: the build for this machine, its environments, and what setting it up fetches.

    `environments` begins with the one that a launch takes, if it is installed. `state` is `current`, `managed`,
    `not installed` or `built in`; `unused` says why this machine's GPU has no part in it.
    """

    capability: words.Capability
    state: str
    variant: str = ""
    environments: tuple[Environment, ...] = ()
    setup_bytes: int = 0
    unused: str = ""

    @property
    def name(self) -> str:
        return self.capability.engine

    @property
    def formats_here(self) -> tuple[words.FormatSupport, ...]:
        """What it reads on this machine with this build."""
        accelerator = self.capability.accelerator or "cpu"
        return tuple(each for each in self.capability.formats if accelerator in (each.accelerators or (accelerator,)))


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
            capabilities=capabilities_for(machine),
            machine=machine,
            installed=installed_engines(machine),
        )
    except ResolutionError as error:
        return Inspection(model, None, error.rejected, siblings)
    return Inspection(model, choice, choice.rejected, siblings)


def list_engines() -> list[EngineInfo]:
    """Return all engines that are known, and which of them are here."""
    machine = read_machine()
    return [_engine_info(capability, machine) for capability in capabilities_for(machine)]


def describe_format(support: words.FormatSupport) -> str:
    """Return a format with the bits a weight that are read of it: `pytorch 16, 8, 4 bits`."""
    if support.bits is None:
        return support.model_format
    if support.bits == (16,):
        return f"{support.model_format} unquantized"
    return f"{support.model_format} {', '.join(map(str, support.bits))} bits"


def _engine_info(capability: words.Capability, machine: words.Machine) -> EngineInfo:
    requirements = engine_named(capability.engine).requirements_for(machine)
    if requirements is None:
        return EngineInfo(capability, "built in")
    found = tuple(_environments_of(capability.engine, requirements))
    state = found[0].origin if found else "not installed"
    return EngineInfo(capability, state, requirements.variant, found, capability.setup_bytes, requirements.unused)


def _environments_of(engine: str, requirements: Requirements) -> Iterator[Environment]:
    """Yield the environments of an engine, first the one that a launch takes."""
    first = find_environment(requirements)
    if first is not None:
        yield first
    others = (*list_environments(), find_environment(requirements, choice="current"))
    yield from (each for each in others if each not in (None, first) and each.engine in (None, engine))
