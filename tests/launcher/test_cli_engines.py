"""`launch engines`: environments set up, updated and removed by name and version."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from engines.builds import requirements_of
from engines.environment import managed_folder
from engines.index import CAPABILITIES
from engines.machine import read_machine
from launcher.cache_use import Hold, Use
from registry.spec import FEATURES, Gpu, Machine
from tests.fakes.wheels import write_wheel
from tests.launcher.commands import Run


@pytest.fixture
def other_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Publish two versions of llama.cpp's package where the user's pip settings point, and nothing else."""
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    for version in ("2026.10.1", "2020.1.1"):
        write_wheel(tmp_path / "wheels", "xllamacpp", version, {"xllamacpp.py": b""})


def make_folder(folder: Path, version: str = "2026.10.11549") -> Path:
    """Make what an environment looks like, and return its folder."""
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").write_bytes(b"")
    (folder / "DONE").write_text(version)
    return folder


def current_folder() -> Path:
    return managed_folder(requirements_of("llama.cpp", read_machine()))


@pytest.mark.usefixtures("other_versions")
def test_another_version_stands_beside(run: Run) -> None:
    make_folder(current_folder())
    done = run("engines", "install", "llama.cpp==2026.10.1")
    assert done.code == 0, done.err
    assert "llama.cpp 2026.10.1 is installed, build for " in done.err
    assert done.err.endswith("use it with: --engine llama.cpp --environment 2026.10.1\n")
    rows = [line.split("\t")[:3] for line in run("engines").out.splitlines() if line.startswith("llama.cpp\t")]
    variant = requirements_of("llama.cpp", read_machine()).variant
    assert rows == [
        ["llama.cpp", "2026.10.11549", f"managed ({variant})"],
        ["llama.cpp", "2026.10.1", f"managed ({variant})"],
    ]
    plan = run("smollm2", "--engine", "llama.cpp", "--environment", "2026.10.1", "--dry-run", "--json").json
    assert (plan["environment"]["version"], plan["environment"]["is_installed"]) == ("2026.10.1", True)

    assert run("engines", "remove", "llama.cpp==2026.10.1").err == "llama.cpp: 1 environment removed\n"
    assert current_folder().exists()
    missing = run("smollm2", "--engine", "llama.cpp", "--environment", "2026.10.1", "--dry-run")
    assert (missing.code, missing.err) == (
        1,
        "error: `llama.cpp` 2026.10.1 is not installed\n\nhint: launch engines install llama.cpp==2026.10.1\n",
    )


@pytest.mark.usefixtures("other_versions")
def test_a_version_that_launch_was_not_made_for_is_a_warning(run: Run) -> None:
    done = run("engines", "install", "llama.cpp==2020.1.1")
    assert done.code == 0
    assert done.err.startswith(
        "warning: `llama.cpp` is made for versions >=2026.10,<2027: 2020.1.1 may not understand it\n"
    )


@pytest.mark.usefixtures("other_versions")
def test_a_version_that_there_is_not(run: Run) -> None:
    done = run("engines", "install", "llama.cpp==2026.11.5")
    assert done.code == 1
    assert "error: `llama.cpp` could not be set up: `xllamacpp==2026.11.5` is not on the package index\n" in done.err
    assert not managed_folder(requirements_of("llama.cpp", read_machine())._replace(release="2026.11.5")).exists()


@pytest.mark.parametrize("word", ["llama.cpp==", "llama.cpp==new", "llama.cpp==../x", "llama.cpp==1.2/../x"])
def test_a_version_that_is_none(run: Run, word: str) -> None:
    done = run("engines", "install", word)
    assert (done.code, done.err) == (
        1,
        f"error: `{word}` does not name a version\n\nhint: launch engines install llama.cpp==VERSION\n",
    )


def test_an_update_removes_what_is_of_an_older_lock_and_idle(run: Run) -> None:
    current = make_folder(current_folder())
    environments = current.parent
    idle = make_folder(environments / "llama.cpp-cpu-00000000", "2026.10.2")
    busy = make_folder(environments / "llama.cpp-cpu-11111111", "2026.10.3")
    named = make_folder(environments / "llama.cpp-cpu@2026.10.4", "2026.10.4")
    held = Hold([Use(name="llama.cpp", folder=str(busy.resolve()))])
    done = run("engines", "update")
    held.release()
    assert done.code == 0
    assert done.err.splitlines()[-3:] == [
        f"llama.cpp 2026.10.11549 is installed, build for {requirements_of('llama.cpp', read_machine()).variant}",
        f"llama.cpp: removed `{idle}`",
        f"warning: `{busy}` stays: it is in use",
    ]
    assert [folder.exists() for folder in (current, idle, busy, named)] == [True, False, True, True]


def test_there_may_be_nothing_to_update(run: Run) -> None:
    assert run("engines", "update").err == "no engine is set up\n"


@pytest.mark.parametrize(
    ("driver", "cuda", "device", "unused"),
    [
        ("570.86", (12, 8), "NVIDIA A10G, build for cuda12", []),
        (
            "535.104",
            (12, 2),
            "CPU, ",
            [
                "the GPU NVIDIA A10G stays unused: its driver is 535.104, which knows CUDA 12.2;"
                " CUDA 12.8 wants 570 or newer"
            ],
        ),
    ],
)
def test_a_plan_says_which_build_and_why_a_gpu_stays_unused(
    run: Run, monkeypatch: pytest.MonkeyPatch, driver: str, cuda: tuple[int, int], device: str, unused: list[str]
) -> None:
    gpu = Gpu(0, "NVIDIA A10G", 24 << 30, driver, compute=(8, 6), cuda=cuda)
    machine = Machine("Linux", "x86_64", 8, 64 << 30, (gpu,), has_bfloat16=True)
    monkeypatch.setattr("launcher.planning.read_machine", lambda: machine)
    plan = run("smollm2", "--engine", "llama.cpp", "--dry-run", "--json").json
    assert plan["device"].startswith(device)
    assert [warning for warning in plan["warnings"] if "GPU" in warning] == unused
    folder = Path(plan["environment"]["python"]).parent.parent.name
    assert folder.startswith("llama.cpp-cpu-" if unused else "llama.cpp-cuda12-")
    assert (plan["environment"]["install_bytes"] is None) is (not unused)


def test_what_engines_offer(run: Run) -> None:
    lines = [line.split("\t") for line in run("engines", "features").out.splitlines()]
    assert {len(line) for line in lines} == {1 + len(CAPABILITIES)}
    records = {record["feature"]: record for record in run("engines", "features", "--json").json}
    assert set(records) == set(FEATURES) == {line[0] for line in lines}
    assert "llama.cpp" in records["infill"]["engines"]
    assert records["infill"]["meaning"] == FEATURES["infill"]


def test_programs_get_everything(run: Run) -> None:
    folder = make_folder(current_folder())
    records = {record["name"]: record for record in run("engines", "--json").json}
    own = records["llama.cpp"]
    assert (own["state"], own["version"], own["python"]) == ("managed", "2026.10.11549", str(folder / "bin" / "python"))
    assert own["reads"] == [{"format": "gguf", "bits": None}]
    assert own["environments"] == [
        {
            "version": "2026.10.11549",
            "where": "managed",
            "variant": own["variant"],
            "python": str(folder / "bin" / "python"),
            "locked": True,
        }
    ]
    assert {"features", "systems", "automatic", "setup_bytes", "unused_gpu"} <= set(own)
    assert os.path.basename(folder).startswith(f"llama.cpp-{own['variant']}-")
