"""A model of two small files on both hubs, with its catalogue entry: what pulls, locks and caches are tried with."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.fakes.hub import HubServer

NAME = "own"
REPO = "org/own-GGUF"
WEIGHTS = {
    f"own.{quantization}.gguf": b"GGUF" + hashlib.shake_256(quantization.encode()).digest(size)
    for quantization, size in (("Q4_0", 100_000), ("Q8_0", 200_000))
}
FILE = "own.Q4_0.gguf"
_ENTRY = """\
name: own
abilities: [chat]
context_length: 2048
specs:
  - format: gguf
    size_in_billions: 0.5
    quantizations: [Q4_0, Q8_0]
    sources:
      huggingface: {{repo_id: {repo}, file: "own.{{quantization}}.gguf"{pin}}}
      modelscope: {{repo_id: {repo}, file: "own.{{quantization}}.gguf"}}
"""


def publish(hub: HubServer, *, gated: bool = False) -> str:
    """Put the model's repo on the hub and return its commit."""
    return hub.add_repo(REPO, {**WEIGHTS, "README.md": b"read me"}, gated=gated, token="secret" if gated else None)


def write_entry(folder: Path, *, revision: str | None = None) -> Path:
    """Write the catalogue file of the model, pinned to `revision` on Hugging Face."""
    pin = "" if revision is None else f", revision: {revision}"
    path = folder / "own.yaml"
    path.write_text(_ENTRY.format(repo=REPO, pin=pin), encoding="utf-8")
    return path
