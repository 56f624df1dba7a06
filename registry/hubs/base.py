"""What a hub is: where its files are kept on disk, what it lists, and how their bytes come here.

The first half of `Hub` reads the disk only and never imports the hub's own library; the second needs the network.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self

from registry.digest import Digest
from registry.progress import Told
from registry.spec import PinnedFile, Source

if TYPE_CHECKING:
    from registry.tar_header import Readable


class RemoteFile(NamedTuple):
    """One file of a listing; None is what the hub does not say. `url` is only known just after listing."""

    path: str
    size_bytes: int | None
    sha256: str | None = None
    git_sha1: str | None = None
    url: str | None = None
    md5: str | None = None

    @classmethod
    def pinned(cls, path: str, pin: PinnedFile) -> Self:
        """Return a file as the catalogue has it; a size that was computed is none that a file must have."""
        return cls(path, None if pin.estimated else pin.size_bytes, pin.sha256, md5=pin.md5)

    @property
    def digest(self) -> Digest | None:
        """The strongest checksum that is known."""
        if self.sha256 is not None:
            return Digest("sha256", self.sha256)
        if self.git_sha1 is not None:
            return Digest("git-sha1", self.git_sha1)
        return None if self.md5 is None else Digest("md5", self.md5)


class Listing(NamedTuple):
    """Every file of a repo at `revision`: a commit, an exact version, or where the hub has no more the branch itself.

    `reference` is what was asked for: the same, or a branch or tag that stood at `revision`. `addresses` are where it
    is served, where a hub does not decide that itself; what `comes_whole` brings all its files with the first.
    """

    hub: str
    repo_id: str
    revision: str
    reference: str
    files: tuple[RemoteFile, ...]
    addresses: tuple[str, ...] = ()
    comes_whole: bool = False

    def file(self, path: str) -> RemoteFile | None:
        return next((file for file in self.files if file.path == path), None)


class Hub(Protocol):
    """One hub. `title` is its name in sentences."""

    name: str
    title: str

    # --- disk only

    def read_listing(self, source: Source, quantization: str) -> Listing | None:
        """Return the listing that an earlier pull left, complete, or None."""
        ...

    def snapshot(self, source: Source, quantization: str) -> Path:
        """Return the folder under which an engine finds the files of the source, as far as the disk knows it."""
        ...

    def kept(self, listing: Listing, file: RemoteFile) -> tuple[Path, ...]:
        """Return where the file's bytes may be already; the first is where a download belongs."""
        ...

    def place(self, listing: Listing, file: RemoteFile, kept: Path) -> Path:
        """Make the bytes at `kept` visible in the listing's snapshot, and return the path there."""
        ...

    def vouched(self, path: Path) -> Digest | None:
        """Return the checksum that a kept file's own name states, if it does."""
        ...

    def is_offline(self) -> bool:
        """Return whether the user's environment forbids this hub the network."""
        ...

    # --- network

    def list_files(self, source: Source, quantization: str) -> Listing:
        """Ask the hub what there is; raises NotOnHubError, GatedRepoError, OfflineError or DownloadError."""
        ...

    def peek(self, listing: Listing, file: RemoteFile) -> AbstractContextManager[Readable | None]:
        """Let parts of a file be read without fetching it, or give None where the hub gives no parts.

        What is read is not verified. Raises what `bring` does.
        """
        ...

    def bring(self, listing: Listing, file: RemoteFile, target: Path, report: Told) -> None:
        """Put the verified bytes of a file at `target`, all or nothing; `report` is told the bytes done so far."""
        ...

    def record(self, listing: Listing) -> None:
        """Keep a listing so that it can be read again, by us and by the hub's own client."""
        ...

    def record_reference(self, listing: Listing) -> None:
        """Keep which commit a branch stood at, once its files are here."""
        ...
