"""What runs, put together: each model behind each endpoint, and each engine that none is in front of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from launcher.control import ModelStatus, ask_all, status_of
from launcher.instances import Record, running_instances
from launcher.processes import wait_ended
from launcher.servers import Server, running_servers

NOT_ANSWERING = "not answering"
GONE_WITHIN_S = 0.1


class Running(NamedTuple):
    """A model behind `server`, whose engine is `instance` if it has one now; or an instance without a server.

    Of a server that does not answer there is its record alone: what is in front of its engines, or itself.
    """

    status: ModelStatus
    server: Server | None
    instance: Record | None

    @property
    def is_answering(self) -> bool:
        """Return whether a server has told this."""
        return self.server is not None and self.status.state != NOT_ANSWERING

    def is_named(self, name: str) -> bool:
        """Return whether it is this model's own name, or its instance's number."""
        is_number = self.instance is not None and name == self.instance.number
        return is_number or name.casefold() == self.status.name.casefold()

    def is_called(self, name: str) -> bool:
        """Return whether it is a name of this model, or an alias."""
        return self.is_named(name) or name.casefold() in (each.casefold() for each in self.status.aliases)


def running_models() -> list[Running]:
    """Return all that runs, the oldest first, as of a second ago at most."""
    servers = running_servers()
    told = dict(zip(servers, ask_all(servers), strict=True))
    if silent := [each.process for each, said in told.items() if said is None]:
        # Of one that was killed over this, the socket is gone a moment before the process.
        wait_ended(silent, GONE_WITHIN_S)
        told = {each: told[each] for each in running_servers() if each in told}
    instances = {each.number: each for each in running_instances()}
    found = [each for server, statuses in told.items() for each in _behind(server, statuses, instances)]
    seen = {each.instance.number for each in found if each.instance is not None}
    return found + [Running(status_of(each), None, each) for number, each in instances.items() if number not in seen]


def called(name: str, running: Sequence[Running]) -> list[Running]:
    """Return what a name means: behind each endpoint one model, whose own name goes before another's alias."""
    found = [each for each in running if each.is_called(name)]
    meant = {each.server: each for each in reversed(found)}
    meant |= {each.server: each for each in found if each.is_named(name)}
    return [each for each in found if each.server is None or each is meant[each.server]]


def models_of(server: Server, running: Sequence[Running]) -> list[Running]:
    """Return what is behind a server."""
    return [each for each in running if each.server == server]


def _behind(
    server: Server, statuses: Sequence[ModelStatus] | None, instances: Mapping[str, Record]
) -> Iterator[Running]:
    owned = [each for each in instances.values() if each.owner == server.process]
    if statuses is None:
        alone = ModelStatus(server.name, (), NOT_ANSWERING, None, "", "", "", "", 0, 0, 0, 0, None)
        for each in owned:
            yield Running(status_of(each)._replace(state=NOT_ANSWERING), server, each)
        if not owned:
            yield Running(alone, server, None)
    for status in statuses or ():
        loading = (each for each in owned if status.state == each.state == "loading" and status.name == each.name)
        instance = next(loading, None) if status.instance is None else instances.get(status.instance)
        yield _checked(Running(status, server, instance))


def _checked(running: Running) -> Running:
    """Return it with what the system says of its engine, which the server may hear of later, or never."""
    if running.status.state != "ready" or running.instance is not None:
        return running
    return running._replace(status=running.status._replace(state="failed", cause="its engine has ended"))
