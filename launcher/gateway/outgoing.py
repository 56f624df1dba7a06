"""A streamed answer on its way to a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Protocol

from aiohttp import web

from launcher.gateway.records import RECORD
from launcher.gateway.refusals import error_event
from registry.errors import LaunchError

EVENT_STREAM = "text/event-stream"
# nginx would gather a stream into large pieces without the second one.
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


class Passing(Protocol):
    def feed(self, piece: bytes) -> bytes: ...
    def rest(self) -> bytes: ...


class OutgoingStream:
    """The answer to one request, which begins with the first thing that there is to say."""

    def __init__(self, request: web.Request, event_of: Callable[[LaunchError, str], bytes] = error_event) -> None:
        self._request = request
        self._record = request[RECORD]
        self._event_of = event_of
        self._response: web.StreamResponse | None = None

    async def comment(self, text: str) -> None:
        """Tell whoever waits how far it is, as a comment, which clients of event streams pass over."""
        response = await self._begun(EVENT_STREAM, {})
        await response.write(b": " + " ".join(text.split()).encode() + b"\n\n")

    async def pass_on(
        self,
        passing: Passing,
        pieces: AsyncIterator[bytes],
        headers: Mapping[str, str] = {},
        content_type: str = EVENT_STREAM,
    ) -> web.StreamResponse:
        """Send the engine's answer on as it comes, and return it whole; headers come too late after a comment."""
        response = await self._begun(content_type, headers)
        async for piece in pieces:
            if ready := passing.feed(piece):
                await response.write(ready)
        if rest := passing.rest():
            await response.write(rest)
        await response.write_eof()
        return response

    async def fail(self, error: LaunchError) -> web.StreamResponse:
        """End what has begun with an event that says what broke it; raise the error where nothing has."""
        if self._response is None:
            raise error
        self._record.error = error.kind
        await self._response.write(self._event_of(error, self._record.id))
        await self._response.write_eof()
        return self._response

    async def _begun(self, content_type: str, headers: Mapping[str, str]) -> web.StreamResponse:
        if self._response is None:
            self._response = web.StreamResponse(headers={"Content-Type": content_type, **STREAM_HEADERS, **headers})
            await self._response.prepare(self._request)
            self._record.is_answering = True
        return self._response
