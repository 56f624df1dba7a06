"""What everything else calls: plan, pull, launch, its async twin, and serve. Nothing here prints."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Unpack

from launcher.planning import Request, make_plan
from launcher.plans import Plan
from registry.progress import Progress, ignore

if TYPE_CHECKING:
    from concurrent.futures import Future

    from launcher.exposure import Exposure
    from launcher.instance import Instance
    from launcher.model import AsyncLaunchedModel, LaunchedModel

ProgressOption = bool | Callable[[Progress], None] | None


def plan(model: str | Path, /, **request: Unpack[Request]) -> Plan:
    """Return what a launch of `model` would do; touches the disk, never the network.

    Raises UnknownModelError and ResolutionError, whose hints are commands that work, and TypeError for an unknown word.
    """
    return make_plan(str(model), request)


def pull(model: str | Path | Plan, /, *, progress: ProgressOption = None, **request: Unpack[Request]) -> Path:
    """Return where the files of `model` are, fetched and verified; starts nothing. Raises DownloadError."""
    from launcher.cache_use import record_use
    from launcher.fetching import fetch
    from launcher.settling import settle

    chosen = _planned(model, request)
    with _reporting(progress) as report:
        chosen, files = fetch(settle(chosen, report), report)
    record_use(chosen, files)
    return files.path


def launch(
    model: str | Path | Plan,
    /,
    *,
    reuse: bool = True,
    progress: ProgressOption = None,
    **request: Unpack[Request],
) -> LaunchedModel:
    """Return a handle on `model`, started and ready; use it in `with`, or `close` it.

    Where an engine runs on this machine that does all that is asked for, it is used, unless `reuse` is False; it ends
    with the last handle. Else the engine is set up and the files are fetched first. Raises DownloadError and
    EngineError, with the cause and a hint.
    """
    from launcher.model import LaunchedModel

    chosen = _planned(model, request)
    with _reporting(progress) as report:
        return LaunchedModel(_start(chosen, report, reuse=reuse))


def _start(plan: Plan, report: Callable[[Progress], None], *, reuse: bool) -> Instance:
    from launcher.instance import attach, start_instance
    from launcher.settling import settle

    if reuse and (instance := attach(plan)) is not None:
        return instance
    return start_instance(settle(plan, report), report)


def alaunch(
    model: str | Path | Plan,
    /,
    *,
    reuse: bool = True,
    progress: ProgressOption = None,
    **request: Unpack[Request],
) -> AbstractAsyncContextManager[AsyncLaunchedModel]:
    """Return an async context of the same handle with awaitable methods; the event loop is free while it starts."""
    return _alaunch(model, progress, request, reuse=reuse)


@asynccontextmanager
async def _alaunch(
    model: str | Path | Plan, progress: ProgressOption, request: Request, *, reuse: bool
) -> AsyncIterator[AsyncLaunchedModel]:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    from launcher.model import AsyncLaunchedModel

    chosen = await asyncio.to_thread(_planned, model, request)
    with _reporting(progress) as report:
        thread = ThreadPoolExecutor(1)
        starting = thread.submit(_start, chosen, report, reuse=reuse)
        thread.shutdown(wait=False)
        try:
            handle = AsyncLaunchedModel(await asyncio.wrap_future(starting))
        except asyncio.CancelledError:
            starting.add_done_callback(_stop_started)  # the thread cannot be stopped, so what it starts is
            raise
    try:
        yield handle
    finally:
        await handle.close()


class Serving(NamedTuple):
    """A model behind an endpoint of this program; `url` is for clients and ends in `/v1`."""

    url: str
    model: AsyncLaunchedModel


def serve(
    model: str | Path | Plan,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_keys: Sequence[str] = (),
    reuse: bool = True,
    progress: ProgressOption = None,
    **request: Unpack[Request],
) -> AbstractAsyncContextManager[Serving]:
    """Return an async context in which `model` is launched and an endpoint answers for it, in a thread of its own.

    A `port` of 0 is any that is free. Raises ExposureError for a host that others can reach and no key, and
    PortInUseError, before anything is fetched; else what `launch` raises.
    """
    from launcher.exposure import read_exposure
    from launcher.keys import key_of

    exposure = read_exposure(host=host, port=port, keys=[key_of(key, origin="`api_keys`") for key in api_keys])
    return _serve(_alaunch(model, progress, request, reuse=reuse), exposure)


@asynccontextmanager
async def _serve(
    launching: AbstractAsyncContextManager[AsyncLaunchedModel], exposure: Exposure
) -> AsyncIterator[Serving]:
    import asyncio

    from launcher.model import open_gateway

    exposure.check()
    async with launching as model:
        gateway = open_gateway(model, exposure)
        try:
            yield Serving(gateway.url, model)
        finally:
            await asyncio.to_thread(gateway.stop)


def _stop_started(starting: Future[Instance]) -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().stop()


def _planned(model: str | Path | Plan, request: Request) -> Plan:
    if not isinstance(model, Plan):
        return make_plan(str(model), request)
    if request:
        raise TypeError("a plan is launched as it is: give the request to `plan`")
    return model


@contextmanager
def _reporting(progress: ProgressOption) -> Iterator[Callable[[Progress], None]]:
    """Return what progress is reported to while the block lasts; True shows it on stderr."""
    if progress is not True:
        yield progress or ignore
        return
    from launcher.output import Output

    output = Output()
    try:
        yield output.progress
    finally:
        output.end_progress()
