"""How each driver is asked: one line of prompts at a time, answered by one line of what that took.

A driver says `ready`; then each line on stdin, a JSON list of prompts, is answered by a line of JSON: the tokens after
the first of each stream, the seconds from the first token to the last, and their quotient.
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


def answer_turns(measure: Callable[[list[str]], tuple[int, float]]) -> None:
    """Warm up, say that it is ready, and answer until stdin ends; `measure` returns tokens and seconds."""
    measure(["Once upon a time"])
    print("ready", flush=True)
    for line in sys.stdin:
        count, took_s = measure(json.loads(line))
        told = {"completion_tokens": count, "decoding_s": took_s, "tokens_per_s": count / took_s}
        print(json.dumps(told), flush=True)


def decoding_s(times: Sequence[Sequence[float]]) -> float:
    """Return the seconds from the first token of all streams to the last; `times` are those of each stream's tokens."""
    return max(each[-1] for each in times) - min(each[0] for each in times)
