"""Compare `launch smollm2-instruct -p …` with a bare xllamacpp script, in pairs that alternate who goes first.

First token: milliseconds from the start of the process to the first byte on stdout, beside the script as written and
beside it with the same settings (it then neither fits parameters to the memory nor warms up). Speed: tokens per second
after the first token. Threads, context and slots are the plan's in both. Fails above the limits.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

LAUNCH = str(Path(sys.executable).with_name("launch"))
BARE = str(Path(__file__).with_name("bare.py"))
MODEL = "smollm2-instruct"
FIRST_TOKEN_LIMIT = 1.3
SPEED_LIMIT = 0.97
COMPARED_OPTIONS = ("--model", "--ctx-size", "--parallel", "--threads", "--threads-batch")
TOPICS = ("rivers", "bridges", "bees", "clocks", "maps", "glass", "salt", "paper", "trains", "wool", "tides", "bread")

Measure = Callable[[str], float]


def read_plan(options: list[str]) -> Mapping[str, Any]:
    """Return the plan of a launch with these options, its files being here and its environment made."""
    subprocess.run([LAUNCH, MODEL, "-p", "Hello", "--max-tokens", "1", *options], check=True, capture_output=True)
    planned = subprocess.run(
        [LAUNCH, MODEL, "-p", "Hello", "--dry-run", "--json", *options], check=True, capture_output=True
    )
    plan: Mapping[str, Any] = json.loads(planned.stdout)
    return plan


def bare_command(plan: Mapping[str, Any], max_tokens: int) -> list[str]:
    """Return the script's command with the plan's model, context, slots and threads."""
    command = plan["command"]
    compared = [part for option in COMPARED_OPTIONS for part in (option, command[command.index(option) + 1])]
    return [plan["environment"]["python"], BARE, *compared, "--max-tokens", str(max_tokens)]


def first_byte_ms(command: list[str]) -> float:
    """Return the milliseconds from starting the command to its first byte on stdout."""
    quiet = subprocess.DEVNULL
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=quiet, stdin=quiet) as child:
        assert child.stdout is not None
        first = os.read(child.stdout.fileno(), 1)
        taken = (time.perf_counter() - start) * 1000
        child.stdout.read()
    if not first or child.returncode:
        raise SystemExit(f"no answer, exit code {child.returncode}: {' '.join(command)}")
    return taken


def tokens_per_s(measured: Mapping[str, float]) -> float:
    return (measured["completion_tokens"] - 1) / (measured["total_s"] - measured["first_token_s"])


def our_tokens_per_s(command: list[str]) -> float:
    done = subprocess.run([*command, "--json"], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    answer = json.loads(done.stdout)
    return tokens_per_s({**answer["timings"], **answer["usage"]})


def bare_tokens_per_s(command: list[str]) -> float:
    done = subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL)
    return tokens_per_s(json.loads(done.stderr.splitlines()[-1]))


class Compared(NamedTuple):
    """The medians of what both took, and the median of the pairs' ratios: what slows both for a while cancels out."""

    ours: float
    bare: float
    ratio: float


def in_pairs(pairs: int, ours: Measure, bare: Measure) -> Compared:
    """Measure both so many times; each pair has a prompt of its own, and every other one begins with the script."""
    taken = []
    for number in range(pairs):
        prompt = f"Write a long story about {TOPICS[number % len(TOPICS)]}, number {number}."
        turns = (ours, bare) if number % 2 == 0 else (bare, ours)
        values = {measure: measure(prompt) for measure in turns}
        taken.append((values[ours], values[bare]))
    return Compared(
        median(our for our, _ in taken), median(its for _, its in taken), median(our / its for our, its in taken)
    )


def report(title: str, unit: str, compared: Compared) -> float:
    """Print one comparison and return the ratio of ours to bare."""
    ours, bare, ratio = compared
    print(f"{title:40} launch {ours:7.1f} {unit:6} bare {bare:7.1f} {unit:6} ratio {ratio:5.2f}", flush=True)
    return ratio


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--threads", default=None, help="decode with so many; without it, launch decides")
    parser.add_argument("--context-length", default="4096")
    given = parser.parse_args()
    options = ["--context-length", given.context_length, "--concurrency", "1", "--temperature", "0"]
    options += ["--threads", given.threads] if given.threads else []
    plan = read_plan(options)

    def launch(prompt: str, max_tokens: int) -> list[str]:
        return [LAUNCH, MODEL, "-p", prompt, "--max-tokens", str(max_tokens), *options]

    def bare(prompt: str, max_tokens: int, *more: str) -> list[str]:
        return [*bare_command(plan, max_tokens), "--prompt", prompt, *more]

    def first_token(*more: str) -> Compared:
        return in_pairs(given.pairs, lambda p: first_byte_ms(launch(p, 8)), lambda p: first_byte_ms(bare(p, 8, *more)))

    report("first token, script as written", "ms", first_token())
    same = report("first token, same settings", "ms", first_token("--lean"))
    speed = report(
        "tokens per second",
        "tok/s",
        in_pairs(
            given.pairs,
            lambda p: our_tokens_per_s(launch(p, 128)),
            lambda p: bare_tokens_per_s(bare(p, 128, "--lean")),
        ),
    )
    print(f"limits: first token at the same settings {FIRST_TOKEN_LIMIT}, tokens per second {SPEED_LIMIT}")
    return int(same > FIRST_TOKEN_LIMIT or speed < SPEED_LIMIT)


if __name__ == "__main__":
    sys.exit(main())
