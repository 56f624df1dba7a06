"""Hardware as processes here may use it: limits of containers count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.machine import is_visible, read_machine

GIB = 1 << 30


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


def test_this_machine() -> None:
    machine = read_machine()
    assert machine.system == os.uname().sysname
    assert machine.architecture == os.uname().machine
    assert machine.cores >= 1
    assert machine.memory_bytes > GIB // 2


def test_without_limits_it_is_all_that_there_is(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    assert machine.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert machine.gpus == ()
    unlimited = {
        "proc/self/cgroup": "0::/a",
        "sys/fs/cgroup/a/cpu.max": "max 100000",
        "sys/fs/cgroup/memory.max": "max",
    }
    assert read_machine(lay(tmp_path, unlimited)) == machine


@pytest.mark.parametrize(
    ("files", "memory_bytes"),
    [
        ({"proc/self/cgroup": "0::/a/b", "sys/fs/cgroup/a/memory.max": str(GIB // 4)}, GIB // 4),
        (
            {
                "proc/self/cgroup": "0::/a/b",
                "sys/fs/cgroup/a/b/memory.max": str(GIB // 2),
                "sys/fs/cgroup/a/memory.max": str(GIB // 4),
            },
            GIB // 4,
        ),
        ({"proc/self/cgroup": "0::/of/the/host", "sys/fs/cgroup/memory.max": str(GIB // 4)}, GIB // 4),
        (
            {
                "proc/self/cgroup": "4:memory:/a\n1:cpu,cpuacct:/a\n0::/",
                "sys/fs/cgroup/memory/a/memory.limit_in_bytes": str(GIB // 8),
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            GIB // 8,
        ),
    ],
)
def test_memory_limits_of_either_kind_of_control_group(
    tmp_path: Path, files: dict[str, str], memory_bytes: int
) -> None:
    assert read_machine(lay(tmp_path, files)).memory_bytes == memory_bytes


@pytest.mark.parametrize(
    "files",
    [
        {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "150000 100000"},
        {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "20000 100000"},
        {
            "proc/self/cgroup": "2:cpu,cpuacct:/a",
            "sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "100000",
            "sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
        },
    ],
)
def test_time_limits_leave_whole_cores_and_at_least_one(tmp_path: Path, files: dict[str, str]) -> None:
    assert read_machine(lay(tmp_path, files)).cores == 1


def test_affinity_counts(tmp_path: Path) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no affinity")
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert read_machine(tmp_path).cores == 1
    finally:
        os.sched_setaffinity(0, allowed)


@pytest.mark.parametrize(
    ("visible", "shown"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("-1", []),
        ("1", [1]),
        ("2, 0", [0, 2]),
        ("0,-1,1", [0]),
        ("GPU-bb", [1]),
        ("GPU-", []),
        ("7", []),
    ],
)
def test_cuda_visible_devices_hides_gpus(visible: str | None, shown: list[int]) -> None:
    uuids = ("GPU-aa11", "GPU-bb22", "GPU-cc33")
    assert [index for index, uuid in enumerate(uuids) if is_visible(index, uuid, visible)] == shown


def test_a_driver_that_does_not_answer_means_no_gpus(tmp_path: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a driver that answers")
    assert read_machine(lay(tmp_path, {"proc/driver/nvidia/version": "NVRM"})).gpus == ()
