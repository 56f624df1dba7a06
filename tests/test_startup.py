"""What start-up may not import: each of these costs more than everything else that `launch --help` does."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = (
    "aiohttp", "asyncio", "httpx", "httpx2", "huggingface_hub", "modelscope_hub", "pydantic", "requests", "rich",
    "torch", "yaml",
)  # fmt: skip

DRIVER = """
import json, sys
from launcher.cli.main import main
try:
    code = main(sys.argv[1:])
except SystemExit as exit:
    code = exit.code
print(json.dumps([code or 0, sorted(set(sys.modules))]), file=sys.stderr)
"""


def modules_after(*arguments: str) -> set[str]:
    """Return the modules that a `launch` with these arguments has imported when it ends, its output being a pipe."""
    done = subprocess.run([sys.executable, "-c", DRIVER, *arguments], capture_output=True, text=True, check=True)
    code, modules = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(modules)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("list",),
        ("list", "--json"),
        ("cache",),
        ("smollm2-instruct", "--dry-run"),
        ("--model-name", "mistral-instruct-v0.2", "--model-format", "gguf", "--quantization", "Q4_K_M", "--dry-run"),
    ],
    ids=" ".join,
)
def test_start_up_imports_nothing_heavy(arguments: tuple[str, ...]) -> None:
    modules_after("list")  # the catalogue's index is compiled once, by pydantic; daily starts find it
    assert modules_after(*arguments).isdisjoint(HEAVY)
