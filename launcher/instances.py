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
from registry.cache import cache_folder, read_json, write_json

if TYPE_CHECKING:
    import psutil

    from engines.running import RunningEngine
    from launcher.plans import Plan

SCHEMA = 1
# Every process of an engine has its instance's number in this variable: what a killed guard leaves is found by it.
MARK = "LAUNCH_INSTANCE"
STOP_LIMIT_S = 20.0
POLL_S = 0.05


class Process(NamedTuple):
    """A process of this machine, by its number and when it began, in seconds since 1970."""

    pid: int
    began_s: float


class Record(NamedTuple):
    """An instance as others see it.

    `guard` ends its engine; `owner` started it, and serves it at `url` if it does. `key` is the same for all plans that
    it can stand in for. Of a server without a terminal, `server_log` is what it says, and `arguments` are what `launch`
    was given in `folder`.
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
    url: str | None = None
    server_log: str | None = None
    arguments: tuple[str, ...] = ()
    folder: str | None = None

    @property
    def pid(self) -> int:
        """The process to name: the server's, else the guard's."""
        return self.guard.pid if self.url is None else self.owner.pid

    @property
    def address(self) -> Address:
        return Address("http://localhost", Path(self.socket))

    @property
    def state(self) -> str:
        """`ready`, `loading`, or `stopping` where it serves nobody any more."""
        if self.url is not None and not is_running(self.owner):
            return "stopping"
        return "ready" if self.is_ready else "loading"


def new_number() -> str:
    """Return what an instance that this process starts is told apart by."""
    return f"{os.getpid()}-{time.monotonic_ns() % 1_000_000_000:09d}"


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
        name=plan.name,
        aliases=plan.model.aliases,
        model_format=plan.model_format,
        quantization=plan.quantization,
        engine=plan.engine,
        device=plan.device,
        context_length=plan.context_length,
        concurrency=plan.concurrency,
        key=key_of(plan),
        socket=str(running.address.socket),
        log=str(running.log_path),
        guard=_process(running.pid),
        owner=_process(os.getpid()),
        began_s=time.time(),
    )
    update(fresh)
    return fresh


def update(changed: Record) -> Record:
    """Write a record that is there already, or the first time; return it."""
    with suppress(OSError):  # without a cache that can be written nobody else knows of it
        _folder().mkdir(mode=0o700, parents=True, exist_ok=True)  # a command line may hold a key
        write_json(_path(changed.number), {"schema": SCHEMA, **changed._asdict()})
    return changed


def forget(instance: Record) -> None:
    """Remove a record, if it is there."""
    with suppress(OSError):
        _path(instance.number).unlink(missing_ok=True)


def running_instances() -> list[Record]:
    """Return what runs, the oldest first; records of what has ended are removed, and what it left behind is ended."""
    found = []
    for each in _read_all():
        if is_running(each.guard):
            found.append(each)
        else:
            _sweep(each.number)
            forget(each)
    return sorted(found, key=lambda each: each.began_s)


def find_standing_in(plan: Plan) -> Record | None:
    """Return an instance that is ready and does all that the plan asks for, if one runs."""
    key = key_of(plan)
    for each in _read_all():
        is_enough = each.context_length >= plan.context_length and each.concurrency >= plan.concurrency
        if each.key == key and each.is_ready and is_enough and is_running(each.guard):
            return each
    return None


def named(name: str) -> list[Record]:
    """Return the running instances of a model, by its name or an alias; or the one with this number."""
    wanted = name.casefold()
    return [each for each in running_instances() if wanted in (each.name, each.number, *each.aliases)]


def stop(instance: Record) -> bool:
    """End an instance with all its users, and the server in front of it in good order; return whether it is gone."""
    target = instance.owner if instance.url is not None and is_running(instance.owner) else instance.guard
    with suppress(ProcessLookupError):
        os.kill(target.pid, signal.SIGTERM)
    ends_at = time.monotonic() + STOP_LIMIT_S
    while is_running(instance.guard) or (target == instance.owner and is_running(target)):
        if time.monotonic() > ends_at:
            return False
        time.sleep(POLL_S)
    _sweep(instance.number)
    forget(instance)
    return True


def is_running(process: Process) -> bool:
    """Return whether this very process is there."""
    import psutil

    try:
        found = psutil.Process(process.pid)
        return _is_same(found, process) and found.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_same(found: psutil.Process, process: Process) -> bool:
    """Return whether a process began when it should have: the clock of the system may have been set by a little."""
    return abs(found.create_time() - process.began_s) < 1


def _process(pid: int) -> Process:
    import psutil

    try:
        return Process(pid, psutil.Process(pid).create_time())
    except psutil.Error:  # it has ended at once
        return Process(pid, 0)


def _sweep(number: str) -> None:
    """End the processes that have an instance's mark: their guard is gone."""
    import psutil

    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == number:
                process.kill()


def _read_all() -> Iterator[Record]:
    for path in sorted(_folder().glob("*.json")):
        facts = read_json(path) or {}
        if facts.pop("schema", None) == SCHEMA:
            # What another version wrote may have other fields.
            with suppress(TypeError, KeyError):
                processes = {name: Process(*facts[name]) for name in ("guard", "owner")}
                yield Record(
                    **{**facts, **processes, **{name: tuple(facts[name]) for name in ("aliases", "arguments")}}
                )


def _path(number: str) -> Path:
    return _folder() / f"{number}.json"


def _folder() -> Path:
    return cache_folder() / "instances"
