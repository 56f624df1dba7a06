"""An endpoint's private socket with models behind it that are only said to be there: in a thread, or a process.

python controlled.py FILE: the models' names are the lines of FILE, each followed by its state and perhaps its cause.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from launcher.control import Controlled, ModelStatus
from launcher.gateway.control import controlling
from launcher.servers import Origin, Server
from registry.errors import SchemaError, UnknownModelError

URL = "http://127.0.0.1:9/v1"


def status(name: str, state: str = "unloaded", cause: str | None = None) -> ModelStatus:
    return ModelStatus(name, (f"{name}-alias",), state, cause, "gguf", "Q4_1", "echo", "CPU", 512, 2, 1, 3, None)


class Models:
    """The models in a file; to reload it is to read it again, and a line that is no model is an error."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._statuses = self._read()

    def statuses(self) -> Sequence[ModelStatus]:
        return self._statuses

    async def reload(self) -> Sequence[str]:
        before, self._statuses = self._statuses, self._read()
        old = {each.name for each in before}
        return [f"{each.name} is new" for each in self._statuses if each.name not in old]

    async def unload(self, name: str) -> bool:
        at = next((at for at, each in enumerate(self._statuses) if each.name == name), None)
        if at is None:
            raise UnknownModelError(f"There is no model `{name}` here", name=name, suggestions=["near"])
        was_loaded = self._statuses[at].state != "unloaded"
        self._statuses[at] = status(name)
        return was_loaded

    def _read(self) -> list[ModelStatus]:
        lines = self._file.read_text().splitlines()
        for number, line in enumerate(lines, 1):
            if line.startswith("!"):
                raise SchemaError(f"`{line}` is no model", file=str(self._file), line=number, key="models")
        return [status(*line.split(None, 2)) for line in lines]


@contextmanager
def served(controlled: Controlled, origin: Origin) -> Iterator[Server]:
    """Serve the socket in a thread of this process."""
    began: Future[Server] = Future()
    ended = asyncio.Event()
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with controlling(controlled, origin, URL) as server:
            began.set_result(server)
            await ended.wait()

    thread = threading.Thread(target=lambda: asyncio.Runner(loop_factory=lambda: loop).run(serve()))
    thread.start()
    try:
        yield began.result(10)
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


async def serve(file: Path) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with controlling(Models(file), Origin("serve", file=str(file)), URL):
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
