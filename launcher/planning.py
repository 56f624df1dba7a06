"""Makes a plan: asks resolution for the choice, the disk for files and environments, and puts the command together."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal, TypedDict

from engines.base import Address, Engine, Requirements, Settings
from engines.builds import needs_for
from engines.environment import absence, find_environment, lock_bytes, managed_folder
from engines.index import CAPABILITIES, capabilities_for, engine_named
from engines.known_architectures import knows_architecture
from engines.machine import read_machine, without_gpus
from launcher.gpus import GpusAsked, gpu_count, with_gpus
from launcher.plans import Asked, EnvironmentPlan, File, Plan
from launcher.precision import choose_dtype
from launcher.settings import on_build, settings_of
from registry import spec as words
from registry import store
from registry.catalogue import Catalogue, Found, read_layers
from registry.errors import ResolutionError
from registry.facts import Knowledge, SourceKey, WeightFacts
from registry.local_model import is_path, read_local_model
from registry.peeking import read_facts
from registry.resolution import is_confirmed, resolve

# The command runs in the folder of its socket, so that the plan can name it before there is one.
_SOCKET = Path("e.sock")


class Request(TypedDict, total=False):
    """What may be asked for besides the name: the command line's words."""

    model_format: str
    quantization: str
    engine: str
    size_in_billions: float | str
    hub: str
    revision: str
    context_length: int | Literal["max"]
    concurrency: int
    threads: int
    dtype: str
    start: Literal["fast", "throughput"]
    gpus: GpusAsked
    trust_remote_code: bool
    engine_args: Mapping[str, object] | Sequence[str]
    environment: str
    registry: Path | Sequence[Path]
    locked: Path | str
    offline: bool
    install: bool


def make_plan(model: str, request: Request) -> Plan:
    """Return what a launch of `model` would do, from what the disk tells."""
    check_words(request)
    if request.get("locked"):
        from launcher.locked import plan_locked

        return plan_locked(model, request)
    return plan_knowing(Asked(model, request))


def plan_knowing(asked: Asked, *, must_load: bool = False) -> Plan:
    """Return the plan for what is asked, by the facts of weights that are known, and those that the disk has.

    Raises ResolutionError; if it `must_load`, for weights too that no engine that was asked for will load.
    """
    return plan_found(
        find_model(asked.model, read_layers(asked.request.get("registry", ()))), asked, must_load=must_load
    )


def plan_found(found: Found, asked: Asked, *, must_load: bool = False) -> Plan:
    """Return the plan for an entry, whatever the catalogue has; raises as `plan_knowing`."""
    request = asked.request
    machine = with_gpus(read_machine(), request.get("gpus"))
    wanted = _wanted(asked.model, found, machine, request)
    installed = installed_engines(machine, request.get("environment", "auto"))
    capabilities = capabilities_for(machine)

    def choose(known: Knowledge) -> tuple[words.Resolution, store.FileSet]:
        return _nearest_files(
            resolve(
                wanted,
                found.model,
                capabilities=capabilities,
                machine=machine,
                installed=installed,
                knowledge=known,
                must_load=must_load,
            )
        )

    knowledge = knowledge_of(asked)
    resolution, files = choose(knowledge)
    while (facts := _facts_on_disk(resolution, files, knowledge)) is not None:
        knowledge = knowledge.with_facts(resolution.source, resolution.quantization, facts)
        if is_confirmed(resolution, wanted, capability_of(resolution.engine), knowledge):
            break
        resolution, files = choose(knowledge)
    return _plan(resolution, files, machine, asked._replace(facts=knowledge.facts))


def knowledge_of(asked: Asked) -> Knowledge:
    """Return what is known beyond the catalogue: facts of weights, and what engines know as they are installed here."""
    return Knowledge(asked.facts, partial(_knows, asked.request.get("environment", "auto")))


def _facts_on_disk(resolution: words.Resolution, files: store.FileSet, knowledge: Knowledge) -> WeightFacts | None:
    """Return what weights say that are here and were not looked at yet, or None."""
    is_known = SourceKey.of(resolution.source, resolution.quantization) in knowledge.facts
    if is_known or not capability_of(resolution.engine).needs_weights:
        return None
    return read_facts(resolution.spec, files)


def _knows(choice: str, engine_name: str, model_format: str, architecture: words.Architecture) -> bool | None:
    """Return whether an engine, in the version that is or would be installed here, knows an architecture."""
    requirements = engine_named(engine_name).requirements_for(read_machine())
    found = find_environment(requirements, choice=choice) if requirements else None
    return knows_architecture(engine_name, found.version if found else None, model_format, architecture)


def check_words(request: Request) -> None:
    """Raise TypeError for a word that there is not, naming the near one."""
    for word in request:
        if word not in Request.__annotations__:
            from engines.generation import near_name

            near = near_name(word, Request.__annotations__)
            raise TypeError(f"there is no `{word}`" + (f"; did you mean `{near}`?" if near else ""))


def find_model(name: str, catalogue: Catalogue) -> Found:
    """Return the entry that a name or a path means."""
    return Found(read_local_model(name)) if is_path(name) else catalogue.find(name)


def installed_engines(machine: words.Machine, choice: str = "auto") -> frozenset[str]:
    """Return the engines that run without a set-up first."""
    engines = (engine_named(capability.engine) for capability in CAPABILITIES)
    return frozenset(engine.name for engine in engines if _is_installed(engine, machine, choice))


def _is_installed(engine: Engine, machine: words.Machine, choice: str) -> bool:
    requirements = engine.requirements_for(machine)
    return requirements is None or find_environment(requirements, choice=choice) is not None


def capability_of(name: str) -> words.Capability:
    """Return what an engine, by its own name, can run."""
    return next(each for each in CAPABILITIES if each.engine == name)


def _wanted(name: str, found: Found, machine: words.Machine, request: Request) -> words.Request:
    size = request.get("size_in_billions")
    return words.Request(
        name=name,
        model_format=request.get("model_format") or found.model_format,
        quantization=request.get("quantization") or found.quantization,
        engine=request.get("engine"),
        size_in_billions=_read_size(size) if isinstance(size, str) else size,
        hub=request.get("hub") or found.hub,
        revision=request.get("revision"),
        gpus=gpu_count(machine, request.get("gpus")),
        trusts_remote_code=request.get("trust_remote_code", False),
    )


def _read_size(text: str) -> float:
    try:
        return words.parse_size(text)
    except ValueError as error:
        raise ResolutionError(str(error), hint="--size-in-billions 7, 0.5 or 0_5") from error


def _plan(resolution: words.Resolution, files: store.FileSet, machine: words.Machine, asked: Asked) -> Plan:
    request = asked.request
    engine = engine_named(resolution.engine)
    capability = capability_of(resolution.engine)
    facts = asked.facts.get(SourceKey.of(resolution.source, resolution.quantization))
    planned = [_file(each, resolution.source) for each in files.files]
    requirements = _requirements(engine, resolution, machine)
    dtype = choose_dtype(request.get("dtype"), resolution, capability, _computing(machine, requirements), facts)
    settings = settings_of(resolution, capability, machine, files.path, request, facts, dtype.name)
    settings = on_build(settings, requirements, request.get("start"))
    environment = _environment(engine, requirements, request)
    return Plan(
        resolution=resolution._replace(reasons=(*resolution.reasons, *dtype.in_words())),
        settings=settings,
        requirements=requirements,
        found_files=files,
        files=tuple(planned) if capability.needs_weights else (),
        download_bytes=_download_bytes(planned, files) if capability.needs_weights else 0,
        environment=environment,
        command=_command(engine, environment, settings),
        device=_device(machine, settings, requirements),
        warnings=(*resolution.warnings, *_device_warnings(machine, requirements)),
        needs_weights=capability.needs_weights,
        offline=request.get("offline", False),
        may_install=request.get("install", True) and not request.get("offline", False),
        asked=asked,
    )


def at_sources(plan: Plan, sources: Sequence[words.Source]) -> Plan:
    """Return the same plan with its files from the first of `sources`, and the others to fall back on."""
    first, *others = sources
    resolution = plan.resolution._replace(source=first, alternatives=tuple(others))
    files = store.find(plan.spec, first, plan.quantization)
    planned = [_file(each, first) for each in files.files]
    settings = plan.settings._replace(model_path=files.path)
    return replace(
        plan,
        resolution=resolution,
        settings=settings,
        found_files=files,
        files=tuple(planned) if plan.needs_weights else (),
        download_bytes=_download_bytes(planned, files) if plan.needs_weights else 0,
        command=_command(engine_named(plan.engine), plan.environment, settings),
    )


def _nearest_files(resolution: words.Resolution) -> tuple[words.Resolution, store.FileSet]:
    """Return the choice at the first source whose files are all here, whatever the order; else at its own."""
    sources = (resolution.source, *resolution.alternatives)
    first: store.FileSet | None = None
    for source in sources:
        files = store.find(resolution.spec, source, resolution.quantization)
        if files.is_complete:
            others = tuple(other for other in sources if other is not source)
            return resolution._replace(source=source, alternatives=others), files
        first = first or files
    assert first is not None
    return resolution, first


def _file(stored: store.StoredFile, source: words.Source) -> File:
    """Return a file with the size that is enforced, or else the one that was computed."""
    pinned = source.files.get(stored.path, words.PinnedFile())
    size_bytes = stored.size_bytes if stored.size_bytes is not None else pinned.size_bytes
    return File(stored.path, size_bytes, stored.sha256, cached=stored.location is not None)


def _download_bytes(planned: Sequence[File], files: store.FileSet) -> int | None:
    """Return what is still to come, counting computed sizes where nobody vouches for better ones."""
    if files.download_bytes is not None or not files.is_known:
        return files.download_bytes
    sizes = [file.size_bytes for file in planned if not file.cached]
    return None if None in sizes else sum(size for size in sizes if size is not None)


def _command(engine: Engine, environment: EnvironmentPlan, settings: Settings) -> tuple[str, ...]:
    """Return the engine's command, which runs in the folder of its socket."""
    return engine.command(environment.python, settings, Address("http://localhost", _SOCKET))


def _requirements(engine: Engine, resolution: words.Resolution, machine: words.Machine) -> Requirements | None:
    """Return what the engine needs here for what was chosen."""
    requirements = engine.requirements_for(machine)
    if requirements is None:
        return None
    return requirements._replace(
        needs=needs_for(resolution.engine, resolution.spec.model_format, resolution.quantization)
    )


def _environment(engine: Engine, requirements: Requirements | None, request: Request) -> EnvironmentPlan:
    if requirements is None:
        return EnvironmentPlan("launcher", sys.executable, "", is_installed=True, install_bytes=0)
    choice = request.get("environment", "auto")
    if found := find_environment(requirements, choice=choice):
        return EnvironmentPlan(found.origin, found.python, found.version, is_installed=True, install_bytes=0)
    if choice not in ("auto", "managed"):
        raise absence(engine.name, requirements, choice)
    python = managed_folder(requirements) / "bin" / "python"
    size = lock_bytes(requirements)
    return EnvironmentPlan("managed", str(python), "", is_installed=False, install_bytes=size)


def _computing(machine: words.Machine, requirements: Requirements | None) -> words.Machine:
    """Return the machine as far as the engine's build computes with it."""
    uses_gpu = requirements is not None and requirements.accelerator != "cpu"
    return machine if uses_gpu or not machine.gpus else without_gpus(machine)


def _device(machine: words.Machine, settings: Settings, requirements: Requirements | None) -> str:
    """Return what calculates, with the build that makes it do so."""
    if requirements is None or settings.accelerator == "cpu":
        return f"CPU, {settings.threads} of {machine.cores} threads"
    name = machine.gpus[0].name if machine.gpus else "Apple GPU"
    return f"{name}, build for {requirements.variant}"


def _device_warnings(machine: words.Machine, requirements: Requirements | None) -> Iterator[str]:
    if requirements is not None and requirements.unused:
        yield f"the GPU {machine.gpus[0].name} stays unused: {requirements.unused}"
