"""The catalogue's models in lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from registry import spec as words
from registry import store
from registry.catalogue import Catalogue, Summary, read_layers


class ModelInfo(NamedTuple):
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


def _formats_of(engine: str | None) -> frozenset[str] | None:
    if engine is None:
        return None
    from engines.index import CAPABILITIES
    from registry.request import read_engine

    name = read_engine(engine, CAPABILITIES)
    capability = next(each for each in CAPABILITIES if each.engine == name)
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
