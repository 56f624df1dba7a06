"""Reads how an engine is to run, option by option: what was asked for, else what suits model and machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import Requirements, Settings
from engines.llama_cpp import default_threads
from launcher.gpus import gpus_to_use
from registry import spec as words
from registry.errors import ResolutionError
from registry.facts import WeightFacts
from registry.splitting import merged

if TYPE_CHECKING:
    from launcher.planning import Request

DEFAULT_CONTEXT_LENGTH = 8192
DEFAULT_CONCURRENCY = 4


def settings_of(
    resolution: words.Resolution,
    capability: words.Capability,
    machine: words.Machine,
    path: Path,
    request: Request,
    facts: WeightFacts | None,
    dtype: str,
) -> Settings:
    """Return what the engine's command line is made from; raises ResolutionError for what cannot be."""
    threads, batch_threads = default_threads(machine)
    asked = request.get("threads")
    spec, model = resolution.spec, resolution.model
    return Settings(
        name=model.name,
        model_path=path,
        context_length=_context_length(resolution, request.get("context_length"), facts),
        slots=_slots(capability, request),
        threads=threads if asked is None else _at_least_one("threads", asked),
        batch_threads=batch_threads if asked is None else asked,
        arguments=_engine_arguments(request.get("engine_args", ())),
        model_format=spec.model_format,
        quantization=resolution.quantization,
        architecture=merged(spec.architecture or model.architecture, facts),
        chat=model.chat,
        gpus=tuple(gpu.number for gpu in gpus_to_use(machine, request.get("gpus"))),
        dtype=dtype,
        memory_bytes=machine.memory_bytes,
        trusts_remote_code=request.get("trust_remote_code", False),
        embeds="embed" in model.abilities,
    )


def on_build(settings: Settings, requirements: Requirements | None, start: str | None) -> Settings:
    """Return settings for what the engine's build can use of the machine; raises ResolutionError for a bad `start`."""
    accelerator = requirements.accelerator if requirements else "cpu"
    return settings._replace(
        accelerator=accelerator,
        gpus=() if accelerator == "cpu" else settings.gpus,
        starts_fast=_starts_fast(start, accelerator),
    )


def _starts_fast(asked: str | None, accelerator: str) -> bool:
    """Return whether being ready soon goes before tokens a second: as asked, else where there is no GPU."""
    if asked not in (None, "fast", "throughput"):
        raise ResolutionError(f"`start` must be `fast` or `throughput`, not `{asked}`")
    return asked == "fast" or (asked is None and accelerator == "cpu")


def _slots(capability: words.Capability, request: Request) -> int:
    """Return how many requests are answered at once: one where the engine takes no more, and lets others wait."""
    asked = _at_least_one("concurrency", request.get("concurrency", DEFAULT_CONCURRENCY))
    return asked if "batching" in capability.features else 1


def _at_least_one(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ResolutionError(f"`{name}` must be a whole number of at least 1, not `{value!r}`")
    return value


def _context_length(resolution: words.Resolution, asked: int | str | None, facts: WeightFacts | None) -> int:
    """Return the tokens promised to each request: as asked, at most the model's own."""
    own = _own_context(resolution, facts)
    if asked is None:
        return min(own or DEFAULT_CONTEXT_LENGTH, DEFAULT_CONTEXT_LENGTH)
    if asked == "max":
        return own or DEFAULT_CONTEXT_LENGTH
    if isinstance(asked, str):
        raise ResolutionError(f"`context_length` must be a whole number or `max`, not `{asked}`")
    if own is not None and _at_least_one("context_length", asked) > own:
        raise ResolutionError(
            f"`{resolution.model.name}` has a context of {own:,} tokens, not {asked:,}", hint="--context-length max"
        )
    return _at_least_one("context_length", asked)


def _own_context(resolution: words.Resolution, facts: WeightFacts | None) -> int | None:
    """Return the longest context by the catalogue and by the weights' own configuration, the shorter of both."""
    stated = (resolution.model.context_of(resolution.spec), facts.context_length if facts else None)
    return min((length for length in stated if length is not None), default=None)


def _engine_arguments(arguments: Mapping[str, object] | Sequence[str]) -> tuple[str, ...]:
    """Return the engine's own options as words of its command line; `{"mlock": True}` is `--mlock`."""
    if not isinstance(arguments, Mapping):
        return tuple(arguments)
    given: list[str] = []
    for name, value in arguments.items():
        option = f"--{name.lstrip('-').replace('_', '-')}"
        if value is True:
            given.append(option)
        elif value is not None and value is not False:
            given += [option, str(value)]
    return tuple(given)
