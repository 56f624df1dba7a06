"""Whether a model works here: three fixed questions to a running instance, and what their answers took."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

from launcher.instance import Instance, start_instance
from launcher.memory import peak_bytes_below
from launcher.plans import Plan
from registry.errors import LaunchError
from registry.progress import Progress, Report

if TYPE_CHECKING:
    from engines.generation import Result

QUESTIONS = ("What is the capital of France?", "Count from one to ten.", "Write one sentence about the sea.")
# For models without a template, which go on with what they are given.
BEGINNINGS = ("The capital of France is", "One, two, three, four,", "The sea is")
MAX_TOKENS = 64
WHOLE = ("stop", "length")


class Answer(NamedTuple):
    """What came of one prompt, as text or as a vector of `size` numbers; `fault` says what is wrong with it."""

    prompt: str
    text: str | None = None
    finish_reason: str | None = None
    completion_tokens: int | None = None
    first_token_s: float | None = None
    tokens_per_s: float | None = None
    size: int | None = None
    fault: str | None = None


class Checked(NamedTuple):
    """What a check found: the answers, seconds from the engine's start until it was ready, and its peak of memory."""

    answers: tuple[Answer, ...]
    ready_s: float
    peak_memory_bytes: int

    @property
    def faults(self) -> tuple[str, ...]:
        return tuple(f"`{answer.prompt}`: {answer.fault}" for answer in self.answers if answer.fault)

    @property
    def tokens_per_s(self) -> float | None:
        """The median of the answers' speeds, or None where no answer was long enough to have one."""
        speeds = [answer.tokens_per_s for answer in self.answers if answer.tokens_per_s]
        return median(speeds) if speeds else None


class CheckFailedError(LaunchError):
    """The model runs, and its answers are none."""

    kind = "check"

    def __init__(self, checked: Checked) -> None:
        count = len(checked.faults)
        message = f"{count} of {len(checked.answers)} answers {'is' if count == 1 else 'are'} none"
        super().__init__(
            message, details=checked.faults, hint="take another quantization with `-q`, or another engine with `-en`"
        )


class Watch:
    """A report that hands on what it is told, and notes how long the engine loaded."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._loads_at: list[float] = []

    @property
    def load_s(self) -> float:
        return self._loads_at[-1] - self._loads_at[0]

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "load":
            self._loads_at.append(time.monotonic())
        self._report(progress)


def check(plan: Plan, report: Report) -> Checked:
    """Start a settled plan's engine, ask it three times, and stop it; raises what a launch and its requests raise.

    Others cannot use the engine meanwhile: their requests would count as its own slowness.
    """
    watch = Watch(report)
    instance = start_instance(plan, watch, is_shared=False)
    try:
        answers = tuple(ask(instance, report))
        return Checked(answers, watch.load_s, peak_bytes_below(instance.process.pid))
    finally:
        instance.stop()


def ask(instance: Instance, report: Report) -> Iterator[Answer]:
    """Yield what an instance makes of each prompt: greedily, by the model's template where it has one."""
    from engines.session import Session

    abilities = instance.target.abilities
    session = Session(instance.process.address, instance.target)
    with instance.explaining():
        if "embed" in abilities and "chat" not in abilities:
            yield from judge_vectors(QUESTIONS, session.embed(QUESTIONS))
            return
        prompts, generate = (QUESTIONS, session.chat) if "chat" in abilities else (BEGINNINGS, session.generate)
        for number, prompt in enumerate(prompts):
            report(Progress("check", number, len(prompts), f"asking {number + 1} of {len(prompts)}"))
            yield judge_text(prompt, generate(prompt, temperature=0, max_tokens=MAX_TOKENS))


def judge_text(prompt: str, result: Result) -> Answer:
    """Return an answer with what is wrong with it; what a model thinks before it answers is text, too."""
    text = (getattr(result, "reasoning", None) or "") + result.text
    fault = None if text.strip() else "it has no text"
    if result.finish_reason not in WHOLE:
        fault = f"it ended by `{result.finish_reason}`"
    return Answer(
        prompt=prompt,
        text=text,
        finish_reason=result.finish_reason,
        completion_tokens=result.usage.completion_tokens,
        first_token_s=result.timings.first_token_s,
        tokens_per_s=result.timings.tokens_per_s,
        fault=fault,
    )


def judge_vectors(texts: Sequence[str], vectors: Sequence[Sequence[float]]) -> Iterator[Answer]:
    """Yield the size of each vector, with what is wrong with it."""
    for text, vector in zip(texts, vectors, strict=True):
        fault = None
        if not any(vector):
            fault = "its vector is empty or all zero"
        elif not all(map(math.isfinite, vector)):
            fault = "its vector has numbers that are none"
        elif len(vector) != len(vectors[0]):
            fault = f"its vector has {len(vector)} numbers, the first one {len(vectors[0])}"
        yield Answer(text, size=len(vector), fault=fault)
