"""`launch ps`: what runs on this machine."""

from __future__ import annotations

import time

from launcher.cli.options import Printing
from launcher.instances import Record, running_instances
from launcher.memory import bytes_below
from launcher.output import format_bytes, format_clock

HEADINGS = ("NAME", "FORMAT", "QUANT", "ENGINE", "DEVICE", "CONTEXT", "MEMORY", "UPTIME", "STATE", "PID", "ADDRESS")


def command(printing: Printing) -> None:
    found = [(each, bytes_below(each.guard.pid)) for each in running_instances()]
    output = printing.output()
    if not found:
        output.say("nothing runs")
    output.table(HEADINGS, [_row(*each) for each in found], [record_of(*each) for each in found])


def _row(instance: Record, memory: int) -> tuple[str, ...]:
    return (
        instance.name,
        instance.model_format,
        instance.quantization,
        instance.engine,
        instance.device,
        f"{instance.context_length:,} × {instance.concurrency}",
        format_bytes(memory),
        format_clock(time.time() - instance.began_s),
        instance.state,
        str(instance.pid),
        instance.url or "",
    )


def record_of(instance: Record, memory: int) -> dict[str, object]:
    """Return an instance as programs get it."""
    return {
        "name": instance.name,
        "format": instance.model_format,
        "quantization": instance.quantization,
        "engine": instance.engine,
        "device": instance.device,
        "context_length": instance.context_length,
        "concurrency": instance.concurrency,
        "memory_bytes": memory,
        "uptime_s": round(time.time() - instance.began_s, 1),
        "state": instance.state,
        "pid": instance.pid,
        "url": instance.url,
        "log": instance.log,
    }
