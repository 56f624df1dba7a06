"""Which numbers a model computes with: as asked, else the weights' own unless this machine lacks them."""

from __future__ import annotations

from typing import NamedTuple

from registry.errors import ResolutionError
from registry.facts import WeightFacts
from registry.spec import Machine, Spec

_SPELLINGS = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}
DTYPES = ("auto", "bfloat16", "float16", "float32")


class Dtype(NamedTuple):
    """A torch dtype's name, or `auto`; and why, where it is not the weights' own."""

    name: str
    reason: str | None = None


def choose_dtype(asked: str | None, spec: Spec, machine: Machine, facts: WeightFacts | None) -> Dtype:
    """Return the dtype to compute with; raises ResolutionError for one that there is not, or that has no meaning."""
    name = _read(asked)
    if name != "auto" and spec.model_format == "gguf":
        raise ResolutionError(
            f"`--dtype {asked}` means nothing for gguf: the file's quantization says what its numbers are",
            hint="leave it out; the cache's numbers are an option of llama.cpp: -- --cache-type-k f16",
        )
    if name != "auto" or spec.model_format == "gguf":
        return Dtype(name)
    if (lacks := _lacks_bfloat16(machine)) and _stored_as(spec, facts) in (None, "bfloat16"):
        return Dtype(*lacks)
    return Dtype("auto")


def _read(asked: str | None) -> str:
    name = _SPELLINGS.get((asked or "auto").lower(), (asked or "auto").lower().removeprefix("torch."))
    if name not in DTYPES:
        raise ResolutionError(f"There is no dtype `{asked}`", hint=f"--dtype {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    return name


def _stored_as(spec: Spec, facts: WeightFacts | None) -> str | None:
    """Return what the weights are kept as, by themselves or by the catalogue, as torch calls it."""
    stated = spec.resources.precision if spec.resources else None
    named = (facts.dtype if facts else None) or stated
    return None if named is None else _SPELLINGS.get(named.lower(), named.lower())


def _lacks_bfloat16(machine: Machine) -> tuple[str, str] | None:
    """Return the dtype to take instead, and why, on a machine without bfloat16."""
    return None
