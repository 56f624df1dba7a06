"""GPUs and their drivers, and why one that is here is not used."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from engines.gpus import VISIBLE, has_vulkan, read_driver_trouble, read_gpus, read_rocm_version
from launcher.doctor.findings import Finding
from launcher.output import format_bytes, format_count
from registry.spec import Gpu

AREA = "gpu"
_DRIVER_REMEDY = (
    "make `nvidia-smi` work: install NVIDIA's driver, restart after it was updated, start a container with `--gpus all`"
)


def examine(root: Path = Path("/"), environ: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Yield each GPU, and what stands between one and us; `root` is where /proc and /sys are."""
    shown, present = read_gpus(root, environ), read_gpus(root, {})
    trouble = read_driver_trouble(root)
    if trouble is not None:
        yield Finding(AREA, "driver", "warning", trouble, _DRIVER_REMEDY)
    if len(shown) < len(present):
        yield judge_hidden(shown, present, environ)
    for gpu in shown:
        yield _describe(gpu, root)
    if not present and trouble is None:
        yield Finding(AREA, "gpu", "ok", "none: models run on the CPU")


def judge_hidden(shown: Sequence[Gpu], present: Sequence[Gpu], environ: Mapping[str, str]) -> Finding:
    """Return that a variable hides GPUs: what its user wants, unless none is left."""
    variable = next((name for name in VISIBLE[present[0].vendor] if name in environ), "")
    hidden = len(present) - len(shown)
    text = f"`{variable}={environ.get(variable, '')}` hides {hidden} of {format_count(len(present), 'GPU')}"
    facts = {"variable": variable, "hidden": hidden, "present": len(present)}
    if shown:
        return Finding(AREA, "hidden", "ok", text, facts=facts)
    return Finding(AREA, "hidden", "warning", text, f"unset {variable}", facts)


def _describe(gpu: Gpu, root: Path) -> Finding:
    parts = [gpu.name, format_bytes(gpu.memory_bytes)]
    if gpu.driver:
        cuda = f", which knows CUDA {'.'.join(map(str, gpu.cuda))}" if gpu.cuda else ""
        parts.append(f"driver {gpu.driver}{cuda}")
    if gpu.vendor == "amd":
        rocm = read_rocm_version(root)
        parts.append(f"ROCm {rocm}" if rocm else "no ROCm")
    if gpu.vendor != "nvidia":
        parts.append("Vulkan" if has_vulkan(root) else "no Vulkan")
    return Finding(AREA, f"gpu {gpu.number}", "ok", ", ".join(parts), facts=gpu._asdict())
