"""One request on one connection to an engine, or to an endpoint elsewhere: over a Unix socket, TCP or TLS; sync, async.

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
from typing import TYPE_CHECKING, TypeVar

from engines.base import Address
from engines.endpoint import AT_THE_DOOR, NOTES, NOTES_APART, turned_away, unreachable
from engines.exchanges import Exchange
from engines.generation import Post
from registry.errors import AccessError, BusyError, EndpointError, EngineEndedError, GenerationError

if TYPE_CHECKING:
    import ssl

    import aiohttp

T = TypeVar("T")

HEADERS = {"Content-Type": "application/json", "Connection": "close"}
PIECE_BYTES = 65536
# An engine is on this machine; a host elsewhere may never say anything.
CONNECT_WITHIN_S = 10.0


class Connection:
    """A request to `engine` and its answer, whose body `read` returns piece by piece.

    Errors of the network are GenerationError; endpoints that cannot be reached, or turn us away, are EndpointError,
    BusyError or AccessError. `close` may come from any thread.
    """

    def __init__(self, engine: str, address: Address) -> None:
        self._engine = engine
        self._address = address
        self._http = _UnixConnection(address.socket) if address.socket else _tcp_connection(address)
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
            self._connect()
            if self._is_closed:  # from another thread, before there was anything to hang up
                raise ConnectionAbortedError
            path = urllib.parse.urlsplit(self._address.url).path + post.path
            self._http.request("GET" if post.body is None else "POST", path, post.body, headers_for(self._address))
            self._await_within_deadline()
            self._response = self._http.getresponse()
        if self._address.is_endpoint and self._response.status in AT_THE_DOOR:
            raise _turned_away(self._address, self._response, self.read_all())
        return self._response.status

    def _connect(self) -> None:
        if not self._address.is_endpoint:
            self._http.timeout = self._timeout_s
            self._http.connect()
            self._socket = self._http.sock
            return
        self._http.timeout = min(CONNECT_WITHIN_S, self._timeout_s or CONNECT_WITHIN_S)
        try:
            self._http.connect()
        except OSError as error:
            raise unreachable(self._address, error) from error
        self._socket = self._http.sock
        self._socket.settimeout(self._timeout_s)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the endpoint says that it did otherwise than asked, once the request was sent."""
        return _notes_in(self._response)

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
        return _translated(self._engine, self._timeout_s, http.client.HTTPException, self._address.is_endpoint)

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
            self._response = await self._request(self._client, method, url, post.body)
        if self._address.is_endpoint and self._response.status in AT_THE_DOOR:
            raise _turned_away(self._address, self._response, await self.read_all())
        return self._response.status

    async def _request(
        self, client: aiohttp.ClientSession, method: str, url: str, body: bytes | None
    ) -> aiohttp.ClientResponse:
        import aiohttp

        try:
            return await client.request(
                method, url, data=body, headers=headers_for(self._address), allow_redirects=False
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            if self._address.is_endpoint:
                raise unreachable(self._address, error) from error
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """What the endpoint says that it did otherwise than asked, once the request was sent."""
        return _notes_in(self._response)

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

        return _translated(self._engine, self._timeout_s, aiohttp.ClientError, self._address.is_endpoint)


def open_client(address: Address, timeout_s: float | None = None) -> aiohttp.ClientSession:
    """Return an aiohttp client to the address that makes a connection for each request; call it in an event loop."""
    import aiohttp

    connector: aiohttp.BaseConnector
    if address.socket is not None:
        connector = aiohttp.UnixConnector(str(address.socket), force_close=True, limit=0)
    else:
        connector = aiohttp.TCPConnector(force_close=True, limit=0, ssl=_tls_for(address) or True)
    timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=CONNECT_WITHIN_S if address.is_endpoint else None)
    return aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=False)


def _turned_away(
    address: Address, response: http.client.HTTPResponse | aiohttp.ClientResponse, body: bytes
) -> AccessError | BusyError | EndpointError:
    retry_after, location = response.headers.get("Retry-After"), response.headers.get("Location")
    return turned_away(address, response.status, body, retry_after=retry_after, location=location)


def _notes_in(response: http.client.HTTPResponse | aiohttp.ClientResponse | None) -> tuple[str, ...]:
    said = response.headers.get(NOTES) if response is not None else None
    return tuple(said.split(NOTES_APART)) if said else ()


def headers_for(address: Address) -> dict[str, str]:
    """Return the headers of a request, with the key that the address wants to see."""
    return HEADERS if address.key is None else {**HEADERS, "Authorization": f"Bearer {address.key}"}


def run(engine: str, address: Address, exchange: Exchange[T]) -> T:
    """Send what an exchange asks, until it has its result."""
    try:
        post = next(exchange)
        while True:
            with contextlib.closing(Connection(engine, address)) as connection:
                answer = connection.send(post), connection.read_all()
            post = exchange.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


async def run_async(engine: str, address: Address, exchange: Exchange[T]) -> T:
    """Send what an exchange asks, until it has its result."""
    try:
        post = next(exchange)
        while True:
            connection = AsyncConnection(engine, address)
            try:
                answer = await connection.send(post), await connection.read_all()
            finally:
                await connection.close()
            post = exchange.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


def connection_error(engine: str, error: Exception, *, is_endpoint: bool = False) -> GenerationError:
    """Return our error for one of the network that a request to `engine` met."""
    if is_endpoint:
        return GenerationError(f"`{engine}` broke off while it answered", details=[repr(error)])
    if getattr(error, "errno", None) in (errno.ENOENT, errno.ECONNREFUSED):
        return EngineEndedError(f"`{engine}` is not running", hint="its log says why")
    return EngineEndedError(f"`{engine}` ended while it answered", hint="its log says why", details=[repr(error)])


@contextlib.contextmanager
def _translated(engine: str, timeout_s: float | None, broken: type[Exception], is_endpoint: bool) -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise GenerationError(f"`{engine}` did not finish within {timeout_s:g} s") from error
    except (OSError, broken) as error:
        raise connection_error(engine, error, is_endpoint=is_endpoint) from error


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: object) -> None:
        super().__init__("localhost")
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _tcp_connection(address: Address) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(address.url)
    host, context = parts.hostname or "localhost", _tls_for(address)
    if context is None:
        return http.client.HTTPConnection(host, parts.port)
    return http.client.HTTPSConnection(host, parts.port, context=context)


def _tls_for(address: Address) -> ssl.SSLContext | None:
    """Return what the server's certificate is checked against, None where there is none to be."""
    if not address.url.startswith("https://"):
        return None
    from registry.transport import tls_context

    return tls_context()
