"""Serving the endpoint: in the foreground until a signal comes, or in a thread beside the user's own code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from aiohttp import web

from launcher.access_log import AccessLog
from launcher.control import Controlled, ModelStatus
from launcher.exposure import ON_LOOPBACK, Exposure
from launcher.gateway.admission import quiet_logger
from launcher.gateway.application import make_application
from launcher.gateway.control import controlling
from launcher.gateway.metrics import Metrics
from launcher.gateway.offers import Offers, offer_of
from launcher.gateway.upstream import Served
from launcher.servers import Origin
from launcher.tls import serving_context
from registry.errors import LaunchError

# How long answers that are under way may still take when the endpoint is ended.
DRAIN_S = 5.0
# Python's own.
GARBAGE_THRESHOLDS = (700, 10, 10)
# Who is refused while still sending is read from for so long, since a connection that is cut loses the answer too.
LINGER_S = 2.0


class Fleet(Controlled, Protocol):
    """What stands behind an endpoint: what it offers, and whoever runs the engines for that."""

    @property
    def offers(self) -> Offers: ...

    @property
    def metrics(self) -> Metrics: ...

    def running(self) -> AbstractAsyncContextManager[None]:
        """Open the offers, and see to their engines inside the block."""
        ...

    async def failure(self) -> LaunchError:
        """Return why it cannot go on, as soon as that is so."""
        ...


class FixedFleet:
    """One engine, which somebody else runs."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.offers = Offers()
        self.metrics = Metrics()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        offer = offer_of(self._served)
        self.offers.replace([offer])
        offer.open(self._served)
        yield

    async def failure(self) -> LaunchError:
        never: asyncio.Future[LaunchError] = asyncio.get_running_loop().create_future()
        return await never

    def statuses(self) -> Sequence[ModelStatus]:
        status = self._served.status
        if status is None:
            return []
        return [status._replace(running=each.running, waiting=each.waiting) for each in self.offers]

    async def reload(self) -> Sequence[str]:
        raise LaunchError("This endpoint was not started from a file", hint="launch serve -c launch.yaml")

    async def unload(self, name: str) -> bool:
        model = self.offers.find(name).name
        raise LaunchError(f"`{model}` is all that this endpoint serves", hint=f"launch stop {model}")


def run_gateway(
    fleet: Fleet,
    exposure: Exposure,
    *,
    on_ready: Callable[[str], None],
    origin: Origin,
    access_log: AccessLog | None = None,
) -> signal.Signals:
    """Serve until SIGINT or SIGTERM, which is returned; call it in the main thread.

    `on_ready` gets the URL for clients, such as `http://127.0.0.1:8000/v1`; `origin` is what others are told of it.
    Answers under way get `DRAIN_S`, a second signal ends them at once. Raises PortInUseError, and what the fleet
    cannot go on for.
    """
    _collect_garbage_again()
    return asyncio.run(_serve_until_signal(fleet, exposure, on_ready, origin, access_log))


def _collect_garbage_again() -> None:
    """Look for garbage as often as Python does by itself, among what was made since: starting up does not look.

    Each request leaves some: with start-up's threshold 10,000 of them grow the process by 13 MB.
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


async def _serve_until_signal(
    fleet: Fleet, exposure: Exposure, on_ready: Callable[[str], None], origin: Origin, access_log: AccessLog | None
) -> signal.Signals:
    came: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    listener = exposure.listen()
    async with _serving(fleet, exposure, listener, origin, access_log):
        failing = asyncio.ensure_future(fleet.failure())
        with _signals_into(came):
            on_ready(_url_of(exposure, listener))
            await asyncio.wait((came, failing), return_when=asyncio.FIRST_COMPLETED)
        failing.cancel()
    if came.done():
        return came.result()
    raise failing.result()


@contextlib.contextmanager
def _signals_into(came: asyncio.Future[signal.Signals]) -> Iterator[None]:
    def note(number: signal.Signals) -> None:
        if not came.done():
            came.set_result(number)

    loop = asyncio.get_running_loop()
    ours = (signal.SIGINT, signal.SIGTERM)
    for number in ours:
        loop.add_signal_handler(number, note, number)
    try:
        yield
    finally:
        for number in ours:
            loop.remove_signal_handler(number)


@contextlib.asynccontextmanager
async def _serving(
    fleet: Fleet, exposure: Exposure, listener: socket.socket, origin: Origin, access_log: AccessLog | None
) -> AsyncIterator[None]:
    """Answer on `listener` inside the block, then close it."""
    runner = web.AppRunner(
        make_application(fleet.offers, exposure, access_log=access_log, metrics=fleet.metrics),
        handler_cancellation=True,
        access_log=None,
        logger=quiet_logger(),
        shutdown_timeout=DRAIN_S,
        keepalive_timeout=exposure.limits.headers_within_s,
        lingering_time=LINGER_S,
    )
    with listener:
        context = None if exposure.certificate is None else serving_context(exposure.certificate)
        async with controlling(fleet, origin, _url_of(exposure, listener)), fleet.running():
            try:
                await runner.setup()
                await web.SockSite(runner, listener, ssl_context=context).start()
                yield
            finally:
                await runner.cleanup()


def _url_of(exposure: Exposure, listener: socket.socket) -> str:
    return exposure.url(listener.getsockname()[1])


class GatewayThread:
    """An endpoint in a thread of its own, which serves from here on; `url` is for clients and ends in `/v1`.

    Raises PortInUseError. `stop` may be called more than once and from any thread but its own.
    """

    def __init__(
        self, served: Served, exposure: Exposure = ON_LOOPBACK, *, access_log: AccessLog | None = None
    ) -> None:
        listener = exposure.listen()
        self.url = _url_of(exposure, listener)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._access_log = access_log
        self._origin = Origin(served.names[0], is_embedded=True)
        self._thread = threading.Thread(
            target=self._run, args=(FixedFleet(served), exposure, listener), name="gateway", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the endpoint; answers under way get `DRAIN_S`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it had ended before
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, fleet: Fleet, exposure: Exposure, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(fleet, exposure, listener))

    async def _serve(self, fleet: Fleet, exposure: Exposure, listener: socket.socket) -> None:
        async with _serving(fleet, exposure, listener, self._origin, self._access_log):
            await self._stopping.wait()
