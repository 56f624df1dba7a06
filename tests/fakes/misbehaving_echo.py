"""The echo engine as a process that does what engines should not: ends early, ignores TERM, leaves others, hangs.

Run as a script it is that engine; `PROGRAM` is `launch` with it in echo's place.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

PATH = Path(__file__)
ROOT = PATH.parents[2]
PROGRAM = (
    "import sys, pathlib, engines.echo; from launcher.cli.main import main;"
    f"engines.echo.RUNNER = pathlib.Path({str(PATH)!r}); sys.exit(main())"
)
SLEEP = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--ends", type=int, help="end with this code before it is ready")
    parser.add_argument("--hangs", action="store_true", help="never listen")
    parser.add_argument("--ignores-term", action="store_true")
    parser.add_argument(
        "--leaves", action="store_true", help="start processes that ignore TERM, in sessions of their own"
    )
    given, others = parser.parse_known_args()
    if given.ignores_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if given.leaves:
        start_others()
    if given.ends is not None:
        sys.stderr.write("the weights are not what they should be\n")
        sys.exit(given.ends)
    if given.hangs:
        time.sleep(600)
    echo = read_echo()
    asyncio.run(echo.EchoServer(echo.parse(others)).serve())


def start_others() -> None:
    """Start one process in this session, and one in a session of its own."""
    command = (sys.executable, "-I", "-S", "-c", SLEEP)
    for is_far in (False, True):
        child = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=is_far)
        assert child.stdout is not None
        child.stdout.readline()


def read_echo() -> ModuleType:
    """Return the real echo engine: scripts of engines are no modules of a package."""
    spec = importlib.util.spec_from_file_location("echo", ROOT / "engines" / "runners" / "echo.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["echo"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
