"""What the caches hold: every model's files on every hub, what downloads left over, engines' environments.

Only what the catalogue or a record of ours names is looked at; other programs' models in the same caches are not ours
to list. Nothing here writes.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from engines.environment import engine_of
from launcher.cache_leftovers import (
    files_below,
    grew_at,
    is_leftover,
    is_locked,
    is_written,
    leftovers_beside,
    snapshots_folder,
)
from launcher.cache_use import HUBS_WITH_COMMITS, Use, is_held, read_uses
from registry.cache import cache_folder
from registry.catalogue import read_layers
from registry.errors import DownloadError
from registry.hubs import open_hub
from registry.selection import select_files
from registry.spec import Source, Spec

Kind = Literal["model", "leftover", "environment"]


class Entry(NamedTuple):
    """One line of the cache. `files` are below `folder`; an environment's are not listed, its whole folder counts.

    `names` are all that mean it; `revision` is a commit or a version. `last_used` is in seconds since 1970, None where
    only another program fetched it. `is_running`: a running instance reads it, or a download writes it.
    """

    names: tuple[str, ...]
    kind: Kind
    folder: Path
    files: tuple[Path, ...]
    last_used: float | None
    is_running: bool
    source: Source | None = None
    revision: str = ""
    model_format: str = ""
    quantization: str = ""
    uses: tuple[Use, ...] = ()
    size_bytes: int = 0

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def hub(self) -> str:
        return "" if self.source is None else self.source.hub

    @property
    def repo_id(self) -> str:
        return "" if self.source is None else self.source.repo_id

    def paths(self) -> Iterator[Path]:
        """Yield every file of it as it stands on disk, links as links."""
        if self.kind == "environment":
            yield from files_below(self.folder)
        yield from self.files


class Claim(NamedTuple):
    """That files of a repo belong to a model: those of a record, else those that the spec's source names."""

    name: str
    source: Source
    model_format: str
    quantization: str
    spec: Spec | None = None
    recorded: tuple[str, ...] = ()

    def choose(self, present: Sequence[str]) -> tuple[str, ...] | None:
        """Return which of a snapshot's files are meant, or None for all that nobody names."""
        named = self.recorded or self.source.file_names(self.quantization)
        if named:
            return tuple(path for path in named if path in present)
        if self.spec is None or self.model_format != "gguf":
            return None
        try:
            return select_files(self.spec, self.source, self.quantization, present)
        except DownloadError:
            return ()


class Group(NamedTuple):
    """Files of a snapshot that belong together, and who says so."""

    claims: tuple[Claim, ...]
    model_format: str
    quantization: str
    files: tuple[str, ...]


class Usage(NamedTuple):
    """A record with the time of the last use, and whether a running instance holds it."""

    use: Use
    last_used: float
    is_held: bool


def read_inventory() -> tuple[Entry, ...]:
    """Return everything that is in the caches, by name; folders that cannot be read are left out."""
    usages = [Usage(use, last_used, is_held(use)) for use, last_used in read_uses()]
    found: list[Entry] = []
    for claims in _claims(usages).values():
        found += _entries_of_repo(claims, usages)
    found += _unclaimed(found)
    found += _environments(usages)
    found.sort(key=lambda entry: (entry.kind == "environment", entry.name, entry.kind, entry.folder, entry.files))
    return tuple(entry._replace(size_bytes=bytes_of([entry])) for entry in found)


def bytes_of(entries: Iterable[Entry]) -> int:
    """Return what entries take on disk together; what several of them share counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for entry in entries:
        sizes |= sizes_of(entry)
    return sum(sizes.values())


def sizes_of(entry: Entry) -> dict[tuple[int, int], int]:
    """Return the bytes of each file of an entry, by device and inode."""
    sizes: dict[tuple[int, int], int] = {}
    for path in entry.paths():
        with suppress(OSError):  # a link to nothing
            stat = path.stat()
            sizes[stat.st_dev, stat.st_ino] = size_on_disk(path, stat)
    return sizes


def size_on_disk(path: Path, stat: os.stat_result) -> int:
    """Return the bytes that a file takes; one that is still arriving has holes."""
    return min(stat.st_size, stat.st_blocks * 512) if path.suffix == ".partial" else stat.st_size


def cache_folders() -> dict[str, Path]:
    """Return the folders in which files are placed, by whose they are."""
    from registry.hubs import huggingface, modelscope

    return {"launch": cache_folder(), "huggingface": huggingface.hub_cache(), "modelscope": modelscope.hub_cache()}


# --- who says what a file is ------------------------------------------------------------------------------------------


def _claims(usages: Sequence[Usage]) -> dict[tuple[str, str], list[Claim]]:
    """Return the claims on each repo of each hub, or each address; the catalogue's first."""
    claims: dict[tuple[str, str], list[Claim]] = defaultdict(list)
    for claim in (*_catalogue_claims(), *_recorded_claims(usages)):
        repo_id = claim.source.repo_id
        key = repo_id if claim.source.hub in HUBS_WITH_COMMITS else f"{repo_id} {claim.source.revision}"
        claims[claim.source.hub, key].append(claim)
    return claims


def _catalogue_claims() -> Iterator[Claim]:
    catalogue = read_layers(())
    for summary in catalogue.models:
        model = catalogue.read(summary)
        for spec in model.specs:
            for quantization in spec.quantizations:
                for source in spec.sources_of(quantization):
                    at = source._replace(repo_id=source.repo_for(quantization))
                    yield Claim(model.name, at, spec.model_format, quantization, spec)


def _recorded_claims(usages: Sequence[Usage]) -> Iterator[Claim]:
    for use, *_ in usages:
        if use.hub:
            source = Source(use.hub, use.repo_id, use.revision)
            yield Claim(use.name, source, use.model_format, use.quantization, recorded=use.files)


# --- a repo's snapshots -----------------------------------------------------------------------------------------------


def _entries_of_repo(claims: Sequence[Claim], usages: Sequence[Usage]) -> Iterator[Entry]:
    leftovers: list[Path] = []
    for folder in _snapshots_of(claims[0].source):
        paths = list(files_below(folder))
        leftovers += filter(is_leftover, paths)
        whole = [path.relative_to(folder).as_posix() for path in paths if path not in leftovers]
        for group in _grouped(claims, whole):
            yield _entry(folder, group, usages)
    leftovers += leftovers_beside(claims[0].source)
    if leftovers:
        yield _leftover_entry(_names(claims), tuple(leftovers), claims[0].source)


def _snapshots_of(source: Source) -> list[Path]:
    """Return the folders that are there: of a repo every commit's, elsewhere the source's own."""
    if source.hub in HUBS_WITH_COMMITS:
        return _folders_in(snapshots_folder(source))
    own = open_hub(source.hub).snapshot(source, "")
    return [own] if source.hub != "local" and own.is_dir() else []


def _folders_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*/") if not path.is_symlink())


def _grouped(claims: Sequence[Claim], present: Sequence[str]) -> Iterator[Group]:
    """Yield everything that a snapshot holds, each file once."""
    by_files: dict[tuple[str, ...], list[Claim]] = defaultdict(list)
    whole: list[Claim] = []
    for claim in claims:
        chosen = claim.choose(present)
        (whole if chosen is None else by_files[chosen]).append(claim)
    by_files.pop((), None)
    for files, claimants in by_files.items():
        yield Group(tuple(claimants), *_what(claimants), files)
    taken = {path for files in by_files for path in files}
    if rest := tuple(path for path in present if path not in taken):
        yield Group(tuple(whole or claims), *_what(whole), rest)


def _what(claims: Sequence[Claim]) -> tuple[str, str]:
    """Return format and quantization, empty where claims differ: a model may be quantized as it is loaded."""
    formats = {claim.model_format for claim in claims}
    quantizations = {claim.quantization for claim in claims}
    return formats.pop() if len(formats) == 1 else "", quantizations.pop() if len(quantizations) == 1 else ""


def _names(claims: Sequence[Claim]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(claim.name for claim in claims))


def _entry(folder: Path, group: Group, usages: Sequence[Usage]) -> Entry:
    source = group.claims[0].source
    if source.hub in HUBS_WITH_COMMITS:
        source = source.at_revision(folder.name)
    own = [each for each in usages if _overlaps(each.use, folder, group.files)]
    paths = tuple(folder / path for path in group.files)
    came = _came_at(paths) if folder.is_relative_to(cache_folder()) else None
    return Entry(
        names=_names(group.claims),
        kind="model",
        folder=folder,
        files=paths,
        last_used=max((each.last_used for each in own), default=came),
        is_running=any(each.is_held for each in own),
        source=source,
        revision=source.revision or "",
        model_format=group.model_format,
        quantization=group.quantization,
        uses=tuple(each.use for each in own),
    )


def _overlaps(use: Use, folder: Path, files: Sequence[str]) -> bool:
    return use.folder == str(folder.resolve()) and (not use.files or not set(use.files).isdisjoint(files))


def _came_at(paths: Iterable[Path]) -> float:
    """Return when the newest of the files came; a wheel's file says itself when it was made, which is long before."""
    times = [0.0]
    for path in paths:
        with suppress(OSError):
            times.append(path.lstat().st_ctime)
    return max(times)


# --- what nobody names any more, and environments ---------------------------------------------------------------------


def _unclaimed(found: Sequence[Entry]) -> Iterator[Entry]:
    """Yield what our own folder holds of sources that nobody names any more."""
    known = {path for entry in found for path in entry.files}
    for place in ("wheels", "url"):
        for path in sorted((cache_folder() / place).glob("*")):
            files = (path,) if path.is_file() else tuple(files_below(path))
            if known.isdisjoint(files) and files:
                if path.is_file() or path.name.startswith("."):
                    entry = _leftover_entry((path.name,), files, None)
                    # What is unpacked bears the time of its making; the folder that of its unpacking.
                    yield entry._replace(is_running=entry.is_running or is_written(path))
                else:
                    yield Entry((path.name,), "model", path, files, _came_at(files), is_running=False)


def _leftover_entry(names: tuple[str, ...], paths: tuple[Path, ...], source: Source | None) -> Entry:
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    grew = max(map(grew_at, paths))
    return Entry(names, "leftover", folder, paths, grew, any(map(is_written, paths)), source)


def _environments(usages: Sequence[Usage]) -> Iterator[Entry]:
    for folder in _folders_in(cache_folder() / "environments"):
        marker = folder / "DONE"
        own = [each for each in usages if _overlaps(each.use, folder, ())]
        is_built = is_locked(Path(f"{folder}.lock"))
        yield Entry(
            names=(engine_of(folder),),
            kind="environment",
            folder=folder,
            files=(),
            last_used=max((each.last_used for each in own), default=_came_at([marker, folder])),
            is_running=is_built or any(each.is_held for each in own),
            revision=marker.read_text() if marker.is_file() else "",
            uses=tuple(each.use for each in own),
        )
