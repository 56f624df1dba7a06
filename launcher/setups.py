"""Sets engines up in environments of their own, moves them to a newer lock, and removes what nobody uses."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

from engines.base import Requirements
from engines.environment import Environment, engine_of, folders_of, is_version, list_environments, remove_folder
from engines.index import CAPABILITIES, engine_named
from engines.machine import read_machine
from launcher.cache_use import InUseError, read_uses, unheld
from registry.errors import EngineNotInstalledError, ResolutionError
from registry.progress import Progress, Report
from registry.request import read_engine


class Update(NamedTuple):
    """An engine's environment of the current lock, those of older ones that went, and those that are in use."""

    environment: Environment
    removed: tuple[Path, ...]
    kept: tuple[Path, ...]


def read_wanted(text: str) -> tuple[str, str]:
    """Return engine and version of `vllm` or `vllm==0.31.0`, the version "" where none is named.

    Raises ResolutionError for an engine that there is not, and for a version that is none.
    """
    name, equals, release = text.partition("==")
    engine = read_engine(name, CAPABILITIES)
    if equals and not is_version(release):
        raise ResolutionError(f"`{text}` does not name a version", hint=f"launch engines install {engine}==VERSION")
    return engine, release


def requirements_here(engine: str) -> Requirements:
    """Return what an engine needs on this machine; raises EngineNotInstalledError where it has no environment."""
    requirements = engine_named(engine).requirements_for(read_machine())
    if requirements is None:
        raise EngineNotInstalledError(f"`{engine}` has no environment to set up", hint="launch engines")
    return requirements


def install(engine: str, requirements: Requirements, report: Report) -> Environment:
    """Return the managed environment of an engine's build or version, made first where it is not there."""
    from engines.installing import build_environment

    report(Progress("install", 0, None, f"setting up {engine}, build for {requirements.variant}"))
    started = time.monotonic()
    environment = build_environment(requirements, report=report)
    took_s = time.monotonic() - started
    report(Progress("install", 1, 1, f"{engine} {environment.version} in {took_s:.0f} s"))
    return environment


def update(engine: str, report: Report) -> Update:
    """Set an engine up by the current lock, and remove its environments of older ones; what runs stays."""
    environment = install(engine, requirements_here(engine), report)
    removed, kept = [], []
    for folder in folders_of(engine):
        if folder == environment.folder or "@" in folder.name:
            continue
        try:
            _remove(folder)
            removed.append(folder)
        except BlockingIOError:
            kept.append(folder)
    return Update(environment, tuple(removed), tuple(kept))


def installed_by_lock() -> tuple[str, ...]:
    """Return the engines with a managed environment of any lock, in the order of their names."""
    return tuple(sorted({engine_of(each.folder) for each in list_environments() if each.folder and each.is_locked}))


def remove(engine: str, *, release: str = "") -> int:
    """Remove an engine's managed environments, or those of one version; return how many. Raises InUseError."""
    folders = folders_of(engine)
    if release:
        versions = {each.folder: each.version for each in list_environments()}
        folders = [folder for folder in folders if versions.get(folder) == release]
    for folder in folders:
        try:
            _remove(folder)
        except BlockingIOError:
            raise InUseError(f"`{engine}` is in use", details=[f"`{folder}`"], hint="stop what runs on it") from None
    return len(folders)


def _remove(folder: Path) -> None:
    """Remove one environment with what is noted of its use; raises BlockingIOError if a running instance is in it."""
    uses = [use for use, _ in read_uses() if not use.hub and use.folder == str(folder.resolve())]
    with unheld(uses):
        remove_folder(folder)
        for use in uses:
            use.path.unlink(missing_ok=True)
