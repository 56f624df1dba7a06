"""`launch check NAME`: three fixed questions, their answers, speed and memory; pass or fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from launcher.cli.options import How, Name, Network, Pinned, Printing, Which, model_of, request_of

if TYPE_CHECKING:
    from launcher.checking import Answer, Checked
    from launcher.plans import Plan

SHOWN_CHARACTERS = 200


def command(
    context: typer.Context,
    which: Which,
    how: How,
    network: Network,
    pinned: Pinned,
    printing: Printing,
    name: Name = None,
) -> None:
    from launcher.checking import CheckFailedError, check
    from launcher.cli import running
    from launcher.settling import settle

    output = printing.output(has_events=False)
    request = request_of(which, how, network, pinned, engine_args=context.obj)
    plan = settle(running.plan_of(model_of(name, which, pinned), request), output.progress)
    running.announce(plan, output)
    checked = check(plan, output.progress_and_log if output.verbose else output.progress)
    output.end_progress()
    if not output.as_json:
        output.lines(list(_lines(checked)))
        if checked.faults:
            raise CheckFailedError(checked)
        return
    output.result("check", _record(plan, checked))
    if checked.faults:
        raise typer.Exit(1)


def _lines(checked: Checked) -> Iterator[str]:
    from launcher.output import format_bytes, format_seconds

    for answer in checked.answers:
        yield f"{'failed' if answer.fault else 'ok':<7} {answer.prompt}"
        yield from (f"        {line}" for line in _answer_lines(answer))
    speed = "" if checked.tokens_per_s is None else f"   {checked.tokens_per_s:.1f} tokens/s"
    memory = f"   memory {format_bytes(checked.peak_memory_bytes)} at most"
    yield f"ready in {format_seconds(checked.ready_s)}{speed}{memory}"


def _answer_lines(answer: Answer) -> Iterator[str]:
    from launcher.output import format_count

    if answer.text is None:
        yield f"a vector of {answer.size} numbers"
        return
    yield shortened(answer.text) or "(no text)"
    if not answer.completion_tokens:
        return
    parts = [format_count(answer.completion_tokens, "token"), f"ended by {answer.finish_reason}"]
    if answer.first_token_s:
        parts.append(f"the first after {answer.first_token_s:.2f} s")
    if answer.tokens_per_s:
        parts.append(f"{answer.tokens_per_s:.1f} tokens/s")
    yield ", ".join(parts)


def shortened(text: str) -> str:
    """Return a text in one line, cut where it is long."""
    line = " ".join(text.split())
    return line if len(line) <= SHOWN_CHARACTERS else f"{line[: SHOWN_CHARACTERS - 1]}…"


def _record(plan: Plan, checked: Checked) -> dict[str, Any]:
    return {
        "passed": not checked.faults,
        "name": plan.name,
        "model_format": plan.model_format,
        "quantization": plan.quantization,
        "engine": plan.engine,
        "device": plan.device,
        "ready_s": checked.ready_s,
        "tokens_per_s": checked.tokens_per_s,
        "peak_memory_bytes": checked.peak_memory_bytes,
        "answers": [answer._asdict() for answer in checked.answers],
    }
