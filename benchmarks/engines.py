"""Compare tokens a second through `launch`'s session with each engine's own server or API, driven directly.

    python -m benchmarks.engines [--engine NAME] [--pairs N]

Both run all the time, one of them stopped while the other is asked: in pairs that alternate who goes first, each pair
with prompts of its own, one stream and eight. Model, threads, context, slots, type and sampling are the plan's in both.
Fails where the median of the pairs' ratios is below the limit.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import NamedTuple

import launcher
from tests.weights.build import KEPT
from tests.weights.built import BuiltWeights

DRIVERS = Path(__file__).with_name("direct")
LIMIT = 0.97
SLOTS = 8
TOKENS = 64
CONTEXT_LENGTH = 1024
TOPICS = ("rivers", "bridges", "bees", "clocks", "maps", "glass", "salt", "paper", "trains", "wool", "tides", "bread")

Times = list[list[float]]
Run = Callable[[list[str]], Times]


class Contest(NamedTuple):
    """An engine, the weights that both run on, and its driver's own options for a plan."""

    engine: str
    weights: str
    file: str
    driver: str
    options: Callable[[launcher.Plan], Sequence[str]]


def _llama(plan: launcher.Plan) -> Sequence[str]:
    return ("--threads", str(plan.settings.threads), "--threads-batch", str(plan.settings.batch_threads))


def _transformers(plan: launcher.Plan) -> Sequence[str]:
    return ("--threads", str(plan.settings.batch_threads), "--dtype", plan.settings.dtype)


def _vllm(plan: launcher.Plan) -> Sequence[str]:
    """Return the plan's own options that are not about where it listens, and what it is called."""
    own = plan.command[plan.command.index("--dtype") :]
    return ("--threads", str(plan.settings.batch_threads), "--", *own)


CONTESTS = (
    Contest("llama.cpp", "smollm2-gguf", "Q4_K_M.gguf", "llama_cpp.py", lambda p: (*_llama(p), "--slots", str(SLOTS))),
    Contest("llama-cpp-python", "smollm2-gguf", "Q4_K_M.gguf", "llama_cpp_python.py", _llama),
    Contest(
        "transformers",
        "smollm2-pytorch",
        "",
        "transformers.py",
        lambda p: (*("--slots", str(SLOTS)), *_transformers(p)),
    ),
    Contest("vllm", "smollm2-pytorch", "", "vllm.py", lambda p: (*("--slots", str(SLOTS)), *_vllm(p))),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", choices=[each.engine for each in CONTESTS])
    parser.add_argument("--pairs", type=int, default=5)
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # nothing may be left standing still
    os.environ.setdefault("LAUNCH_CACHE", str(KEPT / "launch"))
    weights = BuiltWeights()
    ratios = []
    for contest in CONTESTS:
        if given.engine in (None, contest.engine):
            ratios += compare(contest, weights[contest.weights] / contest.file, given.pairs)
    print(f"limit: {LIMIT}")
    return int(min(ratios) < LIMIT)


def compare(contest: Contest, model: Path, pairs: int) -> list[float]:
    """Return the median ratio of ours to theirs, for one stream and for all slots."""
    options = {"engine": contest.engine, "concurrency": SLOTS, "context_length": CONTEXT_LENGTH}
    plan = launcher.plan(model, **options)  # type: ignore[arg-type]
    ratios = []
    with launcher.launch(plan) as handle, driven(contest, handle.plan, model) as direct:
        engine = list(descendants(os.getpid(), without=direct.pid))
        ours = alone(lambda prompts: session_times(handle, prompts), stopped=tree(direct.pid))
        theirs = alone(lambda prompts: asked(direct, prompts), stopped=engine)
        for streams in (1, SLOTS):
            in_turn(ours, theirs, streams, 100)  # the first request of a kind may still compile something
            taken = [in_turn(ours, theirs, streams, number) for number in range(pairs)]
            ratios.append(median(our / its for our, its in taken))
            print(
                f"{contest.engine:16} {streams} stream{'s' if streams > 1 else ' '}"
                f"   launch {median(our for our, _ in taken):7.1f} tok/s"
                f"   directly {median(its for _, its in taken):7.1f} tok/s   ratio {ratios[-1]:.3f}"
                f"   ({', '.join(f'{our / its:.2f}' for our, its in taken)})",
                flush=True,
            )
    return ratios


def in_turn(ours: Run, theirs: Run, streams: int, number: int) -> tuple[float, float]:
    """Return what both take for the same prompts; every other pair begins with theirs."""
    chosen = [TOPICS[(number + index) % len(TOPICS)] for index in range(streams)]
    prompts = [f"A long essay on {topic}, part {number}, from the beginning:\n\n" for topic in chosen]
    turns = (ours, theirs) if number % 2 == 0 else (theirs, ours)
    taken = {run: tokens_per_s(run(prompts)) for run in turns}
    return taken[ours], taken[theirs]


def tokens_per_s(times: Times) -> float:
    """Return what streams gave while all of them were writing: prompts are read before that, and answers end after."""
    begun_s, ended_s = max(each[0] for each in times), min(each[-1] for each in times)
    if begun_s >= ended_s:  # one after another
        begun_s, ended_s = min(each[0] for each in times), max(each[-1] for each in times)
    return sum(begun_s < each_s <= ended_s for each in times for each_s in each) / (ended_s - begun_s)


def session_times(handle: launcher.Model, prompts: list[str]) -> Times:
    """Return the time of each token's arrival through our session, for each prompt."""
    with ThreadPoolExecutor(len(prompts)) as pool:
        return list(pool.map(lambda prompt: timed(handle, prompt), prompts))


def timed(handle: launcher.Model, prompt: str) -> list[float]:
    with handle.generate_stream(prompt, max_tokens=TOKENS, temperature=0) as stream:
        return [time.perf_counter() for chunk in stream if chunk.text]


# --- the other side --------------------------------------------------------------------------------------------------


@contextmanager
def driven(contest: Contest, plan: launcher.Plan, model: Path) -> Iterator[subprocess.Popen[str]]:
    """Start an engine's driver, and go on when it is ready."""
    settings = ("--model", str(model), "--tokens", str(TOKENS), "--context", str(CONTEXT_LENGTH))
    command = [plan.environment.python, "-P", str(DRIVERS / contest.driver), *settings, *contest.options(plan)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet, text=True) as driver:
        try:
            read(driver, "ready")
            yield driver
        finally:
            assert driver.stdin is not None
            driver.stdin.close()
            driver.wait(60)


def read(driver: subprocess.Popen[str], wanted: str) -> str:
    """Return the driver's next line that begins with `wanted`."""
    for line in driver.stdout or ():
        if line.startswith(wanted):
            return line
    raise SystemExit(f"{driver.args!r} ended early")


def asked(driver: subprocess.Popen[str], prompts: list[str]) -> Times:
    assert driver.stdin is not None
    driver.stdin.write(json.dumps(prompts) + "\n")
    driver.stdin.flush()
    times: Times = json.loads(read(driver, "[["))
    return times


# --- one at a time ---------------------------------------------------------------------------------------------------


def alone(run: Run, *, stopped: Sequence[int]) -> Run:
    """Return the same measurement with some processes standing still: even idle ones may wait busily."""

    def measured(prompts: list[str]) -> Times:
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            return run(prompts)
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)

    return measured


def tree(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def descendants(pid: int, *, without: int | None = None) -> Iterator[int]:
    """Yield the processes below `pid`, leaving out one with all that is below it."""
    for child, parent in parents():
        if parent == pid and child != without:
            yield child
            yield from descendants(child)


def parents() -> Iterator[tuple[int, int]]:
    """Yield all processes, each with its parent."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has just ended
            fields = status.read_text().rpartition(")")[2].split()
            yield int(status.parent.name), int(fields[1])


if __name__ == "__main__":
    sys.exit(main())
