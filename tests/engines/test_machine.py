"""Hardware as processes here may use it: limits of containers count."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.gpus import amd_target, cuda_version, is_visible
from engines.machine import read_machine

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


FLAGS = "processor\t: 0\nflags\t\t: fpu avx2 {}\n"


@pytest.mark.parametrize(("flags", "has"), [("", False), ("avx512_bf16", True), ("amx_bf16 amx_int8", True)])
def test_bfloat16_of_the_cpu(tmp_path: Path, flags: str, has: bool) -> None:
    machine = read_machine(lay(tmp_path, {"proc/cpuinfo": FLAGS.format(flags)}))
    assert machine.has_bfloat16 is (has or machine.accelerator == "metal")


@pytest.mark.parametrize(("number", "version"), [(12080, (12, 8)), (13020, (13, 2)), (11040, (11, 4))])
def test_cuda_counts_its_versions_in_one_number(number: int, version: tuple[int, int]) -> None:
    assert cuda_version(number) == version


@pytest.mark.parametrize(("version", "target"), [(110000, "gfx1100"), (90402, "gfx942"), (90010, "gfx90a"), (0, "")])
def test_architectures_that_amds_driver_numbers(version: int, target: str) -> None:
    assert amd_target(version) == target


KFD = "sys/class/kfd/kfd/topology/nodes"
RADEON = {
    f"{KFD}/0/properties": "cpu_cores_count 16\nsimd_count 0\ngfx_target_version 0",
    f"{KFD}/1/properties": "cpu_cores_count 0\nsimd_count 192\ngfx_target_version 110000\nvendor_id 4098",
    f"{KFD}/1/name": "navi31",
    f"{KFD}/1/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {24 * GIB}",
    f"{KFD}/2/properties": "cpu_cores_count 0\nsimd_count 4\ngfx_target_version 100306\nvendor_id 4098",
    f"{KFD}/2/mem_banks/0/properties": f"heap_type 1\nsize_in_bytes {GIB // 2}",
}
ROCM = {"opt/rocm/.info/version": "7.2.4-81"}
VULKAN = {"usr/lib/x86_64-linux-gnu/libvulkan.so.1": "", "usr/share/vulkan/icd.d/radeon_icd.json": "{}"}


def test_amds_gpus_with_memory_of_their_own(tmp_path: Path) -> None:
    machine = read_machine(lay(tmp_path, {**RADEON, **ROCM}))
    (gpu,) = machine.gpus
    assert (gpu.vendor, gpu.target, gpu.memory_bytes, gpu.name) == ("amd", "gfx1100", 24 * GIB, "AMD navi31")
    assert (machine.rocm, machine.has_vulkan, machine.accelerator) == ("7.2.4", False, "rocm")
    assert machine.has_bfloat16


def test_amds_variable_hides_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROCR_VISIBLE_DEVICES", "7")
    assert read_machine(lay(tmp_path, RADEON)).gpus == ()


def test_without_rocm_there_is_vulkan(tmp_path: Path) -> None:
    machine = read_machine(lay(tmp_path, {**RADEON, **VULKAN}))
    assert (machine.rocm, machine.has_vulkan, machine.accelerator) == ("", True, "vulkan")


def test_vulkan_on_the_cpu_is_none(tmp_path: Path) -> None:
    files = {**RADEON, "usr/lib64/libvulkan.so.1": "", "usr/share/vulkan/icd.d/lvp_icd.x86_64.json": "{}"}
    assert not read_machine(lay(tmp_path, files)).has_vulkan


def lay_card(root: Path, name: str, address: str, files: dict[str, str]) -> None:
    device = root / "sys/devices" / address
    lay(device, files)
    card = root / "sys/class/drm" / name
    card.mkdir(parents=True)
    (card / "device").symlink_to(device)


def lay_range(path: Path, size_bytes: int) -> None:
    """Lay a file of that size which takes no room, as the kernel shows a range of a card's memory."""
    path.touch()
    os.truncate(path, size_bytes)


def test_intels_cards_count_and_what_shares_the_cpus_memory_does_not(tmp_path: Path) -> None:
    lay_card(tmp_path, "card0", "0000:00:02.0", {"vendor": "0x8086"})
    os.truncate(
        lay(tmp_path, {"sys/devices/0000:00:02.0/resource2": ""}) / "sys/devices/0000:00:02.0/resource2", 8 * GIB
    )
    assert read_machine(tmp_path).gpus == ()
    lay_card(tmp_path, "card1", "0000:03:00.0", {"vendor": "0x8086", "resource0": "", "resource2_wc": ""})
    lay(tmp_path, {"sys/class/drm/card1-DP-1/status": "connected"})
    os.truncate(
        lay(tmp_path, {"sys/devices/0000:03:00.0/resource2": ""}) / "sys/devices/0000:03:00.0/resource2", 16 * GIB
    )
    (gpu,) = read_machine(tmp_path).gpus
    assert (gpu.vendor, gpu.memory_bytes) == ("intel", 16 * GIB)


def test_a_display_of_a_server_is_no_gpu(tmp_path: Path) -> None:
    lay_card(tmp_path, "card0", "0000:02:00.0", {"vendor": "0x1a03", "mem_info_vram_total": str(16 * GIB)})
    assert read_machine(tmp_path).gpus == ()


def test_an_amd_card_without_its_compute_driver(tmp_path: Path) -> None:
    lay_card(tmp_path, "card0", "0000:03:00.0", {"vendor": "0x1002", "mem_info_vram_total": str(16 * GIB)})
    (gpu,) = read_machine(tmp_path).gpus
    assert (gpu.vendor, gpu.memory_bytes, gpu.target) == ("amd", 16 * GIB, "")
