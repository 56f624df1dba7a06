"""The endpoint in front of one instance, in the foreground until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

from launcher import detaching
from launcher.control import status_of
from launcher.describe import at_once
from launcher.exposure import Exposure
from launcher.instance import Instance
from launcher.output import Output, format_seconds
from launcher.servers import Origin

if TYPE_CHECKING:
    from launcher.access_log import AccessLog
    from launcher.gateway import Served


def served_by(instance: Instance, *, max_queue: int | None = None) -> Served:
    """Return what the gateway needs to know of an instance: it answers to name, aliases and repo ids."""
    from launcher.gateway import Served

    plan = instance.plan
    model = plan.model
    repos = (source.repo_for(plan.quantization) for spec in model.specs for source in spec.sources)
    names = tuple(dict.fromkeys((model.name, *model.aliases, *repos)))
    return Served(
        names,
        instance.process.address,
        instance.target,
        slots=plan.concurrency,
        max_queue=max_queue,
        version=plan.environment.version,
        pid=instance.process.pid,
        status=status_of(instance.record)._replace(name=names[0], aliases=names[1:]),
    )


def serve(
    instance: Instance,
    served: Served,
    output: Output,
    exposure: Exposure,
    access_log: AccessLog | None,
    *,
    took_s: float,
) -> None:
    """Say that it is ready and how long that took, and answer until Ctrl-C or TERM.

    Raises KeyboardInterrupt for Ctrl-C, and a LoadError that says why if the engine ends.
    """
    from launcher.gateway import run_gateway

    origin = _origin(instance.plan.name)

    def tell(url: str) -> None:
        plan = instance.plan
        output.event("ready", {"url": url, "pid": os.getpid(), "name": plan.name})
        context = f"context {plan.context_length:,} {at_once(plan.concurrency)}"
        output.say(f"ready in {format_seconds(took_s)}   {url}   {context}   device {plan.device}")
        if origin.log:
            return
        key = ' -H "Authorization: Bearer KEY"' if exposure.keys else ""
        output.say(f'Ctrl-C stops · try: curl {url}/chat/completions{key} -H "Content-Type: application/json" \\')
        output.say(f"""  -d '{{"model": "{plan.name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'""")

    came = run_gateway(
        served, exposure, on_ready=tell, is_alive=instance.process.is_alive, access_log=access_log, origin=origin
    )
    if came is None:
        raise instance.process.failure()
    if came == signal.SIGINT:
        print(file=sys.stderr)  # noqa: T201 - after the terminal's ^C
        raise KeyboardInterrupt


def _origin(name: str) -> Origin:
    """Return how this process came to be; what it was given is kept where it can be started again without anybody."""
    log = detaching.own_log()
    return Origin(name, log, tuple(sys.argv[1:]) if log else (), os.getcwd())
