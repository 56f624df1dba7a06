"""`launch export systemd`: what lets a machine serve a model, or those of a file, without anybody."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from launcher.cli.options import (
    How,
    Name,
    Network,
    Pinned,
    Printing,
    Reach,
    Traffic,
    UsageError,
    Which,
    grouped,
    model_of,
    option,
    request_of,
)

if TYPE_CHECKING:
    from launcher.planning import Request

# Where the units of a user are, from the home.
FOLDER = ".config/systemd/user"


def group(settings: dict[str, Any], command_class: Any) -> typer.Typer:
    """Return the commands under `launch export`."""
    app = typer.Typer(no_args_is_help=True, help="Write what other programs start models from.", **settings)
    app.callback()(lambda: None)
    app.command("systemd", cls=command_class, context_settings=settings["context_settings"])(grouped(_systemd))
    return app


Config = Annotated[
    Path | None, option("--config", "FILE", "Serve the models of this file, as `launch serve` does, instead of NAME.")
]


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
    config: Config = None,
) -> None:
    """Print a unit for systemd that serves a model with these options, or the models of a file, for this user."""
    from launcher.endpoint import read_key
    from launcher.systemd import unit, unit_name

    output = printing.output()
    request = request_of(which, how, network, pinned, engine_args=context.obj)
    program = [sys.executable, "-P", "-m", "launcher"]
    if config is None:
        served = _planned(model_of(name, which, pinned), request)
    else:
        _refuse_beside_file(name, which, request)
        served = _served_by(config)
        program.append("serve")
    reach.check_key_unseen()
    reach.exposure()  # what could not be served is said now
    file = unit_name(served)
    key_file = f"{FOLDER}/{file.removesuffix('.service')}.env" if read_key() else None
    output.lines(unit(served, (*program, *sys.argv[3:]), Path.cwd(), key_file).splitlines())
    output.say(f"# save it as ~/{FOLDER}/{file}, then:")
    if key_file is not None:
        line = f"""printf "LAUNCH_API_KEY='%s'\\n" "$LAUNCH_API_KEY" > ~/{key_file}"""
        output.say(f"#   (umask 077; {line})")
    output.say(f"#   systemctl --user daemon-reload && systemctl --user enable --now {file}")
    output.say("#   loginctl enable-linger    (to start without a login)")


def _planned(model: str, request: Request) -> str:
    """Return the name of a model that can be launched; raises what planning it raises."""
    from launcher.cli import running

    return running.plan_of(model, request).name


def _served_by(file: Path) -> str:
    """Return the name of a file that can be served; raises SchemaError."""
    from launcher.serve_file import read_serve_file

    return read_serve_file(file).path.stem


def _refuse_beside_file(name: str | None, which: Which, request: Request) -> None:
    """Raise UsageError for what says which model, or how it is launched: that is in the file."""
    if (name, which.model_name, which.model_path, request) == (None, None, None, request_of(Which(), How(), Network())):
        return
    raise UsageError(
        "With `--config` the file says which models, and how they are launched", hint="launch serve --help"
    )
