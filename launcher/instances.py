"""What runs, on disk: one record for each instance, which tells the truth whatever has crashed since.

A record is written when an engine is started, and again when it is ready. Whether it still holds is asked of the system
each time it is read: by process id and start time, because numbers come back.
"""

from __future__ import annotations

import os
import signal
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from engines.base import Address
from launcher.processes import Process, is_running, process_of, wait_ended
from launcher.records import read_records, remove_record, write_record

if TYPE_CHECKING:
    from engines.running import RunningEngine
    from launcher.plans import Plan

KIND = "instances"
# Every process of an engine has its instance's number in this variable: what a killed guard leaves is found by it.
MARK = "LAUNCH_INSTANCE"
STOP_LIMIT_S = 20.0
# A guard that nobody needs any more has ended its engine by then, whatever that does.
ENDS_WITHIN_S = 10.0


class Record(NamedTuple):
    """An instance as others see it.

    `guard` ends its engine; `owner` started it, and `left_at_s` is when that was a server that was found dead. `key`
    is the same for all plans that it can stand in for.
    """

    number: str
    name: str
    aliases: tuple[str, ...]
    model_format: str
    quantization: str
    engine: str
    device: str
    context_length: int
    concurrency: int
    key: str
    socket: str
    log: str
    guard: Process
    owner: Process
    began_s: float
    is_ready: bool = False
    left_at_s: float | None = None

    @property
    def pid(self) -> int:
        """The process to name."""
        return self.guard.pid

    @property
    def address(self) -> Address:
        return Address("http://localhost", Path(self.socket))

    @property
    def state(self) -> str:
        """`ready`, `loading`, or `stopping` where its server was killed; what is there after that, others use."""
        if self.left_at_s is not None and time.time() - self.left_at_s < ENDS_WITHIN_S:
            return "stopping"
        return "ready" if self.is_ready else "loading"


def new_number() -> str:
    """Return what an instance that this process starts is told apart by."""
    return f"{os.getpid()}-{time.monotonic_ns() % 1_000_000_000:09d}"


def log_name(name: str) -> str:
    """Return what the names of a model's logs begin with."""
    return name.replace("/", "-")


def key_of(plan: Plan) -> str:
    """Return what plans have in common whose engines could stand in for each other, but for context and slots."""
    settings = plan.settings._replace(context_length=0, slots=0, starts_fast=True, model_path=Path())
    parts = (plan.hub, plan.repo_id, plan.revision, plan.engine, plan.environment.python, settings)
    return f"{zlib.crc32(repr(parts).encode()):08x}"


def new_record(plan: Plan, running: RunningEngine, number: str) -> Record:
    """Write what is starting now, and return it."""
    assert running.address.socket is not None
    fresh = Record(
        number=number,
        name=plan.settings.name,
        aliases=tuple(each for each in (plan.name, *plan.model.aliases) if each != plan.settings.name),
        model_format=plan.model_format,
        quantization=plan.quantization,
        engine=plan.engine,
        device=plan.device,
        context_length=plan.context_length,
        concurrency=plan.concurrency,
        key=key_of(plan),
        socket=str(running.address.socket),
        log=str(running.log_path),
        guard=process_of(running.pid),
        owner=process_of(os.getpid()),
        began_s=time.time(),
    )
    update(fresh)
    return fresh


def update(changed: Record) -> Record:
    """Write a record that is there already, or the first time; return it."""
    write_record(KIND, changed.number, changed._asdict())
    return changed


def forget(instance: Record) -> None:
    """Remove a record, if it is there."""
    remove_record(KIND, instance.number)


def leave(owner: Process) -> None:
    """Note of the instances of a server that it was killed, so that they end unless others use them."""
    for each in _read_all():
        if each.owner == owner and is_running(each.guard):
            update(each._replace(left_at_s=time.time()))


def running_instances() -> list[Record]:
    """Return what runs, the oldest first; records of what has ended are removed, and what it left behind is ended."""
    found = []
    for each in _read_all():
        if is_running(each.guard):
            found.append(each)
        else:
            _sweep(each)
            forget(each)
    return sorted(found, key=lambda each: each.began_s)


def find_standing_in(plan: Plan) -> Record | None:
    """Return an instance that is ready and does all that the plan asks for, if one runs."""
    key = key_of(plan)
    for each in _read_all():
        is_enough = each.context_length >= plan.context_length and each.concurrency >= plan.concurrency
        if each.key == key and each.state == "ready" and is_enough and is_running(each.guard):
            return each
    return None


def stop(instance: Record) -> Process | None:
    """End an instance with all its users; return the process that does not end, None where all is gone."""
    with suppress(ProcessLookupError):
        os.kill(instance.guard.pid, signal.SIGTERM)
    if left := wait_ended([instance.guard], STOP_LIMIT_S):
        return left
    _sweep(instance)
    forget(instance)
    return None


def _sweep(instance: Record) -> None:
    """End the processes that have an instance's mark, and remove its sockets: their guard is gone."""
    import psutil

    from engines.process import guards_socket

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == instance.number:
                process.kill()
    socket = Path(instance.socket)
    with suppress(OSError):  # mostly the guard has removed them
        for each in (socket, guards_socket(instance.address)):
            each.unlink(missing_ok=True)
        socket.parent.rmdir()


def _read_all() -> Iterator[Record]:
    for facts in read_records(KIND):
        with suppress(TypeError, KeyError):
            processes = {name: Process(*facts[name]) for name in ("guard", "owner")}
            yield Record(**{**facts, **processes, "aliases": tuple(facts["aliases"])})
