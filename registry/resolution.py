"""Chooses spec, quantization, engine and source: a pure function of request, model, capabilities and machine.

Every combination of the model's specs and quantizations with the known engines is judged in turn: it gets a reason
against it, or a rank. The best rank is the choice; everything else is returned with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from registry.errors import ResolutionError
from registry.published import published_elsewhere
from registry.request import Wanted, has_quantization, is_same_quantization, listing, same_bits
from registry.spec import (
    HUBS,
    Capability,
    FormatSupport,
    Machine,
    Model,
    Rejection,
    Request,
    Resolution,
    Source,
    Spec,
    format_size,
    quantization_bits,
)

# An environment that takes more than this to fetch is not set up by default while something lighter can run.
LARGE_SETUP_BYTES = 1_000_000_000

# Weights may take this part of the memory before a smaller size of the model is chosen; the rest is for the cache.
_MEMORY_FOR_WEIGHTS = 0.8

_PREFERRED_QUANTIZATIONS = ("q4_k_m", "none", "int4", "q4_k_s", "ud-q4_k_xl", "q4_1", "q4_0", "fp8")
# What is given up of a request, in turn, to find one that can be met.
_EASINGS: tuple[tuple[str, ...], ...] = (
    ("engine",),
    ("quantization",),
    ("hubs",),
    ("engine", "quantization"),
    ("engine", "quantization", "model_format", "hubs", "size_in_billions"),
)
_FORMAT_RANKS = {
    "cpu": ("gguf", "pytorch", "awq", "gptq"),
    "metal": ("gguf", "mlx", "pytorch"),
    "cuda": ("pytorch", "fp8", "awq", "gptq", "gguf"),
}


class _Candidate(NamedTuple):
    spec: Spec
    quantization: str
    capability: Capability


class _Refused(NamedTuple):
    """A candidate that is out; where the request left it in, `detail` is the reason as a sentence of its own."""

    candidate: _Candidate
    reason: str
    detail: str | None


class _Judged(NamedTuple):
    """A candidate that can run, with its sources, its warnings and its rank, the lowest first."""

    candidate: _Candidate
    sources: tuple[Source, ...]
    warnings: tuple[str, ...]
    needs_large_setup: bool
    fits: bool
    rank: tuple[float, ...]

    @property
    def source(self) -> Source:
        return self.sources[0]


def resolve(
    request: Request,
    model: Model,
    *,
    capabilities: Sequence[Capability],
    machine: Machine,
    installed: frozenset[str] = frozenset(),
) -> Resolution:
    """Return the choice for `request`, with its reasons and all that was rejected.

    `installed` names the engines that need no set-up. Raises ResolutionError, which says what would work instead.
    """
    wanted = Wanted.read(request, model, capabilities)
    judged, refused = _judge_all(wanted, model, capabilities, machine, installed)
    if not judged:
        raise _nothing_runs(request, wanted, model, capabilities, machine, refused)
    best, *others = judged
    passed_over = [_rejection(each.candidate, _why_not(each, best)) for each in others]
    return Resolution(
        model=model,
        spec=best.candidate.spec,
        quantization=best.candidate.quantization,
        engine=best.candidate.capability.engine,
        source=best.source,
        reasons=tuple(_reasons(best, others, wanted, installed)),
        warnings=tuple(_warnings(best, wanted)),
        rejected=(*passed_over, *(_rejection(out.candidate, out.reason) for out in refused)),
        alternatives=best.sources[1:],
        is_ordered=wanted.hubs is not None,
    )


def _candidates(model: Model, capabilities: Sequence[Capability]) -> Iterator[_Candidate]:
    for spec in model.specs:
        for quantization in spec.quantizations:
            for capability in capabilities:
                yield _Candidate(spec, quantization, capability)


def _judge_all(
    wanted: Wanted,
    model: Model,
    capabilities: Sequence[Capability],
    machine: Machine,
    installed: frozenset[str],
) -> tuple[list[_Judged], list[_Refused]]:
    """Return the combinations that can run, the best first, and the others with the reason."""
    verdicts = [_judge(each, wanted, machine, installed) for each in _candidates(model, capabilities)]
    judged = [verdict for verdict in verdicts if isinstance(verdict, _Judged)]
    refused = [verdict for verdict in verdicts if isinstance(verdict, _Refused)]
    return sorted(judged, key=lambda each: each.rank), refused


def _rejection(candidate: _Candidate, reason: str) -> Rejection:
    return Rejection(candidate.capability.engine, candidate.spec.model_format, candidate.quantization, reason)


# --- judging one combination -----------------------------------------------------------------------------------------


def _judge(candidate: _Candidate, wanted: Wanted, machine: Machine, installed: frozenset[str]) -> _Judged | _Refused:
    if reason := _not_wanted(candidate, wanted):
        return _Refused(candidate, reason, detail=None)
    if reason := _is_ambiguous(candidate, wanted):
        return _Refused(candidate, reason, detail=reason)
    if not candidate.spec.sources_of(candidate.quantization):
        return _Refused(candidate, (reason := f"`{candidate.quantization}` was never published"), detail=reason)
    if reason := _cannot_run(candidate, machine):
        return _Refused(candidate, reason, detail=f"`{candidate.capability.engine}` {reason}")
    sources = _sources(candidate, wanted)
    if not sources:
        reason = _no_source(candidate, wanted)
        return _Refused(candidate, reason, detail=reason)
    warnings = _conflicts(candidate, sources[0])
    large = candidate.capability.engine not in installed and candidate.capability.setup_bytes > LARGE_SETUP_BYTES
    fits = _weights_bytes(candidate) <= _memory_bytes(machine) * _MEMORY_FOR_WEIGHTS
    rank = _rank(candidate, len(warnings), large, fits, machine.accelerator)
    return _Judged(candidate, sources, warnings, large, fits, rank)


def _sources(candidate: _Candidate, wanted: Wanted) -> tuple[Source, ...]:
    """Return where the files are, in the order of the hubs that were asked for, else in the catalogue's."""
    published = candidate.spec.sources_of(candidate.quantization)
    hubs = wanted.hubs
    sources = [source for source in published if source.hub in (HUBS if hubs is None else hubs)]
    if hubs is not None:
        sources.sort(key=lambda source: hubs.index(source.hub))
    if wanted.revision is None:
        return tuple(sources)
    return tuple(source.at_revision(wanted.revision) for source in sources)


def _not_wanted(candidate: _Candidate, wanted: Wanted) -> str | None:
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


def _other_quantization(candidate: _Candidate, wanted: Wanted) -> str | None:
    text = wanted.quantization
    if text is None or is_same_quantization(candidate.spec, candidate.quantization, text):
        return None
    if candidate.quantization in same_bits(candidate.spec, text):
        return None
    return f"quantization `{text}` was asked for"


def _is_ambiguous(candidate: _Candidate, wanted: Wanted) -> str | None:
    text = wanted.quantization
    if text is None or is_same_quantization(candidate.spec, candidate.quantization, text):
        return None
    return f"`{text}` may mean {listing(same_bits(candidate.spec, text), 'or')}"


def _cannot_run(candidate: _Candidate, machine: Machine) -> str | None:
    capability, spec = candidate.capability, candidate.spec
    support = capability.support_of(spec.model_format)
    if support is None:
        because = capability.refusals.get(spec.model_format)
        return f"reads no `{spec.model_format}`" + (f": {because}" if because else "")
    if machine.system not in capability.systems:
        return f"does not run on {machine.system}"
    if support.accelerators is not None and machine.accelerator not in support.accelerators:
        return f"runs `{spec.model_format}` on {listing(support.accelerators, 'or')} only"
    return _cannot_read(candidate, support)


def _cannot_read(candidate: _Candidate, support: FormatSupport) -> str | None:
    if support.bits is None or quantization_bits(candidate.quantization) in support.bits:
        return None
    reason = f"does not run {support.model_format} as `{candidate.quantization}`"
    return f"{reason}: {support.otherwise}" if support.otherwise else reason


def _no_source(candidate: _Candidate, wanted: Wanted) -> str:
    hubs = [source.hub for source in candidate.spec.sources_of(candidate.quantization)]
    if wanted.hubs is None:
        return f"it is published only on {listing(hubs)}, which this version does not reach"
    return f"it is not on {listing(wanted.hubs, 'or')}, but on {listing(hubs)}"


def _conflicts(candidate: _Candidate, source: Source) -> tuple[str, ...]:
    """Return what the engine will do with these very weights, by what is known of the pinned revision."""
    support = candidate.capability.support_of(candidate.spec.model_format)
    rules = support.refuses if support else ()
    return tuple(rule.reason for rule in rules if source.quantization_config.get(rule.key) == rule.value)


# --- ranking ---------------------------------------------------------------------------------------------------------


def _rank(
    candidate: _Candidate, conflicts: int, needs_large_setup: bool, fits: bool, accelerator: str
) -> tuple[float, ...]:
    """Return what decides, first to last: can it load, is it light, does it fit, then engine, format, quantization."""
    capability, spec = candidate.capability, candidate.spec
    formats = _FORMAT_RANKS[accelerator]
    return (
        conflicts,
        not capability.launchable,
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


def _weights_bytes(candidate: _Candidate) -> float:
    """Return about how many bytes the weights take: parameters times bits, as their names state both."""
    return candidate.spec.size_in_billions * 1e9 * (quantization_bits(candidate.quantization) or 16) / 8


def _memory_bytes(machine: Machine) -> int:
    return max((gpu.memory_bytes for gpu in machine.gpus), default=machine.memory_bytes)


def _why_not(other: _Judged, best: _Judged) -> str:
    """Return in words the first difference of two ranks."""
    engine, chosen = other.candidate.capability, best.candidate.capability
    if other.warnings and not best.warnings:
        return other.warnings[0]
    if not engine.launchable and chosen.launchable:
        return "is known, but this version does not start it"
    if other.needs_large_setup and not best.needs_large_setup:
        return f"is not installed, and takes {engine.setup_bytes / 1e9:.1f} GB to set up"
    if best.fits and not other.fits:
        return f"its weights, about {_weights_bytes(other.candidate) / 1e9:.1f} GB, leave too little of the memory"
    if other.candidate.spec.size_in_billions != best.candidate.spec.size_in_billions:
        return "another size suits this machine's memory better"
    if engine.engine != chosen.engine:
        return f"`{chosen.engine}` suits this machine better"
    if other.candidate.spec.model_format != best.candidate.spec.model_format:
        return f"`{best.candidate.spec.model_format}` suits this machine better"
    if other.candidate.quantization != best.candidate.quantization:
        return f"`{best.candidate.quantization}` is preferred"
    return f"the catalogue names `{best.source.repo_id}` before `{other.source.repo_id}`"


# --- the answer ------------------------------------------------------------------------------------------------------


def _warnings(best: _Judged, wanted: Wanted) -> Iterator[str]:
    engine = best.candidate.capability
    yield from (f"`{engine.engine}` {warning}" for warning in best.warnings)
    if not best.warnings:
        yield from _unchecked(best)
    if wanted.revision is not None and best.source not in best.candidate.spec.sources:
        yield f"revision `{wanted.revision}` replaces the catalogue's pin: its checksums do not count"
    if not engine.launchable:
        yield f"`{engine.engine}` is known, but this version does not start it"


def _unchecked(best: _Judged) -> Iterator[str]:
    """Yield the facts of the weights that decide, and that nobody has looked up."""
    engine = best.candidate.capability
    support = engine.support_of(best.candidate.spec.model_format)
    for rule in support.refuses if support else ():
        if rule.key not in best.source.quantization_config:
            yield f"unchecked: `{rule.key}` of these weights; `{engine.engine}` refuses `{rule.value}`"


def _reasons(best: _Judged, others: Sequence[_Judged], wanted: Wanted, installed: frozenset[str]) -> Iterator[str]:
    spec, quantization = best.candidate.spec, best.candidate.quantization
    formats = {each.candidate.spec.model_format for each in others} - {spec.model_format}
    yield f"format `{spec.model_format}`: " + _because(wanted.model_format, bool(formats), "suits this machine best")
    several = len(spec.quantizations) > 1
    merit = "unquantized, as published" if quantization_bits(quantization) == 16 else "small, with little loss"
    yield f"quantization `{quantization}`: " + _because(wanted.quantization, several, merit)
    if len({each.candidate.spec.size_in_billions for each in (best, *others)}) > 1:
        yield f"size {format_size(spec.size_in_billions)}: the largest that suits this machine's memory"
    engine = best.candidate.capability.engine
    rivals = {each.candidate.capability.engine for each in others if each.candidate.spec is spec} - {engine}
    preferred = "already installed" if engine in installed else f"before {listing(sorted(rivals))} on this machine"
    yield f"engine `{engine}`: " + _because(wanted.engine, bool(rivals), preferred)


def _because(asked: object, had_choice: bool, preference: str) -> str:
    if asked is not None:
        return "as asked"
    return preference if had_choice else "the only one that can be used"


def _nothing_runs(
    request: Request,
    wanted: Wanted,
    model: Model,
    capabilities: Sequence[Capability],
    machine: Machine,
    refused: Sequence[_Refused],
) -> ResolutionError:
    told = [out.detail for out in refused if out.detail] or _never_together(wanted, model)
    others = [f"`{engine}` runs it" for engine in _engines_that_could(wanted, model, capabilities, machine)]
    unpublished = _never_published(refused)
    return ResolutionError(
        _headline(wanted, model, unpublished),
        rejected=[_rejection(out.candidate, out.reason) for out in sorted(refused, key=lambda out: out.detail is None)],
        details=_elsewhere(model, unpublished) if unpublished else [*list(dict.fromkeys(told))[:6], *others],
        hint=_what_would_work(request.name, wanted, model, capabilities, machine),
    )


def _headline(wanted: Wanted, model: Model, unpublished: Sequence[_Candidate]) -> str:
    if unpublished:
        names = _each_once([f"{each.spec.model_format} {each.quantization}" for each in unpublished])
        return f"`{model.name}` was never published as {names}"
    words = ", ".join(f"{what} `{value}`" for what, value in _asked(wanted).items())
    return f"Nothing here runs `{model.name}`" + (f" with {words}" if words else "")


def _never_published(refused: Sequence[_Refused]) -> list[_Candidate]:
    """Return what was asked for if nobody publishes any of it, else nothing."""
    meant = [out.candidate for out in refused if out.detail]
    return [] if any(each.spec.sources_of(each.quantization) for each in meant) else meant


def _elsewhere(model: Model, unpublished: Sequence[_Candidate]) -> list[str]:
    """Return where what was never published can be had otherwise, or that it cannot."""
    specs = {id(each.spec): each.spec for each in unpublished}.values()
    told = [
        *(f"`{spec.model_format}` comes as {_each_once(names)}" for spec in specs if (names := _published_as(spec))),
        *(place for spec in specs for place in published_elsewhere(model, spec)),
    ]
    return list(dict.fromkeys(told)) or ["nor is it published as anything else that the catalogue knows"]


def _published_as(spec: Spec) -> list[str]:
    return [name for name in spec.quantizations if spec.sources_of(name)]


def _asked(wanted: Wanted) -> dict[str, str]:
    size = None if wanted.size_in_billions is None else format_size(wanted.size_in_billions)
    asked = {
        "format": wanted.model_format,
        "quantization": wanted.quantization,
        "size": size,
        "engine": wanted.engine,
        "hub": wanted.hubs and ",".join(wanted.hubs),
    }
    return {what: value for what, value in asked.items() if value}


def _never_together(wanted: Wanted, model: Model) -> list[str]:
    """Return how the model has each thing that was asked for, where no spec has them all."""
    told = []
    if wanted.size_in_billions is not None:
        formats = [spec.model_format for spec in model.specs if spec.size_in_billions == wanted.size_in_billions]
        told.append(f"size {format_size(wanted.size_in_billions)} comes as {_each_once(formats)}")
    if wanted.model_format is not None:
        names = [q for spec in model.specs if spec.model_format == wanted.model_format for q in spec.quantizations]
        told.append(f"`{wanted.model_format}` comes as {_each_once(names)}")
    if (text := wanted.quantization) is not None:
        formats = [spec.model_format for spec in model.specs if has_quantization(spec, text)]
        told.append(f"`{text}` comes as {_each_once(formats)}")
    return told


def _each_once(names: Sequence[str]) -> str:
    return listing([f"`{name}`" for name in dict.fromkeys(names)])


def _engines_that_could(
    wanted: Wanted, model: Model, capabilities: Sequence[Capability], machine: Machine
) -> list[str]:
    judged, _ = _judge_all(wanted._replace(engine=None), model, capabilities, machine, frozenset())
    return sorted({each.candidate.capability.engine for each in judged})


def _what_would_work(
    name: str, wanted: Wanted, model: Model, capabilities: Sequence[Capability], machine: Machine
) -> str:
    """Return a command that works and drops as little as possible of the request."""
    here = [capability for capability in capabilities if capability.launchable]
    for dropped in _EASINGS:
        judged, _ = _judge_all(_without(wanted, dropped), model, here, machine, frozenset())
        if judged:
            found = judged[0].candidate
            hub = f" --hub {','.join(wanted.hubs)}" if wanted.hubs and "hubs" not in dropped else ""
            sizes = {spec.size_in_billions for spec in model.specs}
            size = f" --size-in-billions {format_size(found.spec.size_in_billions)}" if len(sizes) > 1 else ""
            return (
                f"launch {name}{size} --model-format {found.spec.model_format}"
                f" --quantization {found.quantization} --engine {found.capability.engine}{hub}"
            )
    return f"launch inspect {model.name}"


def _without(wanted: Wanted, names: Sequence[str]) -> Wanted:
    return wanted._replace(**dict.fromkeys(names))
