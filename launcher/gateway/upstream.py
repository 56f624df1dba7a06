"""One engine as the endpoint sees it: how many requests it takes at once, and how it is asked."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TypeVar

from engines.base import METRICS, Address
from engines.exchanges import Exchange, count_text, read_template
from engines.generation import Draft, Post, Reply, Target, Template
from engines.requests import fitted
from launcher.control import ModelStatus
from launcher.gateway.engine_answer import EngineAnswer, ask
from registry.errors import GenerationError, LaunchError

T = TypeVar("T")

HEALTH_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Served:
    """A running engine behind the endpoint; `names`, of which the first is listed, are what `model` may say.

    It answers `slots` requests at once; `max_queue` more may wait. `pid` is the process whose descendants the engine
    is, `version` the engine's, `status` what `launch ps` shows of it.
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
    """Requests to one engine, to be made in the event loop that they are sent in.

    If it `is_watched`, somebody will `end` it with the cause once the engine has ended. `heard_at` is when it last gave
    a sign of life, by `time.monotonic`.
    """

    def __init__(self, served: Served, *, is_watched: bool = False) -> None:
        self.served = served
        self.name = served.names[0]
        self.target = served.target
        self.engine = served.target.engine
        self.template: Template | None = None
        self.heard_at = time.monotonic()
        self._cause: asyncio.Future[LaunchError] | None = None
        if is_watched:
            self._cause = asyncio.get_running_loop().create_future()

    def _note_life(self) -> None:
        self.heard_at = time.monotonic()

    def end(self, cause: LaunchError) -> None:
        """Say why the engine ended."""
        if self._cause is not None and not self._cause.done():
            self._cause.set_result(cause)

    async def why_ended(self, within_s: float) -> LaunchError | None:
        """Return why the engine ended, None where nobody says so in time."""
        if self._cause is None:
            return None
        await asyncio.wait((self._cause,), timeout=within_s)
        return self._cause.result() if self._cause.done() else None

    async def send(self, post: Post) -> EngineAnswer:
        """Return the engine's answer, whose body is to be read; raises GenerationError."""
        return await ask(self.engine, self.served.address, post, on_heard=self._note_life)

    async def run(self, exchange: Exchange[T]) -> T:
        """Send what an exchange asks of the engine, until it has its result."""
        try:
            post = next(exchange)
            while True:
                with await self.send(post) as answer:
                    body = await answer.read()
                post = exchange.send((answer.status, body))
        except StopIteration as done:
            result: T = done.value
            return result

    async def fit(self, draft: Draft) -> Draft:
        """Return the request as the model's template understands it, which is asked once."""
        if not draft.depends_on_template:
            return draft
        if self.template is None:
            self.template = await self.run(read_template(self.target))
        return fitted(self.target, draft, self.template)

    async def count_reasoning(self, reply: Reply[None]) -> Reply[None]:
        """Return the reply with its reasoning counted, where the engine did not."""
        if reply.reasoning is None or reply.usage.reasoning_tokens:
            return reply
        return reply.with_reasoning_tokens(await self.run(count_text(self.target, reply.reasoning)))

    async def is_healthy(self) -> bool:
        """Return whether the engine says so within a few seconds."""
        return await self._read_soon("/health") is not None

    async def metrics(self) -> str | None:
        """Return what the engine says of itself in Prometheus' text form, "" where it has none, None if it is ill."""
        has_metrics = METRICS in self.target.wire.routes
        said = await self._read_soon(METRICS if has_metrics else "/health")
        if said is None:
            return None
        return said.decode(errors="replace") if has_metrics else ""

    async def _read_soon(self, path: str) -> bytes | None:
        """Return what the engine answers to a short question, None for anything but 200 in time."""
        try:
            async with asyncio.timeout(HEALTH_TIMEOUT_S):
                with await self.send(Post(path, None)) as answer:
                    body = await answer.read()
        except (TimeoutError, GenerationError):
            return None
        return body if answer.status == 200 else None
