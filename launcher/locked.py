"""Makes the plan of a lock entry: exactly the one that was locked, or an error that names all that differs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from launcher.lockfile import Locked, LockedFile, read_lock
from launcher.locking import entry_of, request_of
from launcher.planning import Request, at_sources, find_model, make_plan
from launcher.plans import File, Plan
from registry.catalogue import read_layers
from registry.digest import digest_of, is_recorded
from registry.errors import LockError, ResolutionError, UnknownModelError
from registry.store import FileSet

_UNSAID: tuple[object, ...] = (None, "", (), [], {})


def plan_locked(model: str, request: Request) -> Plan:
    """Return the plan of a lock file's entry; raises LockError where this program, catalogue or request has another.

    What else is asked for must be what is locked. The revision that the catalogue pins by now does not matter.
    """
    path = Path(request["locked"])
    entry = _find_entry(path, model, request)
    wanted = _wanted(entry, request)
    try:
        plan = _at_entry(make_plan(entry.model, wanted), entry)
    except (ResolutionError, UnknownModelError) as error:
        raise _differs(path, entry.model, [error.message, *error.details]) from error
    here = entry_of(plan, wanted, entry.revision, entry.files)._replace(reference=_reference(entry, request))
    if differences := list(_differences(entry, here)) or list(_other_names(entry.files, plan.found_files)):
        raise _differs(path, entry.model, differences)
    return _with_locked_files(plan, entry.files)


def check_files(locked: Sequence[LockedFile], found: FileSet) -> None:
    """Raise LockError unless these are the locked files, in names and bytes; reads only what was never verified so."""
    digests = {file.path: file.digest for file in locked}
    differences = list(_other_names(locked, found))
    for file in found.files:
        digest = digests.get(file.path)
        if digest is None or file.location is None or is_recorded(file.location, digest):
            continue
        if (actual := digest_of(file.location, digest)) != digest:
            differences.append(f"`{file.path}` is {_short(str(actual))} here, {_short(str(digest))} in the lock file")
    if differences:
        raise LockError("The files are not those of the lock file", details=differences)


def _find_entry(path: Path, model: str, request: Request) -> Locked:
    """Return a lock file's entry for a model, by its name or any other that the catalogue has for it."""
    entries = {entry.model.lower(): entry for entry in read_lock(path)}
    if (entry := entries.get(model.lower())) is not None:
        return entry
    try:
        name = find_model(model, read_layers(request.get("registry", ()))).model.name
    except UnknownModelError:
        name = model
    if (entry := entries.get(name.lower())) is not None:
        return entry
    details = [f"it has `{entry.model}`" for entry in entries.values()]
    raise LockError(f"`{path}` has no `{model}`", details=details, hint=f"launch lock {model}")


def _wanted(entry: Locked, request: Request) -> Request:
    """Return what was asked for, with the entry's words for the rest; the revision is the entry's own affair."""
    asked = {name: value for name, value in request.items() if name != "locked" and value not in _UNSAID}
    wanted = {**request_of(entry), **asked}
    wanted.pop("revision", None)
    return cast(Request, wanted)


def _reference(entry: Locked, request: Request) -> str | None:
    asked = request.get("revision")
    return entry.reference if asked in (None, entry.revision) else asked


def _at_entry(plan: Plan, entry: Locked) -> Plan:
    """Return the plan at the entry's revision and with its checksums, if the catalogue still has its source."""
    sources = plan.spec.sources_of(plan.quantization)
    place = (entry.hub, entry.repo_id)
    source = next((each for each in sources if (each.hub, each.repo_for(plan.quantization)) == place), None)
    if source is None:
        return plan
    moved = source if entry.revision is None else source.at_revision(entry.revision)
    return at_sources(plan, [moved._replace(files={file.path: file.pin() for file in entry.files})])


def _with_locked_files(plan: Plan, locked: tuple[LockedFile, ...]) -> Plan:
    """Return the plan held to the locked files, which it names even where the disk knows nothing of them."""
    if plan.found_files.is_known or not plan.needs_weights:
        return replace(plan, locked_files=locked)
    files = tuple(File(each.path, each.size_bytes, each.pin().sha256, cached=False) for each in locked)
    return replace(plan, locked_files=locked, files=files, download_bytes=sum(each.size_bytes for each in locked))


# --- what differs ----------------------------------------------------------------------------------------------------


def _differences(locked: Locked, here: Locked) -> Iterator[str]:
    """Yield each key of the lock file that would have another value."""
    values, others = dict(_flat(locked.as_dict())), dict(_flat(here.as_dict()))
    for name in {**values, **others}:
        if values.get(name) != others.get(name):
            yield f"`{name}` is {_shown(others.get(name))} here, {_shown(values.get(name))} in the lock file"


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: Any) -> str:
    if value in (None, []):
        return "nothing"
    return f"`{_short(shlex.join(value) if isinstance(value, list) else str(value))}`"


def _short(text: str) -> str:
    """Return a text with the first twelve digits of each checksum, which tell two of them apart."""
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{20,}\b", r"\1…", text)


def _other_names(locked: Sequence[LockedFile], found: FileSet) -> Iterator[str]:
    if not found.is_known:
        return
    theirs, ours = {file.path for file in locked}, {file.path for file in found.files}
    if not theirs:  # an engine that reads no weights
        return
    yield from (f"`{path}` is locked, and is not among the files" for path in sorted(theirs - ours))
    yield from (f"`{path}` is among the files, and is not locked" for path in sorted(ours - theirs))


def _differs(path: Path, model: str, differences: Sequence[str]) -> LockError:
    return LockError(
        f"`{model}` cannot be had as `{path}` has it",
        details=differences,
        hint=f"leave out what differs, or let `launch lock {model}` take what there is now",
    )
