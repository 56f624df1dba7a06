"""What the gateway needs to know of a running engine, and by which names a model is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launcher.control import status_of
from launcher.instance import Instance
from launcher.plans import Plan

if TYPE_CHECKING:
    from launcher.gateway import Served


def known_names(plan: Plan) -> tuple[str, ...]:
    """Return what the catalogue and the hubs call a planned model: its name, aliases and repo ids."""
    model = plan.model
    repos = (source.repo_for(plan.quantization) for spec in model.specs for source in spec.sources)
    return tuple(dict.fromkeys((model.name, *model.aliases, *repos)))


def served_by(instance: Instance, names: tuple[str, ...] = (), *, max_queue: int | None = None) -> Served:
    """Return an instance as the gateway serves it, by all that its model is known by unless it has other `names`."""
    from launcher.gateway import Served

    names = names or known_names(instance.plan)
    return Served(
        names,
        instance.process.address,
        instance.target,
        slots=instance.plan.concurrency,
        max_queue=max_queue,
        version=instance.plan.environment.version,
        pid=instance.process.pid,
        status=status_of(instance.record)._replace(name=names[0], aliases=names[1:]),
    )
