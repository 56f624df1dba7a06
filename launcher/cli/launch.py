"""`launch NAME`: shows the plan, serves the model, or with `--prompt` answers and leaves."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from launcher.cli.options import (
    ASK,
    SERVE,
    SHOW,
    Ask,
    Elsewhere,
    How,
    Name,
    Network,
    Pinned,
    Printing,
    Reach,
    Sharing,
    Traffic,
    Watching,
    Which,
    at_most_one_name,
    model_of,
    option,
    request_of,
)

Prompt = Annotated[
    list[str] | None,
    option("-p --prompt", "TEXT", "Ask this and leave; may be repeated; - is stdin, @FILE a file.", heading=ASK),
]
Raw = Annotated[bool, option("--raw", None, "Give the prompt as it is, without the model's template.", heading=ASK)]
Suffix = Annotated[
    str | None,
    option("--suffix", "TEXT", "Fill in what is between the prompt and this, or @FILE.", heading=ASK),
]
Detach = Annotated[
    bool,
    option("-d --detach", None, "Serve without this terminal, and return when it is ready.", heading=SERVE),
]
DryRun = Annotated[bool, option("--dry-run", None, "Show what would be done, and do nothing.", heading=SHOW)]
Explain = Annotated[bool, option("--explain", None, "The same, with every rejected combination.", heading=SHOW)]


def command(
    context: typer.Context,
    *,
    name: Name = None,
    which: Which,
    pinned: Pinned,
    how: How,
    prompt: Prompt = None,
    raw: Raw = False,
    suffix: Suffix = None,
    ask: Ask,
    elsewhere: Elsewhere,
    detach: Detach = False,
    reach: Reach,
    traffic: Traffic,
    watching: Watching,
    sharing: Sharing,
    dry_run: DryRun = False,
    explain: Explain = False,
    network: Network,
    printing: Printing,
) -> None:
    from launcher import detaching
    from launcher.cli import prompts, running
    from launcher.cli.elsewhere import connected, refuse_without_question

    output = printing.output(has_events=not prompt)
    manner = prompts.Manner(raw, None if suffix is None else prompts.read_text(suffix))
    if elsewhere.url is not None and prompt:
        with connected(context, elsewhere.url, at_most_one_name(name, which.model_name), output) as model:
            manner = prompts.possible(manner, model.name, model.abilities, output)
            prompts.check_manner(ask, manner)
            prompts.answer(model, output, prompts.read_prompts(prompt), ask, manner)
        return
    refuse_without_question(context)
    request = request_of(which, how, network, pinned, engine_args=context.obj)
    if prompt and "locked" not in request:
        request.setdefault("concurrency", 1)
        request.setdefault("start", "fast")
    plan = running.plan_of(model_of(name, which, pinned), request)
    if dry_run or explain:
        running.show_plan(plan, output, explain=explain)
    elif prompt:
        running.answer(plan, output, prompts.read_prompts(prompt), ask, manner, sharing)
    elif detach and detaching.own_log() is None:
        reach.check_key_unseen()
        if code := detaching.start_server(sys.argv[1:], output):
            raise typer.Exit(code)
    else:
        running.serve(plan, output, reach.exposure(), traffic, watching)
