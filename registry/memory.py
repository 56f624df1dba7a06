"""What a running model takes of a device's memory: its weights, the cache of what it reads and writes, the engine."""

from __future__ import annotations

from typing import NamedTuple

from registry.spec import Architecture


class MemoryNeed(NamedTuple):
    """What a running model takes, in bytes, term by term."""

    weights_bytes: int
    cache_bytes: int
    engine_bytes: int

    @property
    def total_bytes(self) -> int:
        return sum(self)


def cache_bytes_per_token(architecture: Architecture, value_bytes: int = 2) -> int | None:
    """Return what the cache takes for each token, None where facts of the network are missing.

    Each layer keeps a key and a value, [kv_heads, head_size] each: Vaswani et al. 2017, and Ainslie et al. 2023 for
    fewer heads of them than of queries.
    """
    layers, kv_heads = architecture.layers, architecture.kv_heads or architecture.heads
    head_size = architecture.head_size
    if head_size is None and architecture.hidden_size and architecture.heads:
        head_size = architecture.hidden_size // architecture.heads
    if not (layers and kv_heads and head_size):
        return None
    return 2 * layers * kv_heads * head_size * value_bytes
