"""What the commands that start something have in common: the plan in words, the start, the answers, the endpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from launcher import describe
from launcher.cli import prompts
from launcher.cli.commands import near_command
from launcher.cli.options import Ask, Sharing, Traffic, Watching
from launcher.instance import Instance, attach, start_instance
from launcher.output import Output, format_seconds
from launcher.planning import Request, make_plan
from launcher.plans import Plan
from launcher.settling import settle
from registry.errors import UnknownModelError

if TYPE_CHECKING:
    from launcher.exposure import Exposure


def plan_of(model: str, request: Request) -> Plan:
    """Return the plan; a word that is nobody's model may be meant as a command."""
    try:
        return make_plan(model, request)
    except UnknownModelError as error:
        command = near_command(model)
        if command is not None and not error.suggestions:
            error.hint = f"did you mean the command `{command}`?"
        raise


def show_plan(plan: Plan, output: Output, *, explain: bool = False) -> None:
    """Print a plan and do nothing."""
    if output.as_json:
        output.data(plan.as_dict())
    else:
        output.lines(list(describe.plan_lines(plan, explain=explain)))


def announce(plan: Plan, output: Output, *, with_engine: bool = True) -> None:
    """Say what is about to happen, before the first byte; `with_engine` where one is to be started."""
    output.event("plan", plan.as_dict())
    output.say(describe.headline(plan))
    for line in describe.summary_lines(plan, with_engine=with_engine):
        output.say(line)
    for warning in plan.warnings:
        output.warn(warning)


def start(plan: Plan, output: Output, *, is_probed: bool, keep_s: float = 0) -> Instance:
    """Start a plan's engine, with its progress on the screen."""
    report = output.progress_and_log if output.verbose else output.progress
    instance = start_instance(plan, report, is_probed=is_probed, keep_s=keep_s)
    output.end_progress()
    return instance


def attach_or_start(plan: Plan, output: Output, sharing: Sharing) -> Instance:
    """Return a running engine that does all that the plan asks for, else a new one."""
    if not sharing.new and (instance := attach(plan, sharing.keep_s())) is not None:
        output.event("attached", {"name": plan.name, "pid": instance.record.pid})
        output.say(f"using the running {plan.name}, pid {instance.record.pid}")
        return instance
    plan = settle(plan, output.progress)
    announce(plan, output)
    # The first question is itself the proof that the model runs.
    return start(plan, output, is_probed=False, keep_s=sharing.keep_s())


def answer(
    plan: Plan, output: Output, questions: Sequence[str], ask: Ask, manner: prompts.Manner, sharing: Sharing
) -> None:
    """Answer the questions and leave."""
    prompts.check(plan, ask, manner)
    from engines.session import Session

    instance = attach_or_start(plan, output, sharing)
    try:
        target = instance.target
        manner = prompts.possible(manner, target.name, target.abilities, output)
        with instance.explaining():
            prompts.answer(Session(instance.process.address, target), output, questions, ask, manner)
    finally:
        instance.stop()


def check_reach(exposure: Exposure, output: Output) -> None:
    """Say what is to be said of who can ask; raises what `Exposure.check` raises, before anything is fetched."""
    exposure.check()
    for warning in exposure.warnings:
        output.warn(warning)


def serve(plan: Plan, output: Output, exposure: Exposure, traffic: Traffic, watching: Watching) -> None:
    """Serve the model to those of `exposure` until it is stopped."""
    from launcher import serving
    from launcher.access_log import opened_access_log
    from launcher.fleet import Fleet, Planned
    from launcher.serve_file import ServedModel

    began, care = time.monotonic(), watching.care()
    check_reach(exposure, output)
    with opened_access_log(traffic.access_log) as access_log:
        plan = settle(plan, output.progress)
        announce(plan, output)
        for line in describe.engine_lines(plan):
            output.say(line)
        fleet = Fleet(care, serving.teller(output), ends_when_failed=True)
        asked = plan.asked
        model = ServedModel(plan.name, asked.model, (), asked.request, "start", None, True, traffic.max_queue)
        (keeper,) = fleet.add(Planned(model, plan))
        instance = fleet.start(keeper, lambda planned: start(planned, output, is_probed=True))

        def ready(url: str) -> str:
            context = f"context {plan.context_length:,} {describe.at_once(plan.concurrency)}"
            took = format_seconds(time.monotonic() - began)
            return f"ready in {took}   {url}   {context}   device {plan.device}"

        try:
            origin = serving.own_origin(plan.name)
            serving.serve(fleet, output, exposure, origin, access_log, ready=ready, model=plan.name)
        finally:
            instance.stop()
