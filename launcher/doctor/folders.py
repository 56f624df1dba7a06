"""The disks that the caches are on: room, and what their file systems can do."""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from launcher.cache import cache_folders
from launcher.doctor.findings import Finding
from launcher.output import format_bytes
from registry.trouble import ELSEWHERE, FULL

AREA = "disk"
NEEDED_BYTES, WANTED_BYTES = 1_000_000_000, 10_000_000_000
_MAKE_ROOM = "launch cache prune --older-than 30d"


class Disk(NamedTuple):
    """What a folder's file system is and has; `files_free` of None: it counts none. `runs`: programs on it do."""

    kind: str
    free_bytes: int
    files_free: int | None
    runs: bool


class Abilities(NamedTuple):
    """What was tried in a folder; `refused` is why nothing could be written there, `is_full`: for want of room."""

    refused: str | None = None
    has_locks: bool = False
    has_links: bool = False
    is_full: bool = False


def examine() -> Iterator[Finding]:
    """Yield a finding for the folder of each cache; what is tried there is removed again."""
    for name, folder in cache_folders().items():
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        disk, abilities = read_disk(existing), try_abilities(existing)
        found = judge(name, folder, disk, abilities)
        facts = {"path": str(folder), **disk._asdict(), **abilities._asdict()}
        yield found._replace(facts=facts)


def judge(name: str, folder: Path, disk: Disk, abilities: Abilities) -> Finding:
    """Return the worst that is to be said of a folder: what stops a launch, then what makes one worse."""
    kind = f" on {disk.kind}" if disk.kind else ""
    room = f"{format_bytes(disk.free_bytes)} free{kind}, {folder}"
    if abilities.refused is not None:
        remedy = _MAKE_ROOM if abilities.is_full else ELSEWHERE
        return Finding(AREA, name, "error", f"{folder} cannot be written{kind}: {abilities.refused}", remedy)
    if disk.free_bytes < NEEDED_BYTES:
        return Finding(AREA, name, "error", room, _MAKE_ROOM)
    if disk.files_free == 0:
        return Finding(AREA, name, "error", f"no file can be added{kind}, {folder}: inodes are used up", _MAKE_ROOM)
    if not abilities.has_links:
        return Finding(AREA, name, "error", f"there are no symbolic links{kind}, {folder}", ELSEWHERE)
    if name == "launch" and not disk.runs:
        text = f"programs must not run{kind}, {folder}, where engines are set up"
        return Finding(AREA, name, "error", text, "set LAUNCH_CACHE to a folder on another disk")
    if not abilities.has_locks:
        text = f"there are no locks{kind}, {folder}: two pulls of a model do not wait for each other"
        return Finding(AREA, name, "warning", text, ELSEWHERE)
    if disk.free_bytes < WANTED_BYTES:
        return Finding(AREA, name, "warning", room, _MAKE_ROOM)
    return Finding(AREA, name, "ok", room)


def read_disk(folder: Path) -> Disk:
    """Return what the system tells of the file system that a folder is on."""
    told = os.statvfs(folder)
    return Disk(
        kind=file_system_of(folder.resolve(), _read_mounts()),
        free_bytes=told.f_bavail * told.f_frsize,
        files_free=told.f_favail if told.f_files else None,
        runs=not told.f_flag & getattr(os, "ST_NOEXEC", 0),
    )


def file_system_of(folder: Path, mounts: str) -> str:
    """Return the kind of the file system that a folder is on, by what /proc/self/mountinfo says; "" if it does not."""
    kinds = {
        Path(re.sub(r"\\(\d{3})", lambda found: chr(int(found[1], 8)), line.split()[4])): line.split(" - ")[1].split()[
            0
        ]
        for line in mounts.splitlines()
    }
    return next((kinds[parent] for parent in (folder, *folder.parents) if parent in kinds), "")


def try_abilities(folder: Path) -> Abilities:
    """Return what can be done in a folder, by doing it."""
    try:
        with tempfile.TemporaryDirectory(prefix=".launch-doctor-", dir=folder) as tried:
            return Abilities(None, _can_lock(Path(tried) / "lock"), _can_link(Path(tried) / "link"))
    except OSError as error:
        return Abilities(error.strerror or str(error), is_full=error.errno in FULL)


def _can_lock(path: Path) -> bool:
    try:
        with path.open("wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _can_link(path: Path) -> bool:
    try:
        path.symlink_to("lock")
    except OSError:
        return False
    return True


def _read_mounts() -> str:
    try:
        return Path("/proc/self/mountinfo").read_text()
    except OSError:  # there is none on macOS
        return ""
