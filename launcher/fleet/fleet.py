"""All models of one endpoint, and the file that says which they are."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import NamedTuple

from launcher.care import Care
from launcher.control import ModelStatus
from launcher.fleet.keeper import Event, Keeper
from launcher.fleet.room import Room
from launcher.gateway.metrics import Metrics
from launcher.gateway.offers import Offers
from launcher.instance import Instance
from launcher.planning import Request, make_plan
from launcher.plans import Plan
from launcher.serve_file import ServedModel, ServeFile, read_serve_file
from registry.errors import LaunchError


class Planned(NamedTuple):
    """A model that is to be served, and how it would be launched."""

    model: ServedModel
    plan: Plan


class Fleet:
    """The models behind an endpoint, each with its keeper.

    All that run take at most `cap_bytes` of memory. `max_queue` requests may wait for a model of a file that does not
    say otherwise, and `over` goes before what the file says of how each is launched. If it `ends_when_failed`, it
    cannot go on once a model has failed for good. `tell` hears what becomes of the models. `add` and `start` come
    before `running`.
    """

    def __init__(
        self,
        care: Care,
        tell: Callable[[Event], None],
        *,
        cap_bytes: int | None = None,
        max_queue: int | None = None,
        over: Request | None = None,
        ends_when_failed: bool = False,
    ) -> None:
        self.offers = Offers()
        self.metrics = Metrics()
        self._care = care
        self._tell = tell
        self._room = Room(cap_bytes)
        self._max_queue = max_queue
        self._over = over or {}
        self._file: ServeFile | None = None
        self._ends_when_failed = ends_when_failed
        self._keepers: list[Keeper] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[LaunchError] | None = None
        self._reloading = asyncio.Lock()

    def add(self, *models: Planned) -> list[Keeper]:
        """Offer models besides those that there are."""
        keepers = list(map(self._keeper, models))
        self._keepers += keepers
        self._offer()
        return keepers

    def add_file(self, file: ServeFile) -> list[Keeper]:
        """Offer the models of a file, which `reload` reads again; raises UnknownModelError and ResolutionError."""
        self._file = file
        return self.add(*self._planned(file))

    def start(self, keeper: Keeper, start: Callable[[Plan], Instance]) -> Instance:
        """Return a model's engine, started before the endpoint answers; raises OutOfMemoryError beyond the cap."""
        self._room.hold(keeper)
        began = time.monotonic()
        instance = start(keeper.plan)
        keeper.adopt(instance, time.monotonic() - began)
        return instance

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """See to the models inside the block; at its end what they run is stopped."""
        self._failed = asyncio.get_running_loop().create_future()
        for keeper in self._keepers:
            self._begin(keeper)
        try:
            yield
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def failure(self) -> LaunchError:
        """Return why it cannot go on, once a model that must not has failed for good."""
        assert self._failed is not None
        return await asyncio.shield(self._failed)

    # --- for the endpoint's own user ---------------------------------------------------------------------------------

    def statuses(self) -> Sequence[ModelStatus]:
        return [_status_of(each) for each in self._keepers]

    async def unload(self, name: str) -> bool:
        """End a model's engine once the requests at it have their answers; return False where it was not loaded."""
        offer = self.offers.find(name)
        return await next(each for each in self._keepers if each.offer is offer).leave("asked")

    async def reload(self) -> Sequence[str]:
        """Apply the changed file and return what changed, in words; raises LaunchError, and then nothing has.

        A model that goes, or is launched in another way now, first answers those who are in its line.
        """
        if self._file is None:
            raise LaunchError("This endpoint was not started from a file", hint="launch serve -c launch.yaml")
        async with self._reloading:
            file = await asyncio.to_thread(read_serve_file, self._file.path)
            _check_options(self._file, file)
            said = self._apply(await asyncio.to_thread(self._planned, file))
            self._file = file
        return said or ["nothing has changed"]

    def _planned(self, file: ServeFile) -> list[Planned]:
        completed = [self._completed(each) for each in file.models]
        return [Planned(each, make_plan(each.model, each.request)) for each in completed]

    def _completed(self, model: ServedModel) -> ServedModel:
        max_queue = self._max_queue if model.max_queue is None else model.max_queue
        return model._replace(max_queue=max_queue, request={**model.request, **self._over})

    def _keeper(self, planned: Planned) -> Keeper:
        return Keeper(*planned, self._room, self._care, self.metrics, self._hear)

    def _apply(self, wanted: Iterable[Planned]) -> list[str]:
        known = {each.model.name: each for each in self._keepers}
        kept: list[Keeper] = []
        said: list[str] = []
        for each in wanted:
            keeper = known.pop(each.model.name, None)
            if keeper is None:
                said.append(f"added {each.model.name}")
            elif keeper.model != each.model or not _is_launched_alike(keeper, each):
                said.append(f"changed {each.model.name}")
            if keeper is not None and _is_launched_alike(keeper, each):
                keeper.change(each.model)
                kept.append(keeper)
                continue
            if keeper is not None:
                keeper.retire()
            kept.append(self._begin(self._keeper(each)))
        for gone in known.values():
            gone.retire()
            said.append(f"removed {gone.model.name}")
        self._keepers = kept
        self._offer()
        return said

    def _offer(self) -> None:
        """Answer for all models: a name that the file gives to one is no other's, whatever the catalogue says."""
        given = {name.casefold(): each for each in self._keepers for name in (each.model.name, *each.model.aliases)}
        for each in self._keepers:
            each.offer.names = tuple(name for name in each.offer.names if given.get(name.casefold(), each) is each)
        self.offers.replace(each.offer for each in self._keepers)

    def _begin(self, keeper: Keeper) -> Keeper:
        task = asyncio.ensure_future(keeper.run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return keeper

    def _hear(self, event: Event) -> None:
        self._tell(event)
        if event.error is not None and event.kind == "failed" and self._ends_when_failed:
            self._fail(event.error)

    def _fail(self, error: LaunchError) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_result(error)


def _is_launched_alike(keeper: Keeper, planned: Planned) -> bool:
    """Return whether the engine that a keeper has would do: for the same request, and by the same entry."""
    one, other = keeper.model, planned.model
    return (one.model, one.request, keeper.plan.model) == (other.model, other.request, planned.plan.model)


def _check_options(before: ServeFile, after: ServeFile) -> None:
    """Raise LaunchError for a change that only a new start can make."""
    old, new = before.options, after.options
    changed = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if changed:
        names = ", ".join(f"`{name.replace('_', '-')}`" for name in changed)
        message = f"{names} cannot change while the endpoint runs: nothing was changed"
        raise LaunchError(message, hint="launch restart serve")


def _status_of(keeper: Keeper) -> ModelStatus:
    offer, plan = keeper.offer, keeper.plan if keeper.instance is None else keeper.instance.plan
    return ModelStatus(
        name=offer.name,
        aliases=offer.names[1:],
        state=offer.state,
        cause=None if offer.error is None or offer.state == "ready" else offer.error.message,
        model_format=plan.model_format,
        quantization=plan.quantization,
        engine=plan.engine,
        device=plan.device,
        context_length=plan.context_length,
        concurrency=plan.concurrency,
        running=offer.running,
        waiting=offer.waiting,
        instance=None if keeper.instance is None else keeper.instance.record.number,
    )
