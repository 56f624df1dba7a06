"""Looks at all areas of a machine."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from launcher.doctor.checks import Check, side_by_side
from launcher.doctor.findings import Finding
from registry.progress import Report, ignore

LIMIT_S = 30.0


def examine(*, offline: bool, variables: Collection[str], report: Report = ignore) -> tuple[Finding, ...]:
    """Return what was found in every area; nothing beyond this machine is reached if `offline`.

    `variables` are those that options can be given by.
    """
    from launcher.doctor import caches, engines, folders, gpus, machine, network, program, settings

    checks: dict[str, Check] = {
        "program": program.examine,
        "machine": machine.examine,
        "gpu": gpus.examine,
        "disk": folders.examine,
        "cache": caches.examine,
        "hub": partial(network.examine, offline=offline),
        "engine": engines.examine,
        "setting": partial(settings.examine, variables),
    }
    return tuple(side_by_side(checks, LIMIT_S, report))
