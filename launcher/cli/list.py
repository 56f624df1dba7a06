"""`launch list`: the catalogue."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.cli.options import Printing, Which
from launcher.listing import ModelInfo, list_models
from registry.spec import format_size

HEADINGS = ("NAME", "FORMATS", "BILLIONS", "ABILITIES", "CONTEXT", "LICENCE", "ON DISK")


def command(
    which: Which,
    printing: Printing,
    ability: Annotated[str | None, typer.Option("--ability", help="chat, tools, vision, …")] = None,
    cached: Annotated[bool, typer.Option("--cached", help="Only what is on disk.")] = False,
) -> None:
    models = list_models(
        ability=ability,
        model_format=which.model_format,
        engine=which.engine,
        cached=cached or None,
        registry=tuple(which.registry or ()),
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
