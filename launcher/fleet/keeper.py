"""Sees to one model of an endpoint: loads it when it is wanted, watches its engine, starts it again, unloads it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple, Protocol

from launcher import describe, instances
from launcher.care import Care
from launcher.fleet.loading import Loading
from launcher.gateway.metrics import Metrics
from launcher.gateway.offers import Offer
from launcher.gateway.upstream import Upstream
from launcher.instance import Instance
from launcher.plans import Plan
from launcher.serve_file import ServedModel
from launcher.served import known_names, served_by
from launcher.targets import target_of
from registry.errors import LaunchError, LoadError

LOGGER = logging.getLogger(__name__)
Reason = Literal["idle", "memory", "reload", "asked"]

WATCH_EVERY_S = 0.5
HEALTH_EVERY_S = 10.0
TOLD_EVERY_S = 10.0
# An engine that has run for so long has not crashed in a row with what it did before.
STABLE_AFTER_S = 600.0
FIRST_COOL_DOWN_S, LONGEST_COOL_DOWN_S = 10.0, 300.0
WHY: Mapping[Reason, str] = {
    "idle": "nobody has asked for it",
    "memory": "another model needs its memory",
    "reload": "the file has changed",
    "asked": "as was asked",
}


class Event(NamedTuple):
    """What became of a model, for people and for programs."""

    kind: str
    text: str
    facts: Mapping[str, Any]
    error: LaunchError | None = None


class Memory(Protocol):
    """Who has how much memory: makes room before a model is loaded."""

    async def make_room(self, keeper: Keeper) -> None: ...
    def give_back(self, keeper: Keeper) -> None: ...


class Keeper:
    """The life of one model, which `run` is: all in one event loop, engines are started and stopped in threads.

    `adopt` gives it an engine that runs already.
    """

    def __init__(
        self,
        model: ServedModel,
        plan: Plan,
        memory: Memory,
        care: Care,
        metrics: Metrics,
        tell: Callable[[Event], None],
    ) -> None:
        self.model = model
        self.plan = named(plan, model.name)
        self.instance: Instance | None = None
        self._memory = memory
        self._care = care
        self._metrics = metrics
        self._tell = tell
        self._wake = asyncio.Event()
        self._left = asyncio.Event()
        self._leaving: Reason | None = None
        self._is_due = model.load == "start"
        self._is_retired = False
        self._not_before = self._ready_since = 0.0
        self._crashes = self._failures = 0
        self.offer = Offer(
            names_of(model, plan),
            target_of(self.plan),
            plan.concurrency,
            max_queue=model.max_queue,
            version=plan.environment.version,
            is_required=model.load == "start",
            is_watched=True,
            on_wanted=self._wake.set,
        )

    @property
    def can_give_way(self) -> bool:
        """Whether it is loaded and may be unloaded for another's sake."""
        return self.offer.state == "ready" and not self.model.is_pinned and self._leaving is None

    def adopt(self, instance: Instance, took_s: float) -> None:
        """Keep an engine that was started for this model, and was ready after so long."""
        self.instance = instance
        self._is_due = False
        self._metrics.count_load(self.offer.name, took_s)

    def change(self, model: ServedModel) -> None:
        """Go on with the same engine under other conditions."""
        self._is_due = self._is_due or (self.instance is None and (self.model.load, model.load) == ("demand", "start"))
        self.model = model
        self.offer.names = names_of(model, self.plan)
        self.offer.max_queue, self.offer.is_required = model.max_queue, model.load == "start"
        self._wake.set()

    def retire(self) -> None:
        """Answer those who are in line, then end."""
        self._is_retired = True
        self._wake.set()

    async def leave(self, reason: Reason) -> bool:
        """Unload the model once the requests at its engine have their answers; return whether it was loaded."""
        if self.offer.state not in ("ready", "unloading"):
            return False
        self._leaving = self._leaving or reason
        self._wake.set()
        await self._left.wait()
        return True

    async def run(self) -> None:
        """Load, watch and unload, until it has retired; whatever runs then, or when this is cancelled, is stopped."""
        while await self._is_wanted():
            instance = await self._have_loaded()
            if instance is None:
                continue
            end: Reason | LoadError | None = None
            try:
                end = await self._watch(instance)
            finally:
                await asyncio.shield(self._stop(instance, end))
            self._note(end)

    # --- until it is wanted ------------------------------------------------------------------------------------------

    async def _is_wanted(self) -> bool:
        """Return True when it is to be loaded, False when it has retired and nobody is in line."""
        while True:
            if self._is_retired and self.offer.is_idle:
                return False
            pause_s = max(self._not_before - time.monotonic(), self.offer.refused_for_s)
            if pause_s <= 0 and (self.instance is not None or self._is_due or self.offer.is_wanted):
                return True
            await self._woken(pause_s if pause_s > 0 else None)

    async def _woken(self, within_s: float | None) -> None:
        """Return when something may have changed, at the latest after so long."""
        try:
            async with asyncio.timeout(within_s):
                await self._wake.wait()
        except TimeoutError:
            pass
        self._wake.clear()

    # --- loading -----------------------------------------------------------------------------------------------------

    async def _have_loaded(self) -> Instance | None:
        """Return the engine, ready; None where it cannot be had, which the offer says then."""
        if self.instance is not None:
            return self.instance
        self._is_due = False
        began = time.monotonic()
        try:
            self.offer.load(f"{self.offer.name}: waiting for memory")
            await self._memory.make_room(self)
            self._say("loading", f"loading {describe.headline(self.plan)}")
            async with self._told():
                self.instance = await Loading(self.plan, self._on_progress).instance()
        except LaunchError as error:
            self._memory.give_back(self)
            self._take_failure(error)
            return None
        except Exception as error:
            LOGGER.exception("loading %s", self.offer.name)
            self._memory.give_back(self)
            self._take_failure(LaunchError(f"`{self.offer.name}` broke while it was loaded: {error!r}"))
            return None
        took_s = time.monotonic() - began
        self._metrics.count_load(self.offer.name, took_s)
        self._failures = self._failures if self._crashes else 0
        self._say("loaded", f"ready in {took_s:.1f} s", took_s=round(took_s, 3))
        return self.instance

    def _on_progress(self, text: str) -> None:
        self.offer.progress = f"{self.offer.name}: {text}"

    @contextlib.asynccontextmanager
    async def _told(self) -> AsyncIterator[None]:
        """Tell now and then inside the block how far it is."""

        async def tell() -> None:
            while True:
                await asyncio.sleep(TOLD_EVERY_S)
                self._tell(
                    Event("progress", self.offer.progress, {"name": self.offer.name, "text": self.offer.progress})
                )

        telling = asyncio.ensure_future(tell())
        try:
            yield
        finally:
            telling.cancel()

    # --- watching ----------------------------------------------------------------------------------------------------

    async def _watch(self, instance: Instance) -> Reason | LoadError:
        """Let requests through; return why the model is to be unloaded, or what ended its engine."""
        self._left.clear()
        self._ready_since = time.monotonic()
        upstream = self.offer.open(served_by(instance, self.offer.names, max_queue=self.model.max_queue))
        withdrawing: asyncio.Task[None] | None = None
        pulse = asyncio.ensure_future(self._feel_pulse(upstream))
        try:
            while True:
                await self._woken(WATCH_EVERY_S)
                if (error := self._what_ended(instance, upstream)) is not None:
                    self.offer.lose(upstream, error)
                    return error
                self._leaving = self._leaving or self._reason_to_leave()
                if self._leaving is not None and withdrawing is None:
                    withdrawing = asyncio.ensure_future(self.offer.withdraw())
                    withdrawing.add_done_callback(lambda _: self._wake.set())
                if self._leaving is not None and withdrawing is not None and withdrawing.done():
                    return self._leaving
        finally:
            pulse.cancel()
            if withdrawing is not None:
                withdrawing.cancel()

    async def _feel_pulse(self, upstream: Upstream) -> None:
        """Ask the engine now and then whether it is well; its upstream notes when it last was."""
        while True:
            await asyncio.sleep(min(HEALTH_EVERY_S, self._care.hang_after_s / 4 or HEALTH_EVERY_S))
            await upstream.is_healthy()

    def _what_ended(self, instance: Instance, upstream: Upstream) -> LoadError | None:
        if not instance.process.is_alive():
            return instance.process.failure()
        silent_s = time.monotonic() - upstream.heard_at
        if self._care.hang_after_s and silent_s > self._care.hang_after_s:
            return LoadError(
                f"`{upstream.engine}` gave no sign of life for {silent_s:.0f} s and was ended",
                engine=upstream.engine,
                log_path=str(instance.process.log_path),
            )
        return None

    def _reason_to_leave(self) -> Reason | None:
        if self._is_retired:
            return "reload" if self.offer.is_idle else None
        keep_s = self.model.keep_s
        is_over = keep_s is not None and self.offer.is_idle and time.monotonic() - self.offer.idle_since >= keep_s
        return "idle" if is_over else None

    async def _stop(self, instance: Instance, end: Reason | LoadError | None) -> None:
        """End the engine: for all its users where somebody asked for that, or it hangs."""
        if end is None:
            self.offer.state = "unloading"
        if end == "asked" or isinstance(end, LoadError):
            await asyncio.to_thread(instances.stop, instance.record)
        await asyncio.to_thread(instance.stop)
        self.instance = None
        self._memory.give_back(self)
        self._leaving = None
        self._left.set()

    # --- what became of it -------------------------------------------------------------------------------------------

    def _note(self, end: Reason | LoadError | None) -> None:
        if isinstance(end, LoadError):
            if time.monotonic() - self._ready_since >= STABLE_AFTER_S:
                self._crashes = self._failures = 0
            self._take_crash(end)
        elif end is not None:
            self.offer.unload()
            self._metrics.count_unload(self.offer.name, end)
            self._say("unloaded", f"unloaded: {WHY[end]}", reason=end)

    def _take_failure(self, error: LaunchError) -> None:
        """Take note that it could not be loaded: one more crash, where it was to be started again after one."""
        if self._crashes:
            self._take_crash(error)
        else:
            self._give_up(error)

    def _take_crash(self, error: LaunchError) -> None:
        self._crashes += 1
        if self._crashes > self._care.max_restarts:
            self._give_up(error)
            return
        delay_s = 2.0 ** (self._crashes - 1)
        self._not_before = time.monotonic() + delay_s
        self._is_due = True
        self._metrics.count_restart(self.offer.name)
        again = f"started again in {delay_s:.0f} s, {self._crashes} of {self._care.max_restarts}"
        self.offer.load(f"{error.message}: {again}")
        self._say("restarting", f"{error.message}: {again}", error)

    def _give_up(self, error: LaunchError) -> None:
        """Refuse requests for a while, longer each time."""
        cool_down_s = min(FIRST_COOL_DOWN_S * 2**self._failures, LONGEST_COOL_DOWN_S)
        self._failures += 1
        self.offer.fail(error, cool_down_s)
        self._say("failed", f"{error.message}: tried again in {cool_down_s:.0f} s at the soonest", error)

    def _say(self, kind: str, text: str, error: LaunchError | None = None, **facts: object) -> None:
        if error is not None:
            facts |= {"cause": error.message, "details": list(error.details)}
        self._tell(Event(kind, f"{self.offer.name}: {text}", {"name": self.offer.name, **facts}, error))


def named(plan: Plan, name: str) -> Plan:
    """Return the plan of a model that is served as `name`."""
    return replace(plan, settings=plan.settings._replace(name=name))


def names_of(model: ServedModel, plan: Plan) -> tuple[str, ...]:
    """Return what requests may call a model: its own names first, then those that it is known by."""
    return tuple(dict.fromkeys((model.name, *model.aliases, *known_names(plan))))
