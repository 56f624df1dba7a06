"""What an endpoint tells its own user, and lets them do, over its private socket: the types, and the asking side."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from engines.base import Address
from registry.errors import GenerationError, LaunchError

if TYPE_CHECKING:
    from launcher.instances import Record
    from launcher.servers import Server

MODELS, RELOAD, UNLOAD = "/models", "/reload", "/unload"
STATUS_WITHIN_S = 1.0
# To change what is served may mean to wait for answers that are under way, and for engines to load.
CHANGED_WITHIN_S = 1800.0


class ModelStatus(NamedTuple):
    """A model behind an endpoint at this moment.

    `state` is `unloaded`, `loading`, `ready`, `unloading`, or `failed`, which has a `cause`. `instance` is the number
    of the instance's record while an engine runs; what depends on an engine is empty or 0 before one was chosen.
    """

    name: str
    aliases: tuple[str, ...]
    state: str
    cause: str | None
    model_format: str
    quantization: str
    engine: str
    device: str
    context_length: int
    concurrency: int
    running: int
    waiting: int
    instance: str | None


class Controlled(Protocol):
    """What is behind an endpoint."""

    def statuses(self) -> Sequence[ModelStatus]:
        """Return each model at this moment."""

    async def reload(self) -> Sequence[str]:
        """Apply the changed file and return what changed, in words; raises LaunchError, and then nothing has."""

    async def unload(self, name: str) -> bool:
        """End a model's engine; return False where it was not loaded. Raises UnknownModelError."""


def status_of(instance: Record) -> ModelStatus:
    """Return an instance as a server tells of it, but for the requests, which nobody counts here."""
    return ModelStatus(
        name=instance.name,
        aliases=instance.aliases,
        state=instance.state,
        cause=None,
        model_format=instance.model_format,
        quantization=instance.quantization,
        engine=instance.engine,
        device=instance.device,
        context_length=instance.context_length,
        concurrency=instance.concurrency,
        running=0,
        waiting=0,
        instance=instance.number,
    )


def ask_statuses(server: Server) -> tuple[ModelStatus, ...] | None:
    """Return the models of an endpoint; None where it does not answer within a second."""
    try:
        said = _ask(server, MODELS, None, STATUS_WITHIN_S)
    except GenerationError:
        return None
    return tuple(ModelStatus(**{**each, "aliases": tuple(each["aliases"])}) for each in said)


def ask_all(servers: Sequence[Server]) -> list[tuple[ModelStatus, ...] | None]:
    """Return the models of several endpoints, all asked at once."""
    if len(servers) < 2:
        return list(map(ask_statuses, servers))
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(servers)) as pool:
        return list(pool.map(ask_statuses, servers))


def ask_to_reload(server: Server) -> list[str]:
    """Return what changed, in words; raises what the endpoint raised, and then nothing has changed."""
    return [str(each) for each in _ask(server, RELOAD, {}, CHANGED_WITHIN_S)]


def ask_to_unload(server: Server, name: str) -> bool:
    """Return whether the model was loaded, which it is not any more; raises what the endpoint raised."""
    return bool(_ask(server, UNLOAD, {"name": name}, CHANGED_WITHIN_S))


def _ask(server: Server, path: str, body: object, timeout_s: float) -> Any:
    """Return what an endpoint answers; raises the error that it answers, GenerationError where it does not."""
    from contextlib import closing

    from engines.connection import Connection
    from engines.generation import Post

    data = None if body is None else json.dumps(body).encode()
    with closing(Connection(server.name, Address("http://localhost", Path(server.control)))) as connection:
        status = connection.send(Post(path, data, timeout_s))
        said = json.loads(connection.read_all())
    if status != 200:
        raise _error_of(said)
    return said


def _error_of(said: dict[str, Any]) -> LaunchError:
    """Return an error of the endpoint's as if it had been raised here."""
    kind = next((each for each in _classes(LaunchError) if each.kind == said["kind"]), LaunchError)
    error = kind.__new__(kind, said["message"])
    vars(error).update(said["facts"], hint=said["hint"], details=tuple(said["details"]))
    return error


def _classes(root: type[LaunchError]) -> Iterator[type[LaunchError]]:
    yield root
    for each in root.__subclasses__():
        yield from _classes(each)
