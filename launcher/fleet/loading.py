"""One load of a model, in a thread, which ends early when nobody waits for it any more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from launcher.instance import Instance, start_instance
from launcher.output import describe_progress
from launcher.plans import Plan
from launcher.settling import settle
from registry.progress import Progress


class _GivenUpError(BaseException):
    """Ends the thread wherever it reports."""


class Loading:
    """The start of a plan's engine; `on_progress` hears in words how far it is, in the thread."""

    def __init__(self, plan: Plan, on_progress: Callable[[str], None]) -> None:
        self._plan = plan
        self._on_progress = on_progress
        self._is_given_up = threading.Event()

    async def instance(self) -> Instance:
        """Return the engine, ready; raises as `start_instance`. Cancelled, it first ends what has begun."""
        thread = ThreadPoolExecutor(1, "loading")  # of its own: a load may take longer than all else that threads do
        starting = asyncio.wrap_future(thread.submit(self._start))
        thread.shutdown(wait=False)
        try:
            return await asyncio.shield(starting)
        except asyncio.CancelledError:
            self._is_given_up.set()
            await asyncio.wait((starting,))
            if not starting.cancelled() and starting.exception() is None:
                await asyncio.to_thread(starting.result().stop)
            raise

    def _start(self) -> Instance:
        try:
            return start_instance(settle(self._plan, self._report), self._report, on_poll=self._check)
        except _GivenUpError as error:
            raise RuntimeError("the load was given up") from error

    def _report(self, progress: Progress) -> None:
        self._check()
        if progress.stage != "log":
            self._on_progress(describe_progress(progress))

    def _check(self) -> None:
        if self._is_given_up.is_set():
            raise _GivenUpError
