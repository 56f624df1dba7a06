"""An endpoint in the foreground, until it is stopped."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from launcher import detaching
from launcher.exposure import Exposure
from launcher.output import Output
from launcher.servers import Origin

if TYPE_CHECKING:
    from launcher.access_log import AccessLog
    from launcher.fleet import Event
    from launcher.gateway import Fleet


def serve(
    fleet: Fleet,
    output: Output,
    exposure: Exposure,
    origin: Origin,
    access_log: AccessLog | None,
    *,
    ready: Callable[[str], str],
    model: str,
) -> None:
    """Say by `ready` what answers where, and answer until Ctrl-C or TERM; `model` is an example to ask for.

    Raises KeyboardInterrupt for Ctrl-C, and what the fleet cannot go on for.
    """
    from launcher.gateway import run_gateway

    def tell(url: str) -> None:
        output.event("ready", {"url": url, "pid": os.getpid(), "name": origin.name})
        output.say(ready(url))
        if origin.log:
            return
        key = ' -H "Authorization: Bearer KEY"' if exposure.keys else ""
        output.say(f'Ctrl-C stops · try: curl {url}/chat/completions{key} -H "Content-Type: application/json" \\')
        output.say(f"""  -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'""")

    if run_gateway(fleet, exposure, on_ready=tell, access_log=access_log, origin=origin) == signal.SIGINT:
        print(file=sys.stderr)  # noqa: T201 - after the terminal's ^C
        raise KeyboardInterrupt


def own_origin(name: str, file: str | None = None) -> Origin:
    """Return how this process came to be; what it was given is kept where it can be started again without anybody."""
    log = detaching.own_log()
    return Origin(name, log, tuple(sys.argv[1:]) if log else (), os.getcwd(), file)


def teller(output: Output) -> Callable[[Event], None]:
    """Return what says on `output` what becomes of models while they are served."""

    def tell(event: Event) -> None:
        output.event(event.kind, event.facts)
        output.say(event.text)

    return tell
