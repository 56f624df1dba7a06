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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from engines.base import Address, Engine
from engines.running import RunningEngine
from registry.errors import LoadError

if TYPE_CHECKING:
    from engines.handles import Handle

GUARD = Path(__file__).with_name("runners") / "guard.py"
SOCKET_NAME = "e.sock"
GUARDS_SOCKET_NAME = "g.sock"
SOCKET_PATH_LIMIT_BYTES = 100
STOP_GRACE_S = 1.0
STOP_LIMIT_S = 10.0


def new_address() -> Address:
    """Return a Unix socket's address in a fresh folder, which `EngineProcess.stop` removes."""
    return Address(url="http://localhost", socket=new_folder() / SOCKET_NAME)


def new_folder() -> Path:
    """Return a fresh folder for sockets that only this user can enter.

    It is in $XDG_RUNTIME_DIR or the system's temporary folder, whichever leaves a path that all systems can bind and
    connect to, for names no longer than `SOCKET_NAME`.
    """
    return Path(_runtime_folder() or tempfile.mkdtemp(prefix="launch-", dir=_short_temporary_folder()))


def _own_environment() -> dict[str, str]:
    """Return the launcher's environment without the endpoint's key, which is not the engine's affair."""
    return {name: value for name, value in os.environ.items() if name != "LAUNCH_API_KEY"}


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


def guards_socket(address: Address) -> Path:
    """Return where the guard of the engine at `address`, a Unix socket, counts who uses it."""
    assert address.socket is not None
    return address.socket.with_name(GUARDS_SOCKET_NAME)


# Guards that outlive their engine's first user; forgetting them would warn of processes that still run.
_LEFT_TO_OTHERS: list[subprocess.Popen[bytes]] = []


class EngineProcess(RunningEngine):
    """An engine that this process started."""

    def __init__(self, engine: Engine, guard: subprocess.Popen[bytes], address: Address, log_path: Path) -> None:
        super().__init__(engine, address, log_path)
        self._guard = guard
        self._handle: Handle | None = None
        self._stopping = threading.Lock()

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
        keep_s: float = 0,
    ) -> Self:
        """Start `command`, which listens at `address`, and return at once.

        It runs in the address's folder, with the launcher's environment and `variables`. `grace_s` is what it gets
        between TERM and KILL, `keep_s` how long it stays after its last user. Raises LoadError where nothing can be
        started.
        """
        folder = address.socket.parent if address.socket else Path("/")
        try:
            log_path.parent.mkdir(parents=True, exist_ok=True)
            with open(os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log:
                guard = subprocess.Popen(
                    (*_guard_command(grace_s, keep_s, address), *command),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=folder,
                    env={**_own_environment(), **(variables or {})},
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
        return self._guard.pid

    @property
    def exit_code(self) -> int | None:
        code = self._guard.poll()
        return 128 - code if code is not None and code < 0 else code

    def wait_ended(self, timeout_s: float) -> bool:
        try:
            self._guard.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def share(self, descriptors: Sequence[int] = ()) -> None:
        """Let others use it, too, from now on: `stop` then ends it only if none of them is left.

        The locks that `descriptors` hold last as long as the engine does.
        """
        from engines.handles import Handle  # `socket` takes 8 ms, which pass while the engine loads

        self._handle = Handle(guards_socket(self.address))
        self._handle.entrust(descriptors)

    def stop(self) -> bool:
        """End the engine and all that it started, TERM first, KILL after its grace; remove its socket's folder.

        Returns whether it goes on: for others that use it, or because it is kept.
        """
        with self._stopping:
            handle, self._handle = self._handle, None
            if handle is not None and handle.let_go(STOP_LIMIT_S):
                _LEFT_TO_OTHERS.append(self._guard)
                return True
            if self.is_alive() and handle is None:
                self._guard.terminate()
            if not self.wait_ended(STOP_LIMIT_S):
                self._guard.kill()
                self._guard.wait()
            _remove_folder(self.address)
            return False


def _guard_command(grace_s: float, keep_s: float, address: Address) -> tuple[str, ...]:
    options = ["--grace", f"{grace_s:g}", "--keep", f"{keep_s:g}"]
    if address.socket is not None:
        options += ["--socket", str(address.socket), "--handles", str(guards_socket(address))]
    return (sys.executable, "-I", "-S", str(GUARD), *options, str(os.getpid()), "--")


def _remove_folder(address: Address) -> None:
    if address.socket is not None:
        shutil.rmtree(address.socket.parent, ignore_errors=True)
