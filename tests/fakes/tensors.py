"""A repo of sharded safetensors: three files of weights, 64 MB together, and what engines read beside them."""

from __future__ import annotations

import random
from pathlib import Path

from registry.spec import Source, Spec
from tests.fakes.hub import HubServer

REPO = "org/tensors"
SIZES = (32_000_000, 20_000_000, 12_000_000)
SPEC = Spec("pytorch", 7, ("none",), (Source("huggingface", REPO),))


def publish(hub: HubServer, folder: Path, sizes: tuple[int, ...] = SIZES) -> str:
    """Write one file or shards to `folder`, from where the server sends them, publish them, and return the commit."""
    chosen = random.Random(4)
    files: dict[str, bytes | Path] = {"config.json": b"{}", "README.md": b"read me"}
    for number, size in enumerate(sizes, 1):
        name = "model.safetensors" if len(sizes) == 1 else f"model-{number:05}-of-{len(sizes):05}.safetensors"
        files[name] = folder / name
        (folder / name).write_bytes(chosen.randbytes(size))
    return hub.add_repo(REPO, files)
