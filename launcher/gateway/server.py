"""Serving the endpoint: in the foreground until a signal comes, or in a thread beside the user's own code."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import signal
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator

from aiohttp import web

from launcher.gateway.application import Served, make_application
from registry.errors import LaunchError, PortInUseError

# How long answers that are under way may still take when the endpoint is ended.
DRAIN_S = 5.0
WATCH_EVERY_S = 0.5


def run_gateway(
    served: Served,
    host: str,
    port: int,
    *,
    on_ready: Callable[[str], None],
    is_alive: Callable[[], bool] = lambda: True,
) -> signal.Signals | None:
    """Serve until SIGINT or SIGTERM, which is returned, or until `is_alive` says no; call it in the main thread.

    `on_ready` gets the URL for clients, such as `http://127.0.0.1:8000/v1`; a `port` of 0 takes a free one.
    Answers under way get `DRAIN_S`, a second signal ends them at once. Raises PortInUseError.
    """
    return asyncio.run(_serve_until_signal(served, _listen(host, port), on_ready, is_alive))


async def _serve_until_signal(
    served: Served, listener: socket.socket, on_ready: Callable[[str], None], is_alive: Callable[[], bool]
) -> signal.Signals | None:
    came: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    async with _serving(served, listener):
        with _signals_into(came):
            on_ready(_url_of(listener))
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
async def _serving(served: Served, listener: socket.socket) -> AsyncIterator[None]:
    """Answer on `listener` inside the block, then close it."""
    runner = web.AppRunner(
        make_application([served]), handler_cancellation=True, access_log=None, shutdown_timeout=DRAIN_S
    )
    with listener:
        try:
            await runner.setup()
            await web.SockSite(runner, listener).start()
            yield
        finally:
            await runner.cleanup()


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; raises PortInUseError, and LaunchError for an address that is not here."""
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            message = f"Port {port} of {host} is in use by another program"
            raise PortInUseError(message, host=host, port=port, hint="--port 0") from error
        raise LaunchError(f"Nothing can listen on port {port} of `{host}`: {error.strerror}") from error


def _url_of(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}/v1" if ":" in host else f"http://{host}:{port}/v1"


class GatewayThread:
    """An endpoint in a thread of its own, which serves from here on; `url` is for clients and ends in `/v1`.

    Raises PortInUseError. `stop` may be called more than once and from any thread but its own.
    """

    def __init__(self, served: Served, *, host: str = "127.0.0.1", port: int = 0) -> None:
        listener = _listen(host, port)
        self.url = _url_of(listener)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(served, listener), name="gateway", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the endpoint; answers under way get `DRAIN_S`."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: it had ended before
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self, served: Served, listener: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve(served, listener))

    async def _serve(self, served: Served, listener: socket.socket) -> None:
        async with _serving(served, listener):
            await self._stopping.wait()
