"""What there is: the catalogue's models, what of one runs here, and the engines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engines.environment import find_environment, lock_bytes
from engines.index import CAPABILITIES, find_engine
from engines.machine import read_machine
from launcher.planning import capability_of, find_model, installed_engines, read_layers
from registry import spec as words
from registry import store
from registry.catalogue import Catalogue, Summary
from registry.errors import ResolutionError
from registry.request import read_engine
from registry.resolution import resolve


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A line of the catalogue."""

    name: str
    family: str
    aliases: tuple[str, ...]
    abilities: frozenset[str]
    formats: tuple[str, ...]
    sizes_in_billions: tuple[float, ...]
    context_length: int | None
    license: str
    cached: bool


@dataclass(frozen=True, slots=True)
class Inspection:
    """A model, and what of it runs here: `choice` is what a launch would take."""

    model: words.Model
    choice: words.Resolution | None
    rejected: tuple[words.Rejection, ...]
    siblings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """An engine: where it is installed, and what it reads. `setup_bytes` is what setting it up fetches, if known."""

    name: str
    version: str | None
    state: str
    python: str | None
    formats: tuple[str, ...]
    setup_bytes: int


def list_models(
    *,
    ability: str | None = None,
    model_format: str | None = None,
    engine: str | None = None,
    cached: bool | None = None,
    registry: Path | Sequence[Path] = (),
) -> list[ModelInfo]:
    """Return the catalogue's models that have what is given, by name."""
    catalogue = read_layers(registry)
    formats = _formats_of(engine)
    wanted = None if model_format is None else words.canonical_format(model_format)
    found = []
    for summary in catalogue.models:
        if ability is not None and ability.lower() not in summary.abilities:
            continue
        if wanted is not None and wanted not in summary.formats:
            continue
        if formats is not None and not formats.intersection(summary.formats):
            continue
        info = _info(catalogue, summary)
        if cached in (None, info.cached):
            found.append(info)
    return found


def inspect(name: str, *, registry: Path | Sequence[Path] = ()) -> Inspection:
    """Return a model's entry, the choice that a launch would make here, and why not the rest."""
    catalogue = read_layers(registry)
    model = find_model(name, catalogue).model
    siblings = catalogue.siblings(model)
    try:
        choice = resolve(
            words.Request(model.name),
            model,
            capabilities=CAPABILITIES,
            machine=read_machine(),
            installed=installed_engines(),
        )
    except ResolutionError as error:
        return Inspection(model, None, error.rejected, siblings)
    return Inspection(model, choice, choice.rejected, siblings)


def list_engines() -> list[EngineInfo]:
    """Return all engines that are known, and which of them are here."""
    return [_engine_info(capability) for capability in CAPABILITIES]


def engine_named(name: str) -> str:
    """Return an engine's own name; raises ResolutionError with the near one."""
    return read_engine(name, CAPABILITIES)


def _engine_info(capability: words.Capability) -> EngineInfo:
    engine = find_engine(capability.engine)
    formats = tuple(support.model_format for support in capability.formats)
    if engine is None:
        return EngineInfo(capability.engine, None, "not in this version", None, formats, capability.setup_bytes)
    if engine.requirements is None:
        return EngineInfo(capability.engine, None, "built in", None, formats, 0)
    found = find_environment(engine.requirements)
    if found is None:
        size = lock_bytes(engine.requirements) or capability.setup_bytes
        return EngineInfo(capability.engine, None, "not installed", None, formats, size)
    return EngineInfo(capability.engine, found.version, found.origin, found.python, formats, 0)


def _formats_of(engine: str | None) -> frozenset[str] | None:
    if engine is None:
        return None
    capability = capability_of(engine_named(engine))
    return frozenset(support.model_format for support in capability.formats)


def _info(catalogue: Catalogue, summary: Summary) -> ModelInfo:
    return ModelInfo(
        name=summary.name,
        family=summary.family,
        aliases=summary.aliases,
        abilities=frozenset(summary.abilities),
        formats=summary.formats,
        sizes_in_billions=tuple(sorted({spec.size_in_billions for spec in summary.specs})),
        context_length=summary.context_length,
        license=summary.license or "",
        cached=is_cached(catalogue.read(summary)),
    )


def is_cached(model: words.Model) -> bool:
    """True if the files of some spec and quantization are all here."""
    return any(
        store.find(spec, source, quantization).is_complete
        for spec in model.specs
        for quantization in spec.quantizations
        for source in spec.sources_of(quantization)
        if source.hub in words.HUBS
    )
