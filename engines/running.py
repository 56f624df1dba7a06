"""A running engine: watched until it is ready, diagnosed when it has ended."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path

from engines.base import Address, Engine
from registry.errors import LoadError, OutOfMemoryError

POLL_FIRST_S, POLL_LAST_S = 0.008, 0.1
HEALTH_TIMEOUT_S = 5.0
EXIT_HINTS = {
    132: "the engine uses instructions that this processor lacks",
    137: "somebody ended it, or the system did so because memory ran out",
}
# vLLM's last words are a traceback for each of its processes.
LOG_TAIL_BYTES = 65_536
LOG_TAIL_LINES = 8
LOG_LINE_LENGTH = 400


class RunningEngine(ABC):
    """An engine that listens at `address` and writes to a log, whoever started it."""

    def __init__(self, engine: Engine, address: Address, log_path: Path) -> None:
        self.engine = engine
        self.address = address
        self.log_path = log_path
        self._lines_shown = 0

    @property
    @abstractmethod
    def pid(self) -> int:
        """The guard's process id; to end it ends the engine."""

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """None while it runs and where nobody can know, 128 + n after signal n."""

    @abstractmethod
    def wait_ended(self, timeout_s: float) -> bool:
        """Return whether it has ended, as soon as it has or after `timeout_s`.

        Its end shows a moment after its connections broke, because what it started is ended first.
        """

    @abstractmethod
    def stop(self) -> bool:
        """Use it no longer; return whether it goes on without."""

    def is_alive(self) -> bool:
        return not self.wait_ended(0)

    def wait_ready(
        self,
        timeout_s: float,
        on_line: Callable[[str], None] = lambda line: None,
        on_poll: Callable[[], None] = lambda: None,
    ) -> None:
        """Return when the engine's health endpoint says that it is ready; `on_line` gets each new line of the log.

        `on_poll` is called several times a second meanwhile; what it raises ends the engine.

        Raises LoadError, or OutOfMemoryError, where it ends before or needs longer; nothing is left of it then.
        """
        try:
            self._poll_health(timeout_s, on_line, on_poll)
        except BaseException:
            self.stop()
            raise

    def _poll_health(self, timeout_s: float, on_line: Callable[[str], None], on_poll: Callable[[], None]) -> None:
        started = time.monotonic()
        while True:
            is_ready = is_healthy(self.address)
            for line in self._new_lines():
                on_line(line)
            if is_ready:
                return
            on_poll()
            if not self.is_alive():
                raise self.failure()
            waited_s = time.monotonic() - started
            if waited_s > timeout_s:
                raise self._error(LoadError, f"`{self.engine.name}` was not ready within {timeout_s:g} s")
            time.sleep(min(max(POLL_FIRST_S, waited_s / 100), POLL_LAST_S))

    def failure(self) -> LoadError:
        """Return why the engine ended, as an error to raise: what its log says, or else its exit code."""
        cause = self.engine.cause_of(self._log_tail())
        if cause is None:
            code = self.exit_code
            message = f"`{self.engine.name}` ended{_describe_exit(code)}"
            return self._error(LoadError, message, None if code is None else EXIT_HINTS.get(code))
        kind = OutOfMemoryError if cause.is_out_of_memory else LoadError
        return self._error(kind, cause.message, cause.hint)

    def _error(self, kind: type[LoadError], message: str, hint: str | None = None) -> LoadError:
        lines = [_shortened(line) for line in self._log_tail().splitlines()[-LOG_TAIL_LINES:]]
        return kind(
            message,
            engine=self.engine.name,
            log_path=str(self.log_path),
            exit_code=self.exit_code,
            hint=hint,
            details=(*lines, f"log: `{self.log_path}`"),
        )

    def _log_tail(self) -> str:
        with open(self.log_path, "rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
            return log.read().decode(errors="replace")

    def _new_lines(self) -> Iterator[str]:
        """Yield the whole lines that the log gained since the last call; bars are drawn anew after carriage returns."""
        with open(self.log_path, "rb") as log:
            log.seek(self._lines_shown)
            new = log.read()
        whole = new[: max(new.rfind(b"\n"), new.rfind(b"\r")) + 1]
        self._lines_shown += len(whole)
        yield from (line for line in whole.decode(errors="replace").splitlines() if line)


def is_healthy(address: Address) -> bool:
    """Return whether the engine at `address` answers GET /health with 200, within five seconds."""
    import http.client  # 20 ms, which pass while the engine loads
    import socket

    class UnixConnection(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(self.timeout)
            self.sock.connect(str(address.socket))

    host = address.url.removeprefix("http://")
    connection = (UnixConnection if address.socket else http.client.HTTPConnection)(host, timeout=HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", "/health", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _shortened(line: str) -> str:
    return line if len(line) <= LOG_LINE_LENGTH else f"{line[: LOG_LINE_LENGTH - 1]}…"


def _describe_exit(code: int | None) -> str:
    if code is None:
        return ""
    if code < 128:
        return f" with exit code {code}"
    import signal

    try:
        return f" by {signal.Signals(code - 128).name}"
    except ValueError:
        return f" with exit code {code}"
