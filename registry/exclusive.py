"""One process at a time brings a file; the others wait, and find it there."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def exclusive(target: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Keep other processes from bringing `target`, whoever they belong to; `on_wait` is called if one does already.

    The lock lies beside the target, so that all who share the cache see it, and it ends with its process.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(f"{target.name}.lock")
    descriptor = open_locked(path, lambda opened: _lock(opened, on_wait))
    try:
        yield
    finally:
        with suppress(OSError):  # in a folder of a group, another may have to remove it
            path.unlink()
        os.close(descriptor)


def open_locked(path: Path, lock: Callable[[int], None]) -> int:
    """Return the descriptor of the file at `path`, made if need be, that `lock` locked while it was still there."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            lock(descriptor)
            if _is_still(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the one before us removed the file that we waited at


def _lock(descriptor: int, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_still(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
