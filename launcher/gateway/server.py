"""Serving the endpoint: in the foreground until a signal comes, or in a thread beside the user's own code."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from aiohttp import web

from launcher.access_log import AccessLog
from launcher.exposure import ON_LOOPBACK, Exposure
from launcher.gateway.admission import quiet_logger
from launcher.gateway.application import Gateway
from launcher.gateway.control import controlling
from launcher.gateway.upstream import Served
from launcher.servers import Origin
from launcher.tls import serving_context

# How long answers that are under way may still take when the endpoint is ended.
DRAIN_S = 5.0
# Python's own.
GARBAGE_THRESHOLDS = (700, 10, 10)
WATCH_EVERY_S = 0.5
# Who is refused while still sending is read from for so long, since a connection that is cut loses the answer too.
LINGER_S = 2.0


def run_gateway(
    served: Served,
    exposure: Exposure,
    *,
    on_ready: Callable[[str], None],
    is_alive: Callable[[], bool] = lambda: True,
    access_log: AccessLog | None = None,
    origin: Origin | None = None,
) -> signal.Signals | None:
    """Serve until SIGINT or SIGTERM, which is returned, or until `is_alive` says no; call it in the main thread.

    `on_ready` gets the URL for clients, such as `http://127.0.0.1:8000/v1`; `origin` is what others are told of it.
    Answers under way get `DRAIN_S`, a second signal ends them at once. Raises PortInUseError.
    """
    _collect_garbage_again()
    return asyncio.run(_serve_until_signal(served, exposure, on_ready, is_alive, access_log, origin))


def _collect_garbage_again() -> None:
    """Look for garbage as often as Python does by itself, among what was made since: starting up does not look.

    Each request leaves some: with start-up's threshold 10,000 of them grow the process by 13 MB.
    """
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


async def _serve_until_signal(
    served: Served,
    exposure: Exposure,
    on_ready: Callable[[str], None],
    is_alive: Callable[[], bool],
    access_log: AccessLog | None,
    origin: Origin | None,
) -> signal.Signals | None:
    came: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    listener = exposure.listen()
    async with _serving(served, exposure, listener, access_log, origin or Origin(served.names[0])):
        with _signals_into(came):
            on_ready(_url_of(exposure, listener))
            while not came.done() and is_alive():
                await asyncio.wait((came,), timeout=WATCH_EVERY_S)
    return came.result() if came.done() else None


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
    served: Served, exposure: Exposure, listener: socket.socket, access_log: AccessLog | None, origin: Origin
) -> AsyncIterator[None]:
    """Answer on `listener` inside the block, then close it."""
    gateway = Gateway([served], exposure, access_log)
    runner = web.AppRunner(
        gateway.application(),
        handler_cancellation=True,
        access_log=None,
        logger=quiet_logger(),
        shutdown_timeout=DRAIN_S,
        keepalive_timeout=exposure.limits.headers_within_s,
        lingering_time=LINGER_S,
    )
    with listener:
        context = None if exposure.certificate is None else serving_context(exposure.certificate)
        try:
            await runner.setup()
            await web.SockSite(runner, listener, ssl_context=context).start()
            async with controlling(gateway, origin, _url_of(exposure, listener)):
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
        self._thread = threading.Thread(
            target=self._run, args=(served, exposure, listener), name="gateway", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the endpoint; answers under way get `DRAIN_S`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it had ended before
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, served: Served, exposure: Exposure, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(served, exposure, listener))

    async def _serve(self, served: Served, exposure: Exposure, listener: socket.socket) -> None:
        origin = Origin(served.names[0], is_embedded=True)
        async with _serving(served, exposure, listener, self._access_log, origin):
            await self._stopping.wait()
