"""Which networks each engine can build, by the lists that its packages carry; `architectures/` holds them.

Written by `runners/list_architectures.py` in each engine's environment, for the version that the engine's
lock names. Of any other version nothing is said.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from registry.spec import Architecture

FOLDER = Path(__file__).with_name("architectures")
LISTED = ("transformers", "vllm", "llama.cpp")


def knows_architecture(engine: str, version: str | None, model_format: str, architecture: Architecture) -> bool | None:
    """Return whether an engine's version, None for that of its lock, can build a network; None where nobody can tell.

    GGUF files name networks in llama.cpp's words, all other formats in those of Transformers.
    """
    names = {*architecture.class_names, architecture.model_type} - {None}
    if engine not in LISTED or not names or (engine == "llama.cpp") is not (model_format == "gguf"):
        return None
    if version not in (None, listed_version(engine)):
        return None
    if not names.isdisjoint(_read(engine)):
        return True
    # vLLM runs what it does not know by way of Transformers, if its implementation there lets it.
    return None if engine == "vllm" and not names.isdisjoint(_read("transformers")) else False


def listed_version(engine: str) -> str:
    """Return the version of an engine that its list is of."""
    return next(name for name in _read(engine) if name.startswith("# ")).rpartition(" ")[2]


@cache
def _read(engine: str) -> frozenset[str]:
    """Return the lines of a list: the names, and the title."""
    return frozenset((FOLDER / f"{engine}.txt").read_text(encoding="utf-8").splitlines())
