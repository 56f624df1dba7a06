"""Takes models, environments and leftovers out of the caches: first what that would be, then in deed.

A blob goes with the last file that links to it. Nothing goes that a running instance reads, or a download writes.
"""

from __future__ import annotations

import os
from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from stat import S_ISREG
from typing import NamedTuple

from engines.environment import remove_folder
from engines.index import CAPABILITIES
from launcher.cache import Entry, cache_folders, size_on_disk, sizes_of
from launcher.cache_leftovers import blob_of, files_below, is_written, snapshots_folder, target_of
from launcher.cache_use import Use, unheld
from registry.catalogue import read_layers
from registry.digest import forget
from registry.errors import UnknownModelError
from registry.exclusive import exclusive


class Removal(NamedTuple):
    """What goes, what stays because it is in use, and the bytes that this frees on disk."""

    entries: tuple[Entry, ...]
    kept: tuple[Entry, ...]
    freed_bytes: int


def plan_removal(chosen: Sequence[Entry]) -> Removal:
    """Return what removing would do; touches nothing."""
    going = tuple(entry for entry in chosen if not entry.is_running)
    kept = tuple(entry for entry in chosen if entry.is_running)
    return Removal(going, kept, _freed_bytes(_doomed(going)))


def remove(plan: Removal) -> Removal:
    """Remove what is planned, and return what was done: what has been started since stays.

    Raises CacheNotWritableError.
    """
    from registry.trouble import writing

    done: list[Entry] = []
    kept = list(plan.kept)
    freed = 0
    for entry in plan.entries:
        with writing(entry.folder):
            try:
                freed += _remove(entry)
                done.append(entry)
            except BlockingIOError:
                kept.append(entry)
    return Removal(tuple(done), tuple(kept), freed)


def choose_old(
    inventory: Sequence[Entry], *, now: float, older_than_s: float | None = None, keep_bytes: int | None = None
) -> tuple[Entry, ...]:
    """Return what was not used for longer than that, and of the rest the longest unused until the others fit.

    What only other programs fetched is neither chosen nor counted.
    """
    own = sorted((entry for entry in inventory if entry.last_used is not None), key=_last_used)
    old = [entry for entry in own if older_than_s is not None and now - _last_used(entry) > older_than_s]
    if keep_bytes is None:
        return tuple(old)
    staying = [(entry, sizes_of(entry)) for entry in own if entry not in old or entry.is_running]
    for entry, sizes in [pair for pair in staying if not pair[0].is_running]:
        if sum(dict(ChainMap(*(each for _, each in staying))).values()) <= keep_bytes:
            break
        staying.remove((entry, sizes))
        old.append(entry)
    return tuple(old)


def choose_named(inventory: Sequence[Entry], name: str) -> tuple[Entry, ...]:
    """Return what a model's name, alias or repo id means, also with `:QUANTIZATION`, or an engine's name.

    Raises UnknownModelError for what neither the cache nor the catalogue knows.
    """
    bare, _, quantization = name.lower().partition(":")
    own = {bare}
    try:
        own.add(read_layers(()).find(bare).model.name.lower())
    except UnknownModelError as error:
        is_engine = bare in (capability.engine for capability in CAPABILITIES)
        if not is_engine and not any(_is_meant(entry, own, "") for entry in inventory):
            error.hint = error.hint if error.suggestions else "launch cache list"
            raise
    return tuple(entry for entry in inventory if _is_meant(entry, own, quantization))


def _is_meant(entry: Entry, names: set[str], quantization: str) -> bool:
    own = {each.lower() for each in (*entry.names, entry.repo_id)}
    return not own.isdisjoint(names) and quantization in ("", entry.quantization.lower())


def _last_used(entry: Entry) -> float:
    return entry.last_used or 0.0


# --- what goes --------------------------------------------------------------------------------------------------------


def _doomed(entries: Iterable[Entry]) -> list[Path]:
    """Return every file that removing these entries together removes, blobs behind them included."""
    paths = list(dict.fromkeys(path for entry in entries for path in entry.paths()))
    going = set(paths)
    blobs_of: dict[Path, set[Path]] = {}
    for path in paths:
        if (blob := blob_of(path)) is not None:
            blobs_of.setdefault(blob.parent.parent, set()).add(blob)
    for repo, blobs in blobs_of.items():
        staying = {blob_of(path) for path in files_below(repo / "snapshots") if path not in going}
        paths += sorted(blobs - staying - going)
    return paths


def _freed_bytes(paths: Sequence[Path]) -> int:
    """Return what unlinking these paths frees: nothing for a file that has other names besides."""
    names: Counter[tuple[int, int]] = Counter()
    links: dict[tuple[int, int], int] = {}
    sizes: dict[tuple[int, int], int] = {}
    for path in paths:
        with suppress(OSError):
            stat = path.lstat()
            if not S_ISREG(stat.st_mode):
                continue
            inode = stat.st_dev, stat.st_ino
            names[inode] += 1
            links[inode], sizes[inode] = stat.st_nlink, size_on_disk(path, stat)
    return sum(size for inode, size in sizes.items() if names[inode] >= links[inode])


# --- its end ----------------------------------------------------------------------------------------------------------


def _remove(entry: Entry) -> int:
    """Remove one entry and return the bytes freed; raises BlockingIOError if it is in use."""
    with unheld(entry.uses), _unwritten(entry):
        paths = _doomed([entry])
        freed = _freed_bytes(paths)
        if entry.kind == "environment":
            remove_folder(entry.folder)
        else:
            _unlink(paths)
        for use in entry.uses:
            if not _is_left(use):
                use.path.unlink(missing_ok=True)
    _remove_empty(entry.folder)
    if entry.source is not None and entry.hub == "huggingface":
        _tidy_repo(snapshots_folder(entry.source).parent, entry)
    return freed


def _is_left(use: Use) -> bool:
    """Return whether anything is left of what a record speaks of: it may speak of several entries."""
    if use.files:
        return any(os.path.lexists(Path(use.folder, path)) for path in use.files)
    return next(files_below(Path(use.folder)), None) is not None


@contextmanager
def _unwritten(entry: Entry) -> Iterator[None]:
    """Keep downloads from going on with what they left, while that is removed."""
    with ExitStack() as locks:
        for path in entry.files if entry.kind == "leftover" else ():
            if is_written(path):
                raise BlockingIOError
            if path.suffix == ".partial":
                locks.enter_context(exclusive(target_of(path), _give_up))
        yield


def _give_up() -> None:
    raise BlockingIOError


def _unlink(paths: Iterable[Path]) -> None:
    for path in paths:
        if not path.is_symlink():
            forget(path)
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    """Remove a folder with those in it, and those around it up to the cache's own, as far as they are empty."""
    for inner, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(inner)
    roots = cache_folders().values()
    with suppress(OSError):
        for parent in folder.parents:
            if parent in roots:
                return
            parent.rmdir()


def _tidy_repo(repo: Path, entry: Entry) -> None:
    """Remove what Hugging Face's cache says of a commit that is gone; of the whole repo where nothing is left."""
    _remove_empty(repo / "blobs")
    is_bare = not any((repo / name).exists() for name in ("snapshots", "blobs"))
    if not is_bare and entry.folder.exists():
        return

    def is_gone(commit: str) -> bool:
        return is_bare or commit == entry.folder.name

    facts = [path for path in files_below(repo / "trees") if is_gone(path.stem)]
    facts += [path for path in files_below(repo / "refs") if is_gone(path.read_text().strip())]
    facts += [
        path for path in files_below(repo / ".no_exist") if is_gone(path.relative_to(repo / ".no_exist").parts[0])
    ]
    for path in facts:
        path.unlink(missing_ok=True)
    for name in ("trees", "refs", ".no_exist"):
        _remove_empty(repo / name)
