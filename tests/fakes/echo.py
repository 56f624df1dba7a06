"""The echo engine as a real process, for tests of what speaks to engines."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from engines.base import Address, Settings
from engines.echo import Echo
from engines.generation import Target
from registry.spec import GenerationDefaults, Reasoning


@dataclass(frozen=True, slots=True)
class RunningEcho:
    """An echo engine that listens at `address`; `target` is what requests to it are made for."""

    address: Address
    target: Target
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def running_echo(
    *arguments: str,
    name: str = "echo-model",
    context_length: int = 512,
    slots: int = 4,
    defaults: GenerationDefaults | None = None,
    on_port: bool = False,
    abilities: frozenset[str] = frozenset({"chat"}),
    reasoning: Reasoning | None = None,
) -> Iterator[RunningEcho]:
    """Start the echo engine on a Unix socket of its own, with more `arguments` of its runner, and end it at the end."""
    with tempfile.TemporaryDirectory(prefix="echo-", dir="/tmp") as folder:
        address = Address(f"http://127.0.0.1:{free_port()}", None if on_port else Path(folder) / "e.sock")
        settings = Settings(name, Path("/none"), context_length, slots, threads=1, batch_threads=1, arguments=arguments)
        process = subprocess.Popen(Echo().command(sys.executable, settings, address))
        try:
            _await_listening(address, process)
            target = Target(
                name,
                "echo",
                Echo().wire,
                context_length,
                defaults or GenerationDefaults(),
                features=Echo().capability.features,
                abilities=abilities,
                reasoning=reasoning,
            )
            yield RunningEcho(address, target, process)
        finally:
            process.kill()
            process.wait()


def free_port() -> int:
    """Return a port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _await_listening(address: Address, process: subprocess.Popen[bytes]) -> None:
    while not _is_listening(address):
        assert process.poll() is None, "the echo engine ended while it started"
        time.sleep(0.01)


def _is_listening(address: Address) -> bool:
    family = socket.AF_UNIX if address.socket else socket.AF_INET
    parts = urlsplit(address.url)
    with socket.socket(family) as probe:
        return probe.connect_ex(str(address.socket) if address.socket else (parts.hostname, parts.port)) == 0
