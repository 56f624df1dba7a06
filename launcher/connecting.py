"""Handles on models that run elsewhere: behind our endpoint, or any other that is OpenAI-compatible."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING

from launcher.endpoint import endpoint_address

if TYPE_CHECKING:
    from launcher.model import AsyncModel, Model


def connect(url: str | None = None, /, *, model: str | None = None, api_key: str | None = None) -> Model:
    """Return a handle on a model that an endpoint serves: `model`, or else the only one that is there.

    `url` may end in `/v1`; without it LAUNCH_URL says where, else it is the newest endpoint that runs on this machine.
    Without `api_key` it is LAUNCH_API_KEY. Raises EndpointError, AuthenticationError and UnknownModelError.
    """
    from engines.connection import run
    from engines.endpoint import read_offer
    from launcher.model import Model

    address = endpoint_address(url, api_key, model=model)
    target, concurrency = run(address.url, address, read_offer(address, model))
    return Model(address, target, concurrency)


def aconnect(
    url: str | None = None, /, *, model: str | None = None, api_key: str | None = None
) -> AbstractAsyncContextManager[AsyncModel]:
    """Return an async context of the same handle with awaitable methods."""
    return _aconnect(url, model, api_key)


@asynccontextmanager
async def _aconnect(url: str | None, model: str | None, api_key: str | None) -> AsyncIterator[AsyncModel]:
    import asyncio

    from engines.connection import run_async
    from engines.endpoint import read_offer
    from launcher.model import AsyncModel

    # What runs on this machine is asked, and may be slow to answer.
    address = await asyncio.to_thread(endpoint_address, url, api_key, model=model)
    target, concurrency = await run_async(address.url, address, read_offer(address, model))
    async with AsyncModel(address, target, concurrency) as handle:
        yield handle
