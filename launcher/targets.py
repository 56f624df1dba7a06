"""What requests to a planned model are made for: the engine's words and features, the model's abilities, defaults."""

from __future__ import annotations

from pathlib import Path

from engines.generation import Target
from engines.index import engine_named
from launcher.plans import Plan
from registry.own_defaults import merged_defaults, read_own_defaults


def target_of(plan: Plan, weights: Path | None = None) -> Target:
    """Return what requests are made for; `weights`, once they are here, have a say in sampling's defaults."""
    engine = engine_named(plan.engine)
    stated = plan.model.generation
    return Target(
        name=plan.settings.name,
        engine=plan.engine,
        wire=engine.wire,
        context_length=plan.context_length,
        defaults=stated if weights is None else merged_defaults(stated, read_own_defaults(weights)),
        features=engine.capability.features,
        abilities=frozenset(plan.model.abilities),
        reasoning=plan.model.chat.reasoning,
        models_with=_models_with,
    )


def _models_with(ability: str) -> tuple[str, ...]:
    from launcher.listing import list_models

    return tuple(model.name for model in list_models(ability=ability))
