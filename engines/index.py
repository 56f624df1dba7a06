"""All engines by name, and what each can run."""

from __future__ import annotations

from engines.base import Engine
from engines.builds import PACKAGES, requirements_of
from engines.echo import Echo
from engines.environment import lock_bytes
from engines.llama_cpp import LlamaCpp
from engines.llama_cpp_python import LlamaCppPython
from engines.transformers import Transformers
from engines.vllm import Vllm
from registry.spec import Capability, Machine

_ENGINES: dict[str, Engine] = {
    engine.name: engine for engine in (LlamaCpp(), Transformers(), Vllm(), LlamaCppPython(), Echo())
}

CAPABILITIES: tuple[Capability, ...] = tuple(engine.capability for engine in _ENGINES.values())


def engine_named(name: str) -> Engine:
    """Return the engine of that name, by its own spelling."""
    return _ENGINES[name]


def capabilities_for(machine: Machine) -> tuple[Capability, ...]:
    """Return what the engines can run, each with what its build for `machine` runs on and fetches to be set up."""
    return tuple(_with_setup(capability, machine) for capability in CAPABILITIES)


def _with_setup(capability: Capability, machine: Machine) -> Capability:
    if capability.engine not in PACKAGES:
        return capability
    requirements = requirements_of(capability.engine, machine)
    size_bytes = lock_bytes(requirements) or capability.setup_bytes
    return capability._replace(setup_bytes=size_bytes, accelerator=requirements.accelerator)
