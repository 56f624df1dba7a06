"""Where this product keeps what can be made again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the cache's root: `LAUNCH_CACHE`, else `model-launcher` under `XDG_CACHE_HOME` or `~/.cache`."""
    if named := environ.get("LAUNCH_CACHE"):
        return Path(named)
    base = environ.get("XDG_CACHE_HOME")
    return Path(base or Path.home() / ".cache") / "model-launcher"
