"""Which build of an engine suits a machine, and what is said of a GPU that none uses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from engines.base import Requirements
from engines.builds import PACKAGES, needs_for, requirements_for_build, requirements_of
from engines.environment import LOCKS, is_within
from engines.index import capabilities_for
from registry.spec import Gpu, Machine

GIB = 1 << 30
RTX_4090 = Gpu(0, "RTX 4090", 24 * GIB, "595.10", compute=(8, 9), cuda=(13, 2))
H100_570 = Gpu(0, "H100", 80 * GIB, "570.86", compute=(9, 0), cuda=(12, 8))
H100_535 = Gpu(0, "H100", 80 * GIB, "535.104", compute=(9, 0), cuda=(12, 2))
P100 = Gpu(0, "P100", 16 * GIB, "595.10", compute=(6, 0), cuda=(13, 2))
K80 = Gpu(0, "K80", 12 * GIB, "470.1", compute=(3, 7), cuda=(11, 4))
B200_570 = Gpu(0, "B200", 180 * GIB, "570.86", compute=(10, 0), cuda=(12, 8))
RX_7900 = Gpu(0, "RX 7900", 24 * GIB, vendor="amd", target="gfx1100")
RX_9070 = Gpu(0, "RX 9070", 16 * GIB, vendor="amd", target="gfx1201")
MI300 = Gpu(0, "MI300X", 192 * GIB, vendor="amd", target="gfx942")
ARC = Gpu(0, "Intel GPU", 16 * GIB, vendor="intel")


def linux(*gpus: Gpu, rocm: str = "", has_vulkan: bool = False) -> Machine:
    return Machine("Linux", "x86_64", 8, 64 * GIB, gpus, rocm=rocm, has_vulkan=has_vulkan)


@pytest.mark.parametrize(
    ("machine", "llama_cpp", "transformers", "vllm", "llama_cpp_python"),
    [
        (linux(), "cpu", "cpu", "cpu", "cpu"),
        (linux(RTX_4090), "cuda13", "cuda13", "cuda13", "cuda13"),
        (linux(H100_570), "cuda12", "cuda12", "cpu", "cuda12"),
        (linux(H100_535), "cpu", "cuda12", "cpu", "cpu"),
        (linux(P100), "cuda12", "cuda12", "cpu", "cuda12"),
        (linux(K80), "cpu", "cpu", "cpu", "cpu"),
        (linux(RTX_4090, P100), "cuda12", "cuda12", "cpu", "cuda12"),
        (linux(RX_7900, rocm="7.2.4"), "rocm7", "cpu", "cpu", "cpu"),
        (linux(RX_7900, rocm="6.4.1", has_vulkan=True), "rocm6", "cpu", "cpu", "vulkan"),
        (linux(RX_9070, rocm="6.4.1", has_vulkan=True), "vulkan", "cpu", "cpu", "vulkan"),
        (linux(MI300, rocm="7.2.4"), "cpu", "cpu", "cpu", "cpu"),
        (linux(ARC, has_vulkan=True), "vulkan", "cpu", "cpu", "vulkan"),
        (linux(ARC), "cpu", "cpu", "cpu", "cpu"),
        (Machine("Darwin", "arm64", 8, 16 * GIB), "metal", "metal", "cpu", "metal"),
        (Machine("Darwin", "x86_64", 8, 16 * GIB), "cpu", "cpu", "cpu", "cpu"),
    ],
)
def test_builds_by_machine(
    machine: Machine, llama_cpp: str, transformers: str, vllm: str, llama_cpp_python: str
) -> None:
    chosen = {engine: requirements_of(engine, machine).variant for engine in PACKAGES}
    assert chosen == {
        "llama.cpp": llama_cpp,
        "transformers": transformers,
        "vllm": vllm,
        "llama-cpp-python": llama_cpp_python,
    }
    assert not any(requirements_of(engine, machine).unused for engine in PACKAGES) or machine.gpus


@pytest.mark.parametrize(
    ("engine", "machine", "why"),
    [
        ("vllm", linux(H100_570), "its driver is 570.86, which knows CUDA 12.8; CUDA 13.0 wants 580 or newer"),
        ("llama.cpp", linux(H100_535), "its driver is 535.104, which knows CUDA 12.2; CUDA 12.8 wants 570 or newer"),
        ("transformers", linux(B200_570), "its driver is 570.86, which knows CUDA 12.8; CUDA 13.0 wants 580 or newer"),
        ("llama.cpp", linux(K80), "no build is made for compute capability 3.7, which K80 has"),
        (
            "llama.cpp",
            linux(MI300, rocm="7.2.4"),
            "no build for ROCm is made for gfx942; Vulkan is not installed (`libvulkan1`, `mesa-vulkan-drivers`)",
        ),
        (
            "llama.cpp",
            linux(RX_7900),
            "it wants ROCm 6, and there is none; Vulkan is not installed (`libvulkan1`, `mesa-vulkan-drivers`)",
        ),
        (
            "vllm",
            linux(RX_7900, rocm="7.2.4"),
            "upstream has no build of `vllm` for it on Linux; one that you made yourself is used with"
            " `--environment PATH`",
        ),
        ("llama.cpp", linux(RTX_4090), ""),
        ("llama.cpp", linux(), ""),
    ],
)
def test_a_gpu_that_stays_unused_has_a_reason(engine: str, machine: Machine, why: str) -> None:
    assert requirements_of(engine, machine).unused == why


def test_the_accelerator_of_a_build_has_no_number() -> None:
    assert requirements_of("llama.cpp", linux(RTX_4090)).accelerator == "cuda"
    assert requirements_of("llama.cpp", linux(RX_7900, rocm="7.0")).accelerator == "rocm"
    assert requirements_of("vllm", linux()).accelerator == "cpu"


def test_capabilities_tell_what_an_engine_runs_on_here() -> None:
    here = {each.engine: each for each in capabilities_for(linux(H100_570))}
    assert (here["vllm"].accelerator, here["transformers"].accelerator, here["echo"].accelerator) == ("cpu", "cuda", "")
    plain = {each.engine: each for each in capabilities_for(linux())}
    assert plain["vllm"].setup_bytes > plain["llama.cpp"].setup_bytes > 10_000_000


def test_what_formats_need_beside_the_engine() -> None:
    assert {"gptqmodel", "optimum", "torch"} <= set(needs_for("transformers", "gptq", "Int4"))
    assert "bitsandbytes" in needs_for("transformers", "pytorch", "4-bit")
    assert "bitsandbytes" not in needs_for("transformers", "pytorch", "none")
    assert needs_for("echo", "gguf", "Q4_0") == ()


EVERY = [requirements_for_build(engine, build) for engine, package in PACKAGES.items() for build in package.builds]


def entries_of(lock: str) -> dict[str, list[str]]:
    """Return the entries of a lock by the distribution's name, with their versions, markers and hashes."""
    entries: dict[str, list[str]] = {}
    for entry in (LOCKS / lock).read_text("utf-8").replace("\\\n", "").splitlines():
        if not entry.startswith("#"):
            entries.setdefault(re.split("==", entry)[0], []).append(entry)
    return entries


@pytest.mark.parametrize("requirements", EVERY, ids=lambda each: Path(each.lock).stem)
def test_locks_pin_everything_by_hash_but_torch_and_what_has_an_index_of_its_own(requirements: Requirements) -> None:
    entries = entries_of(requirements.lock)
    (own,) = entries[requirements.distribution]
    assert is_within(own.split("==")[1].split()[0], requirements.versions)
    assert set(requirements.needs) <= set(entries)
    without = {name for name, each in entries.items() if not all("--hash=sha256:" in entry for entry in each)}
    assert without == ({"torch"} & set(entries)) | ({requirements.distribution} if requirements.index_url else set())
    assert "://" not in (LOCKS / requirements.lock).read_text("utf-8")
    assert "# download-bytes: " in (LOCKS / requirements.lock).read_text("utf-8")


def test_a_cpu_build_fetches_nothing_of_cuda() -> None:
    for engine in PACKAGES:
        names = entries_of(requirements_of(engine, linux()).lock)
        assert not [name for name in names if name.startswith(("nvidia-", "cuda-"))]


def test_there_is_no_lock_that_no_build_uses() -> None:
    assert {path.name for path in LOCKS.glob("*.txt")} == {requirements.lock for requirements in EVERY}
