"""Reads what is asked on the command line, and prints the answers."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from launcher.cli.options import Ask, UsageError
from launcher.output import Output, is_terminal
from launcher.plans import Plan

if TYPE_CHECKING:
    from engines.generation import Result, Target
    from engines.messages import Message
    from engines.session import Session, Stream


def read_prompts(given: Sequence[str]) -> list[str]:
    """Return the questions: `@FILE` is a file's text, `-` is stdin; else piped in at the last one's end."""
    questions = [read_text(text) for text in given]
    if "-" not in given and _is_piped():
        questions[-1] = f"{questions[-1]}\n\n{sys.stdin.read()}".strip()
    if not all(questions):
        raise UsageError("A prompt is empty", hint="is a shell variable empty?")
    return questions


def read_text(text: str) -> str:
    """Return a text given on the command line: itself, a file's after `@`, or stdin for `-`."""
    if text == "-":
        return sys.stdin.read().strip()
    if not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"`{text[1:]}` cannot be read: {reason}") from error


def _is_piped() -> bool:
    """True if something is piped or redirected into us; an inherited terminal or /dev/null is not."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


class Manner(NamedTuple):
    """How questions are put: as they are instead of by the template, or with what comes after the gap."""

    is_raw: bool = False
    suffix: str | None = None


TEMPLATED = Manner()


def check_manner(ask: Ask, manner: Manner) -> None:
    """Raise UsageError for what cannot be asked in this manner of any model."""
    if ask.json_schema is not None and (manner.is_raw or manner.suffix is not None):
        raise UsageError("`--json-schema` is for a conversation, not for `--raw` or `--suffix`")


def check(plan: Plan, ask: Ask, manner: Manner = TEMPLATED) -> None:
    """Refuse what engine or model would refuse, before anything is fetched or started."""
    check_manner(ask, manner)
    if not (ask.sampling() or ask.schema() or manner.suffix is not None):
        return
    from launcher.targets import target_of

    _draft(target_of(plan), plan, ask, manner)


def _draft(target: Target, plan: Plan, ask: Ask, manner: Manner) -> None:
    """Make a request such as will be sent: its errors are those to come."""
    from engines.requests import chat_request, completion_request, infill_request

    if manner.suffix is not None:
        infill_request(target, "?", manner.suffix, ask.sampling())
    elif manner.is_raw or "chat" not in plan.model.abilities:
        completion_request(target, "?", ask.sampling())
    else:
        chat_request(target, "?", ask.sampling(), json_schema=ask.schema())


def answer(session: Session, output: Output, questions: Sequence[str], ask: Ask, manner: Manner) -> None:
    """Print the answer to each question in turn, as it is made."""
    noted: set[str] = set()
    for number, question in enumerate(questions):
        if number and not output.as_json:
            output.write("\n")
        stream = _ask(session, question, ask, manner)
        result = print_stream(stream, output, is_last=number == len(questions) - 1)
        say_notes(result, output, noted)


def possible(manner: Manner, name: str, abilities: frozenset[str], output: Output) -> Manner:
    """Return the manner that a model is capable of: one without a template gets prompts as they are, which is said."""
    if manner.is_raw or manner.suffix is not None or "chat" in abilities:
        return manner
    output.say(f"`{name}` has no chat template: the prompt is given as it is")
    return manner._replace(is_raw=True)


def _ask(session: Session, question: str, ask: Ask, manner: Manner) -> Stream[Any]:
    if manner.suffix is not None:
        return session.infill_stream(question, manner.suffix, **ask.sampling())
    if manner.is_raw:
        return session.generate_stream(question, **ask.sampling())
    talk = conversation(question, ask.system)
    return session.chat_stream(talk, json_schema=ask.schema(), **ask.sampling())


def say_notes(result: Result, output: Output, noted: set[str]) -> None:
    """Say what was done otherwise than asked, once."""
    for note in result.notes:
        if note not in noted:
            output.say(note)
            noted.add(note)


def conversation(question: str, system: str | None) -> list[Message]:
    """Return a question as messages."""
    first = [{"role": "system", "content": read_text(system)}] if system else []
    return [*first, {"role": "user", "content": question}]


def print_stream(stream: Stream[Any], output: Output, *, is_last: bool) -> Result:
    """Print an answer as it is made, byte for byte: a line's end is added only where it helps the eye."""
    text = ""
    with stream:
        for chunk in stream:
            text += chunk.text
            if not output.as_json:
                output.write(chunk.text)
    result: Result = stream.result
    if output.as_json:
        output.result("answer", describe_result(result))
    elif not text.endswith("\n") and (not is_last or is_terminal(sys.stdout)):
        output.write("\n")
    return result


def describe_result(result: Result) -> dict[str, Any]:
    """Return an answer as plain data."""
    return {
        "text": result.text,
        "reasoning": getattr(result, "reasoning", None),
        "finish_reason": result.finish_reason,
        "usage": {
            "prompt_tokens": result.usage.prompt_tokens,
            "completion_tokens": result.usage.completion_tokens,
            "reasoning_tokens": result.usage.reasoning_tokens,
            "total_tokens": result.usage.total_tokens,
        },
        "timings": result.timings._asdict(),
        "notes": list(result.notes),
    }
