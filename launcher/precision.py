"""Which numbers a model computes with: as asked, else the weights' own unless this machine lacks them."""

from __future__ import annotations

from typing import NamedTuple

from registry.errors import ResolutionError
from registry.facts import WeightFacts
from registry.spec import Capability, Machine, Resolution, Spec, quantization_bits

_SPELLINGS = {"half": "float16", "fp16": "float16", "bf16": "bfloat16", "float": "float32", "fp32": "float32"}
_MEMORY_FOR_WEIGHTS = 0.8
DTYPES = ("auto", "bfloat16", "float16", "float32")


class Dtype(NamedTuple):
    """A torch dtype's name, or `auto`; and why, where it is not the weights' own."""

    name: str
    reason: str | None = None

    def in_words(self) -> tuple[str, ...]:
        """Return the reason as a line, if there is one."""
        return () if self.reason is None else (f"dtype `{self.name}`: {self.reason}",)


def choose_dtype(
    asked: str | None, resolution: Resolution, capability: Capability, machine: Machine, facts: WeightFacts | None
) -> Dtype:
    """Return the dtype to compute with on `machine`, as far as the engine uses it.

    Raises ResolutionError for one that there is not, or that has no meaning.
    """
    name, spec = read_dtype(asked), resolution.spec
    if spec.model_format == "gguf":
        if name != "auto":
            raise _meaningless(asked)
        return Dtype("auto")
    if name != "auto" or machine.has_bfloat16 or not capability.needs_weights:
        return Dtype(name)
    if machine.gpus:
        is_stored_so = _stored_as(spec, facts) in (None, "bfloat16")
        return Dtype("float16", "this GPU has no bfloat16") if is_stored_so else Dtype("auto")
    return _on_cpu(resolution, capability, machine)


def _on_cpu(resolution: Resolution, capability: Capability, machine: Machine) -> Dtype:
    """Return what the engine computes in best on a CPU without bfloat16, if weights of that width fit the memory.

    SmolLM2-135M on AVX2 with torch 2.13, eight streams: by Transformers, processor time a token, float32 38 ms,
    float16 73, bfloat16 88; by vLLM 0.32 on one core, tokens/s, float32 63, bfloat16 27.
    """
    support = capability.support_of(resolution.spec.model_format)
    if support is None or support.cpu_dtype != "float32":
        return Dtype("auto")
    is_packed = (quantization_bits(resolution.quantization) or 16) < 16
    if is_packed or resolution.spec.size_in_billions * 4e9 <= machine.memory_bytes * _MEMORY_FOR_WEIGHTS:
        return Dtype("float32", "this CPU has no bfloat16, and is twice as fast with float32")
    return Dtype("bfloat16", "in float32, which this CPU is faster with, the weights leave too little of the memory")


def _meaningless(asked: str | None) -> ResolutionError:
    return ResolutionError(
        f"`--dtype {asked}` means nothing for gguf: the file's quantization says what its numbers are",
        hint="leave it out; the cache's numbers are an option of llama.cpp: -- --cache-type-k f16",
    )


def read_dtype(asked: str | None) -> str:
    """Return a dtype's own name, `auto` where nothing is asked; raises ResolutionError for one that there is not."""
    name = _SPELLINGS.get((asked or "auto").lower(), (asked or "auto").lower().removeprefix("torch."))
    if name not in DTYPES:
        raise ResolutionError(f"There is no dtype `{asked}`", hint=f"--dtype {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")
    return name


def _stored_as(spec: Spec, facts: WeightFacts | None) -> str | None:
    """Return what the weights are kept as, by themselves or by the catalogue, as torch calls it."""
    stated = spec.resources.precision if spec.resources else None
    named = (facts.dtype if facts else None) or stated
    return None if named is None else _SPELLINGS.get(named.lower(), named.lower())
