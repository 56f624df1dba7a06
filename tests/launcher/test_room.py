"""What models are expected to take, before they have shown it."""

from __future__ import annotations

from dataclasses import replace

from launcher.fleet.room import estimate
from launcher.planning import make_plan


def test_weights_cache_and_engine_are_added() -> None:
    plan = make_plan("smollm2-instruct", {"engine": "llama.cpp", "context_length": 1024, "concurrency": 8})
    need = estimate(plan)
    assert need.weights_bytes == 98_362_432
    assert need.cache_bytes in (0, 1024 * 8 * 23_040)  # 0 until the file has told its layers
    assert need.engine_bytes > 0


def test_the_estimate_is_near_what_was_measured() -> None:
    """docs/engines-measured.json has 372 MB for llama.cpp with weights of 105 MB and this context."""
    plan = make_plan("smollm2-instruct", {"engine": "llama.cpp", "context_length": 1024, "concurrency": 8})
    known = plan.settings.architecture._replace(layers=30, heads=9, kv_heads=3, hidden_size=576)
    settings = plan.settings._replace(architecture=known)
    assert 0.9 < estimate(replace(plan, settings=settings)).total_bytes / 372e6 < 1.1


def test_an_engine_without_weights_takes_its_own_alone() -> None:
    need = estimate(make_plan("mistral-instruct-v0.2", {"engine": "echo"}))
    assert (need.weights_bytes, need.cache_bytes) == (0, 0)
