"""Brings what is missing of a file set: room first, one process at a time for each file, placed when it is right."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from registry.digest import digest_of, record, wrong_digest
from registry.exclusive import exclusive
from registry.hubs import Hub, Listing
from registry.partial import arrived_bytes
from registry.progress import Progress, Report
from registry.trouble import prepare, writing
from registry.wanted import Wanted, adopt

SMALL_BYTES = 4 << 20  # such a file takes longer to ask for than to send
AT_ONCE = 4
LONGEST_END_S = 2.0


def bring(hub: Hub, listing: Listing, missing: Sequence[Wanted], tell: Report) -> dict[Wanted, Path]:
    """Bring files and return where they are: small ones together, then each large one over several connections.

    Raises DiskFullError or CacheNotWritableError before anything moves, and whatever the hub raises.
    """
    tally = _Tally(missing, tell)
    prepare(missing[0].target.parent, (tally.total or 0) - sum(arrived_bytes(want.target) for want in missing))
    brought: dict[Wanted, Path] = {}

    def bring_one(want: Wanted) -> None:
        brought[want] = _bring_one(hub, listing, want, tally)

    small = [want for want in missing if want.size_bytes is not None and want.size_bytes <= SMALL_BYTES]
    if not listing.comes_whole:
        _at_once(bring_one, small, tally)
    for want in missing:
        if want not in brought:
            bring_one(want)
    return brought


class _EndedError(Exception):
    """Another file could not be brought, so that nobody waits for this one."""


class _Tally:
    """What has come of all files together; `total` is None where a size is not known."""

    def __init__(self, missing: Sequence[Wanted], tell: Report) -> None:
        sizes = [want.size_bytes for want in missing]
        self.total = None if None in sizes else sum(size for size in sizes if size is not None)
        self.has_ended = False
        self._done: dict[str, int] = {}
        self._tell = tell
        self._lock = threading.Lock()

    def tell(self, progress: Progress) -> None:
        """Hand progress on, unless nobody waits for it: raises _EndedError, which ends the download that tells it."""
        if self.has_ended:
            raise _EndedError
        self._tell(progress)

    def report(self, want: Wanted, done_bytes: int, note: str = "") -> None:
        """Tell how far it is, with the note in place of the file's name where there is one."""
        with self._lock:
            self._done[want.file.path] = done_bytes
            done = sum(self._done.values())
            if note:
                self.tell(Progress("download", done, self.total, f"`{want.file.path}`: {note}"))
            else:
                self.tell(Progress("download", done, self.total, want.file.path, done_bytes, want.size_bytes))


def _at_once(act: Callable[[Wanted], None], wanted: Sequence[Wanted], tally: _Tally) -> None:
    """Do the same for several files at a time; at the first error all end where they are, and it is raised."""
    todo: queue.SimpleQueue[Wanted] = queue.SimpleQueue()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()

    def work() -> None:
        error: BaseException | None = None
        try:
            while not tally.has_ended:
                act(todo.get_nowait())
        except queue.Empty:
            pass
        except BaseException as met:  # noqa: BLE001 - raised again by the thread that waits
            error = met
        ended.put(error)

    for want in wanted:
        todo.put(want)
    # Daemons: Ctrl-C must not wait for a silent server.
    workers = [threading.Thread(target=work, name="small files", daemon=True) for _ in wanted[:AT_ONCE]]
    for worker in workers:
        worker.start()
    try:
        for _ in workers:
            if (met := ended.get()) is not None:
                raise met
    except BaseException as error:
        tally.has_ended = True
        for worker in workers if isinstance(error, Exception) else ():
            worker.join(LONGEST_END_S)
        raise


def _bring_one(hub: Hub, listing: Listing, want: Wanted, tally: _Tally) -> Path:
    def wait() -> None:
        tally.report(want, 0, "waiting for another process that is fetching it")

    def told(done_bytes: int, note: str = "", /) -> None:
        tally.report(want, done_bytes, note)

    with writing(want.target.parent, want.size_bytes or 0), exclusive(want.target, wait):
        # While we waited for the lock, another process may have brought it.
        if (here := adopt(hub, listing, want, tally.tell)) is not None:
            tally.report(want, want.size_bytes or 0)
            return here
        hub.bring(listing, want.file, want.target, told)
        _check_pinned_bytes(want)
        return hub.place(listing, want.file, want.target)


def _check_pinned_bytes(want: Wanted) -> None:
    """Remember a file that came; where the catalogue pins more than the hub lists, check that first."""
    if want.digest is None:
        return
    if want.digest != want.file.digest:
        actual = digest_of(want.target, want.digest)
        if actual != want.digest:
            want.target.unlink()
            raise wrong_digest(want.file.path, want.digest, actual)
    record(want.target, want.digest)
