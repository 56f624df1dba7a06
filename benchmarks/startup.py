"""Time `launch --help` and `launch list` as installed, beside bare Python.

The limits are in units of bare Python's own start, so that they mean the same on slow machines as on fast ones:
90 and 150 ms where Python itself takes 11.

Run with the environment's own Python, installed with byte code: `python benchmarks/startup.py [--rounds N]`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

LAUNCH = str(Path(sys.executable).with_name("launch"))
PYTHON = "bare python"
COMMANDS = {
    PYTHON: [sys.executable, "-I", "-c", "pass"],
    "launch --help": [LAUNCH, "--help"],
    "launch list": [LAUNCH, "list"],
}
LIMITS = {"launch --help": 90 / 11, "launch list": 150 / 11}


def run_ms(command: list[str]) -> float:
    """Return the milliseconds that a command takes with its output in a pipe; raises CalledProcessError."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    return (time.perf_counter() - start) * 1000


def measure(rounds: int) -> dict[str, float]:
    """Return the median milliseconds of each command, taken in turns so that a busy moment hits all of them."""
    for command in COMMANDS.values():
        run_ms(command)  # the first of each compiles the catalogue's index and fills the page cache
    turns = [{name: run_ms(command) for name, command in COMMANDS.items()} for _ in range(rounds)]
    return {name: median(turn[name] for turn in turns) for name in COMMANDS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as cache:
        os.environ["LAUNCH_CACHE"] = cache
        medians = measure(rounds)
    for name, value in medians.items():
        ratio = value / medians[PYTHON]
        limit = f"limit {LIMITS[name]:.1f}{', exceeded' if ratio > LIMITS[name] else ''}" if name in LIMITS else ""
        print(f"{name:16} {value:7.1f} ms  {ratio:5.1f} x python  {limit}".rstrip())


if __name__ == "__main__":
    main()
