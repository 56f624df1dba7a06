"""Tries whether an environment's Python starts and finds its engine; the engine itself is not imported."""

from __future__ import annotations

import subprocess

from engines.base import Requirements
from engines.environment import Environment

ANSWERS_WITHIN_S = 20.0
_SCRIPT = """
import importlib.metadata as metadata, importlib.util as util, sys
distribution, module = sys.argv[1:]
if util.find_spec(module) is None:
    sys.exit(f"there is no module `{module}`")
print(metadata.version(distribution))
"""


def start_probe(environment: Environment, requirements: Requirements) -> str | None:
    """Return why an engine will not start in an environment, or None where nothing speaks against it."""
    words = (requirements.distribution, requirements.import_name)
    try:
        done = subprocess.run(
            (environment.python, "-I", "-c", _SCRIPT, *words),
            capture_output=True,
            text=True,
            timeout=ANSWERS_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"its Python does not answer within {ANSWERS_WITHIN_S:.0f} s"
    except OSError as error:
        return f"its Python does not start: {error.strerror}"
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["its Python fails without a word"])[-1]
    version = done.stdout.strip()
    return None if version == environment.version else f"it holds {version}, and was made with {environment.version}"
