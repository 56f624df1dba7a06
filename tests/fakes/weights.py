"""A repo with one GGUF file of 2 MB that counts, and how it is asked for on either hub."""

from __future__ import annotations

import hashlib

from registry.spec import PinnedFile, Source, Spec

REPO = "org/weights-GGUF"
NAME = "weights.Q4_K_M.gguf"
QUANTIZATION = "Q4_K_M"
WEIGHTS = b"GGUF" + hashlib.shake_256(b"weights").digest(2_000_000)
COMMIT_FILES = {NAME: WEIGHTS, "weights.Q8_0.gguf": b"GGUF another", "README.md": b"read me"}


def gguf_source(
    hub_name: str, revision: str | None = None, pinned: PinnedFile | None = None
) -> tuple[Spec, Source, str]:
    """Return what `store.pull` is asked for."""
    pins = {} if pinned is None else {NAME: pinned}
    source = Source(hub_name, REPO, revision, file="weights.{quantization}.gguf", files=pins)
    return Spec("gguf", 7, (QUANTIZATION,), (source,)), source, QUANTIZATION
