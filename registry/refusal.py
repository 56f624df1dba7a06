"""Says why nothing that was asked for can run, and what would work instead."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from registry.errors import ResolutionError
from registry.facts import Knowledge
from registry.judging import Candidate, Judged, Refused, judge_all, rejection
from registry.published import published_elsewhere
from registry.request import Wanted, has_quantization, listing
from registry.spec import Capability, Machine, Model, Spec, format_size

# What is given up of a request, in turn, to find one that can be met.
_EASINGS: tuple[tuple[str, ...], ...] = (
    ("engine",),
    ("quantization",),
    ("hubs",),
    ("engine", "quantization"),
    ("gpus",),
    ("engine", "quantization", "model_format", "hubs", "size_in_billions"),
)


class Alternatives(NamedTuple):
    """What was asked for, in the request's own words and in ours, and all by which something else can be judged."""

    name: str
    wanted: Wanted
    model: Model
    capabilities: Sequence[Capability]
    machine: Machine
    installed: frozenset[str]
    knowledge: Knowledge

    def without(self, names: Sequence[str]) -> list[Judged]:
        """Return what would load if these words had not been said, the best first."""
        unsaid: dict[str, Any] = dict.fromkeys(names)
        wanted = self.wanted._replace(**unsaid)
        judged, _ = judge_all(wanted, self.model, self.capabilities, self.machine, self.installed, self.knowledge)
        return [each for each in judged if not each.conflicts]

    def engines(self) -> list[str]:
        """Return the engines that would do it."""
        return sorted({each.candidate.capability.engine for each in self.without(("engine",))})


def nothing_loads(alternatives: Alternatives, judged: Sequence[Judged], refused: Sequence[Refused]) -> ResolutionError:
    """Return the error for weights that no engine that was asked for will load."""
    first, *others = dict.fromkeys(conflict for each in judged for conflict in each.conflicts)
    in_conflict = [rejection(each.candidate, conflict.reason) for each in judged for conflict in each.conflicts[:1]]
    return ResolutionError(
        first.sentence,
        rejected=[*in_conflict, *(rejection(out.candidate, out.reason) for out in refused)],
        details=[
            *dict.fromkeys(conflict.sentence for conflict in others if conflict.sentence != first.sentence),
            *(f"`{engine}` runs it" for engine in alternatives.engines()),
        ],
        hint=first.hint or _what_would_work(alternatives),
    )


def nothing_runs(alternatives: Alternatives, refused: Sequence[Refused]) -> ResolutionError:
    """Return the error for a request of which nothing is left: the reasons, and a command that would work."""
    wanted, model = alternatives.wanted, alternatives.model
    told = [out.detail for out in refused if out.detail] or _never_together(wanted, model)
    others = [f"`{engine}` runs it" for engine in alternatives.engines()]
    unpublished = _never_published(refused)
    return ResolutionError(
        _headline(wanted, model, unpublished),
        rejected=[rejection(out.candidate, out.reason) for out in sorted(refused, key=lambda out: out.detail is None)],
        details=_elsewhere(model, unpublished) if unpublished else [*list(dict.fromkeys(told))[:6], *others],
        hint=_what_would_work(alternatives),
    )


def _headline(wanted: Wanted, model: Model, unpublished: Sequence[Candidate]) -> str:
    if unpublished:
        names = _each_once([f"{each.spec.model_format} {each.quantization}" for each in unpublished])
        return f"`{model.name}` was never published as {names}"
    words = ", ".join(f"{what} `{value}`" for what, value in _asked(wanted).items())
    return f"Nothing here runs `{model.name}`" + (f" with {words}" if words else "")


def _never_published(refused: Sequence[Refused]) -> list[Candidate]:
    """Return what was asked for if nobody publishes any of it, else nothing."""
    meant = [out.candidate for out in refused if out.detail]
    return [] if any(each.spec.sources_of(each.quantization) for each in meant) else meant


def _elsewhere(model: Model, unpublished: Sequence[Candidate]) -> list[str]:
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
        "GPUs": None if wanted.gpus is None else str(wanted.gpus or "none"),
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


def _what_would_work(alternatives: Alternatives) -> str:
    """Return a command that works and drops as little as possible of the request."""
    wanted, model = alternatives.wanted, alternatives.model
    for dropped in _EASINGS:
        if judged := alternatives.without(dropped):
            found = judged[0].candidate
            hub = f" --hub {','.join(wanted.hubs)}" if wanted.hubs and "hubs" not in dropped else ""
            gpus = f" --gpus {wanted.gpus or 'none'}" if wanted.gpus is not None and "gpus" not in dropped else ""
            sizes = {spec.size_in_billions for spec in model.specs}
            size = f" --size-in-billions {format_size(found.spec.size_in_billions)}" if len(sizes) > 1 else ""
            return (
                f"launch {alternatives.name}{size} --model-format {found.spec.model_format}"
                f" --quantization {found.quantization} --engine {found.capability.engine}{hub}{gpus}"
            )
    return f"launch inspect {model.name}"
