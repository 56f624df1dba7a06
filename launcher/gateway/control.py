"""The private socket of an endpoint, where its own user is told what is behind it and may change that.

It is in a fresh folder that only this user can enter, and needs no key.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from engines.process import new_folder
from launcher.control import MODELS, RELOAD, UNLOAD, Controlled
from launcher.output import describe_error
from launcher.servers import Origin, Server, forget, new_server
from registry.errors import LaunchError

LOGGER = logging.getLogger(__name__)
SOCKET_NAME = "c.sock"
# How long a change that is under way may still take when the endpoint is ended.
DRAIN_S = 1.0


@asynccontextmanager
async def controlling(controlled: Controlled, origin: Origin, url: str) -> AsyncIterator[Server]:
    """Answer on the socket, and have the record of the endpoint at `url` on disk, inside the block."""
    folder = new_folder()
    runner = web.AppRunner(_application(controlled), access_log=None, shutdown_timeout=DRAIN_S)
    try:
        await runner.setup()
        # Before there is a socket: of who is killed in between, nothing is left that nobody knows of.
        server = new_server(origin, url, folder / SOCKET_NAME)
        try:
            await web.UnixSite(runner, server.control).start()
            yield server
        finally:
            forget(server)
    finally:
        await runner.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def _application(controlled: Controlled) -> web.Application:
    async def models(request: web.Request) -> web.Response:
        return web.json_response([each._asdict() for each in controlled.statuses()])

    async def reload(request: web.Request) -> web.Response:
        return web.json_response(list(await controlled.reload()))

    async def unload(request: web.Request) -> web.Response:
        return web.json_response(await controlled.unload((await request.json())["name"]))

    application = web.Application(middlewares=[_describe_errors])
    application.router.add_get(MODELS, models)
    application.router.add_post(RELOAD, reload)
    application.router.add_post(UNLOAD, unload)
    return application


@web.middleware
async def _describe_errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    try:
        return await handler(request)
    except LaunchError as error:
        return web.json_response(describe_error(error), status=400)
    except web.HTTPException:
        raise
    except Exception as error:
        LOGGER.exception("%s", request.path)
        broken = LaunchError(f"The endpoint broke over this: {error!r}", hint="its log has more")
        return web.json_response(describe_error(broken), status=500)
