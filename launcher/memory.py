"""What processes have in memory. What several of them share counts for each; a GPU's own memory is not in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil


def own_bytes() -> int:
    """Return what this process has in memory."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def bytes_below(pid: int) -> int:
    """Return what all that descends from a process has in memory; 0 where it is gone."""
    import psutil

    total = 0
    for process in _below(pid):
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total


def peak_bytes_below(pid: int) -> int:
    """Return the most that each process below another has had in memory, added up.

    Where the system keeps no peak, as on macOS, it is what they have now.
    """
    import psutil

    total = 0
    for process in _below(pid):
        with suppress(psutil.Error):
            total += _read_peak(process.pid) or process.memory_info().rss
    return total


def _below(pid: int) -> Iterator[psutil.Process]:
    import psutil

    with suppress(psutil.Error):
        yield from psutil.Process(pid).children(recursive=True)


def _read_peak(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8") as status:
            return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), None)
    except OSError:
        return None
