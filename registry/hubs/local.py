"""Files that are on this machine already: a file, or a folder; nothing is moved and nothing is written."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from registry.digest import Digest
from registry.errors import NotOnHubError
from registry.hubs.base import Listing, RemoteFile
from registry.spec import Source

if TYPE_CHECKING:
    from registry.tar_header import Readable


class Local:
    """The disk. A source's `repo_id` is the path of a folder, or of the one file."""

    name = "local"
    title = "The disk"

    def read_listing(self, source: Source, quantization: str) -> Listing | None:
        path = _path(source, quantization)
        if not path.exists():
            return None
        folder = self.snapshot(source, quantization)
        names = [path.name] if path.is_file() else sorted(_names(folder))
        files = tuple(RemoteFile(name, (folder / name).stat().st_size) for name in names)
        return Listing(self.name, str(folder), "", "", files)

    def snapshot(self, source: Source, quantization: str) -> Path:
        path = _path(source, quantization)
        return path.parent if path.is_file() else path

    def kept(self, listing: Listing, file: RemoteFile) -> tuple[Path, ...]:
        return (Path(listing.repo_id) / file.path,)

    def place(self, listing: Listing, file: RemoteFile, kept: Path) -> Path:
        return kept

    def vouched(self, path: Path) -> Digest | None:
        return None

    def is_offline(self) -> bool:
        return False

    def list_files(self, source: Source, quantization: str) -> Listing:
        listing = self.read_listing(source, quantization)
        if listing is None:
            raise NotOnHubError(f"`{_path(source, quantization)}` does not exist")
        return listing

    def peek(self, listing: Listing, file: RemoteFile) -> AbstractContextManager[Readable | None]:
        return nullcontext()

    def bring(self, listing: Listing, file: RemoteFile, target: Path, report: Callable[[int], None]) -> None:
        raise NotOnHubError(f"`{target}` does not exist, or is not the file that the catalogue names")

    def record(self, listing: Listing) -> None:
        pass

    def record_reference(self, listing: Listing) -> None:
        pass


def _path(source: Source, quantization: str) -> Path:
    return Path(source.repo_for(quantization)).expanduser().absolute()


def _names(folder: Path) -> list[str]:
    # One level of sub-folders is as deep as any layout of weights goes; a home folder named by mistake stays cheap.
    names = []
    for entry in os.scandir(folder):
        if entry.is_file():
            names.append(entry.name)
        elif entry.is_dir() and not entry.name.startswith("."):
            names += [f"{entry.name}/{inner.name}" for inner in os.scandir(entry.path) if inner.is_file()]
    return names
