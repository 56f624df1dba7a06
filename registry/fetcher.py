"""Moves bytes for every hub that speaks HTTP: in parallel ranges, resumable to the byte, verified while they arrive.

One call brings one file. Threads write ranges into a `Partial`; the caller's thread hashes the part that has no gap,
tells how far it is, and puts the file in its place when the digest is right.
"""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from registry.digest import BLOCK_BYTES, Digest, wrong_digest
from registry.errors import DigestError, DiskFullError, DownloadError, OfflineError
from registry.partial import Partial, Range

if TYPE_CHECKING:
    import httpx2

MAX_REDIRECTS = 10
RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Download:
    """One file to bring: the bytes of `url` to `target`. `headers` go to the URL's own origin only.

    `name` is how errors call it: a blob's target says nothing to people.
    """

    name: str
    url: str
    target: Path
    size_bytes: int
    digest: Digest | None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Limits:
    """How a download is tried: `attempts` count from the last byte that came, with growing pauses between them."""

    connections: int = 4
    segment_bytes: int = 32 << 20
    timeout_s: float = 20.0
    attempts: int = 5
    first_pause_s: float = 0.5


class RefusedError(Exception):
    """The server answered with a status that trying again does not change."""

    def __init__(self, status: int, url: str) -> None:
        super().__init__(f"HTTP {status} for {url}")
        self.status = status


class _RangeIgnoredError(Exception):
    """The server sent the whole file where a part was asked for."""


def fetch(download: Download, report: Callable[[int], None], limits: Limits = Limits()) -> None:
    """Bring one file, or take up where an earlier try was ended; `report` is told the bytes that are there.

    Raises DigestError for wrong bytes (nothing is kept), OfflineError if the server is out of reach, DiskFullError,
    DownloadError if it kept breaking off (what came is kept), RefusedError for a status that it will not change.
    """
    partial = Partial(download.target, download.size_bytes, download.digest)
    try:
        _bring(download, partial, report, limits)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _disk_full(download.target.parent, download.size_bytes - partial.done_bytes) from error
        raise
    finally:
        partial.close()


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise DiskFullError unless the disk of `folder`, which need not exist yet, has room for so many bytes."""
    import shutil

    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if shutil.disk_usage(existing).free < needed_bytes:
        raise _disk_full(existing, needed_bytes)


def _disk_full(folder: Path, needed_bytes: int) -> DiskFullError:
    import shutil

    free = shutil.disk_usage(folder).free
    return DiskFullError(
        f"The disk of `{folder}` has {free / 1e9:.2f} GB free, {needed_bytes / 1e9:.2f} GB are needed",
        needed_bytes=needed_bytes,
        free_bytes=free,
        hint="make room, or name a cache folder on another disk with HF_HUB_CACHE, MODELSCOPE_CACHE or LAUNCH_CACHE",
    )


def _bring(download: Download, partial: Partial, report: Callable[[int], None], limits: Limits) -> None:
    import httpx2

    timeout = httpx2.Timeout(limits.timeout_s)
    with httpx2.Client(timeout=timeout, follow_redirects=False) as client:
        try:
            digest = _Transfer(client, download, partial, limits).run(report)
        except _RangeIgnoredError:
            partial.restart()
            whole = Limits(1, download.size_bytes, limits.timeout_s, limits.attempts, limits.first_pause_s)
            digest = _Transfer(client, download, partial, whole, ranged=False).run(report)
    if download.digest is not None and digest != download.digest:
        partial.discard()
        raise wrong_digest(download.name, download.digest, digest)
    partial.finish()


class _Transfer:
    """One run over what is missing of a file."""

    def __init__(
        self, client: httpx2.Client, download: Download, partial: Partial, limits: Limits, *, ranged: bool = True
    ) -> None:
        import httpx2

        self._client = client
        self._download = download
        self._origin = _origin(httpx2.URL(download.url))
        self._partial = partial
        self._limits = limits
        self._ranged = ranged
        self._segments: queue.SimpleQueue[Range] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._stopped = threading.Event()

    def run(self, report: Callable[[int], None]) -> Digest:
        """Return the digest of the whole file once it is there; raises what a worker met."""
        workers = self._start_workers()
        try:
            digest = self._hash_along(workers, report)
        except BaseException:
            self._stopped.set()
            raise
        return digest

    def _start_workers(self) -> list[threading.Thread]:
        count = 0
        for start, end in self._partial.missing():
            for first in range(start, end, self._limits.segment_bytes):
                self._segments.put((first, min(end, first + self._limits.segment_bytes)))
                count += 1
        workers = [
            threading.Thread(target=self._work, name="download", daemon=True)
            for _ in range(min(count, self._limits.connections))
        ]
        for worker in workers:
            worker.start()
        return workers

    def _hash_along(self, workers: list[threading.Thread], report: Callable[[int], None]) -> Digest:
        like = self._download.digest or Digest("sha256", "")
        hasher = like.hasher(self._partial.size_bytes)
        hashed = 0
        # Unbuffered: a buffer would read ahead, into bytes that have not come yet.
        with self._partial.path.open("rb", buffering=0) as file:
            while hashed < self._partial.size_bytes:
                self._wait_for(hashed)
                while hashed < self._partial.prefix_bytes:
                    block = file.read(min(BLOCK_BYTES, self._partial.prefix_bytes - hashed))
                    hasher.update(block)
                    hashed += len(block)
                    report(self._partial.done_bytes)
        for worker in workers:
            worker.join()
        return like.of_same_kind(hasher.hexdigest())

    def _wait_for(self, hashed: int) -> None:
        with self._changed:
            while self._partial.prefix_bytes <= hashed:
                if self._error is not None:
                    raise self._error
                self._changed.wait(0.5)

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._bring_segment(*self._segments.get_nowait())
        except queue.Empty:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._stopped.set()
            self._tell(error)

    def _tell(self, error: BaseException | None = None) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify()

    def _bring_segment(self, start: int, end: int) -> None:
        """Write the bytes from `start` to before `end`, trying again from where it broke off."""
        import httpx2

        failures = 0
        position = furthest = start
        while position < end and not self._stopped.is_set():
            try:
                for data in self._read(position, end):
                    self._partial.write(position, data)
                    position += len(data)
                    if position > furthest:
                        failures, furthest = 0, position
                    self._tell()
            except (httpx2.TransportError, _TransientError) as error:
                failures += 1
                if failures >= self._limits.attempts:
                    raise _gave_up(self._download, error) from error
                position = self._begin_again(position)
                self._stopped.wait(_pause_s(error, failures, self._limits.first_pause_s))

    def _begin_again(self, position: int) -> int:
        if self._ranged:
            return position
        # A server without ranges can only start over; the bytes before `position` will be written once more.
        return 0

    def _read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on, no more than asked for; raises if the connection ends before `end`."""
        is_whole = (start, end) == (0, self._download.size_bytes)
        wanted = {} if is_whole or not self._ranged else {"Range": f"bytes={start}-{end - 1}"}
        response = send(self._client, self._download.url, {**self._download.headers, **wanted})
        try:
            self._check(response, start, is_whole=not wanted)
            left = end - start
            for data in response.iter_raw():
                if self._stopped.is_set():
                    return
                yield data[:left]
                left -= len(data)
                if left <= 0:
                    return
            raise _TransientError(f"the connection ended {left} bytes early")
        finally:
            response.close()

    def _check(self, response: httpx2.Response, start: int, *, is_whole: bool) -> None:
        if response.status_code in RETRIED_STATUSES:
            raise _TransientError(f"HTTP {response.status_code}", response.headers.get("Retry-After"))
        if response.status_code in (401, 403) and _origin(response.url) != self._origin:
            # A signed address grows old; the next try asks the hub for a fresh one.
            raise _TransientError(f"HTTP {response.status_code} from `{response.url.host}`")
        if response.status_code not in (200, 206):
            raise RefusedError(response.status_code, self._download.url)
        if not is_whole and response.status_code == 200:
            raise _RangeIgnoredError
        told = response.headers.get("Content-Range" if not is_whole else "Content-Length")
        expected = str(self._download.size_bytes)
        if is_whole and told not in (None, expected):
            raise _wrong_size(self._download, str(told))
        if not is_whole and (told is None or not told.startswith(f"bytes {start}-")):
            raise _RangeIgnoredError
        if not is_whole and told is not None and told.rpartition("/")[2] not in ("*", expected):
            raise _wrong_size(self._download, told.rpartition("/")[2])


class _TransientError(Exception):
    """The server broke off, or asked for patience."""

    def __init__(self, message: str, retry_after: str | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def _pause_s(error: Exception, failures: int, first_pause_s: float) -> float:
    asked = getattr(error, "retry_after", None)
    if asked is not None and asked.isdigit():
        return min(float(asked), 60.0)
    return min(first_pause_s * 2.0 ** (failures - 1), 30.0)


def _wrong_size(download: Download, told: str) -> DigestError:
    return DigestError(
        f"The server sends another `{download.name}` than the hub lists",
        path=download.name,
        expected=f"{download.size_bytes} bytes",
        actual=f"{told} bytes",
        hint="try again later; the repo may be changing",
    )


def _gave_up(download: Download, error: Exception) -> DownloadError:
    import httpx2

    address = error.request.url if isinstance(error, httpx2.RequestError) else httpx2.URL(download.url)
    host = address.host  # of the last redirect: the hub may answer where its CDN is blocked
    hint = "the same command goes on where it stopped"
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.ProxyError):
        return OfflineError(f"`{host}` is out of reach", details=[str(error)], hint=hint)
    return DownloadError(f"The download from `{host}` kept breaking off", details=[_in_words(error)], hint=hint)


def _in_words(error: Exception) -> str:
    return str(error) or type(error).__name__


def send(client: httpx2.Client, url: str, headers: Mapping[str, str]) -> httpx2.Response:
    """Return the streaming response that a URL's redirects end at; what is secret in `headers` stays at its origin.

    Raises DownloadError for a redirect from https to anything else, or for too many.
    """
    import httpx2

    address = httpx2.URL(url)
    sent = {"Accept-Encoding": "identity", **headers}
    for _ in range(MAX_REDIRECTS):
        response = client.send(client.build_request("GET", address, headers=sent), stream=True)
        if not response.has_redirect_location:
            return response
        response.close()
        following = address.join(response.headers["Location"])
        if following.scheme != "https" and following.scheme != httpx2.URL(url).scheme:
            raise DownloadError(f"`{address.host}` redirects to `{following.scheme}://{following.host}`")
        if _origin(following) != _origin(address):
            sent = {name: value for name, value in sent.items() if name.lower() not in ("authorization", "cookie")}
        address = following
    raise DownloadError(f"`{address.host}` redirects in a circle")


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
