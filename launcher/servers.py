"""The endpoints that run, on disk: one record for each, which tells the truth whatever has crashed since."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from launcher import instances
from launcher.processes import Process, is_running, process_of, wait_ended
from launcher.records import read_records, remove_record, write_record

KIND = "servers"


class Origin(NamedTuple):
    """How an endpoint came to be: what it is called, and what `launch` was given in `folder`, with which `file`.

    `log` is what it says where it has no terminal. One that `is_embedded` is in a program of the user's, which is not
    ours to end.
    """

    name: str
    log: str | None = None
    arguments: tuple[str, ...] = ()
    folder: str | None = None
    file: str | None = None
    is_embedded: bool = False


class Server(NamedTuple):
    """An endpoint as others see it: `process` answers clients at `url`, and its own user at the socket `control`."""

    number: str
    name: str
    process: Process
    url: str
    control: str
    began_s: float
    log: str | None = None
    arguments: tuple[str, ...] = ()
    folder: str | None = None
    file: str | None = None
    is_embedded: bool = False

    def is_called(self, name: str) -> bool:
        """Return whether a name means the endpoint itself: its own, its number, or that of its file."""
        is_file = self.file is not None and (name == Path(self.file).name or os.path.abspath(name) == self.file)
        return is_file or name == self.number or name.casefold() == self.name.casefold()


def new_server(origin: Origin, url: str, control: Path) -> Server:
    """Write that this process serves now, and return it."""
    server = Server(
        number=instances.new_number(),
        process=process_of(os.getpid()),
        url=url,
        control=str(control),
        began_s=time.time(),
        **origin._asdict(),
    )
    write_record(KIND, server.number, server._asdict())
    return server


def forget(server: Server) -> None:
    """Remove a record, if it is there, with the socket of an endpoint that cannot do so any more."""
    remove_record(KIND, server.number)
    control = Path(server.control)
    with suppress(OSError):
        control.unlink(missing_ok=True)
        control.parent.rmdir()


def logs_being_written() -> frozenset[str]:
    """Return the logs of all that is on record, engines and endpoints."""
    records = (*read_records(KIND), *read_records(instances.KIND))
    return frozenset(str(facts["log"]) for facts in records if facts.get("log"))


def running_servers() -> list[Server]:
    """Return the endpoints that run, the oldest first; what those left that were killed is removed."""
    found = []
    for each in _read_all():
        if is_running(each.process):
            found.append(each)
        else:
            if not each.is_embedded:  # whose engines others may well use
                instances.leave(each.process)
            forget(each)
    return sorted(found, key=lambda each: each.began_s)


def stop(server: Server) -> Process | None:
    """End an endpoint in good order, then its engines with all their users.

    Returns the process that does not end, None where all is gone.
    """
    with suppress(ProcessLookupError):
        os.kill(server.process.pid, signal.SIGTERM)
    if left := wait_ended([server.process], instances.STOP_LIMIT_S):
        return left
    forget(server)
    owned = [each for each in instances.running_instances() if each.owner == server.process]
    return next(filter(None, map(instances.stop, owned)), None)


def _read_all() -> Iterator[Server]:
    for facts in read_records(KIND):
        with suppress(TypeError, KeyError):
            process, arguments = Process(*facts["process"]), tuple(facts["arguments"])
            yield Server(**{**facts, "process": process, "arguments": arguments})
