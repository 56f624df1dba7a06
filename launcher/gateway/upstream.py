"""One engine as the endpoint sees it: how many requests it takes at once, and how it is asked."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from engines.base import METRICS, Address
from engines.connection import HEADERS, connection_error, open_client
from engines.exchanges import Exchange, count_text, read_template
from engines.generation import Draft, Post, Reply, Target, Template
from engines.requests import fitted
from launcher.control import ModelStatus
from launcher.gateway.metrics import EngineState
from launcher.gateway.records import Record
from registry.errors import BusyError, GenerationError

T = TypeVar("T")

HEALTH_TIMEOUT_S = 5.0
# So many wait for each slot before one is turned away: at half a minute an answer the last of them has its own after
# eight, and OpenAI's and Anthropic's clients give up after ten.
WAITING_PER_SLOT = 16
LONGEST_RETRY_S = 60
# How much the newest answer counts in the mean of how long they take.
NEWEST = 0.2


@dataclass(frozen=True, slots=True)
class Served:
    """A running engine behind the endpoint; `names`, of which the first is listed, are what `model` may say.

    It answers `slots` requests at once; `max_queue` more may wait, by default `WAITING_PER_SLOT` for each slot. `pid`
    is the process whose descendants the engine is, `version` the engine's, `status` what `launch ps` shows of it.
    """

    names: tuple[str, ...]
    address: Address
    target: Target
    slots: int
    max_queue: int | None = None
    version: str = ""
    pid: int | None = None
    status: ModelStatus | None = None


class Upstream:
    """Requests to one engine; `open` and `close` in the event loop that they are made in."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.name = served.names[0]
        self.engine = served.target.engine
        self.running = 0
        self.waiting = 0
        self._slots = asyncio.Semaphore(served.slots)
        self._most = served.slots + (WAITING_PER_SLOT * served.slots if served.max_queue is None else served.max_queue)
        self._mean_s = 0.0
        self._client: aiohttp.ClientSession | None = None
        self.template: Template | None = None

    def open(self) -> None:
        self._client = open_client(self.served.address)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    @contextlib.asynccontextmanager
    async def turn(self, record: Record) -> AsyncIterator[None]:
        """Wait for a slot and hold it inside the block; raises BusyError where too many wait already."""
        if self.running + self.waiting >= self._most:
            raise self._busy()
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        record.queued_s = begun_s = record.age_s()
        try:
            yield
        finally:
            self.running -= 1
            self._slots.release()
            self._mean_s += NEWEST * (record.age_s() - begun_s - self._mean_s)

    def _busy(self) -> BusyError:
        message = f"`{self.name}` answers {self.running:,} requests and {self.waiting:,} wait: no more may"
        after_s = min(LONGEST_RETRY_S, max(1, math.ceil(self._mean_s)))
        return BusyError(message, retry_after_s=after_s, hint="`--max-queue` sets how many may wait")

    async def send(self, post: Post) -> aiohttp.ClientResponse:
        """Return the engine's response, whose body is to be read; raises GenerationError."""
        assert self._client is not None
        method, url = "GET" if post.body is None else "POST", self.served.address.url + post.path
        try:
            return await self._client.request(method, url, data=post.body, headers=HEADERS)
        except (OSError, aiohttp.ClientError) as error:
            raise connection_error(self.engine, error) from error

    async def pieces(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """Yield the engine's answer as it comes; what breaks it is GenerationError."""
        try:
            async for piece in response.content.iter_any():
                yield piece
        except (OSError, aiohttp.ClientError) as error:
            raise connection_error(self.engine, error) from error

    async def read(self, response: aiohttp.ClientResponse) -> bytes:
        """Return the rest of an answer; raises GenerationError."""
        return b"".join([piece async for piece in self.pieces(response)])

    async def run(self, exchange: Exchange[T]) -> T:
        """Send what an exchange asks of the engine, until it has its result."""
        try:
            post = next(exchange)
            while True:
                async with await self.send(post) as answer:
                    body = await self.read(answer)
                post = exchange.send((answer.status, body))
        except StopIteration as done:
            result: T = done.value
            return result

    async def fit(self, draft: Draft) -> Draft:
        """Return the request as the model's template understands it, which is asked once."""
        if not draft.depends_on_template:
            return draft
        if self.template is None:
            self.template = await self.run(read_template(self.served.target))
        return fitted(self.served.target, draft, self.template)

    async def count_reasoning(self, reply: Reply[None]) -> Reply[None]:
        """Return the reply with its reasoning counted, where the engine did not."""
        if reply.reasoning is None or reply.usage.reasoning_tokens:
            return reply
        return reply.with_reasoning_tokens(await self.run(count_text(self.served.target, reply.reasoning)))

    async def is_healthy(self) -> bool:
        return await self._read_soon("/health") is not None

    async def state(self) -> EngineState:
        """Return what the metrics say of the engine at this moment."""
        has_metrics = METRICS in self.served.target.wire.routes
        said = await self._read_soon(METRICS if has_metrics else "/health")
        text = "" if said is None or not has_metrics else said.decode(errors="replace")
        return EngineState(self.name, said is not None, self.running, self.waiting, self.served.pid, text)

    async def _read_soon(self, path: str) -> bytes | None:
        """Return what the engine answers to a short question, None for anything but 200 in time."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S), await self.send(Post(path, None)) as answer:
                body = await self.read(answer)
        except (TimeoutError, GenerationError):
            return None
        return body if answer.status == 200 else None
