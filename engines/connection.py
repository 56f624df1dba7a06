"""One request on one connection to an engine, over its Unix socket or TCP, sync and async.

Never pooled: llama.cpp's server closes connections after a stream that it promised to keep (2026.10).
The sync side is `http.client`: the cheapest to import, and its deadline holds for the whole answer.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import socket
import time
import urllib.parse
from collections.abc import Iterator
from typing import TYPE_CHECKING

from engines.base import Address
from engines.generation import Post
from registry.errors import GenerationError

if TYPE_CHECKING:
    import aiohttp

HEADERS = {"Content-Type": "application/json", "Connection": "close"}
PIECE_BYTES = 65536


class Connection:
    """A request to `engine` and its answer, whose body `read` returns piece by piece.

    Errors of the network are GenerationError. `close` may come from any thread.
    """

    def __init__(self, engine: str, address: Address) -> None:
        self._engine = engine
        self._http = _UnixConnection(address.socket) if address.socket else _tcp_connection(address.url)
        self._socket: socket.socket | None = None
        self._response: http.client.HTTPResponse | None = None
        self._deadline: float | None = None
        self._timeout_s: float | None = None
        self._is_closed = False

    def send(self, post: Post) -> int:
        """Send the request and return the status of its answer."""
        self._timeout_s = post.timeout_s
        self._deadline = None if post.timeout_s is None else time.monotonic() + post.timeout_s
        with self._translated():
            self._http.timeout = post.timeout_s
            self._http.connect()
            self._socket = self._http.sock
            if self._is_closed:  # from another thread, before there was anything to hang up
                raise ConnectionAbortedError
            self._http.request("GET" if post.body is None else "POST", post.path, post.body, HEADERS)
            self._await_within_deadline()
            self._response = self._http.getresponse()
        return self._response.status

    def read(self) -> bytes:
        """Return the next piece of the body as it comes, empty at its end."""
        assert self._response is not None
        with self._translated():
            self._await_within_deadline()
            return self._response.read1(PIECE_BYTES)

    def read_all(self) -> bytes:
        """Return the rest of the body."""
        return b"".join(iter(self.read, b""))

    def close(self) -> None:
        """Hang up, which stops the engine's work on this request; a `read` under way in another thread ends."""
        self._is_closed = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
        if self._response is not None:
            self._response.close()
        self._http.close()

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        return _translated(self._engine, self._timeout_s, http.client.HTTPException)

    def _await_within_deadline(self) -> None:
        if self._deadline is None or self._socket is None:
            return
        remaining_s = self._deadline - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError
        self._socket.settimeout(remaining_s)


class AsyncConnection:
    """The same for asyncio; belongs to the event loop that it is used in."""

    def __init__(self, engine: str, address: Address) -> None:
        self._engine = engine
        self._address = address
        self._client: aiohttp.ClientSession | None = None
        self._response: aiohttp.ClientResponse | None = None
        self._timeout_s: float | None = None

    async def send(self, post: Post) -> int:
        """Send the request and return the status of its answer."""
        self._timeout_s = post.timeout_s
        self._client = open_client(self._address, post.timeout_s)
        with self._translated():
            method = "GET" if post.body is None else "POST"
            url = self._address.url + post.path
            self._response = await self._client.request(method, url, data=post.body, headers=HEADERS)
        return self._response.status

    async def read(self) -> bytes:
        """Return the next piece of the body as it comes, empty at its end."""
        assert self._response is not None
        with self._translated():
            return await self._response.content.readany()

    async def read_all(self) -> bytes:
        """Return the rest of the body."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def close(self) -> None:
        """Hang up, which stops the engine's work on this request."""
        if self._response is not None:
            self._response.close()
        if self._client is not None:
            await self._client.close()

    def _translated(self) -> contextlib.AbstractContextManager[None]:
        import aiohttp

        return _translated(self._engine, self._timeout_s, aiohttp.ClientError)


def open_client(address: Address, timeout_s: float | None = None) -> aiohttp.ClientSession:
    """Return an aiohttp client to the engine that makes a connection for each request; call it in an event loop."""
    import aiohttp

    connector: aiohttp.BaseConnector
    if address.socket is not None:
        connector = aiohttp.UnixConnector(str(address.socket), force_close=True, limit=0)
    else:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=timeout_s), trust_env=False)


def connection_error(engine: str, error: Exception) -> GenerationError:
    """Return our error for one of the network that a request to `engine` met."""
    if getattr(error, "errno", None) in (errno.ENOENT, errno.ECONNREFUSED):
        return GenerationError(f"`{engine}` is not running", hint="its log says why")
    return GenerationError(f"`{engine}` ended while it answered", hint="its log says why", details=[repr(error)])


@contextlib.contextmanager
def _translated(engine: str, timeout_s: float | None, broken: type[Exception]) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise GenerationError(f"`{engine}` did not finish within {timeout_s:g} s") from error
    except (OSError, broken) as error:
        raise connection_error(engine, error) from error


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: object) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _tcp_connection(url: str) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(url)
    return http.client.HTTPConnection(parts.hostname or "localhost", parts.port)
