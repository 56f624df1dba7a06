"""Cores, memory and sockets, as far as a process here may use them."""

from __future__ import annotations

import os
import platform
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from engines.machine import Cores, Memory, read_cores, read_machine, read_memory
from engines.process import new_address
from launcher.doctor.findings import Finding
from launcher.output import format_bytes

AREA = "machine"
LITTLE_BYTES = 1_000_000_000


def examine(root: Path = Path("/")) -> Iterator[Finding]:
    """Yield what the machine is; `root` is where /proc and /sys are."""
    machine = read_machine(root)
    bfloat16 = "" if machine.gpus or machine.has_bfloat16 else ", without bfloat16"
    text = f"{machine.system} {platform.release()} on {machine.architecture}{bfloat16}"
    facts = {"system": machine.system, "release": platform.release(), "architecture": machine.architecture}
    yield Finding(AREA, "system", "ok", text, facts={**facts, "bfloat16": machine.has_bfloat16})
    yield judge_cores(read_cores(root))
    yield judge_memory(read_memory(root))
    yield examine_sockets()


def judge_cores(cores: Cores) -> Finding:
    """Return how many cores there are for us, and what keeps the others away."""
    reasons = []
    if cores.allowed < cores.installed:
        reasons.append(f"this process may run on {cores.allowed}")
    if cores.time_limit is not None and cores.time_limit < cores.allowed:
        reasons.append(f"the container has the time of {cores.time_limit:g}")
    text = f"{cores.usable} of {cores.installed}" + (f": {', '.join(reasons)}" if reasons else "")
    return Finding(AREA, "cores", "ok", text, facts={"usable": cores.usable, **cores._asdict()})


def judge_memory(memory: Memory) -> Finding:
    """Return how much memory there is for us; a warning where that is less than the smallest models take."""
    parts = [format_bytes(memory.usable_bytes)]
    if memory.usable_bytes < memory.installed_bytes:
        parts.append(f"the container's limit on a machine with {format_bytes(memory.installed_bytes)}")
    if memory.available_bytes is not None:
        parts.append(f"{format_bytes(memory.available_bytes)} free")
    if memory.swap_bytes is not None:
        parts.append(f"swap {format_bytes(memory.swap_bytes)}" if memory.swap_bytes else "no swap")
    text, facts = ", ".join(parts), {"usable_bytes": memory.usable_bytes, **memory._asdict()}
    if memory.usable_bytes < LITTLE_BYTES:
        remedy = "give the machine or its container more; `launch smollm2-instruct` is the smallest model"
        return Finding(AREA, "memory", "warning", text, remedy, facts)
    if memory.available_bytes is not None and memory.available_bytes < LITTLE_BYTES:
        return Finding(AREA, "memory", "warning", text, "end what uses most of it: ps aux --sort=-rss | head", facts)
    return Finding(AREA, "memory", "ok", text, facts=facts)


def examine_sockets() -> Finding:
    """Return whether an engine can listen where engines do, which is tried."""
    address = new_address()
    assert address.socket is not None
    folder = address.socket.parent
    facts = {"folder": str(folder.parent)}
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(os.fspath(address.socket))
    except OSError as error:
        text = f"engines cannot listen in {folder.parent}: {error.strerror}"
        return Finding(AREA, "sockets", "error", text, "name a folder on a local disk with XDG_RUNTIME_DIR", facts)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Finding(AREA, "sockets", "ok", f"in {folder.parent}", facts=facts)
