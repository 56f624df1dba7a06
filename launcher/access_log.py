"""The access log: a JSON object a line for each request that has ended."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

from registry.errors import LaunchError


class AccessLog:
    """Writes to `stream`, which `close` closes unless it is stderr."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, line: Mapping[str, Any]) -> None:
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()

    def close(self) -> None:
        if self._stream is not sys.stderr:
            self._stream.close()


def open_access_log(where: str) -> AccessLog | None:
    """Return the log that `off`, `on` (stderr) or a file's path names; the file is appended to, for its owner alone.

    Raises LaunchError for a file that cannot be written.
    """
    if where == "off":
        return None
    if where == "on":
        return AccessLog(sys.stderr)
    try:
        return AccessLog(open(where, "a", encoding="utf-8", opener=_for_owner))
    except OSError as error:
        raise LaunchError(f"The access log `{where}` cannot be written: {error.strerror}") from error


@contextmanager
def opened_access_log(where: str) -> Iterator[AccessLog | None]:
    """Yield the log that `open_access_log` returns, and close it."""
    access_log = open_access_log(where)
    try:
        yield access_log
    finally:
        if access_log is not None:
            access_log.close()


def _for_owner(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
