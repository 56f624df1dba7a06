"""An engine that somebody else started, used beside them."""

from __future__ import annotations

from pathlib import Path

from engines.base import Address, Engine
from engines.handles import Handle
from engines.process import STOP_LIMIT_S, guards_socket
from engines.running import RunningEngine


class AttachedEngine(RunningEngine):
    """An engine whose guard is process `pid`; it stays at least until `stop`. Raises OSError where it has ended."""

    def __init__(self, engine: Engine, address: Address, log_path: Path, pid: int) -> None:
        super().__init__(engine, address, log_path)
        self._pid = pid
        self._handle = Handle(guards_socket(address))

    @property
    def pid(self) -> int:
        return self._pid

    @property
    def exit_code(self) -> int | None:
        return None

    def keep(self, seconds: float) -> None:
        """Let it stay for so long after its last user."""
        self._handle.keep(seconds)

    def wait_ended(self, timeout_s: float) -> bool:
        return self._handle.wait_ended(timeout_s)

    def stop(self) -> bool:
        return self._handle.let_go(STOP_LIMIT_S)
