"""Checks run side by side, each for a bounded time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

from launcher.doctor.findings import Finding
from registry.errors import LaunchError
from registry.progress import Progress, Report, ignore

Check = Callable[[], Iterable[Finding]]


def side_by_side(
    checks: Mapping[str, Check], limit_s: float, report: Report = ignore, *, area: str | None = None
) -> list[Finding]:
    """Return the findings of all checks in their order; one that is not done in time is a finding too.

    They are named after their areas, or all are of one `area`.
    """
    deadline = time.monotonic() + limit_s
    futures = {name: _start(area or name, name, check) for name, check in checks.items()}
    findings: list[Finding] = []
    for done, (name, future) in enumerate(futures.items()):
        report(Progress("check", done, len(futures), f"looking at the {name}"))
        try:
            findings += future.result(max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            text = f"it could not be looked at within {limit_s:.0f} s"
            findings.append(Finding(area or name, name, "error", text, "look whether a disk or the network hangs"))
    return findings


def _start(area: str, name: str, check: Check) -> Future[list[Finding]]:
    # No pool: its threads are waited for at the end, and one that asks a dead name server or disk hangs.
    future: Future[list[Finding]] = Future()
    threading.Thread(target=_run, args=(area, name, check, future), daemon=True).start()
    return future


def _run(area: str, name: str, check: Check, future: Future[list[Finding]]) -> None:
    try:
        future.set_result(_findings(area, name, check))
    except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
        future.set_exception(error)


def _findings(area: str, name: str, check: Check) -> list[Finding]:
    try:
        return list(check())
    except LaunchError as error:
        return [Finding.of_error(area, name, error)]
    except OSError as error:
        return [Finding(area, name, "error", f"it cannot be looked at: {error}", "look at its permissions")]
