"""Processes of this machine, told apart by number and start time: numbers come back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

POLL_S = 0.05


class Process(NamedTuple):
    """A process by its number and when it began, in seconds since 1970."""

    pid: int
    began_s: float


def process_of(pid: int) -> Process:
    """Return the process that has this number now."""
    import psutil

    try:
        return Process(pid, psutil.Process(pid).create_time())
    except psutil.Error:  # it has ended at once
        return Process(pid, 0)


def is_running(process: Process) -> bool:
    """Return whether this very process is there."""
    import psutil

    try:
        found = psutil.Process(process.pid)
        # The clock of the system may have been set by a little.
        is_same = abs(found.create_time() - process.began_s) < 1
        return is_same and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def wait_ended(processes: Sequence[Process], timeout_s: float) -> Process | None:
    """Return None as soon as all have ended, or after `timeout_s` one that has not."""
    ends_at = time.monotonic() + timeout_s
    while left := next(filter(is_running, processes), None):
        if time.monotonic() > ends_at:
            return left
        time.sleep(POLL_S)
    return None
