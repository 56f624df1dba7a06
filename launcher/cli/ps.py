"""`launch ps`: what runs on this machine."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from shutil import get_terminal_size

from launcher.cli.options import Printing
from launcher.memory import bytes_below
from launcher.output import format_bytes, format_clock, is_terminal
from launcher.overview import Running, running_models

HEADINGS = (
    *("NAME", "FORMAT", "QUANT", "ENGINE", "DEVICE", "CONTEXT", "RUN/QUEUE"),
    *("MEMORY", "UPTIME", "STATE", "ADDRESS"),
)
LEFT_OUT_FIRST = ("DEVICE", "FORMAT", "CONTEXT", "UPTIME", "QUANT", "ENGINE")
GAP = 2
# A cause may be a paragraph; programs get all of it.
CAUSE_LENGTH = 48


def command(printing: Printing) -> None:
    found = [(each, _memory_of(each)) for each in running_models()]
    output = printing.output()
    if not found:
        output.say("nothing runs")
    headings, rows = _fitting(HEADINGS, [_row(*each) for each in found])
    output.table(headings, rows, [record_of(*each) for each in found])
    for server in dict.fromkeys(each.server for each, _ in found if each.server is not None and each.server.file):
        output.say(f"{server.name}, pid {server.process.pid}: {server.file} · launch stop {server.name}")


def _memory_of(running: Running) -> int | None:
    return None if running.instance is None else bytes_below(running.instance.guard.pid)


def _row(running: Running, memory: int | None) -> tuple[str, ...]:
    status, instance = running.status, running.instance
    return (
        status.name,
        status.model_format,
        status.quantization,
        status.engine,
        status.device.partition(",")[0],
        f"{status.context_length:,} × {status.concurrency}" if status.concurrency else "",
        f"{status.running}/{status.waiting}" if running.is_answering else "",
        "" if memory is None else format_bytes(memory),
        "" if instance is None else format_clock(time.time() - instance.began_s),
        _state(running),
        "" if running.server is None else running.server.url,
    )


def _fitting(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """Return a table without the columns that a narrow terminal has no room for, those that say least first."""
    if not is_terminal(sys.stdout):
        return headings, rows
    columns = list(zip(headings, *rows, strict=True))
    for name in LEFT_OUT_FIRST:
        widths = [max(map(len, column)) + GAP for column in columns]
        if sum(widths) <= get_terminal_size().columns:
            break
        columns = [column for column in columns if column[0] != name]
    return next(fitting := iter(zip(*columns, strict=True))), list(fitting)


def _state(running: Running) -> str:
    """Return a model's state with its cause, which is shortened where people read it."""
    status = running.status
    if status.cause is None:
        return status.state
    is_long = len(status.cause) > CAUSE_LENGTH and is_terminal(sys.stdout)
    return f"{status.state}: {status.cause[: CAUSE_LENGTH - 1]}…" if is_long else f"{status.state}: {status.cause}"


def record_of(running: Running, memory: int | None) -> dict[str, object]:
    """Return a model as programs get it; null is what it has not, or nobody knows."""
    status, server, instance = running
    return {
        "name": status.name,
        "aliases": list(status.aliases),
        "format": status.model_format or None,
        "quantization": status.quantization or None,
        "engine": status.engine or None,
        "device": status.device or None,
        "context_length": status.context_length or None,
        "concurrency": status.concurrency or None,
        "running": status.running if running.is_answering else None,
        "waiting": status.waiting if running.is_answering else None,
        "memory_bytes": memory,
        "uptime_s": None if instance is None else round(time.time() - instance.began_s, 1),
        "state": status.state,
        "cause": status.cause,
        "pid": _pid(running),
        "server": None if server is None else server.name,
        "url": None if server is None else server.url,
        "log": None if instance is None else instance.log,
    }


def _pid(running: Running) -> int | None:
    """Return the process to name: the server's, else the one that ends the engine."""
    if running.server is not None:
        return running.server.process.pid
    return None if running.instance is None else running.instance.pid
