"""`launch NAME`: shows the plan, serves the model, or with `--prompt` answers and leaves."""

from __future__ import annotations

from typing import Annotated

import typer

from launcher.cli.options import Ask, How, Name, Network, Printing, Which, model_of, request_of

Prompt = Annotated[
    list[str] | None,
    typer.Option("-p", "--prompt", help="Ask this and leave; may be repeated. `-` reads stdin, @FILE a file."),
]

Port = Annotated[int, typer.Option("--port", help="0 takes any that is free.", envvar="LAUNCH_PORT", min=0, max=65535)]


def command(
    context: typer.Context,
    which: Which,
    how: How,
    ask: Ask,
    network: Network,
    printing: Printing,
    name: Name = None,
    prompt: Prompt = None,
    raw: Annotated[bool, typer.Option("--raw", help="Give the prompt as it is, without the model's template.")] = False,
    port: Port = 8000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="The same, with every rejected combination.")] = False,
) -> None:
    from launcher.cli import prompts, running

    output = printing.output(has_events=not prompt)
    request = request_of(which, how, network, engine_args=context.obj)
    if prompt:
        request.setdefault("concurrency", 1)
    plan = running.plan_of(model_of(name, which), request)
    if dry_run or explain:
        running.show_plan(plan, output, explain=explain)
    elif prompt:
        running.answer(plan, output, prompts.read_prompts(prompt), ask, is_raw=raw)
    else:
        running.serve(plan, output, port)
