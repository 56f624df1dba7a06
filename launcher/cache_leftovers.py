"""What downloads leave that is no model: which files they are, and whether a process writes them still."""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

from registry.hubs import open_hub
from registry.spec import Source

_ANY_COMMIT = "0" * 40
_LEFTOVER = re.compile(r"(.+)\.(partial|journal|journal\.new|incomplete|lock)|\.(.+)\.\d+")
# Other programs' locks are not ours to try: what grew within this time may be growing still.
_QUIET_S = 3600.0


def snapshots_folder(source: Source) -> Path:
    """Return the folder with a repo's commits, on a hub that has commits; it need not exist."""
    return open_hub(source.hub).snapshot(source._replace(revision=_ANY_COMMIT), "").parent


def files_below(folder: Path) -> Iterator[Path]:
    """Yield every file, those that are links too; never what is behind a link to a folder."""
    for parent, _, names in os.walk(folder):
        yield from (Path(parent, name) for name in sorted(names))


def is_leftover(path: Path) -> bool:
    """Return whether a file of a snapshot is not one of the repo's."""
    if path.is_symlink() or _LEFTOVER.fullmatch(path.name) is None:
        return False
    return path.suffix != ".lock" or not path.stat().st_size  # a repo may hold a lock file, ours are empty


def leftovers_beside(source: Source) -> Iterator[Path]:
    """Yield what is of a source and outside its snapshots: blobs that no snapshot links to, archives not unpacked."""
    if source.hub == "huggingface":
        snapshots = snapshots_folder(source)
        linked = {blob_of(path) for path in files_below(snapshots)}
        yield from (path for path in files_below(snapshots.with_name("blobs")) if path not in linked)
    elif source.hub == "url":
        folder = open_hub(source.hub).snapshot(source, "")
        yield from sorted(folder.parent.glob(f"{folder.name}.tar*"))
        yield from files_below(folder.with_name(f".{folder.name}"))


def blob_of(path: Path) -> Path | None:
    """Return the blob of its repo that a file of a Hugging Face snapshot links to, if it does."""
    if not path.is_symlink():
        return None
    target = Path(os.path.normpath(path.parent / path.readlink()))
    repo = next((parent.parent for parent in path.parents if parent.name == "snapshots"), None)
    return target if repo is not None and target.parent == repo / "blobs" else None


def target_of(path: Path) -> Path:
    """Return the file that an unfinished one would have become."""
    found = _LEFTOVER.fullmatch(path.name)
    return path if found is None else path.with_name(found[1] or found[3])


def grew_at(path: Path) -> float:
    """Return when a file was last written to, in seconds since 1970."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return 0.0


def is_written(path: Path) -> bool:
    """Return whether a process may be writing an unfinished file still."""
    target = target_of(path)
    is_ours = target != path and path.suffix != ".incomplete"
    if not is_ours and time.time() - grew_at(path) < _QUIET_S:
        return True
    return is_locked(target.with_name(f"{target.name}.lock"))


def is_locked(path: Path) -> bool:
    """Return whether a process has the lock that this file is."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
