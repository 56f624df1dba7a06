"""Chooses spec, quantization, engine and source: a pure function of request, model, capabilities and machine.

Every combination of the model's specs and quantizations with the known engines is judged in turn: it gets a reason
against it, or a rank. The best rank is the choice; everything else is returned with its reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry.conflicts import conflicts, unchecked
from registry.facts import NOTHING_KNOWN, Knowledge
from registry.judging import Candidate, Judged, judge_all, rejection, weights_bytes
from registry.request import Wanted, listing
from registry.spec import Capability, Machine, Model, Request, Resolution, format_size, quantization_bits


def resolve(
    request: Request,
    model: Model,
    *,
    capabilities: Sequence[Capability],
    machine: Machine,
    installed: frozenset[str] = frozenset(),
    knowledge: Knowledge = NOTHING_KNOWN,
    must_load: bool = False,
) -> Resolution:
    """Return the choice for `request`, with its reasons and all that was rejected.

    `installed` names the engines that need no set-up. Raises ResolutionError, which says what would
    work instead: where nothing can run, and if it `must_load` where the engines will refuse the weights.
    """
    wanted = Wanted.read(request, model, capabilities)
    judged, refused = judge_all(wanted, model, capabilities, machine, installed, knowledge)
    if not judged or (must_load and judged[0].conflicts):
        from registry.refusal import Alternatives, nothing_loads, nothing_runs

        alternatives = Alternatives(request.name, wanted, model, capabilities, machine, installed, knowledge)
        raise nothing_loads(alternatives, judged, refused) if judged else nothing_runs(alternatives, refused)
    best, *others = judged
    passed_over = [rejection(each.candidate, _why_not(each, best)) for each in others]
    return Resolution(
        model=model,
        spec=best.candidate.spec,
        quantization=best.candidate.quantization,
        engine=best.candidate.capability.engine,
        source=best.source,
        reasons=tuple(_reasons(best, others, wanted, installed)),
        warnings=tuple(_warnings(best, wanted, knowledge)),
        rejected=(*passed_over, *(rejection(out.candidate, out.reason) for out in refused)),
        alternatives=best.sources[1:],
        is_ordered=wanted.hubs is not None,
        conflicts=tuple(conflict.sentence for conflict in best.conflicts),
    )


def is_confirmed(resolution: Resolution, request: Request, capability: Capability, knowledge: Knowledge) -> bool:
    """Return whether a choice stands as it is now that more is known of its weights."""
    if resolution.conflicts or request.gpus not in (None, 0, 1):
        return False
    candidate = Candidate(resolution.spec, resolution.quantization, capability)
    trusts = request.trusts_remote_code
    no_conflict = not conflicts(candidate, (resolution.source,), knowledge, trusts_code=trusts)
    return no_conflict and not any(unchecked(candidate, resolution.source, NOTHING_KNOWN))


def _why_not(other: Judged, best: Judged) -> str:
    """Return in words the first difference of two ranks."""
    engine, chosen = other.candidate.capability, best.candidate.capability
    if other.conflicts and not best.conflicts:
        return other.conflicts[0].reason
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


def _warnings(best: Judged, wanted: Wanted, knowledge: Knowledge) -> Iterator[str]:
    yield from (conflict.sentence for conflict in best.conflicts)
    if not best.conflicts:
        yield from unchecked(best.candidate, best.source, knowledge)
    if wanted.revision is not None and not _is_pin(best, wanted.revision):
        yield f"revision `{wanted.revision}` replaces the catalogue's pin: its checksums do not count"


def _is_pin(best: Judged, revision: str) -> bool:
    """Return whether the catalogue itself names this revision of the chosen source."""
    return any((each.repo_id, each.revision) == (best.source.repo_id, revision) for each in best.candidate.spec.sources)


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
