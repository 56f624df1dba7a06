"""The programs that all else rests on: launch itself, its Python, and uv."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from launcher._packages import DISTRIBUTION
from launcher.doctor.findings import Finding

AREA = "program"
UV_ANSWERS_WITHIN_S = 10.0
_INSTALL_UV = f"{sys.executable} -m pip install uv"


def examine() -> Iterator[Finding]:
    """Yield the versions of what runs here."""
    yield _launch()
    python = f"{platform.python_implementation()} {platform.python_version()}, {sys.executable}"
    facts = {"version": platform.python_version(), "path": sys.executable, "prefix": sys.prefix}
    yield Finding(AREA, "python", "ok", python, facts=facts)
    yield examine_uv()


def _launch() -> Finding:
    folder = Path(__file__).parents[2]
    try:
        known = version(DISTRIBUTION)
    except PackageNotFoundError:
        remedy = f"{sys.executable} -m pip install --editable {folder}"
        return Finding(AREA, "launch", "warning", f"{folder}, which is not installed", remedy)
    return Finding(AREA, "launch", "ok", f"{known}, {folder}", facts={"version": known, "path": str(folder)})


def examine_uv() -> Finding:
    """Return which uv sets engines up, or that there is none that runs."""
    try:
        import uv

        path = uv.find_uv_bin()
        asked = (path, "--version")
        done = subprocess.run(asked, capture_output=True, text=True, timeout=UV_ANSWERS_WITHIN_S, check=True)
    except ImportError:
        return Finding(AREA, "uv", "error", "not here: no engine can be set up", _INSTALL_UV)
    except (OSError, subprocess.SubprocessError) as error:
        return Finding(AREA, "uv", "error", f"does not run: {error}", _INSTALL_UV)
    known = done.stdout.split()[1]
    return Finding(AREA, "uv", "ok", f"{known}, {path}", facts={"version": known, "path": path})
