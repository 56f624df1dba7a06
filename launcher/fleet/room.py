"""The memory that models share: what each needs, and who makes way for whom."""

from __future__ import annotations

import asyncio
import functools
import math
from weakref import WeakKeyDictionary

from engines.machine import read_machine, read_memory
from launcher.fleet.keeper import Keeper
from launcher.memory import bytes_below
from launcher.output import format_bytes
from launcher.planning import capability_of
from launcher.plans import Plan
from registry.errors import OutOfMemoryError
from registry.memory import MemoryNeed, cache_bytes_per_token
from registry.spec import Gpu

# Of what is free, so much is left to the rest of the machine.
LEFT_FREE = 0.05
LOOK_EVERY_S = 0.2


def estimate(plan: Plan) -> MemoryNeed:
    """Return what a plan's engine will take, from sizes and facts; what nobody knows counts as nothing."""
    settings, capability = plan.settings, capability_of(plan.engine)
    if not capability.needs_weights:
        return MemoryNeed(0, 0, capability.own_bytes)
    weights_bytes = sum(file.size_bytes or 0 for file in plan.files)
    if settings.dtype == "float32" and plan.quantization == "none":
        weights_bytes *= 2  # they are published in 16 bits
    per_token = cache_bytes_per_token(settings.architecture) or 0
    cache_bytes = per_token * settings.context_length * settings.slots
    return MemoryNeed(weights_bytes, cache_bytes, capability.own_bytes)


class Room:
    """Memory for models, at most `cap_bytes` of it where that is set, else what the machine can spare.

    A model needs what was estimated, until it was loaded once: then what it was seen to take. The least recently used
    makes way first, none in the middle of a request. Models on GPUs share these, all others the machine's memory.
    """

    def __init__(self, cap_bytes: int | None = None) -> None:
        self._cap_bytes = cap_bytes
        self._held: dict[Keeper, int] = {}
        self._resident: dict[Keeper, int] = {}
        self._seen: WeakKeyDictionary[Keeper, int] = WeakKeyDictionary()
        self._making = asyncio.Lock()

    def hold(self, keeper: Keeper) -> None:
        """Take the memory for a model; raises OutOfMemoryError beyond the cap."""
        if self._cap_bytes is not None and not self._fits(keeper):
            raise self._beyond_cap(keeper, self._cap_bytes)
        self._held[keeper] = self._need_bytes(keeper)

    async def make_room(self, keeper: Keeper) -> None:
        """Take the memory for a model, once others have made way.

        Raises OutOfMemoryError where all that may make way is too little for a cap; what is only estimated against the
        machine's own memory is tried even so.
        """
        async with self._making:
            await self._look()
            while not self._fits(keeper) and await self._make_way(keeper):
                await self._look()
            self.hold(keeper)

    def give_back(self, keeper: Keeper) -> None:
        """Take note that a model has no engine."""
        self._held.pop(keeper, None)
        self._resident.pop(keeper, None)

    async def _make_way(self, keeper: Keeper) -> bool:
        """Return whether there may be more room now: another model has left, or is about to be ready or gone."""
        beside = self._beside(keeper)
        able = [each for each in beside if each.can_give_way]
        if able:
            await min(able, key=lambda each: (not each.offer.is_idle, each.offer.idle_since)).leave("memory")
        elif any(each.offer.state in ("loading", "unloading") for each in beside):
            await asyncio.sleep(LOOK_EVERY_S)
        else:
            return False
        return True

    async def _look(self) -> None:
        """Find out what the engines take now."""
        pids = {each: each.instance.process.pid for each in self._held if each.instance is not None}
        found = await asyncio.to_thread(lambda: {each: bytes_below(pid) for each, pid in pids.items()})
        self._resident = found
        for each, size_bytes in found.items():
            self._seen[each] = max(size_bytes, self._seen.get(each, 0))

    def _fits(self, keeper: Keeper) -> bool:
        taken_bytes = sum(map(self._need_bytes, self._beside(keeper)))
        return self._need_bytes(keeper) <= self._all_bytes(keeper) - taken_bytes

    def _all_bytes(self, keeper: Keeper) -> int:
        """Return what this model and those that share its memory may take together."""
        if self._cap_bytes is not None:
            return self._cap_bytes
        gpus = _gpus_of(keeper.plan)
        if gpus:
            return sum(gpu.memory_bytes for gpu in gpus)
        memory = read_memory()
        free_bytes = memory.usable_bytes if memory.available_bytes is None else memory.available_bytes
        ours_bytes = sum(self._resident.get(each, 0) for each in self._beside(keeper))
        return int(free_bytes * (1 - LEFT_FREE)) + ours_bytes

    def _need_bytes(self, keeper: Keeper) -> int:
        return self._seen.get(keeper) or estimate(keeper.plan).total_bytes

    def _beside(self, keeper: Keeper) -> list[Keeper]:
        """Return the models whose memory is taken from where this one's is."""
        is_on_gpu = bool(_gpus_of(keeper.plan))
        return [each for each in self._held if each is not keeper and bool(_gpus_of(each.plan)) == is_on_gpu]

    def _beyond_cap(self, keeper: Keeper, cap_bytes: int) -> OutOfMemoryError:
        need = format_bytes(self._need_bytes(keeper))
        beside = [f"{each.offer.name}: {format_bytes(self._need_bytes(each))}" for each in self._beside(keeper)]
        return OutOfMemoryError(
            f"`{keeper.offer.name}` needs {need}, and `max-memory` is {format_bytes(cap_bytes)}",
            engine=keeper.plan.engine,
            details=[f"loaded and not to make way: {each}" for each in beside],
            hint=f"--max-memory {math.ceil((cap_bytes + self._need_bytes(keeper)) / 1e9)}GB",
        )


def _gpus_of(plan: Plan) -> list[Gpu]:
    """Return the GPUs that a plan's engine uses."""
    numbers = plan.settings.gpus
    return [gpu for gpu in _all_gpus() if gpu.number in numbers] if numbers else []


@functools.cache
def _all_gpus() -> tuple[Gpu, ...]:
    return read_machine().gpus
