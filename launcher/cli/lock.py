"""`launch lock [NAME…]`: writes which files, engine and options these models have now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from launcher.cli.options import How, Network, Printing, UsageError, Which, option, request_of
from launcher.lockfile import Locked, read_lock, write_lock
from launcher.output import Output, format_bytes
from launcher.planning import Request

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Models; those of the file if none.")]
File = Annotated[Path, option("-o --output", "FILE", "The lock file; what else it holds stays.")]


def command(
    context: typer.Context,
    which: Which,
    how: How,
    network: Network,
    printing: Printing,
    names: Names = None,
    output: File = Path("launch.lock"),
) -> None:
    printed = printing.output()
    held = {entry.model: entry for entry in read_lock(output)} if output.exists() else {}
    given = [*(names or ()), *(each for each in (which.model_name, which.model_path) if each)]
    asked = request_of(which, how, network, engine_args=context.obj)
    if given:
        fresh = [_lock(name, asked, printed) for name in given]
    elif held:
        from launcher.locking import request_of as request_again

        common: Request = {"registry": asked["registry"], "offline": asked["offline"]}
        fresh = [_lock(entry.model, {**request_again(entry), **common}, printed) for entry in held.values()]
    else:
        raise UsageError("No model is named", hint="launch lock NAME")
    write_lock(output, list({**held, **{entry.model: entry for entry in fresh}}.values()))
    printed.say(f"{output} is written")


def _lock(name: str, request: Request, output: Output) -> Locked:
    from launcher.cli.running import plan_of
    from launcher.instance import check_launchable
    from launcher.locking import lock_plan

    plan = plan_of(name, request)
    check_launchable(plan)
    entry = lock_plan(plan, request, output.progress)
    output.end_progress()
    output.event("locked", entry.as_dict())
    output.say(_in_words(entry))
    return entry


def _in_words(entry: Locked) -> str:
    count = f"{len(entry.files)} file{'s' if len(entry.files) != 1 else ''}"
    size = format_bytes(sum(file.size_bytes for file in entry.files))
    return f"{entry.model} as {entry.model_format} {entry.quantization} at {entry.revision[:12]}: {count}, {size}"
