"""One file that a spec needs: what must be true of it, and where it may be already."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from registry.digest import Digest, digest_of, is_recorded, record
from registry.hubs import Hub, Listing, RemoteFile
from registry.progress import Progress, Report


class Wanted(NamedTuple):
    """A file to have: as the hub lists it, what must be true of it, where it belongs, and where it may be already."""

    repo_id: str
    file: RemoteFile
    size_bytes: int | None
    digest: Digest | None
    location: Path
    kept: tuple[Path, ...]

    @property
    def sha256(self) -> str | None:
        return self.digest.value if self.digest is not None and self.digest.kind == "sha256" else None

    @property
    def target(self) -> Path:
        """Where a download of it belongs."""
        return self.kept[0] if self.kept else self.location

    def present(self) -> tuple[Path, ...]:
        """Return the places that hold a file of the right size; of several names of one file, one."""
        held = {path.resolve(): path for path in reversed((*self.kept, self.location)) if self._has_size(path)}
        return tuple(reversed(held.values()))

    def elsewhere(self) -> tuple[Path, ...]:
        """Return the places of other programs that hold a file of the right size."""
        if self.sha256 is None or self.size_bytes is None:
            return ()
        from registry.other_programs import kept_elsewhere

        return tuple(path for path in kept_elsewhere(self.repo_id, self.file.path, self.sha256) if self._has_size(path))

    def _has_size(self, path: Path) -> bool:
        with suppress(OSError):  # a folder that only another user may look into
            return path.is_file() and self.size_bytes in (None, path.stat().st_size)
        return False

    def verified_location(self, hub: Hub) -> Path | None:
        """Return where the file belongs if it is there and was found right before; reads no weights."""
        if not self._has_size(self.location):
            return None
        digest = self.digest or hub.vouched(self.location)
        return self.location if digest is None or is_recorded(self.location, digest) else None


def adopt(hub: Hub, listing: Listing | None, want: Wanted, tell: Report) -> Path | None:
    """Return where a file is that was here already, once its bytes are known to be right; else None."""
    for path in want.present():
        digest = want.digest or hub.vouched(path)
        if digest is None or is_recorded(path, digest) or _is_right(path, digest, want, tell):
            return path if listing is None else hub.place(listing, want.file, path)
    for path in want.elsewhere():
        assert want.digest is not None
        with suppress(OSError):  # theirs may not be ours to read, and our cache may be read-only
            if is_recorded(path, want.digest) or _is_right(path, want.digest, want, tell):
                return _link(hub, listing, want, path)
    return None


def _link(hub: Hub, listing: Listing | None, want: Wanted, found: Path) -> Path:
    from registry.other_programs import link

    assert want.digest is not None
    link(found, want.target)
    record(want.target, want.digest)
    return want.target if listing is None else hub.place(listing, want.file, want.target)


def _is_right(path: Path, digest: Digest, want: Wanted, tell: Report) -> bool:
    size = path.stat().st_size

    def told(done: int) -> None:
        tell(Progress("verify", done, size, want.file.path, done, size))

    actual = digest_of(path, digest, told)
    if actual == digest:
        record(path, digest)
    return actual == digest
