"""What this machine has: cores and memory as far as a process here may use them, GPUs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from engines.gpus import has_vulkan, read_gpus, read_rocm_version
from registry.spec import Gpu, Machine

# The first core's flags are within this; the whole file is long where there are many cores.
CPUINFO_BYTES = 8192
CPU_BFLOAT16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
COMPUTE_WITH_BFLOAT16 = (8, 0)
CGROUP_V1_LIMITLESS_BYTES = 1 << 60


def read_machine(root: Path = Path("/")) -> Machine:
    """Return the machine as processes here see it; limits of containers count. `root` is where /proc and /sys are."""
    gpus = read_gpus(root)
    machine = Machine(
        system=platform.system(),
        architecture=platform.machine(),
        cores=_read_cores(root),
        memory_bytes=_read_memory_bytes(root),
        gpus=gpus,
        rocm=read_rocm_version(root) if gpus else "",
        has_vulkan=bool(gpus) and has_vulkan(root),
    )
    return machine._replace(has_bfloat16=_has_bfloat16(machine, root))


def without_gpus(machine: Machine, root: Path = Path("/")) -> Machine:
    """Return the machine as it is to one that uses no GPU."""
    bare = machine._replace(gpus=(), rocm="", has_vulkan=False)
    return bare._replace(has_bfloat16=_has_bfloat16(bare, root))


def _has_bfloat16(machine: Machine, root: Path) -> bool:
    """Return whether what calculates, GPUs or else the CPU, does so in bfloat16 by its hardware."""
    if machine.accelerator == "metal":
        return True
    if machine.gpus:
        return all(map(_gpu_has_bfloat16, machine.gpus))
    for line in _read_start(root / "proc/cpuinfo").splitlines():
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return not CPU_BFLOAT16_FLAGS.isdisjoint(flags.split())
    return False


def _gpu_has_bfloat16(gpu: Gpu) -> bool:
    return gpu.vendor != "nvidia" or (gpu.compute is not None and gpu.compute >= COMPUTE_WITH_BFLOAT16)


def _read_cores(root: Path) -> int:
    """Return whole cores: those that this process may run on, at most those that its container has time for."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([usable, *map(int, _read_cpu_limits(root))]))


def _read_memory_bytes(root: Path) -> int:
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([installed, *_read_memory_limits(root)])


def _read_cpu_limits(root: Path) -> Iterator[float]:
    for folder in _cgroup_folders(root, ""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    for folder in _cgroup_folders(root, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _read_memory_limits(root: Path) -> Iterator[int]:
    for folder in _cgroup_folders(root, ""):
        limit = _read(folder / "memory.max")
        if limit.isdigit():
            yield int(limit)
    for folder in _cgroup_folders(root, "memory"):
        limit = _read(folder / "memory.limit_in_bytes")
        if limit.isdigit() and int(limit) < CGROUP_V1_LIMITLESS_BYTES:
            yield int(limit)


def _cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of this process's control group and of those above it; the controller "" stands for v2.

    Inside a container the group's path may be the host's, which is not to be seen there; the top folder is its own.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(","):
            top = root / "sys/fs/cgroup" / controller
            inner = top / path.strip("/")
            yield inner
            yield from (parent for parent in inner.parents if parent == top or top in parent.parents)


def _read_start(path: Path) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read(CPUINFO_BYTES)
    except OSError:
        return ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
