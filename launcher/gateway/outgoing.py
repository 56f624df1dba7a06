"""A streamed answer on its way to a client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Protocol, cast

from aiohttp import web
from aiohttp.http import StreamWriter

from launcher.gateway.engine_answer import EngineAnswer
from launcher.gateway.records import RECORD
from launcher.gateway.refusals import error_event
from registry.errors import LaunchError

EVENT_STREAM = "text/event-stream"
# nginx would gather a stream into large pieces without the second one.
STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}

# Pieces that follow each other faster go on together: a stream of 1,000 events a second is nobody's to read along.
GATHER_S = 0.001


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
        answer: EngineAnswer,
        headers: Mapping[str, str] = {},
        content_type: str = EVENT_STREAM,
    ) -> web.StreamResponse:
        """Send the engine's answer on as it comes, and return it whole; headers come too late after a comment."""
        response = await self._begun(content_type, headers)
        if not answer.has_more:
            await asyncio.sleep(0)  # most engines' first event is just behind their headers, and goes with ours
        passer = _Passer(self._request, passing)
        if not answer.has_more:
            passer.send_headers()
        while not await answer.hand_over(passer.take):
            await passer.gather()
        await response.write_eof(passing.rest())
        return response

    async def send(self, events: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
        """Send events that are known, and return the answer."""
        response = await self._begun(EVENT_STREAM, headers)
        await response.write_eof(events)
        return response

    async def fail(self, error: LaunchError) -> web.StreamResponse:
        """End what has begun with an event that says what broke it; raise the error where nothing has."""
        if self._response is None:
            raise error
        self._record.error = error.kind
        await self._response.write_eof(self._event_of(error, self._record.id))
        return self._response

    async def _begun(self, content_type: str, headers: Mapping[str, str]) -> web.StreamResponse:
        if self._response is None:
            self._response = _Response(headers={"Content-Type": content_type, **STREAM_HEADERS, **headers})
            await self._response.prepare(self._request)
            self._record.is_answering = True
        return self._response


class _Response(web.StreamResponse):
    _send_headers_immediately = False  # but with the first piece, as aiohttp sends those of answers that are no stream


class _Passer:
    """Writes pieces in the moment that they come, without a turn of the event loop, which costs as much as all else."""

    def __init__(self, request: web.Request, passing: Passing) -> None:
        self._connection = request.protocol
        self._writer = cast(StreamWriter, request.writer)
        self._passing = passing
        self._wrote_at = 0.0

    def take(self, piece: bytes) -> bool:
        """Write a piece; return False where more should be gathered first."""
        if ready := self._passing.feed(piece):
            self._write(ready)
        before, self._wrote_at = self._wrote_at, time.monotonic()
        return self._wrote_at - before > GATHER_S and not self._connection.writing_paused

    def send_headers(self) -> None:
        self._writer.send_headers()

    async def gather(self) -> None:
        """Return when it is time to write again: after a moment, and not before the client has read enough."""
        await self._writer.drain()
        await asyncio.sleep(GATHER_S)

    def _write(self, data: bytes) -> None:
        try:
            self._writer.write(data, drain=False).send(None)  # which waits for nothing
        except StopIteration:
            return
