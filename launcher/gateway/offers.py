"""What the endpoint answers for: models by name, each with a line of requests that wait for its engine and a slot."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Literal

from engines.generation import Target
from launcher.gateway.records import Record
from launcher.gateway.upstream import Served, Upstream
from registry.errors import BusyError, EngineEndedError, LaunchError, UnavailableError, UnknownModelError

State = Literal["unloaded", "loading", "ready", "unloading", "failed"]
OnWait = Callable[[str], Awaitable[None]]

# So many wait for each slot before one is turned away: at half a minute an answer the last of them has its own after
# eight, and OpenAI's and Anthropic's clients give up after ten.
WAITING_PER_SLOT = 16
LONGEST_RETRY_S = 60
# How much the newest answer counts in the mean of how long they take.
NEWEST = 0.2
# Who waits for an engine is told so often how far that is.
TOLD_EVERY_S = 1.0
# An engine's end shows a moment after its connections broke, because what it started is ended first.
EXPLAINED_WITHIN_S = 8.0


async def in_silence(progress: str) -> None:
    """Tell nobody."""


class Offer:
    """A model by its names, of which the first is listed, whether or not its engine runs.

    Whoever runs the engine opens the offer with it, withdraws it and lets it fail, all in one event loop; requests
    wait for the engine, then for one of `slots`. `max_queue` of them may wait, by default `WAITING_PER_SLOT` for each
    slot. `is_required`: the endpoint is not ready without it. `is_watched`: somebody finds
    out why an engine ended. `target` is what requests are read for, as planned until
    the engine runs; `progress` says how far that is.
    """

    def __init__(
        self,
        names: Sequence[str],
        target: Target,
        slots: int,
        *,
        max_queue: int | None = None,
        version: str = "",
        is_required: bool = True,
        is_watched: bool = False,
        on_wanted: Callable[[], None] = lambda: None,
    ) -> None:
        self.names = tuple(names)
        self.target = target
        self.slots = slots
        self.max_queue = max_queue
        self.version = version
        self.is_required = is_required
        self.is_watched = is_watched
        self.on_wanted = on_wanted
        self.state: State = "unloaded"
        self.progress = ""
        self.upstream: Upstream | None = None
        self.error: LaunchError | None = None
        self.running = 0
        self.waiting = 0
        self.idle_since = time.monotonic()
        self._users = 0
        self._refused_until = -math.inf
        self._free = asyncio.Semaphore(slots)
        self._changed = asyncio.Event()
        self._mean_s = 0.0

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def is_idle(self) -> bool:
        """Whether no request is in line or at the engine."""
        return not (self._users or self.waiting)

    @property
    def is_wanted(self) -> bool:
        """Whether a request waits for the engine."""
        return self.upstream is None and self.waiting > 0

    @property
    def refused_for_s(self) -> float:
        """How long requests are still refused, 0 where they may wait."""
        return max(0.0, self._refused_until - time.monotonic())

    # --- for whoever runs the engine ---------------------------------------------------------------------------------

    def load(self, progress: str) -> None:
        """Say that the engine is on its way; requests wait."""
        self.state, self.progress = "loading", progress

    def open(self, served: Served) -> Upstream:
        """Let requests through to a running engine."""
        if served.slots != self.slots:
            self.slots, self._free = served.slots, asyncio.Semaphore(served.slots)
        self.target, self.version = served.target, served.version
        self.upstream = Upstream(served, is_watched=self.is_watched)
        self.state, self.progress, self.error = "ready", "", None
        self.idle_since = time.monotonic()
        self._tell()
        return self.upstream

    def lose(self, upstream: Upstream, cause: LaunchError) -> None:
        """Let no request through, since the engine has ended; those that are at it are told why."""
        self.upstream = None
        self.state, self.error = "loading", cause
        upstream.end(cause)

    async def withdraw(self) -> None:
        """Let no request through any more, and return when those that are at the engine have their answers."""
        self.upstream, self.state = None, "unloading"
        await self._until(lambda: not self._users)

    def unload(self) -> None:
        """Say that no engine runs; the next request wants one."""
        self.state = "unloaded"

    def fail(self, error: LaunchError, refused_for_s: float) -> None:
        """Refuse requests for so long, those that wait among them."""
        self.state, self.error = "failed", error
        self._refused_until = time.monotonic() + refused_for_s
        self._tell()

    # --- for requests ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def turn(self, record: Record, on_wait: OnWait = in_silence) -> AsyncIterator[Upstream]:
        """Wait for the engine and a slot, and hold both inside the block; `on_wait` hears how far the engine is.

        Raises BusyError where too many wait already, UnavailableError where the engine cannot be had, and for an
        engine that ended inside the block EngineEndedError with its cause.
        """
        self._check_room()
        with self._in_line():
            upstream, free = await self._reach(on_wait)
        self.running += 1
        record.queued_s = begun_s = record.age_s()
        try:
            with self._at_engine():
                yield upstream
        except EngineEndedError as error:
            raise await _explained(upstream, error) from None
        finally:
            self.running -= 1
            free.release()
            self._mean_s += NEWEST * (record.age_s() - begun_s - self._mean_s)

    @contextlib.asynccontextmanager
    async def use(self, on_wait: OnWait = in_silence) -> AsyncIterator[Upstream]:
        """Wait for the engine, and keep it inside the block for questions that need no slot; raises as `turn`."""
        self._check_room()
        with self._in_line():
            upstream = await self._engine(on_wait)
        try:
            with self._at_engine():
                yield upstream
        except EngineEndedError as error:
            raise await _explained(upstream, error) from None

    def _check_room(self) -> None:
        most = self.slots + (WAITING_PER_SLOT * self.slots if self.max_queue is None else self.max_queue)
        if self.running + self.waiting >= most:
            message = f"`{self.name}` answers {self.running:,} requests and {self.waiting:,} wait: no more may"
            after_s = min(LONGEST_RETRY_S, max(1, math.ceil(self._mean_s)))
            raise BusyError(message, retry_after_s=after_s, hint="`--max-queue` sets how many may wait")

    async def _reach(self, on_wait: OnWait) -> tuple[Upstream, asyncio.Semaphore]:
        """Return the engine, with one of its slots taken."""
        while True:
            upstream, free = await self._engine(on_wait), self._free
            await free.acquire()
            if upstream is self.upstream:
                return upstream, free
            free.release()  # there is another engine now, or none

    async def _engine(self, on_wait: OnWait) -> Upstream:
        while self.upstream is None:
            if self.error is not None and (after_s := self.refused_for_s):
                raise _unavailable(self.name, self.error, after_s)
            self.on_wanted()
            if not await self._change_within(TOLD_EVERY_S):
                await on_wait(self.progress)
        return self.upstream

    @contextlib.contextmanager
    def _in_line(self) -> Iterator[None]:
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
            self._note_idle()

    @contextlib.contextmanager
    def _at_engine(self) -> Iterator[None]:
        self._users += 1
        try:
            yield
        finally:
            self._users -= 1
            self._note_idle()

    def _note_idle(self) -> None:
        self.idle_since = time.monotonic()
        if not self._users:
            self._tell()

    def _tell(self) -> None:
        """Wake all who wait for a change."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def _change_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            await self._changed.wait()


class Offers:
    """All that an endpoint answers for, by any name, without regard to case; the first that has it is meant."""

    def __init__(self, offers: Iterable[Offer] = ()) -> None:
        self._all: tuple[Offer, ...] = ()
        self._by_name: dict[str, Offer] = {}
        self.replace(offers)

    def __iter__(self) -> Iterator[Offer]:
        return iter(self._all)

    def replace(self, offers: Iterable[Offer]) -> None:
        """Answer for these from now on."""
        self._all = tuple(offers)
        self._by_name = {name.casefold(): each for each in reversed(self._all) for name in each.names}

    def find(self, name: object) -> Offer:
        """Return the offer of a name; where there is one only, None means that one. Raises UnknownModelError."""
        if name is None and len(self._all) == 1:
            return self._all[0]
        found = self._by_name.get(str(name).casefold())
        if found is None:
            known = [each.name for each in self._all]
            listed = ", ".join(f"`{each}`" for each in known) or "none"
            message = f"There is no model `{name}` here; served: {listed}"
            raise UnknownModelError(message, name=str(name), suggestions=known)
        return found


def offer_of(served: Served) -> Offer:
    """Return the offer of an engine that runs, and is nobody's to start again here."""
    return Offer(served.names, served.target, served.slots, max_queue=served.max_queue, version=served.version)


def _unavailable(name: str, error: LaunchError, after_s: float) -> UnavailableError:
    message = f"`{name}` cannot be had for now: {error.message}"
    return UnavailableError(message, retry_after_s=math.ceil(after_s), hint=error.hint, details=error.details)


async def _explained(upstream: Upstream, error: EngineEndedError) -> EngineEndedError:
    """Return the error with why the engine ended, where somebody finds that out."""
    cause = await upstream.why_ended(EXPLAINED_WITHIN_S)
    if cause is None:
        return error
    return EngineEndedError(f"{cause.message} while it answered", hint="ask again", details=cause.details)
