"""One engine process: started behind the guard, watched until it is ready, diagnosed when it dies, stopped whole.

    process = EngineProcess.start(engine, command, address=new_address(), log_path=path)
    try:
        process.wait_ready(300)
        ...
    finally:
        process.stop()

An engine stands in a session of its own, reads nothing, and writes to a log file. All of it may be called from any
thread, and the thread that starts an engine may end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self

from engines.base import Address, Engine
from registry.errors import LoadError, OutOfMemoryError

GUARD = Path(__file__).with_name("runners") / "guard.py"
SOCKET_NAME = "e.sock"
SOCKET_PATH_LIMIT_BYTES = 100
STOP_GRACE_S = 1.0
STOP_LIMIT_S = 10.0
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


def new_address() -> Address:
    """Return a Unix socket's address in a fresh folder that only this user can enter.

    The folder is in $XDG_RUNTIME_DIR or the system's temporary folder, whichever leaves a path that all systems can
    bind and connect to; `EngineProcess.stop` removes it.
    """
    folder = _runtime_folder() or tempfile.mkdtemp(prefix="launch-", dir=_short_temporary_folder())
    return Address(url="http://localhost", socket=Path(folder, SOCKET_NAME))


def _runtime_folder() -> str | None:
    parent = os.environ.get("XDG_RUNTIME_DIR")
    if not parent or not _is_short(parent + "/model-launcher"):
        return None
    try:
        os.makedirs(parent + "/model-launcher", mode=0o700, exist_ok=True)
        return tempfile.mkdtemp(prefix="", dir=parent + "/model-launcher")
    except OSError:
        return None


def _short_temporary_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if _is_short(folder) else "/tmp"


def _is_short(parent: str) -> bool:
    return len(os.fsencode(parent)) + len(f"/launch-12345678/{SOCKET_NAME}") <= SOCKET_PATH_LIMIT_BYTES


class EngineProcess:
    """A running engine. `exit_code` is None while it runs, 128 + n after signal n."""

    def __init__(self, engine: Engine, guard: subprocess.Popen[bytes], address: Address, log_path: Path) -> None:
        self.engine = engine
        self.address = address
        self.log_path = log_path
        self._guard = guard
        self._stopping = threading.Lock()
        self._lines_shown = 0

    @classmethod
    def start(
        cls,
        engine: Engine,
        command: Sequence[str],
        *,
        address: Address,
        log_path: Path,
        variables: Mapping[str, str] | None = None,
        grace_s: float = STOP_GRACE_S,
    ) -> Self:
        """Start `command`, which listens at `address`, and return at once.

        It runs in the address's folder, with the launcher's environment and `variables`.
        `grace_s` is what it gets between TERM and KILL. Raises LoadError where nothing can be started.
        """
        folder = address.socket.parent if address.socket else Path("/")
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
                guard = subprocess.Popen(
                    (*_guard_command(grace_s, address), *command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env={**os.environ, **(variables or {})},
                    start_new_session=True,
                )
        except OSError as error:
            _remove_folder(address)
            raise LoadError(
                f"`{engine.name}` could not be started: {error.strerror}",
                engine=engine.name,
                details=() if error.filename is None else (f"`{os.fsdecode(error.filename)}`",),
            ) from error
        return cls(engine, guard, address, log_path)

    @property
    def pid(self) -> int:
        """The guard's process id; to end it ends the engine."""
        return self._guard.pid

    @property
    def exit_code(self) -> int | None:
        code = self._guard.poll()
        return 128 - code if code is not None and code < 0 else code

    def is_alive(self) -> bool:
        return self._guard.poll() is None

    def wait_ended(self, timeout_s: float) -> bool:
        """Return whether it has ended, as soon as it has or after `timeout_s`.

        Its end shows a moment after its connections broke, because what it started is ended first.
        """
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def wait_ready(self, timeout_s: float, on_line: Callable[[str], None] | None = None) -> None:
        """Return when the engine's health endpoint says that it is ready; `on_line` gets each new line of the log.

        Raises LoadError, or OutOfMemoryError, where it ends before or needs longer; nothing is left of it then.
        """
        try:
            self._poll_health(timeout_s, on_line or (lambda line: None))
        except BaseException:
            self.stop()
            raise

    def _poll_health(self, timeout_s: float, on_line: Callable[[str], None]) -> None:
        started = time.monotonic()
        while True:
            is_ready = is_healthy(self.address)
            for line in self._new_lines():
                on_line(line)
            if is_ready:
                return
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
            message = f"`{self.engine.name}` ended {_describe_exit(code)}"
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

    def stop(self) -> None:
        """End the engine and all that it started, TERM first, KILL after its grace; remove its socket's folder."""
        with self._stopping:
            if self.is_alive():
                self._guard.terminate()
            if not self.wait_ended(STOP_LIMIT_S):
                self._guard.kill()
                self._guard.wait()
            _remove_folder(self.address)

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


def _guard_command(grace_s: float, address: Address) -> tuple[str, ...]:
    options = ("--grace", f"{grace_s:g}", *(() if address.socket is None else ("--socket", str(address.socket))))
    return (sys.executable, "-I", "-S", str(GUARD), *options, str(os.getpid()), "--")


def _remove_folder(address: Address) -> None:
    if address.socket is not None:
        shutil.rmtree(address.socket.parent, ignore_errors=True)


def _shortened(line: str) -> str:
    return line if len(line) <= LOG_LINE_LENGTH else f"{line[: LOG_LINE_LENGTH - 1]}…"


def _describe_exit(code: int | None) -> str:
    if code is None or code < 128:
        return f"with exit code {code}"
    import signal

    try:
        return f"by {signal.Signals(code - 128).name}"
    except ValueError:
        return f"with exit code {code}"
