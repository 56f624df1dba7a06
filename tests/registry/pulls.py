"""A pull through one hub's real client that something goes wrong with, and what is to be said about it."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from registry.errors import DownloadError
from registry.progress import Progress
from registry.store import FileSet, pull
from tests.fakes.faults import Trial, Trials
from tests.fakes.hub import Fault, HubServer
from tests.fakes.weights import COMMIT_FILES, NAME, REPO, WEIGHTS, gguf_source

TITLES = {"huggingface": "Hugging Face", "modelscope": "ModelScope"}
CONTENT = WEIGHTS
OTHER_CONTENT = b"GGUF" + hashlib.shake_256(b"other weights").digest(len(WEIGHTS) - 4)
LARGE = b"GGUF" + hashlib.shake_256(b"large weights").digest(20_000_000)
GONE = Fault("status", status=404, times=None)  # ends a pull at once
Error = TypeVar("Error", bound=DownloadError)


class Pulls:
    """Pulls of one file through one hub; `commit` is what it is pinned to."""

    def __init__(self, hub: HubServer, name: str, trials: Trials[Trial], home: Path) -> None:
        self.hub = hub
        self.name = name
        self.home = home
        self.told: list[Progress] = []
        self._trials = trials
        self.commit = self.publish()

    @property
    def branch(self) -> str:
        return "main" if self.name == "huggingface" else "master"

    def publish(self, content: bytes = CONTENT, *, token: str | None = None, gated: bool = False) -> str:
        self.content = content
        return self.hub.add_repo(REPO, {**COMMIT_FILES, NAME: content}, token=token, gated=gated)

    def pull(self, revision: str | None = "", *, offline: bool = False) -> FileSet:
        """Pull the pinned commit, or what `revision` says; None is the branch."""
        self.told.clear()
        wanted = gguf_source(self.name, self.commit if revision == "" else revision)
        return pull(*wanted, offline=offline, progress=self.told.append)

    def fails(self, kind: type[Error], revision: str | None = "", *, offline: bool = False) -> Error:
        """Return the error that a pull ends with."""
        try:
            self.pull(revision, offline=offline)
        except kind as error:
            return error
        raise AssertionError(f"the pull ended well, and not with {kind.__name__}")

    def interrupt(self, after_bytes: int, revision: str | None = "") -> None:
        """Let a pull end with so many bytes of the file here; the log of requests begins anew."""
        self.hub.breaks(NAME, Fault("cut", after_bytes=after_bytes), GONE)
        self.fails(DownloadError, revision)
        assert [path.stat().st_size for path in self.home.rglob("*.partial")] == [after_bytes]
        self.hub.faults.clear()
        self.hub.requests.clear()

    def is_whole(self) -> bool:
        """Return whether the last content that was published lies in the cache under its name."""
        return any(path.read_bytes() == self.content for path in self._placed())

    def leftovers(self) -> list[str]:
        return sorted(path.name for kind in ("partial", "journal", "lock") for path in self.home.rglob(f"*.{kind}"))

    def retries(self) -> list[str]:
        """Return what the user was told while waiting, without the file's name."""
        return [progress.text.partition(": ")[2] for progress in self.told if "retrying in" in progress.text]

    def add(self, fault: int, tried: str, happened: str, *, needed_bytes: int | None = None) -> None:
        """Record a trial through this hub; `needed_bytes` of the file were not here before it."""
        corrupt = sum(not self._is_right(path) for path in self._placed())
        twice = None if needed_bytes is None else self.hub.sent_of_files - needed_bytes
        self._trials.add(Trial(fault, TITLES[self.name], tried, happened, corrupt, twice))

    def _placed(self) -> Iterable[Path]:
        for path in self.home.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and re.fullmatch(rf"{NAME}|[0-9a-f]{{64}}", path.name):
                    yield path

    def _is_right(self, path: Path) -> bool:
        return path.read_bytes() in (CONTENT, OTHER_CONTENT, LARGE)


def whole(pulls: Pulls, how: str) -> str:
    """Return that the file is here and right, which must be so, and how it came."""
    assert pulls.is_whole()
    assert pulls.leftovers() == []
    return f"{how}; the right file"


def said(pulls: Pulls, error: DownloadError) -> str:
    """Return what an error says, and that no file is here, which must be so."""
    assert not pulls.is_whole()
    return f"“{error.message}”; no file"
