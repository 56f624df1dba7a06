"""One user's hold on an engine that others may use, too: a connection to its guard."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path


class Handle:
    """Keeps the engine whose guard listens at `path` from ending, until `let_go`; thread-safe.

    A forked child has a copy that means nothing. Raises OSError where no guard listens.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._connection: socket.socket | None = socket.socket(socket.AF_UNIX)
        try:
            self._connection.connect(str(path))
        except OSError:
            self._connection.close()
            raise

    def keep(self, seconds: float) -> None:
        """Let the engine stay for so long after its last user."""
        if self._connection is not None:
            self._connection.sendall(f"keep {seconds:.0f}\n".encode())

    def entrust(self, descriptors: Sequence[int]) -> None:
        """Have the guard keep files open, and the locks on them, as long as the engine runs."""
        if self._connection is not None and descriptors:
            socket.send_fds(self._connection, [b"hold\n"], descriptors)

    def wait_ended(self, timeout_s: float) -> bool:
        """Return whether the engine has ended, as soon as it has or after `timeout_s`."""
        if self._connection is None:
            return True
        self._connection.settimeout(max(timeout_s, 0.001))
        try:
            return self._connection.recv(1, socket.MSG_PEEK) == b""
        except TimeoutError:
            return False
        except OSError:
            return True

    def let_go(self, timeout_s: float) -> bool:
        """Return whether the engine goes on, for others or because it is kept; else it has ended when this returns."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is None:
            return False
        with connection:
            try:
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(timeout_s)
                return connection.recv(1) != b""
            except OSError:
                return False
