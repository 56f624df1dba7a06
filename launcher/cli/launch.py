"""`launch NAME`: shows the plan, serves the model, or with `--prompt` answers and leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from launcher import describe
from launcher.cli import prompts
from launcher.cli.options import Ask, How, Name, Network, Printing, Which, model_of, request_of
from launcher.output import Output
from launcher.plan import Plan
from launcher.planning import make_plan

if TYPE_CHECKING:
    from launcher.instance import Instance

Prompt = Annotated[
    list[str] | None,
    typer.Option("-p", "--prompt", help="Ask this and leave; may be repeated. `-` reads stdin, @FILE a file."),
]


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
    port: Annotated[int, typer.Option("--port", help="0 takes any that is free.", envvar="LAUNCH_PORT")] = 8000,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done, and do nothing.")] = False,
    explain: Annotated[bool, typer.Option("--explain", help="The same, with every rejected combination.")] = False,
) -> None:
    output = printing.output()
    request = request_of(which, how, network, engine_args=context.obj)
    if prompt:
        request.setdefault("concurrency", 1)
    plan = make_plan(model_of(name, which), request)
    if dry_run or explain:
        show_plan(plan, output, explain=explain)
    elif prompt:
        _answer(plan, output, prompts.read_prompts(prompt), ask, is_raw=raw)
    else:
        _serve(plan, output, port)


def show_plan(plan: Plan, output: Output, *, explain: bool = False) -> None:
    """Print a plan and do nothing."""
    if output.as_json:
        output.data(plan.as_dict())
    else:
        output.lines(list(describe.plan_lines(plan, explain=explain)))


def announce(plan: Plan, output: Output) -> None:
    """Say what is about to happen, before the first byte."""
    output.event("plan", plan.as_dict())
    output.say(describe.headline(plan))
    for line in describe.summary_lines(plan):
        output.say(line)
    for warning in plan.warnings:
        output.warn(warning)


def start(plan: Plan, output: Output, *, is_probed: bool) -> Instance:
    """Start a plan's engine, with its progress on the screen."""
    from launcher.instance import start_instance

    report = output.progress_and_log if output.verbose else output.progress
    instance = start_instance(plan, report, is_probed=is_probed)
    output.end_progress()
    return instance


def _answer(plan: Plan, output: Output, questions: Sequence[str], ask: Ask, *, is_raw: bool) -> None:
    sampling = ask.sampling()
    prompts.check(plan, questions, ask)
    announce(plan, output)
    # The first question is itself the proof that the model runs.
    instance = start(plan, output, is_probed=False)
    try:
        prompts.answer(instance, output, questions, ask.system, sampling, is_raw=is_raw)
    finally:
        instance.stop()


def _serve(plan: Plan, output: Output, port: int) -> None:
    from launcher.serving import check_port, serve

    check_port(port)
    announce(plan, output)
    for line in describe.engine_lines(plan):
        output.say(line)
    instance = start(plan, output, is_probed=True)
    try:
        serve(instance, output, port)
    finally:
        instance.stop()
