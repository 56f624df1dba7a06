"""How each driver is asked: one line of prompts at a time, answered by one line that tells when their tokens came.

A driver says `ready`; then each line on stdin, a JSON list of prompts, is answered by a JSON list with a list for each
of them: the time of each token's arrival, in seconds of a clock that only goes forward.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence


def options(description: str | None, *, model: str, slots: bool = True) -> argparse.ArgumentParser:
    """Return a parser with what all drivers are told; `model` says what theirs reads."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True, help=model)
    parser.add_argument("--tokens", type=int, default=64, help="of each stream")
    parser.add_argument("--context", type=int, default=1024, help="tokens of each stream's cache")
    if slots:
        parser.add_argument("--slots", type=int, default=8, help="streams that there may be at once")
    return parser


def answer_turns(stream_all: Callable[[list[str]], Sequence[Sequence[float]]]) -> None:
    """Warm up, say that it is ready, and answer until stdin ends."""
    stream_all(["Once upon a time"])
    print("ready", flush=True)
    for line in sys.stdin:
        print(json.dumps(stream_all(json.loads(line))), flush=True)
