"""`launch serve`: one endpoint for the models of launch.yaml."""

from __future__ import annotations

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from launcher.cli.options import (
    SERVE,
    Network,
    Printing,
    Reach,
    Traffic,
    UsageError,
    Watching,
    option,
    quantity,
    setting,
)
from launcher.output import Output, format_seconds
from launcher.quantities import parse_size_bytes

if TYPE_CHECKING:
    from launcher.gateway import Offer
    from launcher.instance import Instance
    from launcher.plans import Plan
    from launcher.serve_file import ServeFile

# What `ps`, `stop` and `reload` call it.
SERVER_NAME = "serve"
DEFAULT_FILE = Path("launch.yaml")


def _read_defaults(context: typer.Context, path: Path | None) -> Path:
    """Let the file's defaults stand in for the command line's."""
    from launcher.serve_file import read_serve_file

    path = path or DEFAULT_FILE
    if not context.resilient_parsing:
        if not path.exists():
            raise UsageError(f"There is no `{path}` that says what to serve", hint="launch serve -c FILE")
        context.obj = read_serve_file(path)
        context.default_map = dict(context.obj.options)
    return path


Config = Annotated[
    Path | None,
    option(
        "-c --config",
        "FILE",
        "What to serve; ./launch.yaml by default.",
        heading=SERVE,
        is_eager=True,
        callback=_read_defaults,
    ),
]
MaxMemory = Annotated[
    str | None,
    setting("--max-memory", "SIZE", "What all models together may take: 12GB. By default what is free.", heading=SERVE),
]
Detach = Annotated[
    bool, option("-d --detach", None, "Serve without this terminal, and return when it is ready.", heading=SERVE)
]


def command(
    context: typer.Context,
    *,
    config: Config = None,
    detach: Detach = False,
    max_memory: MaxMemory = None,
    reach: Reach,
    traffic: Traffic,
    watching: Watching,
    network: Network,
    printing: Printing,
) -> None:
    from launcher import detaching, serving
    from launcher.access_log import opened_access_log
    from launcher.cli import running
    from launcher.fleet import Fleet

    output = printing.output()
    if detach and detaching.own_log() is None:
        reach.check_key_unseen()
        if code := detaching.start_server(sys.argv[1:], output):
            raise typer.Exit(code)
        return
    exposure = reach.exposure()
    running.check_reach(exposure, output)
    file: ServeFile = context.obj
    cap_bytes = None if max_memory is None else quantity("--max-memory", max_memory, parse_size_bytes)
    over = network.request()
    fleet = Fleet(watching.care(), serving.teller(output), cap_bytes=cap_bytes, max_queue=traffic.max_queue, over=over)
    began = time.monotonic()

    def ready(url: str) -> str:
        models = ", ".join(_shown(offer) for offer in fleet.offers)
        return f"ready in {format_seconds(time.monotonic() - began)}   {url}   {models}"

    with opened_access_log(traffic.access_log) as access_log, ExitStack() as started:
        for keeper in fleet.add_file(file):
            if keeper.model.load == "start":
                started.callback(fleet.start(keeper, lambda plan: _started(plan, output)).stop)
        origin = serving.own_origin(SERVER_NAME, str(file.path.absolute()))
        serving.serve(fleet, output, exposure, origin, access_log, ready=ready, model=file.models[0].name)


def _started(plan: Plan, output: Output) -> Instance:
    """Return a model's engine, ready, with its progress on the screen."""
    from launcher.cli import running
    from launcher.settling import settle

    plan = settle(plan, output.progress)
    running.announce(plan, output)
    return running.start(plan, output, is_probed=True)


def _shown(offer: Offer) -> str:
    return offer.name if offer.is_required else f"{offer.name} on demand"
