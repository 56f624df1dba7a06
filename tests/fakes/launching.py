"""Starts an engine as the launcher does, and then stands still until it is killed: what a launcher that dies leaves.

python launching.py LOG PIDS
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from engines.process import EngineProcess, new_address
from tests.fakes.scripted_engine import VARIABLES, ScriptedEngine


def main(log: str, pids: str) -> None:
    engine, address = ScriptedEngine(), new_address()
    command = engine.script(address, "--stubborn", pids)
    process = EngineProcess.start(engine, command, address=address, log_path=Path(log), variables=VARIABLES)
    process.wait_ready(60)
    sys.stdout.write(f"{process.pid}\n")
    sys.stdout.flush()
    time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
