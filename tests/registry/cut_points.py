"""Pulls that are killed at a random byte and taken up again: how much is fetched in total, and whether it is right."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from registry.store import pull
from tests.fakes.hub import HubServer
from tests.fakes.tensors import REPO, SPEC

CHILD = """
import sys
from registry.store import pull
from tests.fakes.tensors import SPEC
pull(SPEC, SPEC.sources[0].at_revision(sys.argv[1]), "none")
"""


class Cut(NamedTuple):
    """One killed pull and the one after it: at which byte, and what was sent in both together."""

    at_byte: int
    size_bytes: int
    sent_bytes: int
    is_right: bool

    @property
    def ratio(self) -> float:
        return self.sent_bytes / self.size_bytes


def cut_points(seed: int, count: int, size_bytes: int) -> Iterator[int]:
    """Yield bytes of a pull at which it is killed."""
    chosen = random.Random(seed)
    for _ in range(count):
        yield chosen.randrange(size_bytes)


def cut_at(hub: HubServer, commit: str, at_byte: int) -> Cut:
    """Kill a pull when so many bytes were sent, pull again, and look at everything that lies there then."""
    files = {path: file for path, file in hub.repos[REPO].files.items() if path != "README.md"}
    shutil.rmtree(os.environ["HF_HOME"], ignore_errors=True)
    hub.requests.clear()
    _kill_at(hub, at_byte, [sys.executable, "-c", CHILD, commit])
    pulled = pull(SPEC, SPEC.sources[0].at_revision(commit), "none")
    right = {path: file.sha256 for path, file in files.items()}
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in pulled.path.iterdir()}
    left = [path for path in Path(os.environ["HF_HOME"]).rglob("*") if path.suffix in (".partial", ".journal", ".lock")]
    size = sum(file.size_bytes for file in files.values() if file.is_lfs)
    return Cut(at_byte, size, hub.sent_of_files, found == right and not left)


def _kill_at(hub: HubServer, at_byte: int, command: list[str]) -> None:
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})
    lock, sent = threading.Lock(), 0

    def count(more: int) -> None:
        nonlocal sent
        with lock:
            sent += more
            if sent >= at_byte:
                child.send_signal(signal.SIGKILL)

    hub.on_sent = count
    try:
        child.wait(timeout=120)
    finally:
        hub.on_sent = None
