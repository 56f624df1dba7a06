"""Looks at all areas side by side, each for a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import Future
from functools import partial

from launcher.doctor.findings import Finding
from registry.errors import LaunchError
from registry.progress import Progress, Report, ignore

LIMIT_S = 30.0

Check = Callable[[], Iterable[Finding]]


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


def side_by_side(checks: Mapping[str, Check], limit_s: float, report: Report = ignore) -> list[Finding]:
    """Return the findings of all checks in the order of their names; one that is not done in time is a finding too."""
    deadline = time.monotonic() + limit_s
    futures = {area: _start(area, check) for area, check in checks.items()}
    findings: list[Finding] = []
    for done, (area, future) in enumerate(futures.items()):
        report(Progress("check", done, len(futures), f"looking at the {area}"))
        try:
            findings += future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            text = f"it was not looked at to its end within {limit_s:.0f} s"
            findings.append(Finding(area, area, "warning", text, "look whether a disk or the network hangs"))
    return findings


def _start(area: str, check: Check) -> Future[list[Finding]]:
    # No pool: its threads are waited for at the end, and one that asks a dead name server or disk hangs.
    future: Future[list[Finding]] = Future()
    threading.Thread(target=_run, args=(area, check, future), daemon=True).start()
    return future


def _run(area: str, check: Check, future: Future[list[Finding]]) -> None:
    try:
        future.set_result(_findings(area, check))
    except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
        future.set_exception(error)


def _findings(area: str, check: Check) -> list[Finding]:
    try:
        return list(check())
    except LaunchError as error:
        return [Finding.of_error(area, area, error)]
    except OSError as error:
        return [Finding(area, area, "error", f"it cannot be looked at: {error}", "look at its permissions")]
