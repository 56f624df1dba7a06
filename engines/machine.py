"""What this machine has: cores and memory as far as a process here may use them, GPUs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path

from registry.spec import Gpu, Machine

DRIVER_SIGNS = ("proc/driver/nvidia", "dev/nvidiactl", "dev/dxg")
CGROUP_V1_LIMITLESS_BYTES = 1 << 60


def read_machine(root: Path = Path("/")) -> Machine:
    """Return the machine as processes here see it; limits of containers count. `root` is where /proc and /sys are."""
    return Machine(
        system=platform.system(),
        architecture=platform.machine(),
        cores=_read_cores(root),
        memory_bytes=_read_memory_bytes(root),
        gpus=_read_gpus() if any((root / sign).exists() for sign in DRIVER_SIGNS) else (),
    )


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


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _read_gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that NVIDIA's driver reports, less those that CUDA_VISIBLE_DEVICES hides; () where it fails."""
    try:
        import pynvml
    except ImportError:
        return ()
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [(index, pynvml.nvmlDeviceGetHandleByIndex(index)) for index in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            Gpu(index, _text(pynvml.nvmlDeviceGetName(handle)), pynvml.nvmlDeviceGetMemoryInfo(handle).total, driver)
            for index, handle in handles
            if is_visible(index, _text(pynvml.nvmlDeviceGetUUID(handle)), os.environ.get("CUDA_VISIBLE_DEVICES"))
        )
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def is_visible(index: int, uuid: str, visible: str | None) -> bool:
    """Return whether CUDA_VISIBLE_DEVICES `visible` shows the GPU: None shows all, an unknown entry hides what follows.

    Entries are numbers, or UUIDs that may be cut short (CUDA C++ Programming Guide, "Environment Variables").
    """
    if visible is None:
        return True
    for entry in (part.strip() for part in visible.split(",")):
        if entry == str(index) or (len(entry) > len("GPU-") and uuid.startswith(entry)):
            return True
        if not entry.isdigit() and not entry.startswith("GPU-"):
            return False
    return False


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
