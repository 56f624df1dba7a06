"""Build weights and print where they are:  python -m tests.weights [NAME ...]  (without a name: all of them).

`ENGINE/python` is the Python of an engine's environment, made if need be.
"""

from __future__ import annotations

import sys
import time

from tests.weights.build import STEPS, build, make_python


def main(*names: str) -> None:
    for name in names or STEPS:
        start = time.monotonic()
        environment, is_python, _ = name.partition("/python")
        sys.stdout.write(f"{name}\t{make_python(environment) if is_python else build(name)}\n")
        sys.stdout.flush()
        sys.stderr.write(f"{name}: {time.monotonic() - start:.1f} s\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
