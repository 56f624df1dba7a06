"""The handles that `launch` and `connect` return, and their async twins."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Unpack, overload

from engines.base import Address
from engines.generation import Reply, Sampling, Target
from engines.messages import Messages
from engines.session import AsyncSession, Session
from launcher.endpoint import NO_KEY
from launcher.instance import Instance
from launcher.plans import Plan
from registry.errors import LaunchError

if TYPE_CHECKING:
    from launcher.exposure import Exposure
    from launcher.gateway import GatewayThread


class _Handle:
    """What all handles share: what is known of a model, wherever it runs."""

    _address: Address
    _target: Target

    @property
    def name(self) -> str:
        return self._target.name

    @property
    def abilities(self) -> frozenset[str]:
        """What the model can do: `chat`, `embed`, `tools`, …, as far as an endpoint tells."""
        return self._target.abilities

    @property
    def context_length(self) -> int | None:
        """The tokens that each request may use, prompt and answer together; None where an endpoint does not tell."""
        return self._target.context_length

    @property
    def base_url(self) -> str:
        """The address of an OpenAI-compatible endpoint for this model."""
        return f"{self._address.url}/v1"

    @property
    def api_key(self) -> str:
        """What to give clients that insist on a key."""
        return self._address.key or NO_KEY

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} at {self._address.url}>"


class Model(_Handle, Session):
    """A model that answers, wherever it runs. Thread-safe; `close` it, or use it in `with`."""

    def __init__(self, address: Address, target: Target, concurrency: int) -> None:
        super().__init__(address, target)
        self._concurrency = concurrency

    @overload
    def chat_batch(
        self, conversations: Sequence[Messages], /, *, return_errors: Literal[False] = ..., **sampling: Unpack[Sampling]
    ) -> list[Reply[None]]: ...
    @overload
    def chat_batch(
        self, conversations: Sequence[Messages], /, *, return_errors: Literal[True], **sampling: Unpack[Sampling]
    ) -> list[Reply[None] | LaunchError]: ...
    def chat_batch(
        self, conversations: Sequence[Messages], /, *, return_errors: bool = False, **sampling: Unpack[Sampling]
    ) -> Sequence[Reply[None] | LaunchError]:
        """Return the answers in the conversations' order, as many at once as the engine has slots.

        With `return_errors` a conversation that failed has its error in its place; else the first one is raised.
        """
        from concurrent.futures import ThreadPoolExecutor

        def answer(messages: Messages) -> Reply[None] | LaunchError:
            try:
                return self.chat(messages, **sampling)
            except LaunchError as error:
                if not return_errors:
                    raise
                return error

        with ThreadPoolExecutor(self._concurrency) as pool:
            futures = [pool.submit(answer, messages) for messages in conversations]
            try:
                return [future.result() for future in futures]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


class AsyncModel(_Handle, AsyncSession):
    """A model for asyncio, with the same methods as `Model`."""

    def __init__(self, address: Address, target: Target, concurrency: int) -> None:
        super().__init__(address, target)
        self._concurrency = concurrency

    async def chat_batch(
        self, conversations: Sequence[Messages], /, *, return_errors: bool = False, **sampling: Unpack[Sampling]
    ) -> Sequence[Reply[None] | LaunchError]:
        """Return the answers in the conversations' order, as many at once as the engine has slots."""
        import asyncio

        slots = asyncio.Semaphore(self._concurrency)

        async def answer(messages: Messages) -> Reply[None] | LaunchError:
            async with slots:
                try:
                    return await self.chat(messages, **sampling)
                except LaunchError as error:
                    if not return_errors:
                        raise
                    return error

        tasks = [asyncio.ensure_future(answer(messages)) for messages in conversations]
        try:
            return list(await asyncio.gather(*tasks))
        except BaseException:
            for task in tasks:
                task.cancel()
            raise


class _Launched(_Handle):
    """What was started here: the instance, which ends with `close`, with the handle, or with the program."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._gateway: GatewayThread | None = None
        self._gateway_lock = threading.Lock()
        self._finalizer = weakref.finalize(self, instance.stop)

    @property
    def plan(self) -> Plan:
        return self._instance.plan

    @property
    def context_length(self) -> int:
        """The tokens that each request may use, prompt and answer together."""
        return self.plan.context_length

    @property
    def base_url(self) -> str:
        """The address of an OpenAI-compatible endpoint for this model on loopback, started when it is asked for."""
        with self._gateway_lock:
            if self._gateway is None:
                from launcher.exposure import ON_LOOPBACK

                self._gateway = open_gateway(self, ON_LOOPBACK)
                weakref.finalize(self, self._gateway.stop)
            return self._gateway.url

    def _stop(self) -> None:
        with self._gateway_lock:
            gateway, self._gateway = self._gateway, None
        if gateway is not None:
            gateway.stop()
        self._finalizer()

    def __repr__(self) -> str:
        state = "running" if self._finalizer.alive else "closed"
        return f"<{type(self).__name__} {self.name} on {self.plan.engine}, {state}>"


def open_gateway(handle: _Launched, exposure: Exposure) -> GatewayThread:
    """Return an endpoint in front of what was launched; raises PortInUseError."""
    from launcher.gateway import GatewayThread
    from launcher.served import served_by

    return GatewayThread(served_by(handle._instance), exposure)


class LaunchedModel(_Launched, Model):
    """A running model that was launched here, and by which `plan`."""

    def __init__(self, instance: Instance) -> None:
        _Launched.__init__(self, instance)
        Model.__init__(self, instance.process.address, instance.target, instance.plan.concurrency)

    def close(self) -> None:
        """End the engine; a second call does nothing."""
        super().close()
        self._stop()


class AsyncLaunchedModel(_Launched, AsyncModel):
    """The same for asyncio."""

    def __init__(self, instance: Instance) -> None:
        _Launched.__init__(self, instance)
        AsyncModel.__init__(self, instance.process.address, instance.target, instance.plan.concurrency)

    async def close(self) -> None:
        """End the engine; a second call does nothing."""
        import asyncio

        await super().close()
        await asyncio.to_thread(self._stop)
