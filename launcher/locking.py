"""Makes lock entries of plans, and plans of lock entries: the very same one, or an error that names what differs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from engines.base import Requirements
from engines.environment import LOCKS
from engines.index import CAPABILITIES, find_engine
from launcher.fetching import choose_source, is_offline, try_sources
from launcher.lockfile import Locked, LockedEngine, LockedFile, LockedOptions, read_lock
from launcher.planning import Request, at_sources, find_model, make_plan
from launcher.plans import Plan
from registry import spec as words
from registry.catalogue import read_layers
from registry.digest import digest_of, is_recorded
from registry.errors import LockError, OfflineError, ResolutionError, UnknownModelError
from registry.hubs import Hub, Listing, RemoteFile, open_hub
from registry.progress import Report
from registry.request import read_engine
from registry.selection import select_files
from registry.store import FileSet

# --- a plan becomes an entry -----------------------------------------------------------------------------------------


def lock_plan(plan: Plan, request: Request, report: Report) -> Locked:
    """Return the entry of a plan; asks the hub's listing for what is not known here, and fetches no weights.

    Raises DownloadError, and LockError for what nobody vouches for.
    """
    plan, listing = try_sources(choose_source(plan), report, _listing)
    files = _locked_files(plan, listing) if plan.needs_weights else ()
    return Locked(
        model=plan.name,
        model_format=plan.model_format,
        size_in_billions=plan.size_in_billions,
        quantization=plan.quantization,
        hub=plan.hub,
        repo_id=plan.repo_id,
        revision=listing.revision,
        files=files,
        engine=_locked_engine(plan.engine),
        options=_locked_options(plan, request),
        reference=request.get("revision"),
    )


def request_of(entry: Locked) -> Request:
    """Return the request that leads to an entry, whatever the catalogue pins by then."""
    request: Request = {
        "model_format": entry.model_format,
        "quantization": entry.quantization,
        "size_in_billions": entry.size_in_billions,
        "engine": entry.engine.name,
        "hub": entry.hub,
        "context_length": entry.options.context_length,
        "concurrency": entry.options.concurrency,
        "engine_args": entry.options.engine_args,
    }
    if entry.options.threads is not None:
        request["threads"] = entry.options.threads
    if entry.reference is not None:
        request["revision"] = entry.reference
    return request


def _listing(plan: Plan) -> Listing:
    """Return the files of a plan's source, from the disk where that settles it."""
    if plan.hub == "local":
        raise LockError(f"`{plan.repo_id}` is a path of this machine", hint="lock a model by its name")
    hub, offline = open_hub(plan.hub), is_offline(plan)
    known = hub.read_listing(plan.source, plan.quantization) or _pinned_listing(plan)
    if known is not None and (plan.source.is_pinned or offline) and not list(_unvouched(plan, known)):
        return known
    if offline:
        raise _unknown_offline(plan, hub, known)
    return hub.list_files(plan.source, plan.quantization)


def _pinned_listing(plan: Plan) -> Listing | None:
    """Return what the catalogue itself pins, where it names every file."""
    source, paths = plan.source, plan.source.file_names(plan.quantization)
    if source.revision is None or not source.is_pinned or not paths:
        return None
    pins = {path: source.files.get(path, words.PinnedFile()) for path in paths}
    files = tuple(RemoteFile(path, None if pin.estimated else pin.size_bytes, pin.sha256) for path, pin in pins.items())
    return Listing(source.hub, plan.repo_id, source.revision, source.revision, files)


def _chosen(plan: Plan, listing: Listing) -> Iterator[RemoteFile]:
    """Yield the files that are needed, with the catalogue's checksums where it has some."""
    paths = select_files(plan.spec, plan.source, plan.quantization, [file.path for file in listing.files])
    for path in paths:
        file, pin = listing.file(path), plan.source.files.get(path, words.PinnedFile())
        assert file is not None
        yield file._replace(sha256=pin.sha256 or file.sha256)


def _unvouched(plan: Plan, listing: Listing) -> Iterator[str]:
    is_checksum = listing.revision.startswith(("sha256:", "md5:"))
    for file in _chosen(plan, listing) if plan.needs_weights else ():
        if file.size_bytes is None or (file.digest is None and not is_checksum):
            yield file.path


def _locked_files(plan: Plan, listing: Listing) -> tuple[LockedFile, ...]:
    if unvouched := list(_unvouched(plan, listing)):
        raise LockError(
            f"Nobody vouches for the bytes of `{plan.repo_id}` on {open_hub(plan.hub).title}",
            details=[f"`{path}` has no size or no checksum" for path in unvouched],
            hint="give its source in the catalogue `files` with `size_bytes` and `sha256`",
        )
    return tuple(LockedFile(file.path, file.size_bytes or 0, file.digest) for file in _chosen(plan, listing))


def _unknown_offline(plan: Plan, hub: Hub, known: Listing | None) -> OfflineError:
    missing = [] if known is None else [f"`{path}`" for path in _unvouched(plan, known)]
    return OfflineError(
        f"The network is off, and only {hub.title} can tell what `{plan.repo_id}` holds",
        details=[f"unknown: size or checksum of {name}" for name in missing] or ["unknown: commit and files"],
        hint="run `launch lock` once without --offline and without HF_HUB_OFFLINE",
    )


def _locked_engine(name: str) -> LockedEngine:
    engine = find_engine(name)
    if engine is None or engine.requirements is None:
        return LockedEngine(name)
    text = (LOCKS / engine.requirements.lock).read_text(encoding="utf-8")
    digest = sha256(text.encode()).hexdigest()
    return LockedEngine(name, engine.requirements.lock, digest, _version_in(text, engine.requirements))


def _version_in(lock: str, requirements: Requirements) -> str | None:
    found = re.search(rf"^{re.escape(requirements.distribution)}==(\S+)", lock, re.MULTILINE | re.IGNORECASE)
    return None if found is None else found[1]


def _locked_options(plan: Plan, request: Request) -> LockedOptions:
    return LockedOptions(
        context_length=plan.context_length,
        concurrency=plan.concurrency,
        threads=request.get("threads"),
        engine_args=plan.settings.arguments,
    )


# --- an entry becomes a plan -----------------------------------------------------------------------------------------


def plan_locked(model: str, request: Request) -> Plan:
    """Return the plan that a lock file's entry of `model` says; raises LockError naming all that differs."""
    path = Path(request["locked"])
    entry = find_entry(path, model, request)
    if conflicts := list(_conflicts(entry, request)):
        raise LockError(f"`{path}` has another `{entry.model}` than was asked for", details=conflicts)
    wanted = {**request, **request_of(entry)}
    for name in ("locked", "revision"):
        wanted.pop(name, None)
    try:
        plan = make_plan(entry.model, cast(Request, wanted))
    except (ResolutionError, UnknownModelError) as error:
        raise _differs(path, entry, [error.message, *error.details]) from error
    if differences := list(_differences(entry, plan)):
        raise _differs(path, entry, differences)
    return _at_entry(plan, entry)


def find_entry(path: Path, model: str, request: Request) -> Locked:
    """Return a lock file's entry for a model, by its name or any other name that the catalogue has for it."""
    entries = {entry.model.lower(): entry for entry in read_lock(path)}
    if model.lower() in entries:
        return entries[model.lower()]
    try:
        name = find_model(model, read_layers(request.get("registry", ()))).model.name
    except UnknownModelError:
        name = model
    if name.lower() not in entries:
        details = [f"it has `{entry.model}`" for entry in entries.values()]
        raise LockError(f"`{path}` has no `{model}`", details=details, hint=f"launch lock {model}")
    return entries[name.lower()]


def check_files(locked: Sequence[LockedFile], files: FileSet) -> None:
    """Raise LockError unless a file set is the locked one, in names and bytes; reads only what no pin has covered."""
    here = {file.path: file for file in files.files}
    differences = list(_other_names({file.path for file in locked}, set(here)))
    for file in locked:
        location = here[file.path].location if file.path in here else None
        if location is None or file.digest is None:
            continue
        if not is_recorded(location, file.digest) and digest_of(location, file.digest) != file.digest:
            differences.append(f"`{file.path}` has another checksum")
    if differences:
        raise LockError("The files are not those of the lock file", details=differences)


def _conflicts(entry: Locked, request: Request) -> Iterator[str]:
    """Yield what was asked for beside the lock file and is not what it says."""
    locked: Mapping[str, Any] = {**request_of(entry), "revision": entry.reference or entry.revision}
    for name, asked in request.items():
        if name in locked and asked not in (None, ()) and not _is_same(name, asked, locked[name]):
            option = f"--{name.replace('_', '-')}"
            yield f"`{option} {asked}` was asked for, locked is `{locked[name]}`"


def _is_same(name: str, asked: object, locked: object) -> bool:
    if name == "size_in_billions":
        return (words.parse_size(asked) if isinstance(asked, str) else asked) == locked
    if name == "model_format":
        return words.canonical_format(str(asked)) == locked
    if name == "engine":
        return read_engine(str(asked), CAPABILITIES) == locked
    if name == "hub":
        return {"hf": "huggingface", "ms": "modelscope"}.get(str(asked).lower(), str(asked).lower()) == locked
    return str(asked).lower() == str(locked).lower()


def _differences(entry: Locked, plan: Plan) -> Iterator[str]:
    """Yield what of an entry this catalogue and this version of the program do not have."""
    sources = plan.spec.sources_of(plan.quantization)
    repos = [source.repo_for(plan.quantization) for source in sources if source.hub == entry.hub]
    if entry.repo_id not in repos:
        yield f"the catalogue has `{', '.join(repos)}` on {entry.hub}, locked is `{entry.repo_id}`"
    yield from _other_engine(entry.engine, _locked_engine(plan.engine), plan)
    named = plan.source.file_names(plan.quantization)
    if named and plan.needs_weights:
        yield from _other_names({file.path for file in entry.files}, set(named))


def _other_engine(locked: LockedEngine, own: LockedEngine, plan: Plan) -> Iterator[str]:
    if own.environment_sha256 != locked.environment_sha256:
        yield (
            f"the environment of `{own.name}` is locked here by {_short(own.environment_sha256)} ({own.version}),"
            f" in the lock file by {_short(locked.environment_sha256)} ({locked.version})"
        )
    elif plan.environment.is_installed and locked.version and plan.environment.version != locked.version:
        yield f"`{own.name}` here is {plan.environment.version}, locked is {locked.version}"


def _short(digest: str | None) -> str:
    return "nothing" if digest is None else f"sha256 {digest[:12]}…"


def _other_names(locked: set[str], here: set[str]) -> Iterator[str]:
    yield from (f"`{path}` is locked, and is not among the files" for path in sorted(locked - here))
    yield from (f"`{path}` is among the files, and is not locked" for path in sorted(here - locked))


def _differs(path: Path, entry: Locked, differences: Sequence[str]) -> LockError:
    return LockError(
        f"`{entry.model}` cannot be had as `{path}` has it",
        details=list(differences),
        hint=f"`launch lock {entry.model}` takes what there is now",
    )


def _at_entry(plan: Plan, entry: Locked) -> Plan:
    """Return the plan at the locked revision, its files held to the locked sizes and checksums."""
    sources = plan.spec.sources_of(plan.quantization)
    found = next(s for s in sources if (s.hub, s.repo_for(plan.quantization)) == (entry.hub, entry.repo_id))
    pins = {file.path: file.pin() for file in entry.files}
    at = at_sources(plan, [found.at_revision(entry.revision)._replace(files=pins)])
    if at.found_files.is_known and at.needs_weights:
        names = {file.path for file in entry.files}
        if others := list(_other_names(names, {file.path for file in at.found_files.files})):
            raise LockError("The files are not those of the lock file", details=others)
    return replace(at, locked_files=entry.files)
