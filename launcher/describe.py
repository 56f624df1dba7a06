"""Puts plans, models and speeds into words; prints nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from engines.index import CAPABILITIES
from launcher.output import format_bytes, format_count
from launcher.plans import Plan
from registry.licences import restriction
from registry.spec import Architecture, Model, Rejection, Resolution, Source, Spec, format_size

if TYPE_CHECKING:
    from launcher.inspection import Inspection

AUTOMATIC = frozenset(each.engine for each in CAPABILITIES if each.automatic)
_HUB_TITLES = {
    "huggingface": "Hugging Face",
    "modelscope": "ModelScope",
    "url": "the web",
    "pypi": "the package index",
    "local": "this machine",
}
SHORT_REVISION = 7


def hub_title(hub: str) -> str:
    """Return what a hub is called where people read it."""
    return _HUB_TITLES.get(hub, hub)


def headline(plan: Plan) -> str:
    """Return the choice in one line."""
    return f"{plan.name} as {plan.model_format} {plan.quantization} on {plan.engine}"


def summary_lines(plan: Plan, *, with_engine: bool = True) -> Iterator[str]:
    """Yield what is about to happen: nothing where everything is here, always the bytes before the first of them."""
    if with_engine and not plan.environment.is_installed:
        yield _row("install", f"{plan.engine}, {_bytes_or_unknown(plan.environment.install_bytes)}, once")
    if plan.download_bytes is None:
        yield _row("fetch", f"{_origin(plan)}; only the hub can tell how much")
    elif plan.download_bytes:
        missing = sum(not file.cached for file in plan.files)
        yield _row(
            "fetch", f"{format_count(missing, 'file')}, {format_bytes(plan.download_bytes)} from {_origin(plan)}"
        )
    if with_engine and plan.download_bytes and plan.environment.install_bytes:
        yield _row("total", format_bytes(plan.download_bytes + plan.environment.install_bytes))


def engine_lines(plan: Plan) -> Iterator[str]:
    """Yield the other engines, each with the reason against it, and the device."""
    others = [f"{engine}: {reason.partition(':')[0]}" for engine, reason in plan.not_chosen() if engine in AUTOMATIC]
    if others:
        yield _row("not", " · ".join(others))
    yield _row("device", plan.device)


def plan_lines(plan: Plan, *, explain: bool = False) -> Iterator[str]:
    """Yield the whole plan, with the exact command; `explain` adds every reason and every rejected combination."""
    yield headline(plan)
    yield _row("repo", f"{plan.repo_id} on {hub_title(plan.hub)}")
    yield _row("revision", _revision(plan.source))
    if restricted := restriction(plan.model.license):
        yield _row("licence", restricted)
    yield from _file_lines(plan)
    yield from _environment_lines(plan)
    yield _row("device", plan.device)
    yield _row("context", f"{plan.context_length:,} tokens {at_once(plan.concurrency)}")
    yield _row("command", shlex.join(plan.command))
    yield from (_row("why", reason) for reason in plan.reasons)
    if explain:
        yield from (
            _row("not", f"{each.engine} · {each.model_format} {each.quantization}: {each.reason}")
            for each in plan.rejected
        )
    else:
        yield from (_row("not", f"{engine}: {reason}") for engine, reason in plan.not_chosen())
    yield from (_row("warning", warning) for warning in plan.warnings)


def _file_lines(plan: Plan) -> Iterator[str]:
    if not plan.needs_weights:
        yield _row("files", "none: this engine reads no weights")
    elif not plan.files:
        yield _row("files", "unchecked: only the hub can tell which")
    for file in plan.files:
        size = "size unchecked" if file.size_bytes is None else f"{file.size_bytes:,} bytes"
        yield _row("file", f"{file.path}   {size}   {'on disk' if file.cached else 'to fetch'}")


def _environment_lines(plan: Plan) -> Iterator[str]:
    environment = plan.environment
    version = f" {environment.version}" if environment.version else ""
    if environment.is_installed:
        yield _row("engine", f"{plan.engine}{version}, {environment.origin} environment")
    else:
        yield _row("engine", f"{plan.engine}, to install: {_bytes_or_unknown(environment.install_bytes)}")


def _revision(source: Source) -> str:
    if source.revision is not None:
        return source.revision
    return "each file by its checksum" if source.is_pinned else "not pinned: unchecked until a pull asks the hub"


def _origin(plan: Plan) -> str:
    at = f" at {_short(plan.source)}" if plan.revision else ""
    is_open = plan.model.license and not restriction(plan.model.license)  # else a line of its own says it
    licence = f" · {plan.model.license}" if is_open else ""
    place = plan.repo_id if plan.hub == "url" else hub_title(plan.hub)
    return f"{place}{at}{licence}"


def _short(source: Source) -> str:
    revision = source.revision or ""
    if source.hub == "url":
        kind, _, value = revision.partition(":")
        return f"{kind} {value[:SHORT_REVISION]}"
    return revision[:SHORT_REVISION] if source.is_pinned and len(revision) == 40 else revision


def _bytes_or_unknown(size_bytes: int | None) -> str:
    return "size unknown" if size_bytes is None else format_bytes(size_bytes)


def _row(label: str, text: str) -> str:
    return f"  {label:<9} {text}"


# --- models ----------------------------------------------------------------------------------------------------------


def model_lines(model: Model) -> Iterator[str]:
    """Yield a model's facts and specs."""
    yield model.name
    if model.description:
        yield f"  {model.description}"
    yield ""
    yield from (_row(label, text) for label, text in _facts(model) if text)
    yield from (_row("note", note) for note in model.notes)
    for spec in model.specs:
        yield ""
        yield from _spec_lines(model, spec)


def _facts(model: Model) -> Iterator[tuple[str, str]]:
    yield "aliases", ", ".join(model.aliases)
    yield "family", model.family
    yield "licence", restriction(model.license) or model.license or ""
    yield "languages", ", ".join(model.languages)
    yield "abilities", ", ".join(model.abilities)
    yield "context", f"{model.context_length:,} tokens" if model.context_length else ""
    yield "task", model.task or ""
    yield "modality", ", ".join(model.modality)
    yield "released", model.released or ""
    yield "knows to", model.knowledge_cutoff or ""
    yield "network", ", ".join(_architecture(model.architecture))


def _architecture(facts: Architecture) -> Iterator[str]:
    if facts.kind:
        yield facts.kind
    if facts.parameters:
        yield f"{facts.parameters:,} parameters"
    if facts.active_parameters:
        yield f"{facts.active_parameters:,} active"
    numbers = {
        "layers": facts.layers,
        "hidden": facts.hidden_size,
        "feed-forward": facts.intermediate_size,
        "heads": facts.heads,
        "KV heads": facts.kv_heads,
        "a head": facts.head_size,
        "tokens of vocabulary": facts.vocabulary,
    }
    yield from (f"{value:,} {name}" for name, value in numbers.items() if value)
    position = f"{facts.positions} positions" if facts.positions else ""
    if position and facts.position_base:
        position += f" (base {facts.position_base:,.0f})"
    words = (facts.attention, position, facts.activation, facts.normalization, facts.tokenizer)
    yield from (word for word in words if word)


def _spec_lines(model: Model, spec: Spec) -> Iterator[str]:
    yield f"  {spec.model_format}, {format_size(spec.size_in_billions)} billion parameters"
    yield f"    quantizations  {', '.join(spec.quantizations)}"
    if not spec.sources:
        yield "    never published"
    for source in spec.sources:
        pin = f"at {source.revision}" if source.is_pinned and source.revision else _revision(source).partition(":")[0]
        only = f" · only {', '.join(source.quantizations)}" if source.quantizations else ""
        yield f"    {hub_title(source.hub):<14} {source.repo_id} {pin}{only}"
        yield from (f"    {'also at':<14} {mirror}" for mirror in source.mirrors)
    if spec.resources is not None:
        stated = ", ".join(_resources(spec))
        yield f"    stated needs   {stated}"


def _resources(spec: Spec) -> Iterator[str]:
    facts = spec.resources
    if facts is None:
        return
    if facts.storage_bytes:
        yield f"{format_bytes(facts.storage_bytes)} of storage"
    if facts.gpu_count is not None:
        yield format_count(facts.gpu_count, "GPU")
    if facts.gpu_memory_bytes:
        yield f"{format_bytes(facts.gpu_memory_bytes)} of GPU memory"
    if facts.memory_per_gpu_bytes:
        yield f"{format_bytes(facts.memory_per_gpu_bytes)} on each GPU"
    if facts.precision:
        yield facts.precision
    if facts.distributed is not None:
        yield "distributed" if facts.distributed else "not distributed"


def inspection_lines(found: Inspection) -> Iterator[str]:
    """Yield what of a model runs here, why the rest does not, and the family's other models."""
    if found.choice is None:
        yield "  nothing of it runs here"
    else:
        choice = found.choice
        yield _row("here", f"{choice.spec.model_format} {choice.quantization} on {choice.engine}")
        yield from (_row("why", reason) for reason in choice.reasons)
    for (engine, reason), combinations in _by_reason(found).items():
        yield _row("not", f"{engine}: {reason} ({'; '.join(_named(found.model, combinations))})")
    if found.siblings:
        yield ""
        yield _row("family", f"others of {found.model.family}: {', '.join(found.siblings)}")


def _by_reason(found: Inspection) -> dict[tuple[str, str], list[Rejection]]:
    grouped: dict[tuple[str, str], list[Rejection]] = {}
    for each in found.rejected:
        grouped.setdefault((each.engine, each.reason), []).append(each)
    return grouped


def _named(model: Model, combinations: Sequence[Rejection]) -> Iterator[str]:
    """Yield each format with those of its quantizations that are meant, or alone where all are."""
    for model_format in dict.fromkeys(each.model_format for each in combinations):
        meant = [each.quantization for each in combinations if each.model_format == model_format]
        known = [q for spec in model.specs if spec.model_format == model_format for q in spec.quantizations]
        yield model_format if len(meant) == len(known) else f"{model_format} {', '.join(meant)}"


def plain(value: Any) -> Any:
    """Return a model, or a part of one, as plain data without what is empty."""
    if hasattr(value, "_asdict"):
        return {name: plain(each) for name, each in value._asdict().items() if each not in (None, "", (), {})}
    if isinstance(value, tuple):
        return [plain(each) for each in value]
    return {name: plain(each) for name, each in value.items()} if isinstance(value, dict) else value


def choice_record(choice: Resolution) -> dict[str, Any]:
    """Return a choice as plain data."""
    return {
        "engine": choice.engine,
        "model_format": choice.spec.model_format,
        "quantization": choice.quantization,
        "hub": choice.source.hub,
        "reasons": list(choice.reasons),
        "warnings": list(choice.warnings),
    }


def at_once(concurrency: int) -> str:
    """Return how many requests are answered at once; where it is one, others wait."""
    return "for one request at a time" if concurrency == 1 else f"for each of {concurrency}"
