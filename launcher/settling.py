"""Makes a plan hold before anything large is fetched: at a hub that answers, for weights that its engine will load."""

from __future__ import annotations

from dataclasses import replace

from launcher import describe
from launcher.fetching import choose_source, is_offline, sources_of, try_sources
from launcher.planning import at_sources, plan_knowing
from launcher.plans import Plan
from launcher.refusals import check_facts, conflicts_of
from registry.facts import SourceKey, WeightFacts
from registry.peeking import download_facts
from registry.progress import Report, ignore


def settle(plan: Plan, report: Report = ignore) -> Plan:
    """Return the plan that will be carried out, after a look at its weights in the small files that decide.

    Where its engine refuses them it moves to the best that does not, and says so in its warnings; a locked plan never
    moves. Asks hubs about what is not here and was not looked at, never for weights. Raises ResolutionError where
    nothing that was asked for will load them, and DownloadError.
    """
    plan = choose_source(plan)
    moves: list[str] = []
    while not _is_looked_at(plan):
        looked_at, facts = try_sources(plan, report, _look)
        plan = choose_source(_knowing(looked_at, facts))
        if facts is not None and not _is_same(plan, looked_at):
            moves.append(_move(looked_at, facts, plan))
    if plan.resolution.conflicts:
        return plan_knowing(plan.asked, must_load=True)
    return replace(plan, warnings=(*plan.warnings, *moves)) if moves else plan


def _is_looked_at(plan: Plan) -> bool:
    if not plan.needs_weights or plan.found_files.is_complete or is_offline(plan):
        return True
    return SourceKey.of(plan.source, plan.quantization) in plan.asked.facts


def _look(plan: Plan) -> WeightFacts | None:
    return download_facts(plan.spec, plan.source, plan.quantization)


def _knowing(plan: Plan, facts: WeightFacts | None) -> Plan:
    """Return the plan now that its weights were looked at: at the same source, or another plan."""
    key = SourceKey.of(plan.source, plan.quantization)
    asked = plan.asked._replace(facts={**plan.asked.facts, key: facts})
    if facts is None or plan.locked_files:
        check_facts(plan, facts)
        return replace(plan, asked=asked)
    fresh = plan_knowing(asked, must_load=True)
    return at_sources(fresh, sources_of(plan)) if _is_same(fresh, plan) else fresh


def _is_same(plan: Plan, other: Plan) -> bool:
    return (plan.engine, plan.spec, plan.quantization) == (other.engine, other.spec, other.quantization)


def _move(plan: Plan, facts: WeightFacts, fresh: Plan) -> str:
    """Return in words why a plan is another one now."""
    found = conflicts_of(plan, facts)
    why = f"{found[0].sentence}: " if found else ""
    return f"{why}this is {describe.headline(fresh)}"
