"""What an examination makes of machines: numbers as data, odd folders and environments as real as they can be made."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from engines.base import Requirements
from engines.builds import remedy_for
from engines.environment import DONE, Environment, managed_folder
from engines.index import engine_named
from engines.machine import Cores, Memory, read_cores, read_machine, read_memory
from launcher.doctor import engines, folders, gpus, machine, settings
from launcher.doctor.checks import side_by_side
from launcher.doctor.findings import Finding, made_public, without_logins
from registry.errors import CatalogueError
from registry.spec import Gpu
from tests.engines.test_machine import GIB, RADEON, lay

GB = 1_000_000_000
FINE = folders.Disk("ext4", 100 * GB, 1_000_000, runs=True)
ABLE = folders.Abilities(None, has_locks=True, has_links=True)
LLAMA_CPP = "llama.cpp"


# --- machine ----------------------------------------------------------------------------------------------------------


def test_cores_say_why_they_are_fewer(tmp_path: Path) -> None:
    lay(tmp_path, {"proc/self/cgroup": "0::/a", "sys/fs/cgroup/a/cpu.max": "50000 100000"})
    cores = read_cores(tmp_path)
    assert cores.time_limit == 0.5
    assert machine.judge_cores(cores).text == f"1 of {os.cpu_count()}: the container has the time of 0.5"
    found = machine.judge_cores(Cores(16, 8, 3.5))
    assert found.text == "3 of 16: this process may run on 8, the container has the time of 3.5"
    assert (found.state, found.facts["usable"]) == ("ok", 3)
    assert machine.judge_cores(Cores(8, 8, 64.0)).text == "8 of 8"


def test_free_memory_is_that_of_the_container(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a",
        "proc/meminfo": "MemTotal: 64000000 kB\nMemAvailable: 50000000 kB\nSwapTotal: 2000 kB",
        "sys/fs/cgroup/a/memory.max": str(4 * GB),
        "sys/fs/cgroup/a/memory.current": str(3 * GB),
        "sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {2 * GB}",
    }
    memory = read_memory(lay(tmp_path, files))
    assert (memory.limit_bytes, memory.available_bytes, memory.swap_bytes) == (4 * GB, 3 * GB, 2_048_000)


@pytest.mark.parametrize(
    ("memory", "state", "words"),
    [
        (Memory(16 * GB, None, 9 * GB, 0), "ok", "16.00 GB, 9.00 GB free, no swap"),
        (Memory(16 * GB, None, None, None), "ok", "16.00 GB"),
        (Memory(16 * GB, 512 * 10**6, 9 * GB, GB), "warning", "the container's limit on a machine with 16.00 GB"),
        (Memory(16 * GB, None, GB // 2, 0), "warning", "500 MB free"),
    ],
)
def test_memory(memory: Memory, state: str, words: str) -> None:
    found = machine.judge_memory(memory)
    assert found.state == state
    assert words in found.text
    assert (found.remedy is None) == (state == "ok")


def test_sockets_are_tried_where_engines_listen(runtime_folder: Path) -> None:
    assert machine.examine_sockets().state == "ok"
    assert not list((runtime_folder / "model-launcher").iterdir())


# --- GPUs -------------------------------------------------------------------------------------------------------------


def test_no_gpu(tmp_path: Path) -> None:
    assert [found.text for found in gpus.examine(tmp_path, {})] == ["none: models run on the CPU"]


def test_a_card_without_its_driver(tmp_path: Path) -> None:
    card = "sys/bus/pci/devices/0000:01:00.0"
    (found,) = gpus.examine(lay(tmp_path, {f"{card}/vendor": "0x10de", f"{card}/class": "0x030200"}), {})
    assert (found.state, found.text) == ("warning", "there is a GPU of NVIDIA, and no driver for it")
    assert "nvidia-smi" in (found.remedy or "")


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver that answers")
def test_a_driver_that_does_not_answer(tmp_path: Path) -> None:
    (found,) = gpus.examine(lay(tmp_path, {"proc/driver/nvidia/version": "NVRM"}), {})
    assert found.state == "warning"
    assert found.text.startswith("NVIDIA's driver is here, and does not answer: ")


def test_gpus_and_those_that_a_variable_hides(tmp_path: Path) -> None:
    second = {name.replace("/1/", "/3/"): text for name, text in RADEON.items() if "/1/" in name}
    lay(tmp_path, {**RADEON, **second})
    first, *_ = gpus.examine(tmp_path, {})
    assert (first.state, first.text) == ("ok", "AMD navi31, 25.77 GB, no ROCm, no Vulkan")
    hidden, *shown = gpus.examine(tmp_path, {"ROCR_VISIBLE_DEVICES": "0"})
    assert (hidden.state, hidden.text) == ("ok", "`ROCR_VISIBLE_DEVICES=0` hides 1 of 2 GPUs")
    assert len(shown) == 1
    (none,) = gpus.examine(tmp_path, {"HIP_VISIBLE_DEVICES": "-1"})
    assert (none.state, none.remedy) == ("warning", "unset HIP_VISIBLE_DEVICES")


@pytest.mark.parametrize(
    ("gpu", "engine", "remedy"),
    [
        (
            Gpu(0, "T4", 16 * GIB, "470.1", compute=(7, 5), cuda=(11, 4)),
            LLAMA_CPP,
            "install NVIDIA's driver 570 or newer",
        ),
        (Gpu(0, "T4", 16 * GIB, "470.1", compute=(7, 5), cuda=(11, 4)), "vllm", "install NVIDIA's driver 580 or newer"),
        (Gpu(0, "K80", 12 * GIB, "470.1", compute=(3, 7), cuda=(11, 4)), "vllm", None),
        (
            Gpu(0, "Radeon", 16 * GIB, vendor="amd", target="gfx1100"),
            LLAMA_CPP,
            "install ROCm 6, or install Vulkan: apt install libvulkan1 mesa-vulkan-drivers",
        ),
        (Gpu(0, "Radeon", 16 * GIB, vendor="amd", target="gfx1100"), "vllm", None),
    ],
)
def test_what_would_let_an_engine_use_a_gpu(tmp_path: Path, gpu: Gpu, engine: str, remedy: str | None) -> None:
    here = read_machine(tmp_path)._replace(system="Linux", gpus=(gpu,))
    assert remedy_for(engine, here) == remedy
    requirements = engine_named(engine).requirements_for(here)
    assert requirements is not None
    assert requirements.unused


# --- disks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disk", "abilities", "state", "words"),
    [
        (FINE, ABLE, "ok", "100.00 GB free on ext4, /c"),
        (FINE._replace(kind=""), ABLE, "ok", "100.00 GB free, /c"),
        (FINE._replace(free_bytes=GB // 2), ABLE, "error", "500 MB free on ext4, /c"),
        (FINE._replace(free_bytes=5 * GB), ABLE, "warning", "5.00 GB free on ext4, /c"),
        (FINE._replace(files_free=0), ABLE, "error", "inodes are used up"),
        (FINE._replace(files_free=None), ABLE, "ok", "100.00 GB"),
        (FINE._replace(runs=False), ABLE, "error", "programs must not run"),
        (FINE, ABLE._replace(has_locks=False), "warning", "there are no locks on ext4"),
        (FINE._replace(kind="vfat"), ABLE._replace(has_links=False), "error", "no symbolic links on vfat"),
        (
            FINE,
            folders.Abilities("Read-only file system"),
            "error",
            "/c cannot be written on ext4: Read-only file system",
        ),
    ],
)
def test_disks(disk: folders.Disk, abilities: folders.Abilities, state: str, words: str) -> None:
    found = folders.judge("launch", Path("/c"), disk, abilities)
    assert found.state == state
    assert words in found.text
    assert (found.remedy is None) == (state == "ok")


def test_want_of_room_has_its_own_remedy() -> None:
    full = folders.Abilities("No space left on device", is_full=True)
    assert folders.judge("launch", Path("/c"), FINE, full).remedy == "launch cache prune --older-than 30d"


def test_what_must_not_run_may_hold_weights() -> None:
    assert folders.judge("huggingface", Path("/c"), FINE._replace(runs=False), ABLE).state == "ok"


def test_a_folder_is_tried_and_left_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "tried").mkdir()
    assert folders.try_abilities(tmp_path / "tried") == ABLE
    assert list((tmp_path / "tried").iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that nobody can write to")
def test_a_folder_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_CACHE", "/proc/self/cache")
    found = next(found for found in folders.examine() if found.name == "launch")
    assert found.state == "error"
    assert found.text.startswith("/proc/self/cache cannot be written on proc: ")
    assert "LAUNCH_CACHE" in (found.remedy or "")
    assert found.facts["kind"] == "proc"


def test_the_file_system_is_that_of_the_nearest_mount() -> None:
    mounts = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:5 / /mnt/a\\040b rw shared:2 master:1 - nfs4 server:/ rw
"""
    assert folders.file_system_of(Path("/mnt/a b/c"), mounts) == "nfs4"
    assert folders.file_system_of(Path("/mnt/other"), mounts) == "ext4"
    assert folders.file_system_of(Path("/mnt/other"), "") == ""


# --- engines ----------------------------------------------------------------------------------------------------------


def requirements() -> Requirements:
    found = engine_named(LLAMA_CPP).requirements_for(read_machine())
    assert found is not None
    return found


def make_environment(folder: Path, *, holds: str | None = "2026.10.1", done: str = "2026.10.1") -> Environment:
    """Make a virtual environment such as uv makes, with metadata and a module of the engine's names in it."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to(sys.executable)
    (folder / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).parent}\n")
    packages = folder / f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
    packages.mkdir(parents=True)
    if holds is not None:
        lay(packages, {"xllamacpp/__init__.py": "raise SystemExit('it was imported')"})
        lay(packages, {f"xllamacpp-{holds}.dist-info/METADATA": f"Name: xllamacpp\nVersion: {holds}"})
    (folder / DONE).write_text(done)
    return Environment(str(folder / "bin" / "python"), "managed", done, folder)


def of_llama_cpp() -> list[Finding]:
    return [found for found in engines.examine() if found.name == LLAMA_CPP]


def test_an_environment_that_is_well() -> None:
    make_environment(managed_folder(requirements()))
    found = next(found for found in of_llama_cpp() if found.facts["state"] == "managed")
    assert (found.state, found.text) == ("ok", f"2026.10.1, managed, {requirements().variant}")


@pytest.mark.parametrize(
    ("holds", "words"), [(None, "there is no module `xllamacpp`"), ("2026.9.0", "it holds 2026.9.0, and was made with")]
)
def test_an_environment_that_somebody_changed(holds: str | None, words: str) -> None:
    make_environment(managed_folder(requirements()), holds=holds)
    (found,) = (found for found in of_llama_cpp() if found.facts.get("state") == "managed")
    assert found.state == "error"
    assert words in found.text
    assert found.remedy == "launch engines remove llama.cpp && launch engines install llama.cpp"


def test_an_environment_whose_python_was_removed() -> None:
    environment = make_environment(managed_folder(requirements()))
    os.unlink(environment.python)
    found = engines.judge_environment(LLAMA_CPP, requirements(), environment)
    assert (found.state, found.text.partition(": ")[2]) == (
        "error",
        "its Python does not start: No such file or directory",
    )


def test_an_engine_in_this_python_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay(tmp_path / "packages", {"xllamacpp-0.1.dist-info/METADATA": "Name: xllamacpp\nVersion: 0.1"})
    monkeypatch.syspath_prepend(str(tmp_path / "packages"))
    (found,) = (found for found in of_llama_cpp() if found.facts.get("state") == "not installed")
    assert found.state == "ok"
    assert f"0.1 in this Python is not within {requirements().versions}" in found.text


def test_environments_of_another_lock_and_half_made_ones() -> None:
    folder = managed_folder(requirements())
    make_environment(folder.with_name(f"{folder.name[:-8]}00000000"))
    (folder / "bin").mkdir(parents=True)
    old, half = (found for found in of_llama_cpp() if found.facts.get("state") in ("managed", "half made"))
    assert (old.state, half.state) == ("warning", "warning")
    assert old.remedy == half.remedy == "launch engines update llama.cpp"
    assert "another lock" in old.text
    assert "not set up to its end" in half.text


# --- variables --------------------------------------------------------------------------------------------------------


def examined(**environ: str) -> dict[str, Finding]:
    return {found.name: found for found in settings.examine(["LAUNCH_ENGINE"], environ)}


def test_variables_that_have_a_say() -> None:
    found = examined(
        PATH="/bin", LAUNCH_ENGINE="vllm", HF_HOME="/a", UV_OFFLINE="1", LAUNCH_CACHE="", CUDA_VISIBLE_DEVICES=""
    )
    assert {name: each.text for name, each in found.items()} == {
        "LAUNCH_ENGINE": "vllm",
        "HF_HOME": "/a",
        "UV_OFFLINE": "1",
        "LAUNCH_CACHE": "empty",
        "CUDA_VISIBLE_DEVICES": "empty",
    }
    assert {each.state for each in found.values()} == {"ok"}


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("HF_TOKEN", "hf_abc", "set"),
        ("HUGGING_FACE_HUB_TOKEN", "hf_abc", "set"),
        ("LAUNCH_API_KEY", "abc", "set"),
        ("UV_INDEX_OWN_PASSWORD", "abc", "set"),
        ("HF_TOKEN_PATH", "/a/token", "/a/token"),
        ("PIP_INDEX_URL", "https://me:p@ss/w@host/simple", "https://***@host/simple"),
        ("https_proxy", "http://token@proxy:3128", "http://***@proxy:3128"),
        ("UV_INDEX", "own=https://me:abc@host/simple", "own=https://***@host/simple"),
        ("UV_FIND_LINKS", "https://a:b@c/d,https://e:f@g/h", "https://***@g/h"),
    ],
)
def test_secrets_are_not_told(name: str, value: str, shown: str) -> None:
    assert examined(**{name: value})[name].text == shown


def test_variables_that_nobody_reads() -> None:
    found = examined(LAUNCH_ENIGNE="vllm", LAUNCH_XYZZY="1", XINFERENCE_MODEL_SRC="modelscope")
    assert {each.state for each in found.values()} == {"warning"}
    assert found["LAUNCH_ENIGNE"].text == "nobody reads it; did you mean LAUNCH_ENGINE?"
    assert (found["LAUNCH_XYZZY"].text, found["LAUNCH_XYZZY"].remedy) == ("nobody reads it", "unset LAUNCH_XYZZY")
    assert found["XINFERENCE_MODEL_SRC"].remedy == "export LAUNCH_HUB=modelscope"
    assert examined(XINFERENCE_MODEL_SRC="csghub")["XINFERENCE_MODEL_SRC"].remedy == "unset XINFERENCE_MODEL_SRC"


def test_what_a_report_does_not_tell() -> None:
    home = Path("/home/me")
    assert made_public({"a": ["/home/me/x", "in `/home/me`"], "b": 1}, home) == {"a": ["~/x", "in `~`"], "b": 1}
    assert made_public("/home/menace /srv/home/me/x", home) == "/home/menace /srv/home/me/x"
    assert made_public("/a", Path("/")) == "/a"
    assert without_logins("http://a:b@c and d@e") == "http://***@c and d@e"


# --- all of them ------------------------------------------------------------------------------------------------------


def test_a_check_that_hangs_or_fails_is_a_finding() -> None:
    released = threading.Event()

    def hang() -> Iterator[Finding]:
        released.wait(30)
        yield from ()

    def refuse() -> NoReturn:
        raise CatalogueError("a cause", hint="a remedy")

    def forbid() -> NoReturn:
        raise PermissionError(13, "Permission denied", "/x")

    fine = Finding("d", "d", "ok", "fine")
    try:
        found = side_by_side({"a": refuse, "b": hang, "c": forbid, "d": lambda: [fine]}, 0.2)
    finally:
        released.set()
    assert [each.area for each in found] == ["a", "b", "c", "d"]
    assert [each.state for each in found] == ["error", "error", "error", "ok"]
    assert (found[0].text, found[0].remedy) == ("a cause", "a remedy")
    assert "/x" in found[2].text
