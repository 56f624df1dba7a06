"""Whether a model can be split over so many GPUs, and over how many it can."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.facts import WeightFacts
from registry.request import listing
from registry.spec import Architecture

if TYPE_CHECKING:
    from registry.judging import Candidate

_MOST_GPUS = 16


def cannot_be_split(candidate: Candidate, gpus: int, architecture: Architecture) -> str | None:
    """Return why an engine cannot run the candidate on `gpus` GPUs, or None; what nobody knows is no reason."""
    capability, spec = candidate.capability, candidate.spec
    if gpus < 2 or not capability.needs_weights:
        return None
    if "several_gpus" not in capability.features:
        return "runs a model on one GPU only"
    if spec.resources is not None and spec.resources.distributed is False:
        return f"is not given `{spec.model_format}` on several GPUs: the catalogue says that it is not distributed"
    return _cannot_split_heads(architecture, gpus) if capability.splits_heads else None


def _cannot_split_heads(architecture: Architecture, gpus: int) -> str | None:
    heads, kv_heads = architecture.heads, architecture.kv_heads or architecture.heads
    if heads is None or kv_heads is None or _divides(heads, kv_heads, gpus):
        return None
    possible = [str(count) for count in range(1, _MOST_GPUS + 1) if _divides(heads, kv_heads, count)]
    words = f"{heads} attention heads" + (f" and {kv_heads} KV heads" if kv_heads != heads else "")
    return f"cannot split {words} over {gpus} GPUs: {listing(possible, 'or')} would do"


def _divides(heads: int, kv_heads: int, gpus: int) -> bool:
    # More GPUs than KV heads: each head is kept by several of them, equally many.
    return heads % gpus == 0 and (kv_heads % gpus == 0 or gpus % kv_heads == 0)


def merged(architecture: Architecture, facts: WeightFacts | None) -> Architecture:
    """Return what the catalogue says of a network, filled up, and corrected, with what its weights say."""
    if facts is None:
        return architecture
    said = {name: value for name, value in facts.architecture._asdict().items() if value not in (None, ())}
    return architecture._replace(**said)
