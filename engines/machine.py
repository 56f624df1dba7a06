"""What this machine has: cores and memory as far as a process here may use them, GPUs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engines.gpus import has_vulkan, read_gpus, read_rocm_version
from registry.spec import Gpu, Machine

# The first core's flags are within this; the whole file is long where there are many cores.
CPUINFO_BYTES = 8192
CPU_BFLOAT16_FLAGS = frozenset(("avx512_bf16", "amx_bf16", "bf16"))
COMPUTE_WITH_BFLOAT16 = (8, 0)
CGROUP_V1_LIMITLESS_BYTES = 1 << 60


class Cores(NamedTuple):
    """The cores of the machine, those that this process may run on, and as how many its container has time for."""

    installed: int
    allowed: int
    time_limit: float | None

    @property
    def usable(self) -> int:
        """Whole cores, at least one."""
        return max(1, self.allowed if self.time_limit is None else min(self.allowed, int(self.time_limit)))


class Memory(NamedTuple):
    """The machine's memory in bytes, the least limit of a container, what programs can still have, and the swap space.

    None is what the system does not tell.
    """

    installed_bytes: int
    limit_bytes: int | None
    available_bytes: int | None
    swap_bytes: int | None

    @property
    def usable_bytes(self) -> int:
        return self.installed_bytes if self.limit_bytes is None else min(self.installed_bytes, self.limit_bytes)


def read_machine(root: Path = Path("/")) -> Machine:
    """Return the machine as processes here see it; limits of containers count. `root` is where /proc and /sys are."""
    gpus = read_gpus(root)
    machine = Machine(
        system=platform.system(),
        architecture=platform.machine(),
        cores=read_cores(root).usable,
        memory_bytes=read_memory(root).usable_bytes,
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


def read_cores(root: Path = Path("/")) -> Cores:
    """Return how many cores there are, and how many of them are for us."""
    installed = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else installed
    return Cores(installed, allowed, min(_read_cpu_limits(root), default=None))


def read_memory(root: Path = Path("/")) -> Memory:
    """Return how much memory there is, and how much of it is for us and free."""
    limits = list(_read_memory_limits(root))
    told = {name: int(value.split()[0]) * 1024 for name, value in _fields(root / "proc/meminfo", ":").items()}
    free = [told["MemAvailable"]] if "MemAvailable" in told else []
    return Memory(
        installed_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        limit_bytes=min((limit for limit, _ in limits), default=None),
        available_bytes=min((*free, *(max(0, limit - used) for limit, used in limits)), default=None),
        swap_bytes=told.get("SwapTotal"),
    )


def _read_cpu_limits(root: Path) -> Iterator[float]:
    for folder in _cgroup_folders(root, ""):
        quota, _, period = _read(folder / "cpu.max").partition(" ")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)
    for folder in _cgroup_folders(root, "cpu"):
        quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if quota.isdigit() and period.isdigit():
            yield int(quota) / int(period)


def _read_memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield each limit with what is used of it, without files that were read and can be read again."""
    kinds = (
        ("", "memory.max", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    )
    for controller, limit_file, used_file, total in kinds:
        for folder in _cgroup_folders(root, controller):
            limit, used = _read(folder / limit_file), _read(folder / used_file)
            if limit.isdigit() and int(limit) < CGROUP_V1_LIMITLESS_BYTES:
                again = _fields(folder / "memory.stat", " ").get(f"{total}inactive_file", "0")
                yield int(limit), max(0, int(used or 0) - int(again))


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


def _fields(path: Path, separator: str) -> dict[str, str]:
    pairs = (line.partition(separator) for line in _read(path).splitlines())
    return {name: value.strip() for name, _, value in pairs}


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
