"""Files of a source: which of them are on disk and known to be right, and how the rest comes here.

`find` reads the disk and may stand on a launch's critical path: no network, no hub's library, no hashing of weights.
`pull` makes what `find` finds complete: lists, selects, checks the pins, fetches, verifies, places, remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from registry.digest import Digest
from registry.errors import DigestError, OfflineError
from registry.gguf import check_gguf
from registry.hubs import Hub, Listing, RemoteFile, open_hub
from registry.progress import Progress, Report, ignore
from registry.selection import check_path, select_files
from registry.spec import PinnedFile, Source, Spec
from registry.wanted import Wanted, adopt


class StoredFile(NamedTuple):
    """One file that a spec needs. `location` is set if it is here with the right size, and was verified once.

    Where nobody vouches for its bytes, being here is enough.
    """

    path: str
    size_bytes: int | None
    sha256: str | None
    location: Path | None


class FileSet(NamedTuple):
    """The files that an engine needs of a source. Not `is_known`: only the hub can tell which those are.

    `path` is what an engine is given: the file, the first of its parts, or the folder of the snapshot.
    `download_bytes` is what is still to come, None where sizes are not known; files that are here but were never
    verified do not count.
    """

    files: tuple[StoredFile, ...]
    path: Path
    is_known: bool
    download_bytes: int | None

    @property
    def is_complete(self) -> bool:
        return self.is_known and all(file.location is not None for file in self.files)


def find(spec: Spec, source: Source, quantization: str) -> FileSet:
    """Return what the disk has of a source; a file that is not GGUF where it should be raises NotGgufError."""
    hub = open_hub(source.hub)
    wanted = _wanted_on_disk(hub, spec, source, quantization)
    if wanted is None:
        return FileSet((), hub.snapshot(source, quantization), is_known=False, download_bytes=None)
    locations = [want.verified_location(hub) for want in wanted]
    return _file_set(hub, source, quantization, wanted, locations)


def pull(
    spec: Spec,
    source: Source,
    quantization: str,
    *,
    revision: str | None = None,
    offline: bool = False,
    progress: Report | None = None,
) -> FileSet:
    """Return a complete file set, after bringing what is missing of it; `revision` replaces the source's own.

    Files that are here are verified and used, whoever fetched them. A pinned source that is complete needs no network;
    a branch is asked for, and what the disk has serves where the hub is out of reach.
    Raises OfflineError naming what is missing, DigestError, NotOnHubError, GatedRepoError, UnsafeFileError,
    DiskFullError or another DownloadError.
    """
    from registry.trouble import writing  # a launch from the cache has no need of it

    source = source if revision is None else source.at_revision(revision)
    hub = open_hub(source.hub)
    with writing(hub.snapshot(source, quantization)):
        return _pull(hub, spec, source, quantization, offline=offline, tell=progress or ignore)


def _pull(hub: Hub, spec: Spec, source: Source, quantization: str, *, offline: bool, tell: Report) -> FileSet:
    is_offline = offline or hub.is_offline()
    on_disk = _pull_from_disk(hub, spec, source, quantization, tell)
    if on_disk.is_complete and (is_offline or source.is_pinned):
        return on_disk
    if is_offline:
        raise _missing(hub, source, quantization, on_disk)
    try:
        tell(Progress("resolve", 0, None, source.repo_for(quantization)))
        listing = hub.list_files(source, quantization)
    except OfflineError:
        if on_disk.is_complete:
            return on_disk
        raise
    return _pull_from_hub(hub, spec, source, quantization, listing, tell)


def _pull_from_disk(hub: Hub, spec: Spec, source: Source, quantization: str, tell: Report) -> FileSet:
    """Verify what is here, and return it: complete or not."""
    wanted = _wanted_on_disk(hub, spec, source, quantization)
    if wanted is None:
        return FileSet((), hub.snapshot(source, quantization), is_known=False, download_bytes=None)
    listing = hub.read_listing(source, quantization)
    locations = [adopt(hub, listing, want, tell) for want in wanted]
    return _file_set(hub, source, quantization, wanted, locations)


def list_needed(spec: Spec, source: Source, quantization: str) -> tuple[Listing, tuple[RemoteFile, ...]]:
    """Ask the hub, and return what there is, and which of it the spec needs; raises what `pull` does."""
    hub = open_hub(source.hub)
    listing = hub.list_files(source, quantization)
    files = {file.path: file for file in listing.files}
    paths = select_files(spec, source, quantization, list(files))
    _check_pins(hub, source, listing, paths)
    return listing, tuple(files[path] for path in paths)


def pull_some(spec: Spec, source: Source, quantization: str, listing: Listing, names: Sequence[str]) -> FileSet:
    """Return those of a spec's files that have one of `names`, after bringing what is missing of them."""
    from registry.trouble import writing

    hub = open_hub(source.hub)
    paths = select_files(spec, source, quantization, [file.path for file in listing.files])
    with writing(hub.snapshot(source, quantization)):
        here = _bring(hub, source, quantization, listing, [path for path in paths if path in names], ignore)
    return _file_set(hub, source, quantization, list(here), list(here.values()))


def _pull_from_hub(hub: Hub, spec: Spec, source: Source, quantization: str, listing: Listing, tell: Report) -> FileSet:
    paths = select_files(spec, source, quantization, [file.path for file in listing.files])
    here = _bring(hub, source, quantization, listing, paths, tell)
    hub.record_reference(listing)
    return _file_set(hub, source, quantization, list(here), list(here.values()))


def _bring(
    hub: Hub, source: Source, quantization: str, listing: Listing, paths: Sequence[str], tell: Report
) -> dict[Wanted, Path | None]:
    """Return where the files at `paths` are, in their order, after bringing what is missing of them."""
    _check_pins(hub, source, listing, paths)
    wanted = _wanted_of(hub, source, quantization, listing, paths)
    hub.record(listing)
    here = {want: adopt(hub, listing, want, tell) for want in wanted}
    if missing := [want for want in wanted if here[want] is None]:
        from registry.bringing import bring

        here |= bring(hub, listing, missing, tell)
    return here


# --- what is wanted, and what is here --------------------------------------------------------------------------------


def _wanted_on_disk(hub: Hub, spec: Spec, source: Source, quantization: str) -> tuple[Wanted, ...] | None:
    """Return what is wanted as far as the disk can tell, or None where only the hub knows the files."""
    listing = hub.read_listing(source, quantization)
    paths = source.file_names(quantization)
    for path in paths:
        check_path(path)
    if not paths and listing is not None:
        paths = select_files(spec, source, quantization, [file.path for file in listing.files])
    if not paths:
        return None
    if listing is not None and all(listing.file(path) for path in paths):
        return _wanted_of(hub, source, quantization, listing, paths)
    folder = hub.snapshot(source, quantization)
    repo_id = source.repo_for(quantization)
    return tuple(_want(source, repo_id, RemoteFile(path, None), folder / path, ()) for path in paths)


def _wanted_of(
    hub: Hub, source: Source, quantization: str, listing: Listing, paths: Sequence[str]
) -> tuple[Wanted, ...]:
    files = {file.path: file for file in listing.files}
    folder = hub.snapshot(source, quantization)
    repo_id = source.repo_for(quantization)
    return tuple(_want(source, repo_id, files[path], folder / path, hub.kept(listing, files[path])) for path in paths)


def _want(source: Source, repo_id: str, file: RemoteFile, location: Path, kept: tuple[Path, ...]) -> Wanted:
    pinned = _pin(source, file.path)
    digest = file.digest if pinned.sha256 is None else Digest("sha256", pinned.sha256)
    size_bytes = file.size_bytes if pinned.size_bytes is None else pinned.size_bytes
    return Wanted(repo_id, file, size_bytes, digest, location, kept)


def _pin(source: Source, path: str) -> PinnedFile:
    pinned = source.files.get(path, PinnedFile())
    return PinnedFile(sha256=pinned.sha256) if pinned.estimated else pinned


def _file_set(
    hub: Hub, source: Source, quantization: str, wanted: Sequence[Wanted], locations: Sequence[Path | None]
) -> FileSet:
    files = tuple(
        StoredFile(want.file.path, want.size_bytes, want.sha256, location)
        for want, location in zip(wanted, locations, strict=True)
    )
    for location in locations:
        if location is not None and location.suffix == ".gguf":
            check_gguf(location)
    sizes = [want.size_bytes for want in wanted if not want.present() and not want.elsewhere()]
    download_bytes = None if None in sizes else sum(size for size in sizes if size is not None)
    folder = hub.snapshot(source, quantization)
    path = folder / files[0].path if _is_single(files) else folder
    return FileSet(files, path, is_known=True, download_bytes=download_bytes)


def _is_single(files: Sequence[StoredFile]) -> bool:
    return bool(files) and files[0].path.lower().endswith(".gguf")


# --- checks, and what cannot be had -----------------------------------------------------------------------------------


def _check_pins(hub: Hub, source: Source, listing: Listing, paths: Sequence[str]) -> None:
    """Raise DigestError if the hub lists another file than the catalogue pins."""
    for path in paths:
        pinned, file = _pin(source, path), listing.file(path)
        assert file is not None
        if None not in (pinned.size_bytes, file.size_bytes) and pinned.size_bytes != file.size_bytes:
            raise _not_pinned(hub, path, f"{pinned.size_bytes} bytes", f"{file.size_bytes} bytes")
        if None not in (pinned.sha256, file.sha256) and pinned.sha256 != file.sha256:
            raise _not_pinned(hub, path, f"sha256:{pinned.sha256}", f"sha256:{file.sha256}")


def _not_pinned(hub: Hub, path: str, expected: str, actual: str) -> DigestError:
    return DigestError(
        f"{hub.title} lists another `{path}` than the one that is pinned",
        path=path,
        expected=expected,
        actual=actual,
        hint="--revision main (ModelScope: master) takes what the hub has now, with the hub's own checksums",
    )


def _missing(hub: Hub, source: Source, quantization: str, on_disk: FileSet) -> OfflineError:
    repo_id = source.repo_for(quantization)
    absent = [file for file in on_disk.files if file.location is None]
    if not on_disk.is_known:
        message = f"The network is off, and only {hub.title} can tell which files `{repo_id}` has"
    else:
        message = f"The network is off, and `{absent[0].path}` of `{repo_id}` is not in the cache"
    details = [f"`{file.path}`" + (f", {file.size_bytes:,} bytes" if file.size_bytes else "") for file in absent]
    return OfflineError(message, details=details, hint="pull it once without --offline and without HF_HUB_OFFLINE")
