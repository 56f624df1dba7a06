"""One request to an engine on a connection of its own, and its answer, handed over in the moment that it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Self, cast
from urllib.parse import urlsplit

from httptools import HttpParserError, HttpResponseParser

from engines.base import Address
from engines.connection import connection_error
from engines.generation import Post

HEAD = "%s %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"


class EngineAnswer(asyncio.Protocol):
    """An answer of `engine` to a request, the bytes of which are given; close it, which stops the engine's work.

    `on_heard` is called whenever something comes. What breaks the answer is raised as GenerationError.
    """

    def __init__(self, engine: str, request: bytes, on_heard: Callable[[], None]) -> None:
        self.status = 0
        self.content_type = ""
        self._engine = engine
        self._request = request
        self._on_heard = on_heard
        self._parser = HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._pieces: list[bytes] = []
        self._take: Callable[[bytes], bool] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._has_length = False
        self._is_whole = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def has_more(self) -> bool:
        """Return whether something has come that nobody has taken, or nothing more will."""
        return bool(self._pieces) or self._is_whole

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()

    async def begun(self) -> None:
        """Return when the status is known."""
        while not self.status:
            await self._change()

    async def hand_over(self, take: Callable[[bytes], bool]) -> bool:
        """Give what comes to `take`, at once and outside of any task, and return True at the answer's end.

        Where `take` has had enough for now and says False, so does this, and the engine waits until it is called again.
        What `take` raises is raised here.
        """
        self._take = take
        self._read_on()
        try:
            if not self._offer():
                return False
            while not self._is_whole:
                await self._change()
                if self._take is None:
                    return False
        finally:
            self._take = None
        return True

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield the body as it comes."""
        while True:
            if self._pieces:
                yield self._taken()
            elif self._is_whole:
                return
            else:
                await self._change()

    async def read(self) -> bytes:
        """Return the rest of the body."""
        return b"".join([piece async for piece in self.pieces()])

    async def _change(self) -> None:
        """Return when something has come, raise what broke the answer."""
        if self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._error is not None:
            raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _offer(self) -> bool:
        """Give what has come to whoever takes it; return False once they want no more for now."""
        if self._take is not None and self._pieces and not self._take(self._taken()):
            self._take = None
            if self._transport is not None:
                self._transport.pause_reading()
        return self._take is not None

    def _read_on(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    # --- what the event loop calls -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._on_heard()
        try:
            self._parser.feed_data(data)
            is_wanted = self._offer()
        except HttpParserError as error:
            self._error = connection_error(self._engine, error)
        except Exception as error:  # noqa: BLE001 - whatever `take` raises is for the one who waits
            self._error, self._take = error, None
        else:
            if is_wanted and not self._is_whole:
                return  # and nobody needs to wake
        self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_whole:
            if self.status and not self._has_length and error is None:
                self._is_whole = True
            elif self._error is None:
                broken = error or ConnectionResetError("the connection was closed before the answer's end")
                self._error = connection_error(self._engine, broken)
        self._transport = None
        del self._parser  # it knows us too, and would leave both to the garbage collector
        self._wake()

    # --- what the parser calls ---------------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        match name.lower():
            case b"content-type":
                self.content_type = value.decode("latin-1").partition(";")[0].strip()
            case b"content-length" | b"transfer-encoding":
                self._has_length = True

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self._is_whole = True


async def ask(engine: str, address: Address, post: Post, on_heard: Callable[[], None] = lambda: None) -> EngineAnswer:
    """Send a request and return the answer that has begun, whose body is to be read; raises GenerationError."""
    loop = asyncio.get_running_loop()
    make = lambda: EngineAnswer(engine, _written(address, post), on_heard)  # noqa: E731
    try:
        if address.socket is not None:
            _, answer = await loop.create_unix_connection(make, str(address.socket))
        else:
            parts = urlsplit(address.url)
            _, answer = await loop.create_connection(make, parts.hostname or "localhost", parts.port or 80)
    except OSError as error:
        raise connection_error(engine, error) from error
    try:
        await answer.begun()
    except BaseException:
        answer.close()
        raise
    return answer


def _written(address: Address, post: Post) -> bytes:
    method, body = ("GET", b"") if post.body is None else ("POST", post.body)
    return (HEAD % (method, post.path, urlsplit(address.url).netloc, len(body))).encode("latin-1") + body
