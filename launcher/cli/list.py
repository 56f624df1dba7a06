"""`launch list`: the catalogue."""

from __future__ import annotations

from typing import Annotated

from launcher.cli.options import Printing, Registry, option
from launcher.listing import ModelInfo, list_models
from registry.spec import format_size

HEADINGS = ("NAME", "FORMATS", "BILLIONS", "ABILITIES", "CONTEXT", "LICENCE", "ON DISK")


def command(
    printing: Printing,
    ability: Annotated[str | None, option("--ability", "NAME", "chat, tools, vision, …")] = None,
    model_format: Annotated[str | None, option("-f --model-format", "FORMAT", "pytorch, gptq, awq, gguf, …")] = None,
    engine: Annotated[str | None, option("-en --engine --model-engine", "NAME", "What this engine reads.")] = None,
    cached: Annotated[bool, option("--cached", None, "Only what is on disk.")] = False,
    registry: Registry = None,
) -> None:
    models = list_models(
        ability=ability,
        model_format=model_format,
        engine=engine,
        cached=cached or None,
        registry=tuple(registry or ()),
    )
    output = printing.output()
    output.table(HEADINGS, [_row(model) for model in models], [_record(model) for model in models])


def _row(model: ModelInfo) -> tuple[str, ...]:
    return (
        model.name,
        " ".join(model.formats),
        " ".join(format_size(size) for size in model.sizes_in_billions),
        " ".join(sorted(model.abilities)),
        f"{model.context_length:,}" if model.context_length else "",
        model.license,
        "yes" if model.cached else "",
    )


def _record(model: ModelInfo) -> dict[str, object]:
    return {
        "name": model.name,
        "family": model.family,
        "aliases": list(model.aliases),
        "formats": list(model.formats),
        "sizes_in_billions": list(model.sizes_in_billions),
        "abilities": sorted(model.abilities),
        "context_length": model.context_length,
        "license": model.license,
        "cached": model.cached,
    }
