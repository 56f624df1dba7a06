"""What a running model takes of memory."""

from __future__ import annotations

import pytest

from registry.memory import MemoryNeed, cache_bytes_per_token
from registry.spec import Architecture

# Of config.json of SmolLM2-135M: 30 layers, 9 heads, 3 of keys and values, 576 wide.
SMOLLM2 = Architecture(layers=30, heads=9, kv_heads=3, hidden_size=576)


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        (SMOLLM2, 2 * 30 * 3 * 64 * 2),
        (SMOLLM2._replace(kv_heads=None), 2 * 30 * 9 * 64 * 2),
        (SMOLLM2._replace(head_size=128), 2 * 30 * 3 * 128 * 2),
        (SMOLLM2._replace(layers=None), None),
        (SMOLLM2._replace(hidden_size=None), None),
    ],
)
def test_each_layer_keeps_a_key_and_a_value(architecture: Architecture, expected: int | None) -> None:
    assert cache_bytes_per_token(architecture) == expected


def test_values_of_four_bytes_take_twice_as_much() -> None:
    assert cache_bytes_per_token(SMOLLM2, value_bytes=4) == 2 * 23_040


def test_a_need_is_the_sum_of_its_terms() -> None:
    assert MemoryNeed(3, 2, 1).total_bytes == 6
