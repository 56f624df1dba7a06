"""Moves bytes for every hub that speaks HTTP: in parallel ranges, resumable to the byte, verified while they arrive.

One call brings one file. Threads write ranges into a `Partial`; the caller's thread hashes the part that has no gap,
tells how far it is, and puts the file in its place when the digest is right.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from registry.digest import BLOCK_BYTES, Digest, wrong_digest
from registry.errors import DigestError, DownloadError
from registry.partial import ClosedError, Partial, Range
from registry.progress import Told
from registry.transport import Answer, NotReachedError, Transport, host_of, same_origin
from registry.trouble import is_refused, out_of_reach, writing

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
READ_BYTES = 1 << 18
SMALLEST_SEGMENT_BYTES = 8 << 20
LONGEST_PAUSE_S = 30.0
LONGEST_ASKED_PAUSE_S = 300.0
TICK_S = 0.1  # how often the caller hears how far it is, at least


class Download(NamedTuple):
    """One file to bring: the bytes of `url` to `target`. `headers` go to the URL's own origin only.

    `name` is how errors call it: a blob's target says nothing to people.
    """

    name: str
    url: str
    target: Path
    size_bytes: int
    digest: Digest | None
    headers: Mapping[str, str] = {}


class Limits(NamedTuple):
    """How a download is tried: `attempts` count from the last byte that came, with growing pauses between them.

    `timeout_s` is the longest silence; a connection that brings less than `slowest_bytes_per_s` for so long is opened
    anew.
    """

    connections: int = 8
    segment_bytes: int = 64 << 20
    timeout_s: float = 20.0
    attempts: int = 5
    first_pause_s: float = 0.5
    slowest_bytes_per_s: int = 1000


DEFAULT_LIMITS = Limits()


class RefusedError(Exception):
    """The server answered with a status that trying again does not change."""

    def __init__(self, status: int, url: str) -> None:
        super().__init__(f"HTTP {status} for {url}")
        self.status = status


class _StartOverError(Exception):
    """What came cannot be gone on with: the server knows no ranges, or has another version of the file by now."""


class _TransientError(Exception):
    """The server broke off, or asked for patience."""

    def __init__(self, message: str, *, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


def fetch(download: Download, report: Told, limits: Limits = DEFAULT_LIMITS) -> None:
    """Bring one file, or take up where an earlier try was ended; `report` is told the bytes that are there.

    Wrong bytes are thrown away and fetched once more. Raises DigestError if they are wrong again (nothing is kept),
    OfflineError if the server is out of reach, DiskFullError, CacheNotWritableError, DownloadError if it kept breaking
    off (what came is kept), RefusedError for a status that it will not change.
    """
    transport = Transport(limits.timeout_s, limits.connections)
    try:
        with writing(download.target.parent, download.size_bytes):
            if (wrong := _bring(transport, download, report, limits)) is not None:
                report(0, "wrong bytes came: fetching them again")
                wrong = _bring(transport, download, report, limits)
    finally:
        transport.close()
    if wrong is not None and download.digest is not None:
        raise wrong_digest(download.name, download.digest, wrong)


def _bring(transport: Transport, download: Download, report: Told, limits: Limits) -> Digest | None:
    """Put a file in its place and return None, or throw it away and return its digest, which is not the right one."""
    try:
        return _try(transport, download, report, limits, ranged=True)
    except _StartOverError:
        whole = limits._replace(connections=1, segment_bytes=max(1, download.size_bytes))
        return _try(transport, download, report, whole, ranged=False)


def _try(transport: Transport, download: Download, report: Told, limits: Limits, *, ranged: bool) -> Digest | None:
    # Opened for each try: threads of the last one that still have bytes find theirs closed.
    partial = Partial(download.target, download.size_bytes, download.digest)
    try:
        if not ranged:
            partial.restart()
        digest = _Transfer(transport, download, partial, limits, ranged=ranged).run(report)
        if download.digest is not None and digest != download.digest:
            partial.discard()
            return digest
        partial.finish()
        return None
    finally:
        partial.close()


class _Transfer:
    """One run over what is missing of a file."""

    def __init__(
        self, transport: Transport, download: Download, partial: Partial, limits: Limits, *, ranged: bool
    ) -> None:
        self._transport = transport
        self._download = download
        self._partial = partial
        self._limits = limits
        self._ranged = ranged
        self._segments: queue.SimpleQueue[Range] = queue.SimpleQueue()
        self._changed = threading.Condition()
        self._error: BaseException | None = None
        self._note = ""
        self._stopped = threading.Event()
        self._asking = threading.Lock()
        self._address: str | None = None  # where the hub's redirects ended: asked for once, not for each range
        self._last_url = download.url
        self._not_before = 0.0

    def run(self, report: Told) -> Digest:
        """Return the digest of the whole file once it is there; raises what a worker met."""
        workers = self._start_workers()
        try:
            digest = self._hash_along(report)
        except BaseException:
            self._stopped.set()
            raise
        for worker in workers:
            worker.join()
        return digest

    def _start_workers(self) -> list[threading.Thread]:
        segments = list(self._cut())
        for segment in segments:
            self._segments.put(segment)
        # Daemons: one may be waiting for a silent server when the user ends the program.
        workers = [
            threading.Thread(target=self._work, name="download", daemon=True)
            for _ in range(min(len(segments), self._limits.connections))
        ]
        for worker in workers:
            worker.start()
        return workers

    def _cut(self) -> Iterator[Range]:
        """Yield what is missing in pieces that keep all connections busy to the end."""
        share = self._partial.size_bytes // (4 * self._limits.connections)
        step = min(self._limits.segment_bytes, max(share, SMALLEST_SEGMENT_BYTES))
        for start, end in self._partial.missing():
            for first in range(start, end, step):
                yield first, min(end, first + step)

    # --- the caller's thread

    def _hash_along(self, report: Told) -> Digest:
        like = self._download.digest or Digest("sha256", "")
        hasher = like.hasher(self._partial.size_bytes)
        hashed, block = 0, memoryview(bytearray(BLOCK_BYTES))
        # Unbuffered: a buffer would read ahead, into bytes that have not come yet.
        with self._partial.path.open("rb", buffering=0) as file:
            while hashed < self._partial.size_bytes:
                self._wait_for_more_than(hashed)
                while hashed < (prefix := self._partial.prefix_bytes):
                    count = file.readinto(block[: min(BLOCK_BYTES, prefix - hashed)])
                    hasher.update(block[:count])
                    hashed += count
                    self._tell(report)
                self._tell(report)
        return like.of_same_kind(hasher.hexdigest())

    def _wait_for_more_than(self, hashed: int) -> None:
        """Wait until a block can be hashed, but no longer than a tick."""
        enough = min(hashed + BLOCK_BYTES, self._partial.size_bytes)
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or self._partial.prefix_bytes >= enough, TICK_S)
            if self._error is not None:
                raise self._error

    def _tell(self, report: Told) -> None:
        note, self._note = self._note, ""
        if note:
            report(self._partial.done_bytes, note)
        else:
            report(self._partial.done_bytes)

    # --- the workers' threads

    def _work(self) -> None:
        try:
            while not self._stopped.is_set():
                self._bring_segment(*self._segments.get_nowait())
        except (queue.Empty, ClosedError):
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits
            self._stopped.set()
            with self._changed:
                self._error = self._error or error
                self._changed.notify()

    def _bring_segment(self, start: int, end: int) -> None:
        """Write the bytes from `start` to before `end`, trying again from where it broke off."""
        import urllib3

        failures = 0
        position = furthest = start
        while position < end and not self._stopped.is_set():
            try:
                for data in self._read(position, end):
                    self._partial.write(position, data)
                    position += len(data)
                    if position > furthest:
                        failures, furthest = 0, position
                    self._wake(position)
            except (urllib3.exceptions.HTTPError, NotReachedError, _TransientError) as error:
                failures += 1
                if failures >= self._limits.attempts or is_refused(error):
                    raise self._gave_up(error) from error
                # A server without ranges can only start over; the bytes before `position` will be written once more.
                position = position if self._ranged else 0
                self._pause(error, failures)

    def _wake(self, position: int) -> None:
        # Not for every few bytes: the caller looks by itself at each tick.
        if position % BLOCK_BYTES < READ_BYTES or self._partial.prefix_bytes == self._partial.size_bytes:
            with self._changed:
                self._changed.notify()

    def _pause(self, error: Exception, failures: int) -> None:
        pause_s = min(self._limits.first_pause_s * 2.0 ** (failures - 1), LONGEST_PAUSE_S)
        if isinstance(error, _TransientError) and error.pause_s is not None:
            pause_s = min(error.pause_s, LONGEST_ASKED_PAUSE_S)
            self._not_before = max(self._not_before, time.monotonic() + pause_s)
        if pause_s:
            self._note = f"retrying in {pause_s:.2g} s: {self._in_words(error)}"
        self._stopped.wait(pause_s)

    def _gave_up(self, error: Exception) -> DownloadError:
        hint = "the same command goes on where it stopped"
        if isinstance(error, NotReachedError):
            return out_of_reach(error.url, error, hint=hint)
        message = f"The download from `{host_of(self._last_url)}` kept breaking off"
        return DownloadError(message, details=[self._in_words(error)], hint=hint)

    def _in_words(self, error: Exception) -> str:
        from urllib3 import exceptions

        if isinstance(error, NotReachedError):
            return f"`{host_of(error.url)}` is out of reach"
        if isinstance(error, exceptions.ReadTimeoutError):
            return f"`{host_of(self._last_url)}` was silent for {self._limits.timeout_s:.2g} s"
        if isinstance(error, exceptions.ProtocolError):
            return f"`{host_of(self._last_url)}` broke off the connection"
        return str(error)

    def _read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` on, no more than asked for; raises if the connection ends before `end`."""
        self._stopped.wait(max(0.0, self._not_before - time.monotonic()))
        is_whole = not self._ranged or (start, end) == (0, self._download.size_bytes)
        answer = self._ask({} if is_whole else self._range(start, end))
        is_drained = False
        try:
            self._check(answer, start, is_whole=is_whole)
            left = end - start
            for data in self._body(answer.response, left):
                yield data
                left -= len(data)
            is_drained = left == 0
        finally:
            # A connection whose body was read to its end is used again.
            answer.response.release_conn() if is_drained else answer.response.close()

    def _body(self, response: BaseHTTPResponse, left: int) -> Iterator[bytes]:
        since, came = time.monotonic(), 0
        while left > 0 and not self._stopped.is_set():
            data = response.read1(min(READ_BYTES, left), decode_content=False)
            if not data:
                raise _TransientError(f"the connection ended {left:,} bytes early")
            yield data
            left -= len(data)
            came += len(data)
            if (waited_s := time.monotonic() - since) >= self._limits.timeout_s:
                if came < self._limits.slowest_bytes_per_s * waited_s:
                    raise _TransientError(f"only {came:,} bytes came in {waited_s:.0f} s")
                since, came = time.monotonic(), 0

    def _range(self, start: int, end: int) -> dict[str, str]:
        wanted = {"Range": f"bytes={start}-{end - 1}"}
        # Without a digest, only the server can say that the rest belongs to what came before.
        if self._download.digest is None and self._partial.version is not None:
            wanted["If-Range"] = self._partial.version
        return wanted

    def _ask(self, wanted: Mapping[str, str]) -> Answer:
        with self._asking:
            address = self._address
            if address is None:
                return self._ask_hub(wanted)
        is_own = same_origin(address, self._download.url)
        answer = self._transport.get(address, {**self._download.headers, **wanted} if is_own else wanted)
        if answer.response.status >= 400 and answer.response.status not in RETRIED_STATUSES:
            # A signed address grows old; the next try asks the hub for a fresh one.
            answer.response.close()
            self._address = None
            raise _TransientError(f"the address at `{answer.host}` grew old", pause_s=0.0)
        return answer

    def _ask_hub(self, wanted: Mapping[str, str]) -> Answer:
        answer = self._transport.get(self._download.url, {**self._download.headers, **wanted})
        self._last_url = answer.url
        if answer.response.status in (200, 206):
            self._address = answer.url
        return answer

    def _check(self, answer: Answer, start: int, *, is_whole: bool) -> None:
        status, headers = answer.response.status, answer.response.headers
        is_elsewhere = not same_origin(answer.url, self._download.url)
        if status in RETRIED_STATUSES or (is_elsewhere and status in (401, 403)):
            raise _TransientError(f"`{answer.host}` answered HTTP {status}", pause_s=_asked_pause_s(headers))
        if status == 416:
            raise _wrong_size(self._download, headers.get("Content-Range", "").rpartition("/")[2] or "fewer")
        if status not in (200, 206):
            raise RefusedError(status, self._download.url)
        told = _whole_size(headers, start) if status == 206 else headers.get("Content-Length", "*")
        if not is_whole and (status == 200 or told is None):
            raise _StartOverError
        if told not in ("*", None, str(self._download.size_bytes)):
            raise _wrong_size(self._download, told)
        self._check_version(_version(headers))

    def _check_version(self, version: str | None) -> None:
        if self._download.digest is not None:
            return
        if None not in (version, self._partial.version) and version != self._partial.version:
            if self._partial.done_bytes and self._ranged:
                raise _StartOverError
            raise _TransientError("the file changes on the server")
        self._partial.keep_version(version)


def _whole_size(headers: Mapping[str, str], start: int) -> str | None:
    """Return the size that a part's headers tell of the whole, or None where it is not the part that was asked for."""
    told = headers.get("Content-Range", "")
    return told.rpartition("/")[2] if told.startswith(f"bytes {start}-") else None


def _version(headers: Mapping[str, str]) -> str | None:
    """Return the server's mark of a version that is good for exact bytes."""
    tag = headers.get("ETag")
    return tag if tag is not None and not tag.startswith("W/") else headers.get("Last-Modified")


def _asked_pause_s(headers: Mapping[str, str]) -> float | None:
    """Return the patience that a server asks for, in seconds; it may name a date instead."""
    from email.utils import mktime_tz, parsedate_tz

    asked = headers.get("Retry-After")
    if asked is None or asked.isdigit():
        return None if asked is None else float(asked)
    date = parsedate_tz(asked)
    return None if date is None else max(0.0, mktime_tz(date) - time.time())


def _wrong_size(download: Download, told: str) -> DigestError:
    return DigestError(
        f"The server sends another `{download.name}` than the hub lists",
        path=download.name,
        expected=f"{download.size_bytes} bytes",
        actual=f"{told} bytes",
        hint="try again later; the repo may be changing",
    )
