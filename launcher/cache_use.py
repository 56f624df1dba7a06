"""What was used and when: a record for each model's files and each engine's environment, in our own cache folder.

A record's time of change is the last use. A running instance holds a shared lock on the records of what it reads; the
lock ends with its engine's guard, however that ends, so that none is ever stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from registry.cache import cache_folder, read_json
from registry.errors import LaunchError
from registry.exclusive import open_locked

if TYPE_CHECKING:
    from launcher.plans import Plan
    from registry.store import FileSet

# On these hubs a commit's folder has its name; elsewhere the source alone says which version it is.
HUBS_WITH_COMMITS = ("huggingface", "modelscope")


class InUseError(LaunchError):
    """What was to be removed is in use."""

    kind = "in_use"
    permanent = False


class Use(NamedTuple):
    """Files of a model below a folder, all of them where `files` is empty; or an engine's environment, without a hub.

    `folder` is without links, so that another way to it is the same. `revision` is the commit, where there are commits.
    """

    name: str
    folder: str
    model_format: str = ""
    quantization: str = ""
    hub: str = ""
    repo_id: str = ""
    revision: str | None = None
    files: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where the record is; its name is readable, and another one for other files."""
        key = json.dumps([self.folder, self.name, *self.files])
        name = "-".join(part for part in (self.name, self.model_format, self.quantization) if part)
        return _folder() / f"{name.replace('/', '_')[:150]}-{zlib.crc32(key.encode()):08x}.json"


class Hold:
    """Locks on records; nobody removes what they speak of until `release`, or the end of this process."""

    def __init__(self, uses: Iterable[Use]) -> None:
        self._descriptors: list[int] = []
        for use in uses:
            with suppress(OSError):  # without a cache that can be written, or locks, there is no protection
                self._descriptors.append(_touch(use))

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The open records, each with a shared lock."""
        return tuple(self._descriptors)

    def release(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def hold(plan: Plan, files: FileSet | None, python: str) -> Hold:
    """Record what an instance uses from now on, and keep it from being removed."""
    weights = () if files is None else _weights(plan, files)
    return Hold((*weights, *_environment(plan, python)))


def record_use(plan: Plan, files: FileSet) -> None:
    """Record that a plan's files were used now."""
    Hold(_weights(plan, files)).release()


def read_uses() -> list[tuple[Use, float]]:
    """Return what was used, with the time of the last use in seconds since 1970."""
    found: list[tuple[Use, float]] = []
    for path in sorted(_folder().glob("*.json")):
        # What another version wrote may have other fields; what is being removed may just have gone.
        with suppress(TypeError, KeyError, FileNotFoundError):
            facts = read_json(path) or {}
            found.append((Use(**{**facts, "files": tuple(facts["files"])}), path.stat().st_mtime))
    return found


def is_held(use: Use) -> bool:
    """Return whether a running instance uses it."""
    try:
        with unheld([use]):
            return False
    except BlockingIOError:
        return True


@contextmanager
def unheld(uses: Iterable[Use]) -> Iterator[None]:
    """Keep instances from starting on what is used, as long as it lasts; raises BlockingIOError if one runs."""
    descriptors = []
    try:
        for use in uses:
            try:
                descriptors.append(os.open(use.path, os.O_RDONLY))
                fcntl.flock(descriptors[-1], fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:  # there is no record any more, or there are no locks on this disk
                continue
        yield
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


def _folder() -> Path:
    return cache_folder() / "used"


def _weights(plan: Plan, files: FileSet) -> Iterator[Use]:
    """Yield the record of the files; none of those that are not in a cache."""
    first = next(iter(files.files), None)
    if plan.hub == "local" or first is None or first.location is None:
        return
    folder = first.location.parents[len(PurePosixPath(first.path).parts) - 1]
    yield Use(
        name=plan.name,
        folder=str(folder.resolve()),
        model_format=plan.model_format,
        quantization=plan.quantization,
        hub=plan.hub,
        repo_id=plan.repo_id,
        revision=folder.name if plan.hub in HUBS_WITH_COMMITS else plan.revision,
        files=() if files.path == folder else tuple(file.path for file in files.files),
    )


def _environment(plan: Plan, python: str) -> Iterator[Use]:
    """Yield the record of an environment that we made."""
    folder = Path(python).parent.parent.resolve()
    if folder.parent == (cache_folder() / "environments").resolve():
        yield Use(name=plan.engine, folder=str(folder))


def _touch(use: Use) -> int:
    """Write the record, and return the descriptor that holds a shared lock on it."""
    path, data = use.path, json.dumps(use._asdict(), indent=1).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    # It waits while what the record speaks of is being removed.
    descriptor = open_locked(path, lambda opened: fcntl.flock(opened, fcntl.LOCK_SH))
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
        os.utime(descriptor)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
