"""`launch doctor`: what is wrong with this machine, and the remedy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli.options import Printing, setting

if TYPE_CHECKING:
    from launcher.doctor.findings import Finding

Offline = Annotated[bool, setting("--offline", None, "Ask no hub and no package index.")]


def command(printing: Printing, offline: Offline = False) -> None:
    from launcher.cli.application import option_variables
    from launcher.doctor.examination import examine
    from launcher.doctor.findings import made_public
    from launcher.output import format_count

    output = printing.output(has_events=False)
    findings = examine(offline=offline, variables=option_variables(), report=output.progress)
    output.end_progress()
    states = Counter(finding.state for finding in findings)
    if output.as_json:
        facts = {"errors": states["error"], "warnings": states["warning"], "findings": [f.as_dict() for f in findings]}
        output.result("doctor", made_public(facts, Path.home()))
    else:
        output.lines([made_public(line, Path.home()) for line in _lines(findings)])
        output.say(f"\n{format_count(states['error'], 'error')}, {format_count(states['warning'], 'warning')}")
    if states["error"]:
        raise typer.Exit(1)


def _lines(findings: Sequence[Finding]) -> Iterator[str]:
    for area, of_area in groupby(findings, key=lambda finding: finding.area):
        yield area
        found = list(of_area)
        width = max(len(finding.name) for finding in found)
        for finding in found:
            yield f"  {finding.state:<8} {finding.name:<{width}}  {finding.text}".rstrip()
            if finding.remedy:
                yield f"  {'':<8} {'':<{width}}  remedy: {finding.remedy}"
