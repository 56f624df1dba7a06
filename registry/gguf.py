"""The little that is checked of GGUF files before an engine reads them."""

from __future__ import annotations

from pathlib import Path

from registry.errors import DownloadError

MAGIC = b"GGUF"


class NotGgufError(DownloadError):
    """A file that should be GGUF is something else."""

    kind = "not_gguf"
    permanent = True


def check_gguf(path: Path) -> None:
    """Raise NotGgufError unless the file begins as GGUF files do."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start != MAGIC:
        raise NotGgufError(
            f"`{path.name}` is not a GGUF file",
            details=(f"it begins with {ascii(start)[1:]}, not 'GGUF'", str(path)),
            hint="name a file that llama.cpp can read, or another --model-format",
        )
