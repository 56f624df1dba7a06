"""Chooses spec, quantization, engine and source: a pure function of request, model, capabilities and machine.

Every combination of the model's specs and quantizations with the known engines is judged in turn: it gets a reason
against it, or a rank. The best rank is the choice; everything else is returned with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry.judging import Judged, judge_all, rejection, weights_bytes
from registry.request import Wanted, listing
from registry.spec import Capability, Machine, Model, Request, Resolution, format_size, quantization_bits


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
    judged, refused = judge_all(wanted, model, capabilities, machine, installed)
    if not judged:
        from registry.refusal import nothing_runs

        raise nothing_runs(request, wanted, model, capabilities, machine, refused)
    best, *others = judged
    passed_over = [rejection(each.candidate, _why_not(each, best)) for each in others]
    return Resolution(
        model=model,
        spec=best.candidate.spec,
        quantization=best.candidate.quantization,
        engine=best.candidate.capability.engine,
        source=best.source,
        reasons=tuple(_reasons(best, others, wanted, installed)),
        warnings=tuple(_warnings(best, wanted)),
        rejected=(*passed_over, *(rejection(out.candidate, out.reason) for out in refused)),
        alternatives=best.sources[1:],
        is_ordered=wanted.hubs is not None,
    )


def _why_not(other: Judged, best: Judged) -> str:
    """Return in words the first difference of two ranks."""
    engine, chosen = other.candidate.capability, best.candidate.capability
    if other.warnings and not best.warnings:
        return other.warnings[0]
    if not engine.launchable and chosen.launchable:
        return "is known, but this version does not start it"
    if other.needs_large_setup and not best.needs_large_setup:
        return f"is not installed, and takes {engine.setup_bytes / 1e9:.1f} GB to set up"
    if best.fits and not other.fits:
        return f"its weights, about {weights_bytes(other.candidate) / 1e9:.1f} GB, leave too little of the memory"
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


def _warnings(best: Judged, wanted: Wanted) -> Iterator[str]:
    engine = best.candidate.capability
    yield from (f"`{engine.engine}` {warning}" for warning in best.warnings)
    if not best.warnings:
        yield from _unchecked(best)
    if wanted.revision is not None and best.source not in best.candidate.spec.sources:
        yield f"revision `{wanted.revision}` replaces the catalogue's pin: its checksums do not count"
    if not engine.launchable:
        yield f"`{engine.engine}` is known, but this version does not start it"


def _unchecked(best: Judged) -> Iterator[str]:
    """Yield the facts of the weights that decide, and that nobody has looked up."""
    engine = best.candidate.capability
    support = engine.support_of(best.candidate.spec.model_format)
    for rule in support.refuses if support else ():
        if rule.key not in best.source.quantization_config:
            yield f"unchecked: `{rule.key}` of these weights; `{engine.engine}` refuses `{rule.value}`"


def _reasons(best: Judged, others: Sequence[Judged], wanted: Wanted, installed: frozenset[str]) -> Iterator[str]:
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
