"""Asks the server of a download for its bytes: any range of them, from the version of the file that is arriving."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from registry.digest import Digest
from registry.errors import DigestError
from registry.partial import Partial
from registry.transport import Answer, Transport, host_of, same_origin, whole_size

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
READ_BYTES = 1 << 18


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
    anew, and that counts as an attempt.
    """

    connections: int = 8
    segment_bytes: int = 64 << 20
    timeout_s: float = 20.0
    attempts: int = 5
    first_pause_s: float = 0.5
    slowest_bytes_per_s: int = 1000


class RefusedError(Exception):
    """The server answered with a status that trying again does not change."""

    def __init__(self, status: int, url: str) -> None:
        super().__init__(f"HTTP {status} for {url}")
        self.status = status


class StartOverError(Exception):
    """What came cannot be gone on with: the server knows no ranges, or has another version of the file by now."""


class TransientError(Exception):
    """The server broke off, or asked for patience: `pause_s` is how much of it."""

    def __init__(self, message: str, *, pause_s: float | None = None) -> None:
        super().__init__(message)
        self.pause_s = pause_s


class SlowError(TransientError):
    """Bytes came, but so few that another connection may do better."""


class RemoteBytes:
    """The bytes of a download at its server, for any thread; `is_ranged` says whether parts are asked for."""

    def __init__(
        self, transport: Transport, download: Download, partial: Partial, limits: Limits, *, is_ranged: bool
    ) -> None:
        self.is_ranged = is_ranged
        self._transport = transport
        self._download = download
        self._partial = partial
        self._limits = limits
        self._asking = threading.Lock()
        self._address: str | None = None  # where the hub's redirects ended: asked for once, not for each range
        self._last_url = download.url

    @property
    def host(self) -> str:
        """The host that the bytes come from, as far as it is known."""
        return host_of(self._last_url)

    def read(self, start: int, end: int) -> Iterator[bytes]:
        """Yield the bytes from `start` to before `end`, in pieces; raises if they end before.

        Raises TransientError, StartOverError, RefusedError, DigestError for another size, DownloadError, and what
        the transport raises.
        """
        is_whole = not self.is_ranged or (start, end) == (0, self._download.size_bytes)
        answer = self._ask({} if is_whole else self._range(start, end))
        is_drained = False
        try:
            self._check(answer, start, is_whole=is_whole)
            first = 0 if is_whole else start
            yield from self._body(answer.response, skip=start - first, left=end - first)
            is_drained = True
        finally:
            # A connection whose body was read to its end is used again.
            answer.response.release_conn() if is_drained else answer.response.close()

    def _body(self, response: BaseHTTPResponse, *, skip: int, left: int) -> Iterator[bytes]:
        """Yield the body after its first `skip` bytes, which are here: they stay, as they have been hashed."""
        since, came = time.monotonic(), 0
        while left > 0:
            data = response.read1(min(READ_BYTES, left), decode_content=False)
            if not data:
                raise TransientError(f"the connection ended {left:,} bytes early")
            left -= len(data)
            came += len(data)
            if len(data) > skip:
                yield data[skip:] if skip else data
            skip = max(0, skip - len(data))
            if (waited_s := time.monotonic() - since) >= self._limits.timeout_s:
                if came < self._limits.slowest_bytes_per_s * waited_s:
                    raise SlowError(f"only {came:,} bytes came in {waited_s:.2g} s")
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
            raise TransientError(f"the address at `{answer.host}` grew old", pause_s=0.0)
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
            raise TransientError(f"`{answer.host}` answered HTTP {status}", pause_s=_asked_pause_s(headers))
        if status == 416:
            raise _wrong_size(self._download, headers.get("Content-Range", "").rpartition("/")[2] or "fewer")
        if status not in (200, 206):
            raise RefusedError(status, self._download.url)
        told = whole_size(headers, start) if status == 206 else headers.get("Content-Length", "*")
        if not is_whole and (status == 200 or told is None):
            raise StartOverError(f"`{answer.host}` sends files from their beginning only")
        if told not in ("*", None, str(self._download.size_bytes)):
            raise _wrong_size(self._download, told)
        self._check_version(_version(headers), is_rest=bool(start) or not is_whole)

    def _check_version(self, version: str | None, *, is_rest: bool) -> None:
        """Where no digest will tell, let nothing be put together from what may be two versions of the file."""
        if self._download.digest is not None:
            return
        if version is None and is_rest:
            reason = "the server does not say which version of the file it sends"
            raise StartOverError(reason) if self.is_ranged else TransientError(reason)
        if None not in (version, self._partial.version) and version != self._partial.version:
            if self._partial.done_bytes and self.is_ranged:
                raise StartOverError("the file has changed on the server")
            raise TransientError("the file changes on the server")
        self._partial.keep_version(version)


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
