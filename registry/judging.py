"""Judges every combination of a model's specs and quantizations with the engines: a reason against it, or a rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from registry.conflicts import Conflict, conflicts
from registry.facts import NOTHING_KNOWN, Knowledge
from registry.request import Wanted, is_same_quantization, listing, same_bits
from registry.spec import (
    HUBS,
    Capability,
    FormatSupport,
    Machine,
    Model,
    Rejection,
    Source,
    Spec,
    format_size,
    quantization_bits,
)
from registry.splitting import cannot_be_split, merged

# An environment that takes more than this to fetch is not set up by default while something lighter can run.
LARGE_SETUP_BYTES = 1_000_000_000

# Weights may take this part of the memory before a smaller size of the model is chosen; the rest is for the cache.
_MEMORY_FOR_WEIGHTS = 0.8

_PREFERRED_QUANTIZATIONS = ("q4_k_m", "none", "int4", "q4_k_s", "ud-q4_k_xl", "q4_1", "q4_0", "fp8")
_FORMAT_RANKS = {
    "cpu": ("gguf", "pytorch", "awq", "gptq"),
    "metal": ("gguf", "mlx", "pytorch"),
    "cuda": ("pytorch", "fp8", "awq", "gptq", "gguf"),
}


class Candidate(NamedTuple):
    """One combination that may be chosen."""

    spec: Spec
    quantization: str
    capability: Capability


class Refused(NamedTuple):
    """A candidate that is out; where the request left it in, `detail` is the reason as a sentence of its own."""

    candidate: Candidate
    reason: str
    detail: str | None


class Judged(NamedTuple):
    """A candidate that can run unless its weights are in `conflicts` with its engine; the lowest rank is the best."""

    candidate: Candidate
    sources: tuple[Source, ...]
    conflicts: tuple[Conflict, ...]
    needs_large_setup: bool
    fits: bool
    rank: tuple[float, ...]

    @property
    def source(self) -> Source:
        return self.sources[0]


class Circumstances(NamedTuple):
    """What every combination is judged by."""

    wanted: Wanted
    model: Model
    machine: Machine
    installed: frozenset[str]
    knowledge: Knowledge


def _candidates(model: Model, capabilities: Sequence[Capability]) -> Iterator[Candidate]:
    for spec in model.specs:
        for quantization in spec.quantizations:
            for capability in capabilities:
                yield Candidate(spec, quantization, capability)


def judge_all(
    wanted: Wanted,
    model: Model,
    capabilities: Sequence[Capability],
    machine: Machine,
    installed: frozenset[str],
    knowledge: Knowledge = NOTHING_KNOWN,
) -> tuple[list[Judged], list[Refused]]:
    """Return the combinations that can run, the best first, and the others with the reason."""
    circumstances = Circumstances(wanted, model, machine, installed, knowledge)
    verdicts = [_judge(each, circumstances) for each in _candidates(model, capabilities)]
    judged = [verdict for verdict in verdicts if isinstance(verdict, Judged)]
    refused = [verdict for verdict in verdicts if isinstance(verdict, Refused)]
    return sorted(judged, key=lambda each: each.rank), refused


def rejection(candidate: Candidate, reason: str) -> Rejection:
    """Return a candidate that is out, as people and programs get it."""
    return Rejection(candidate.capability.engine, candidate.spec.model_format, candidate.quantization, reason)


# --- judging one combination -----------------------------------------------------------------------------------------


def _judge(candidate: Candidate, by: Circumstances) -> Judged | Refused:
    if reason := _not_wanted(candidate, by.wanted):
        return Refused(candidate, reason, detail=None)
    if reason := _not_both_named(candidate, by.wanted):
        is_named = by.wanted.engine is not None
        return Refused(candidate, reason, detail=f"`{candidate.capability.engine}` {reason}" if is_named else None)
    if reason := _is_ambiguous(candidate, by.wanted):
        return Refused(candidate, reason, detail=reason)
    if not candidate.spec.sources_of(candidate.quantization):
        return Refused(candidate, (reason := f"`{candidate.quantization}` was never published"), detail=reason)
    sources = _sources(candidate, by.wanted)
    if reason := _cannot_run(candidate, by.machine) or _cannot_split(candidate, sources, by):
        return Refused(candidate, reason, detail=f"`{candidate.capability.engine}` {reason}")
    if not sources:
        reason = _no_source(candidate, by.wanted)
        return Refused(candidate, reason, detail=reason)
    found = conflicts(candidate, sources, by.knowledge, trusts_code=by.wanted.trusts_remote_code)
    setup_bytes = 0 if candidate.capability.engine in by.installed else candidate.capability.setup_bytes
    fits = weights_bytes(candidate) <= _memory_bytes(candidate.capability, by.machine) * _MEMORY_FOR_WEIGHTS
    large = setup_bytes > LARGE_SETUP_BYTES
    rank = _rank(candidate, len(found), large, fits, _accelerator(candidate.capability, by.machine))
    return Judged(candidate, sources, found, large, fits, rank)


def _cannot_split(candidate: Candidate, sources: Sequence[Source], by: Circumstances) -> str | None:
    if by.wanted.gpus is None:
        return None
    known = candidate.spec.architecture or by.model.architecture
    architecture = merged(known, by.knowledge.of(sources, candidate.quantization))
    return cannot_be_split(candidate, by.wanted.gpus, architecture)


def _sources(candidate: Candidate, wanted: Wanted) -> tuple[Source, ...]:
    """Return where the files are, in the order of the hubs that were asked for, else in the catalogue's."""
    published = candidate.spec.sources_of(candidate.quantization)
    hubs = wanted.hubs
    sources = [source for source in published if source.hub in (HUBS if hubs is None else hubs)]
    if hubs is not None:
        sources.sort(key=lambda source: hubs.index(source.hub))
    if wanted.revision is not None:
        sources = [source.at_revision(wanted.revision) for source in sources]
    if wanted.trusts_remote_code:
        sources = [source._replace(with_code=True) for source in sources]
    return tuple(sources)


def _not_wanted(candidate: Candidate, wanted: Wanted) -> str | None:
    spec, capability = candidate.spec, candidate.capability
    if wanted.engine not in (None, capability.engine):
        return f"`{wanted.engine}` was asked for"
    if wanted.engine is None and not capability.automatic:
        return "is used only when it is named"
    if wanted.model_format not in (None, spec.model_format):
        return f"format `{wanted.model_format}` was asked for"
    if wanted.size_in_billions not in (None, spec.size_in_billions):
        return f"size {format_size(wanted.size_in_billions or 0)} was asked for"
    return _other_quantization(candidate, wanted)


def _not_both_named(candidate: Candidate, wanted: Wanted) -> str | None:
    """Return why a combination is out that an engine only does for those who name engine and format."""
    support = candidate.capability.support_of(candidate.spec.model_format)
    if support is None or not support.only_named or None not in (wanted.engine, wanted.model_format):
        return None
    return f"reads `{candidate.spec.model_format}` only when both are named: {support.only_named}"


def _other_quantization(candidate: Candidate, wanted: Wanted) -> str | None:
    text = wanted.quantization
    if text is None or is_same_quantization(candidate.spec, candidate.quantization, text):
        return None
    if candidate.quantization in same_bits(candidate.spec, text):
        return None
    return f"quantization `{text}` was asked for"


def _is_ambiguous(candidate: Candidate, wanted: Wanted) -> str | None:
    text = wanted.quantization
    if text is None or is_same_quantization(candidate.spec, candidate.quantization, text):
        return None
    return f"`{text}` may mean {listing(same_bits(candidate.spec, text), 'or')}"


def _cannot_run(candidate: Candidate, machine: Machine) -> str | None:
    capability, spec = candidate.capability, candidate.spec
    support = capability.support_of(spec.model_format)
    if support is None:
        because = capability.refusals.get(spec.model_format)
        return f"reads no `{spec.model_format}`" + (f": {because}" if because else "")
    if machine.system not in capability.systems:
        return f"does not run on {machine.system}"
    if support.accelerators is not None and _accelerator(candidate.capability, machine) not in support.accelerators:
        return f"runs `{spec.model_format}` on {listing(support.accelerators, 'or')} only"
    return _cannot_read(candidate, support)


def _cannot_read(candidate: Candidate, support: FormatSupport) -> str | None:
    if support.bits is None or quantization_bits(candidate.quantization) in support.bits:
        return None
    reason = f"does not run {support.model_format} as `{candidate.quantization}`"
    return f"{reason}: {support.otherwise}" if support.otherwise else reason


def _no_source(candidate: Candidate, wanted: Wanted) -> str:
    hubs = [source.hub for source in candidate.spec.sources_of(candidate.quantization)]
    if wanted.hubs is None:
        return f"it is published only on {listing(hubs)}, which this version does not reach"
    return f"it is not on {listing(wanted.hubs, 'or')}, but on {listing(hubs)}"


# --- ranking ---------------------------------------------------------------------------------------------------------


def _rank(
    candidate: Candidate, conflicts: int, needs_large_setup: bool, fits: bool, accelerator: str
) -> tuple[float, ...]:
    """Return what decides, first to last: can it load, is it light, does it fit, then engine, format, quantization."""
    capability, spec = candidate.capability, candidate.spec
    formats = _FORMAT_RANKS.get(accelerator, _FORMAT_RANKS["cpu"])
    return (
        conflicts,
        needs_large_setup,
        not fits,
        -spec.size_in_billions if fits else spec.size_in_billions,
        capability.ranks.get(accelerator, len(capability.ranks)),
        formats.index(spec.model_format) if spec.model_format in formats else len(formats),
        *_quantization_rank(candidate.quantization),
    )


def _quantization_rank(quantization: str) -> tuple[float, float]:
    name = quantization.lower()
    if name in _PREFERRED_QUANTIZATIONS:
        return (_PREFERRED_QUANTIZATIONS.index(name), 0)
    return (len(_PREFERRED_QUANTIZATIONS), abs((quantization_bits(name) or 16) - 4.5))


def weights_bytes(candidate: Candidate) -> float:
    """Return about how many bytes the weights take: parameters times bits, as their names state both."""
    return candidate.spec.size_in_billions * 1e9 * (quantization_bits(candidate.quantization) or 16) / 8


def _accelerator(capability: Capability, machine: Machine) -> str:
    """Return what an engine runs on: its build may not use the machine's GPU."""
    return capability.accelerator or machine.accelerator


def _memory_bytes(capability: Capability, machine: Machine) -> int:
    if capability.accelerator == "cpu":
        return machine.memory_bytes
    return max((gpu.memory_bytes for gpu in machine.gpus), default=machine.memory_bytes)
