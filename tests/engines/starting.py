"""Real engines for one test: started in the environments that are kept, found in /proc, and stopped after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from engines.base import Engine, Settings
from engines.conformance import EngineConformance
from engines.process import EngineProcess, new_address
from tests.weights.build import make_python

Start = Callable[..., EngineProcess]


class RealEngineConformance(EngineConformance):
    """The contract, in the environment that is kept."""

    @pytest.fixture(scope="class")
    @classmethod
    def python(cls) -> str:
        return str(make_python(cls.engine.name))


@contextmanager
def starting(engine: Engine, folder: Path, settings_of: Callable[..., Settings]) -> Iterator[Start]:
    """Yield a function that starts the engine with what `settings_of` makes of its arguments, logging to `folder`.

    Its own argument `limit` is a command that goes before the engine's.
    """
    python = str(make_python(engine.name))
    started: list[EngineProcess] = []

    def start(*arguments: object, limit: Sequence[str] = (), **options: object) -> EngineProcess:
        address, settings = new_address(), settings_of(*arguments, **options)
        command = (*limit, *engine.command(python, settings, address))
        log_path, variables = folder / f"engine-{len(started)}.log", engine.variables(settings)
        started.append(EngineProcess.start(engine, command, address=address, log_path=log_path, variables=variables))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.stop()


def memory_limit(kib: int) -> tuple[str, ...]:
    """Return what goes before a command that gets no more address space."""
    return ("sh", "-c", f'ulimit -v {kib}; exec "$@"', "sh")


def of_another_architecture(weights: Path, copy: Path) -> Path:
    """Return a copy of a Llama's GGUF that says that it is an `xlama`."""
    data = bytearray(weights.read_bytes())
    where = data.index(b"llama", data.index(b"general.architecture"))
    data[where : where + 5] = b"xlama"
    copy.write_bytes(data)
    return copy


def children_of(pid: int) -> list[int]:
    """Return the processes that have it as their parent."""
    stats = {path: path.read_text().rpartition(")")[2].split() for path in Path("/proc").glob("[0-9]*/stat")}
    return [int(path.parent.name) for path, fields in stats.items() if int(fields[1]) == pid]
