"""Environments of engines: found on disk, made once from a lock by uv, listed, removed."""

from __future__ import annotations

import hashlib
import sys
import threading
from pathlib import Path

import pytest

from engines.base import Requirements
from engines.environment import (
    Environment,
    absence,
    find_environment,
    folders_of,
    installed_version,
    is_within,
    list_environments,
    lock_bytes,
    managed_folder,
    remove_folder,
)
from engines.installing import build_environment, has_compiler
from registry.errors import EngineNotInstalledError, EnvironmentBuildError
from tests.fakes.wheels import write_wheel


def write_lock(path: Path, digest: str) -> Requirements:
    path.write_text(f"# download-bytes: 321\ntiny-engine==1.2 --hash=sha256:{digest}\n")
    return Requirements("tiny-engine", "tiny_engine", ">=1,<2", str(path))


@pytest.fixture
def requirements(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Requirements:
    """Return what an engine needs that the user's pip settings can give: one wheel, by find-links."""
    monkeypatch.setenv("UV_NO_INDEX", "1")
    monkeypatch.delenv("UV_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    wheel = write_wheel(tmp_path / "wheels", "tiny-engine", "1.2", {"tiny_engine.py": b"answer = 42\n"})
    return write_lock(tmp_path / "tiny.engine-cpu.txt", hashlib.sha256(wheel.read_bytes()).hexdigest())


def test_an_environment_is_made_from_its_lock(requirements: Requirements) -> None:
    assert find_environment(requirements) is None
    assert lock_bytes(requirements) == 321
    lines: list[str] = []

    built = build_environment(requirements, report=lambda progress: lines.append(progress.text))

    assert (built.origin, built.version, built.folder) == ("managed", "1.2", managed_folder(requirements))
    assert (built.engine, built.variant, built.is_locked) == ("tiny.engine", "cpu", True)
    assert any("tiny-engine==1.2" in line for line in lines)
    assert list(Path(built.folder or "").glob("lib/*/site-packages/__pycache__/tiny_engine.*.pyc"))
    assert find_environment(requirements) == find_environment(requirements, choice="managed") == built
    assert list_environments() == (built,)


def test_a_version_asked_for_by_name_stands_beside_the_locked_one(requirements: Requirements, tmp_path: Path) -> None:
    locked = build_environment(requirements)
    write_wheel(tmp_path / "wheels", "tiny-engine", "3.0", {"tiny_engine.py": b"answer = 43\n"})
    Path(requirements.lock).with_suffix(".in").write_text("tiny-engine==1.2\n")

    named = build_environment(requirements._replace(release="3.0"))

    assert (named.version, named.is_locked, named.engine, named.variant) == ("3.0", False, "tiny.engine", "cpu")
    assert find_environment(requirements) == find_environment(requirements, choice="1.2") == locked
    assert find_environment(requirements, choice="3.0") == named
    assert find_environment(requirements, choice="2.0") is None
    assert set(list_environments()) == {locked, named}
    assert str(absence("tiny.engine", requirements, "2.0").hint) == "launch engines install tiny.engine==2.0"


def test_what_upstream_asks_for_in_vain_is_left_out(requirements: Requirements, tmp_path: Path) -> None:
    wheel = write_wheel(tmp_path / "wheels", "tiny-engine", "1.3", {"tiny_engine.py": b""}, requires=["no-such-thing"])
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    Path(requirements.lock).write_text(f"tiny-engine==1.3 --hash=sha256:{digest}\n")
    before = managed_folder(requirements)
    with pytest.raises(EnvironmentBuildError, match=r"`tiny\.engine` could not be set up"):
        build_environment(requirements)

    Path(requirements.lock).with_suffix(".without").write_text("no-such-thing\n")

    assert build_environment(requirements).version == "1.3"
    assert managed_folder(requirements) != before


def test_what_is_unpinned_by_hash_is_installed_beside_what_is_not(requirements: Requirements, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "tiny-torch", "2.0+cpu", {"tiny_torch.py": b""})
    with open(requirements.lock, "a") as lock:
        lock.write("tiny-torch==2.0\n")
    folder = build_environment(requirements).folder
    assert folder is not None
    assert installed_version("tiny-torch", folder.glob("lib/*/site-packages")) == "2.0+cpu"


def test_torch_comes_first_and_alone(requirements: Requirements, tmp_path: Path) -> None:
    write_wheel(tmp_path / "wheels", "torch", "2.0+cpu", {"torch.py": b""})
    with open(requirements.lock, "a") as lock:
        lock.write("torch==2.0\n")
    lines: list[str] = []
    build_environment(requirements._replace(torch_backend="cpu"), report=lambda progress: lines.append(progress.text))
    assert [line for line in lines if line.startswith("+")] == ["+ torch==2.0+cpu", "+ tiny-engine==1.2"]


def test_what_cannot_be_compiled_is_left_out_unless_it_is_needed(
    requirements: Requirements, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(tmp_path / "wheels", "tiny-extension", "1.0", {"tiny_extension.py": b""})
    with open(requirements.lock, "a") as lock:
        lock.write("tiny-extension==1.0\n")
    optional = requirements._replace(compiled=("tiny-extension",))
    needed = optional._replace(needs=("tiny-extension",))
    told: list[str] = []
    with monkeypatch.context() as without_compiler:
        without_compiler.setenv("PATH", str(tmp_path))
        built = build_environment(optional, report=lambda progress: told.append(progress.text))
        assert "without tiny-extension, since there is no C compiler here" in told
        assert (find_environment(optional), find_environment(needed)) == (built, None)
        with pytest.raises(EnvironmentBuildError, match="`tiny-extension` must be compiled, and there is no compiler"):
            build_environment(needed)
        assert find_environment(optional) == built
    if not has_compiler():
        pytest.skip("there is no compiler here")
    assert find_environment(needed) is None
    assert build_environment(needed) == find_environment(needed) == find_environment(optional) == built


def test_processes_that_come_at_once_build_once(requirements: Requirements) -> None:
    built: list[Environment] = []
    lines: list[str] = []
    threads = [
        threading.Thread(
            target=lambda: built.append(
                build_environment(requirements, report=lambda progress: lines.append(progress.text))
            )
        )
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(built)) == 1
    assert len(built) == 3
    assert sum("tiny-engine==1.2" in line for line in lines) == 1


def test_an_interrupted_build_is_made_anew(requirements: Requirements) -> None:
    junk = managed_folder(requirements) / "lib" / "half.py"
    junk.parent.mkdir(parents=True)
    junk.touch()
    assert find_environment(requirements) is None
    assert list_environments() == ()
    build_environment(requirements)
    assert not junk.exists()
    assert find_environment(requirements) is not None


def test_one_whose_python_is_gone_is_made_anew(requirements: Requirements) -> None:
    python = Path(build_environment(requirements).python)
    python.unlink()
    python.symlink_to("/no/such/python")
    assert find_environment(requirements) is None
    assert Path(build_environment(requirements).python).exists()


def test_another_lock_is_another_environment(requirements: Requirements) -> None:
    before = managed_folder(requirements)
    with open(requirements.lock, "a") as lock:
        lock.write("# newer\n")
    assert managed_folder(requirements) != before
    assert managed_folder(requirements).parent == before.parent


def test_a_wrong_hash_is_refused(requirements: Requirements) -> None:
    wrong = write_lock(Path(requirements.lock), "0" * 64)
    with pytest.raises(EnvironmentBuildError) as caught:
        build_environment(wrong)
    assert "hash mismatch" in "\n".join((caught.value.message, *caught.value.details)).lower()
    assert find_environment(wrong) is None
    assert list_environments() == ()


def test_removing(requirements: Requirements) -> None:
    folder = build_environment(requirements).folder
    assert folder is not None
    assert folders_of("tiny") == []
    assert folders_of("tiny.engine") == [folder]
    remove_folder(folder)
    assert list_environments() == ()
    assert folders_of("tiny.engine") == []


def test_the_current_environment_counts_inside_its_versions() -> None:
    pytest_here = Requirements("pytest", "pytest", ">=1,<999", "llama.cpp-cpu.txt")
    found = find_environment(pytest_here)
    assert found == Environment(sys.executable, "current", pytest.__version__)
    assert find_environment(pytest_here, choice="current") == found
    assert find_environment(pytest_here, choice="managed") is None
    assert find_environment(Requirements("pytest", "pytest", "<2", "llama.cpp-cpu.txt")) is None
    assert find_environment(Requirements("pytest", "no_such_module", ">=1", "llama.cpp-cpu.txt")) is None


def test_an_environment_may_be_named(requirements: Requirements, tmp_path: Path) -> None:
    folder = build_environment(requirements).folder
    assert folder is not None
    for choice in (str(folder), str(folder / "bin" / "python")):
        found = find_environment(requirements, choice=choice)
        assert found == Environment(str(folder / "bin" / "python"), choice, "1.2")
    newer = Requirements("tiny-engine", "tiny_engine", ">=3", requirements.lock)
    assert find_environment(newer, choice=str(folder)) is None
    hungry = requirements._replace(needs=("tiny-helper",))
    assert find_environment(hungry, choice=str(folder)) is None
    lacking = absence("tiny.engine", hungry, str(folder))
    assert (lacking.message, lacking.details) == (
        f"`tiny.engine` is not whole in the environment `{folder}`",
        ("wanted: `tiny-helper`",),
    )
    assert lacking.hint == f"{folder / 'bin' / 'python'} -m pip install tiny-helper"
    with pytest.raises(EngineNotInstalledError, match="neither a Python nor a virtual environment"):
        find_environment(requirements, choice=str(tmp_path))


@pytest.mark.parametrize(
    ("version", "specifier", "holds"),
    [
        ("2026.10.11549", ">=2026.10,<2027", True),
        ("2026.10", ">=2026.10,<2027", True),
        ("2026.9.9", ">=2026.10,<2027", False),
        ("2027.0.0", ">=2026.10,<2027", False),
        ("2026.10.0", "==2026.10", True),
        ("2026.10.1", "==2026.10", False),
        ("1.2.3+cpu", ">1.2,<=1.2.3", True),
        ("nonsense", ">=1", False),
    ],
)
def test_versions_are_compared_by_number(version: str, specifier: str, holds: bool) -> None:
    assert is_within(version, specifier) is holds


def test_metadata_folders_are_found_however_the_name_is_spelt(tmp_path: Path) -> None:
    (tmp_path / "Some.Engine-3.4.dist-info").mkdir()
    (tmp_path / "some_engine_extras-9.dist-info").mkdir()
    assert installed_version("some-engine", ["/no/such/folder", tmp_path]) == "3.4"
