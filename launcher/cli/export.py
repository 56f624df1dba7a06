"""`launch export systemd NAME`: what lets a machine serve a model without anybody."""

from __future__ import annotations

import sys
from typing import Any

import typer

from launcher.cli.options import (
    How,
    Name,
    Network,
    Pinned,
    Printing,
    Reach,
    Traffic,
    Which,
    grouped,
    model_of,
    request_of,
)


def group(settings: dict[str, Any], command_class: Any) -> typer.Typer:
    """Return the commands under `launch export`."""
    app = typer.Typer(no_args_is_help=True, help="Write what other programs start models from.", **settings)
    app.callback()(lambda: None)
    app.command("systemd", cls=command_class, context_settings=settings["context_settings"])(grouped(_systemd))
    return app


def _systemd(
    context: typer.Context,
    which: Which,
    how: How,
    reach: Reach,
    traffic: Traffic,
    network: Network,
    pinned: Pinned,
    printing: Printing,
    name: Name = None,
) -> None:
    """Print a unit for systemd that serves a model with these options, for this user."""
    from launcher.cli import running
    from launcher.systemd import unit, unit_name

    output = printing.output()
    request = request_of(which, how, network, pinned, engine_args=context.obj)
    plan = running.plan_of(model_of(name, which, pinned), request)
    reach.check_key_unseen()
    reach.exposure()  # what could not be served is said now
    program = (sys.executable, "-P", "-m", "launcher")
    output.lines(unit(plan.name, (*program, *sys.argv[3:])).splitlines())
    file = unit_name(plan.name)
    output.say(f"# save it as ~/.config/systemd/user/{file}, then:")
    output.say(f"#   systemctl --user daemon-reload && systemctl --user enable --now {file}")
    output.say("#   loginctl enable-linger    (to start without a login)")
