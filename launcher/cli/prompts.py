"""Reads what is asked on the command line, and prints the answers."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher.cli.options import Ask, UsageError
from launcher.output import Output, is_terminal
from launcher.plans import Plan
from registry.errors import ContextOverflowError

if TYPE_CHECKING:
    from engines.generation import Result, Sampling
    from engines.messages import Message
    from engines.session import Stream
    from launcher.instance import Instance


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


def check(plan: Plan, ask: Ask) -> None:
    """Refuse what the engine would refuse, before anything is fetched or started."""
    if not (sampling := ask.sampling()):
        return
    from engines.generation import check_sampling

    given = check_sampling(sampling)
    limit = given.get("max_tokens")
    if isinstance(limit, int) and limit > plan.context_length:
        raise ContextOverflowError(
            f"`--max-tokens {limit:,}` is more than the context of {plan.context_length:,} tokens",
            prompt_tokens=0,
            context_length=plan.context_length,
            hint="--context-length max",
        )


def answer(
    instance: Instance,
    output: Output,
    questions: Sequence[str],
    system: str | None,
    sampling: Sampling,
    *,
    is_raw: bool,
) -> None:
    """Print the answer to each question in turn, as it is made."""
    from engines.session import Session

    session = Session(instance.process.address, instance.target)
    has_template = "chat" in instance.plan.model.abilities
    if not has_template and not is_raw:
        output.say(f"`{instance.plan.name}` has no chat template: the prompt is given as it is")
    for number, question in enumerate(questions):
        if number and not output.as_json:
            output.write("\n")
        if is_raw or not has_template:
            stream: Stream[Any] = session.generate_stream(question, **sampling)
        else:
            stream = session.chat_stream(conversation(question, system), **sampling)
        with instance.explaining():
            print_stream(stream, output, is_last=number == len(questions) - 1)


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
            "total_tokens": result.usage.total_tokens,
        },
        "timings": result.timings._asdict(),
    }
