"""Looks at a file at an address without fetching it: its size, and any part of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from registry.errors import DownloadError, GatedRepoError, NotOnHubError
from registry.transport import NotReachedError, Transport, host_of, whole_size

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_WINDOW_BYTES = 1 << 14  # what is asked for at once: the headers of several small files lie in it
_TIMEOUT_S = 20.0
_PAUSES_S = (0.5, 1.0)  # before it is asked once more
_ELSEWHERE = "launch inspect shows the model's other sources"


class RangeReader:
    """A file at `url`; `has_ranges` says whether the server gives parts of it. Use it in `with`.

    `headers` go to the URL's own origin only; `refused` makes the error of a status, instead of `refusal`. Raises it,
    OfflineError, or another DownloadError.
    """

    def __init__(
        self, url: str, headers: Mapping[str, str] = {}, refused: Callable[[int], DownloadError] | None = None
    ) -> None:
        self.url = url
        self._headers = headers
        self._refused = refused or (lambda status: refusal(status, url))
        self._transport = Transport(_TIMEOUT_S, 1)
        self._start, self._window = 0, b""
        try:
            self.has_ranges, self.size_bytes = self._ask(0, _WINDOW_BYTES)
        except BaseException:
            self._transport.close()
            raise

    def __enter__(self) -> RangeReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self._transport.close()

    def read_at(self, position: int, count: int) -> bytes:
        """Return `count` bytes from `position` on, fewer at the end."""
        end = min(position + count, self.size_bytes)
        if position >= end:
            return b""
        if position < self._start or end > self._start + len(self._window):
            self._ask(position, max(count, _WINDOW_BYTES))
        first = position - self._start
        return self._window[first : first + end - position]

    def _ask(self, position: int, count: int) -> tuple[bool, int]:
        """Fill the window from `position` on, and return whether parts are given, and the file's size."""
        for pause_s in _PAUSES_S:
            try:
                return self._ask_once(position, count)
            except DownloadError as error:
                if error.permanent or isinstance(error.__cause__, NotReachedError):
                    raise
            time.sleep(pause_s)
        return self._ask_once(position, count)

    def _ask_once(self, position: int, count: int) -> tuple[bool, int]:
        from urllib3.exceptions import HTTPError

        from registry.trouble import out_of_reach

        try:
            asked = {**self._headers, "Range": f"bytes={position}-{position + count - 1}"}
            answer = self._transport.get(self.url, asked)
            try:
                return self._take(answer.response, position, count)
            finally:
                answer.response.close()
        except (HTTPError, NotReachedError) as error:
            raise out_of_reach(self.url, error, hint="check the network") from error

    def _take(self, response: BaseHTTPResponse, position: int, count: int) -> tuple[bool, int]:
        if response.status not in (200, 206):
            raise self._refused(response.status)
        told = whole_size(response.headers, position) if response.status == 206 else None
        has_ranges = told is not None
        size = response.headers.get("Content-Length", "") if told is None else told
        if not size.isdigit() or (position and not has_ranges):
            raise DownloadError(f"`{host_of(self.url)}` does not say how large `{self.url}` is", hint=_ELSEWHERE)
        if has_ranges:
            self._start, self._window = position, response.read(count)
        return has_ranges, int(size)


def refusal(status: int, url: str) -> DownloadError:
    """Return what an HTTP status says about a file at an address, and what to do about it."""
    host = host_of(url)
    if status in (404, 410):
        return NotOnHubError(f"`{host}` has no `{url}`", hint=_ELSEWHERE)
    if status in (401, 403):
        return GatedRepoError(f"`{host}` does not give `{url}` to everybody: HTTP {status}", hint=_ELSEWHERE)
    return DownloadError(f"`{host}` answered HTTP {status} for `{url}`", hint="try again later")
