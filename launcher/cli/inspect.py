"""`launch inspect NAME`: a model's facts, specs and sources, and what of it runs here."""

from __future__ import annotations

from typing import Any

from launcher import describe
from launcher.cli.options import ModelName, Name, Printing, Registry, one_name
from launcher.inspection import Inspection, inspect


def command(printing: Printing, name: Name = None, model_name: ModelName = None, registry: Registry = None) -> None:
    output = printing.output()
    found = inspect(one_name(name, model_name), registry=tuple(registry or ()))
    if output.as_json:
        output.data(_record(found))
    else:
        output.lines([*describe.model_lines(found.model), "", *describe.inspection_lines(found)])


def _record(found: Inspection) -> dict[str, Any]:
    return {
        "schema": 1,
        "model": describe.plain(found.model),
        "choice": None if found.choice is None else describe.choice_record(found.choice),
        "rejected": [describe.plain(rejection) for rejection in found.rejected],
        "siblings": list(found.siblings),
    }
