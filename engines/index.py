"""All engines by name: what each can run, and the class of those that this version starts."""

from __future__ import annotations

from engines import llama_cpp_python, transformers, vllm
from engines.base import Engine
from engines.echo import Echo
from engines.llama_cpp import LlamaCpp
from registry.spec import Capability

_ENGINES: dict[str, Engine] = {engine.name: engine for engine in (LlamaCpp(), Echo())}

CAPABILITIES: tuple[Capability, ...] = (
    _ENGINES["llama.cpp"].capability,
    transformers.CAPABILITY,
    vllm.CAPABILITY,
    llama_cpp_python.CAPABILITY,
    _ENGINES["echo"].capability,
)


def find_engine(name: str) -> Engine | None:
    """Return the engine of that name, or None where this version knows it but does not start it."""
    return _ENGINES.get(name)
