"""`launch lock [NAME…]`: writes which files, engine and options these models have now."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, cast

import typer

from launcher.cli.options import How, Network, Printing, UsageError, Which, option, request_of
from launcher.cli.running import plan_of
from launcher.describe import hub_title
from launcher.lockfile import DEFAULT_PATH, Locked, read_lock, write_lock
from launcher.locking import lock_plan
from launcher.locking import request_of as request_again
from launcher.output import Output, format_bytes, format_count
from launcher.planning import Request
from launcher.settling import settle

Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]…", help="Models; those of the file if none.")]
File = Annotated[Path, option("-o --output", "FILE", "The lock file; what else it holds stays.")]


def command(
    context: typer.Context,
    which: Which,
    how: How,
    network: Network,
    printing: Printing,
    names: Names = None,
    output: File = DEFAULT_PATH,
) -> None:
    printed = printing.output()
    held = read_lock(output) if output.exists() else ()
    given = [*(names or ()), *(name for name in (which.model_name, which.model_path) if name)]
    asked = request_of(which, how, network, engine_args=context.obj)
    fresh = [_lock(name, request, printed) for name, request in _requests(given, held, asked)]
    write_lock(output, list({entry.model: entry for entry in (*held, *fresh)}.values()))
    printed.say(f"{output} is written")


def _requests(given: Sequence[str], held: Iterable[Locked], asked: Request) -> Iterator[tuple[str, Request]]:
    """Yield each model with what to ask for: what is asked now, or where none is named what was asked for before."""
    if not given and not held:
        raise UsageError("No model is named", hint="launch lock NAME")
    yield from ((name, asked) for name in given)
    if not given:
        changed = {name: value for name, value in asked.items() if value != ()}
        yield from ((entry.model, cast(Request, {**request_again(entry), **changed})) for entry in held)


def _lock(name: str, request: Request, output: Output) -> Locked:
    plan = settle(plan_of(name, request), output.progress)
    for warning in plan.warnings:
        output.warn(warning)
    entry = lock_plan(plan, request, output.progress)
    output.end_progress()
    output.event("locked", entry.as_dict())
    for line in _in_words(entry):
        output.say(line)
    return entry


def _in_words(entry: Locked) -> Iterator[str]:
    yield f"{entry.model} as {entry.model_format} {entry.quantization} on {entry.engine.name}"
    count = format_count(len(entry.files), "file")
    size = format_bytes(sum(file.size_bytes for file in entry.files))
    at = f" at {entry.revision[:12]}" if entry.revision else ""
    yield f"  locked    {count}, {size} on {hub_title(entry.hub)}{at}"
