"""Makes the lock entry of a plan: its commit, and every file's size and checksum, from the disk or a hub's listing."""

from __future__ import annotations

import re
from hashlib import sha256
from typing import TYPE_CHECKING

from engines.environment import LOCKS
from launcher.fetching import choose_source, is_offline, try_sources
from launcher.lockfile import Locked, LockedEngine, LockedFile, LockedOptions
from registry.errors import LockError, OfflineError
from registry.hubs import Listing, RemoteFile, open_hub
from registry.selection import select_files
from registry.spec import PinnedFile

if TYPE_CHECKING:
    from launcher.planning import Request
    from launcher.plans import Plan
    from registry.progress import Report


def lock_plan(plan: Plan, request: Request, report: Report) -> Locked:
    """Return the entry of a plan; asks the hub for its listing where the disk does not settle it, never for weights.

    Raises DownloadError, and LockError for files that nobody vouches for.
    """
    if plan.hub == "local":
        raise LockError(f"`{plan.repo_id}` is a path of this machine", hint="lock a model by its name")
    reference = request.get("revision")
    if not plan.needs_weights:
        return entry_of(plan, request, plan.revision, ())._replace(reference=reference)
    plan, listing = try_sources(choose_source(plan) if _known(plan) is None else plan, report, _look_up)
    return entry_of(plan, request, listing.revision or None, _locked_files(plan, listing))._replace(reference=reference)


def entry_of(plan: Plan, request: Request, revision: str | None, files: tuple[LockedFile, ...]) -> Locked:
    """Return the entry of a plan whose files are known."""
    return Locked(
        model=plan.name,
        model_format=plan.model_format,
        size_in_billions=plan.size_in_billions,
        quantization=plan.quantization,
        hub=plan.hub,
        repo_id=plan.repo_id,
        revision=revision,
        files=files,
        engine=_engine_of(plan),
        options=LockedOptions(
            context_length=plan.context_length,
            concurrency=plan.concurrency,
            threads=request.get("threads"),
            engine_args=plan.settings.arguments,
            dtype=request.get("dtype"),
        ),
    )


def request_of(entry: Locked) -> Request:
    """Return the request that leads to an entry."""
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
    if entry.options.dtype is not None:
        request["dtype"] = entry.options.dtype
    if entry.reference is not None:
        request["revision"] = entry.reference
    return request


# --- files -----------------------------------------------------------------------------------------------------------


def _look_up(plan: Plan) -> Listing:
    """Return what the files of a plan's source are."""
    if (known := _known(plan)) is not None:
        return known
    if is_offline(plan):
        raise _unknown_offline(plan)
    return open_hub(plan.hub).list_files(plan.source, plan.quantization)


def _known(plan: Plan) -> Listing | None:
    """Return what the disk or the catalogue knows of a commit's files, if that is all; of a branch only offline."""
    if not plan.source.is_pinned and not is_offline(plan):
        return None
    listing = _listing_here(plan)
    return None if listing is None or _unvouched(plan, listing) else listing


def _listing_here(plan: Plan) -> Listing | None:
    return open_hub(plan.hub).read_listing(plan.source, plan.quantization) or _pinned_listing(plan)


def _pinned_listing(plan: Plan) -> Listing | None:
    """Return what the catalogue itself pins, where it names every file."""
    source, paths = plan.source, plan.source.file_names(plan.quantization)
    if source.revision is None or not source.is_pinned or not paths:
        return None
    files = tuple(RemoteFile.pinned(path, source.files.get(path, PinnedFile())) for path in paths)
    return Listing(source.hub, plan.repo_id, source.revision, source.revision, files)


def _needed(plan: Plan, listing: Listing) -> list[RemoteFile]:
    """Return the files that the engine needs, with the catalogue's checksums where it has some."""
    paths = select_files(plan.spec, plan.source, plan.quantization, [file.path for file in listing.files])
    files = {file.path: file for file in listing.files}
    pins = {path: plan.source.files.get(path, PinnedFile()) for path in paths}
    return [files[path]._replace(sha256=pins[path].sha256 or files[path].sha256) for path in paths]


def _unvouched(plan: Plan, listing: Listing) -> list[str]:
    """Return the files without a size, or without a checksum where that of an archive does not cover them."""
    has_own = not listing.comes_whole
    needed = _needed(plan, listing)
    return [file.path for file in needed if file.size_bytes is None or (has_own and file.digest is None)]


def _locked_files(plan: Plan, listing: Listing) -> tuple[LockedFile, ...]:
    if unvouched := _unvouched(plan, listing):
        raise LockError(
            f"Nobody vouches for the bytes of `{plan.repo_id}` on {open_hub(plan.hub).title}",
            details=[f"`{path}` has no size or no checksum" for path in unvouched],
            hint="give its source in the catalogue `files` with `size_bytes` and `sha256`",
        )
    return tuple(LockedFile(file.path, file.size_bytes or 0, file.digest) for file in _needed(plan, listing))


def _unknown_offline(plan: Plan) -> OfflineError:
    listing = _listing_here(plan)
    unknown = ["commit and files"] if listing is None else _unvouched(plan, listing)
    return OfflineError(
        f"The network is off, and only {open_hub(plan.hub).title} can tell what `{plan.repo_id}` holds",
        details=[f"unknown: {what}" for what in unknown],
        hint="run `launch lock` once without --offline and without HF_HUB_OFFLINE",
    )


# --- the engine ------------------------------------------------------------------------------------------------------


def _engine_of(plan: Plan) -> LockedEngine:
    """Return the engine with the lock of its environment; its version is the one installed, else the lock's."""
    if plan.requirements is None:
        return LockedEngine(plan.engine)
    content = (LOCKS / plan.requirements.lock).read_bytes()
    version = plan.environment.version or _version_in(content.decode(), plan.requirements.distribution)
    return LockedEngine(plan.engine, plan.requirements.lock, sha256(content).hexdigest(), version)


def _version_in(lock: str, distribution: str) -> str | None:
    found = re.search(rf"^{re.escape(distribution)}==([^\s;\\]+)", lock, re.MULTILINE | re.IGNORECASE)
    return None if found is None else found[1]
