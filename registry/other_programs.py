"""Where other programs keep weights: a file that one of them fetched is linked to, not fetched again."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from registry.cache import fresh_name


def kept_elsewhere(repo_id: str, path: str, sha256: str) -> Iterator[Path]:
    """Yield the places where Ollama and LM Studio would keep this file; whether it is there is to be seen."""
    for folder in _ollama_folders():
        yield folder / "blobs" / f"sha256-{sha256}"
    for name in (".lmstudio/models", ".cache/lm-studio/models"):
        yield Path.home() / name / repo_id / path


def link(found: Path, target: Path) -> None:
    """Make the file at `found` appear at `target` without a copy: a hard link, or a symbolic one to another disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = fresh_name(target)
    found = found.resolve()
    try:
        os.link(found, fresh)
    except OSError:
        fresh.symlink_to(found)
    fresh.replace(target)


def _ollama_folders() -> Iterator[Path]:
    if named := os.environ.get("OLLAMA_MODELS"):
        yield Path(named).expanduser()
    yield Path.home() / ".ollama" / "models"
    yield Path("/usr/share/ollama/.ollama/models")  # where its service on Linux keeps them
