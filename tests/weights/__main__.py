"""Build weights and print where they are:  python -m tests.weights [NAME ...]  (without a name: all of them)."""

from __future__ import annotations

import sys
import time

from tests.weights.build import STEPS, build


def main(*names: str) -> None:
    for name in names or STEPS:
        start = time.monotonic()
        sys.stdout.write(f"{name}\t{build(name)}\n")
        sys.stdout.flush()
        sys.stderr.write(f"{name}: {time.monotonic() - start:.1f} s\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
