"""Whether a plan's engine will refuse the weights that it is to be given, by what they say of themselves."""

from __future__ import annotations

from launcher.planning import capability_of, knowledge_of
from launcher.plans import Plan
from registry.conflicts import Conflict, conflicts
from registry.errors import ResolutionError
from registry.facts import WeightFacts
from registry.judging import Candidate
from registry.peeking import read_facts
from registry.store import FileSet


def conflicts_of(plan: Plan, facts: WeightFacts) -> tuple[Conflict, ...]:
    """Return why the plan's engine will not load weights of which these facts are known."""
    candidate = Candidate(plan.spec, plan.quantization, capability_of(plan.engine))
    knowledge = knowledge_of(plan.asked).with_facts(plan.source, plan.quantization, facts)
    return conflicts(candidate, (plan.source,), knowledge, trusts_code=plan.settings.trusts_remote_code)


def check_facts(plan: Plan, facts: WeightFacts | None) -> None:
    """Raise ResolutionError if the plan's engine will refuse weights of which these facts are known."""
    if facts is not None and (found := conflicts_of(plan, facts)):
        first, *others = found
        hint = first.hint or f"launch inspect {plan.name}"
        raise ResolutionError(first.sentence, details=[other.sentence for other in others], hint=hint)


def check_files(plan: Plan, files: FileSet) -> None:
    """Raise ResolutionError if the plan's engine will refuse what has come: some weights tell only then."""
    check_facts(plan, read_facts(plan.spec, files))
