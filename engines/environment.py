"""The Python environment that an engine runs in: the current one where it fits, else one that uv makes from a lock."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from engines.base import Requirements
from registry.cache import cache_folder
from registry.errors import EngineNotInstalledError, EnvironmentBuildError

LOCKS = Path(__file__).with_name("locks")
DONE = "DONE"
ERROR_LINES = 12


class Environment(NamedTuple):
    """Where an engine's packages are; `origin` is `current`, `managed`, or the path that the user named.

    `version` is that of the engine's distribution; `folder` is the managed environment's own.
    """

    python: str
    origin: str
    version: str
    folder: Path | None = None

    @property
    def engine(self) -> str | None:
        """The engine that a managed environment was made for."""
        return None if self.folder is None else self.folder.name.rpartition("-")[0]


def find_environment(requirements: Requirements, *, choice: str = "auto") -> Environment | None:
    """Return the environment to run in, or None where the engine is not installed; starts and imports nothing.

    `choice` is `auto` (managed if it was made, else current), `managed`, `current`, or the path of a Python or of a
    virtual environment. Raises EngineNotInstalledError where there is no Python at such a path.
    """
    if choice == "managed":
        return _find_managed(requirements)
    if choice == "current":
        return _find_current(requirements)
    if choice == "auto":
        return _find_managed(requirements) or _find_current(requirements)
    return _find_named(requirements, choice)


def build_environment(requirements: Requirements, *, progress: Callable[[str], None] | None = None) -> Environment:
    """Return the managed environment, made by uv if there is none yet; `progress` gets uv's lines.

    Processes that come at once build once. What an interrupted build left is built anew. Raises EnvironmentBuildError.
    """
    from filelock import FileLock

    folder = managed_folder(requirements)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (found := _find_managed(requirements)) is not None:
            return found
        shutil.rmtree(folder, ignore_errors=True)
        _install(folder, LOCKS / requirements.lock, progress or (lambda line: None))
        version = installed_version(requirements.distribution, _site_packages(folder))
        (folder / DONE).write_text(version or "")
    return Environment(str(_python_of(folder)), "managed", version or "", folder)


def managed_folder(requirements: Requirements) -> Path:
    """Return where the environment of this lock belongs, whether it was made or not."""
    import hashlib

    digest = hashlib.sha256((LOCKS / requirements.lock).read_bytes()).hexdigest()
    return _environments_folder() / f"{Path(requirements.lock).stem}-{digest[:8]}"


def lock_bytes(requirements: Requirements) -> int | None:
    """Return the bytes that making the environment fetches, or None where the lock does not say."""
    found = re.search(r"^# download-bytes: (\d+)$", (LOCKS / requirements.lock).read_text(), re.MULTILINE)
    return None if found is None else int(found[1])


def list_environments() -> tuple[Environment, ...]:
    """Return the managed environments that are whole, in the order of their engines."""
    markers = sorted(_environments_folder().glob(f"*/{DONE}"))
    return tuple(
        Environment(str(_python_of(marker.parent)), "managed", marker.read_text(), marker.parent) for marker in markers
    )


def remove_environment(engine: str) -> int:
    """Remove the managed environments of `engine`, those of older locks and half-made ones too; return how many."""
    folders = [folder for folder in _environments_folder().glob("*/") if folder.name.rpartition("-")[0] == engine]
    for folder in folders:
        remove_folder(folder)
    return len(folders)


def remove_folder(folder: Path) -> None:
    """Remove one managed environment; waits for whoever makes it."""
    from filelock import FileLock

    with FileLock(f"{folder}.lock"):
        (folder / DONE).unlink(missing_ok=True)
        shutil.rmtree(folder)


def installed_version(distribution: str, folders: Iterable[str | Path]) -> str | None:
    """Return the version of a distribution installed in one of `folders`, which is what names its metadata folder."""
    name = re.sub(r"[-_.]+", "[-_.]", distribution)
    pattern = re.compile(rf"{name}-([^-]+)\.dist-info", re.IGNORECASE)
    for folder in folders:
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        for entry in entries:
            if found := pattern.fullmatch(entry):
                return found[1]
    return None


def is_within(version: str, specifier: str) -> bool:
    """Return whether a version satisfies a specifier such as `>=2026.10,<2027`, comparing its release numbers only."""
    tests = [re.fullmatch(r"(>=|<=|==|<|>)([\d.]+)", part.strip()) for part in specifier.split(",")]
    return all(test is not None and _holds(_release(version), test[1], _release(test[2])) for test in tests)


def _holds(release: tuple[int, ...], operator: str, bound: tuple[int, ...]) -> bool:
    if release == bound:
        return "=" in operator
    return operator[0] == ("<" if release < bound else ">")


def _release(version: str) -> tuple[int, ...]:
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _environments_folder() -> Path:
    return cache_folder() / "environments"


def _find_managed(requirements: Requirements) -> Environment | None:
    folder = managed_folder(requirements)
    python = _python_of(folder)
    if not (folder / DONE).is_file() or not python.is_file():  # its base Python may have been removed
        return None
    return Environment(str(python), "managed", (folder / DONE).read_text(), folder)


def _find_current(requirements: Requirements) -> Environment | None:
    if find_spec(requirements.import_name) is None:
        return None
    return _supported(requirements, Environment(sys.executable, "current", ""), sys.path)


def _find_named(requirements: Requirements, choice: str) -> Environment | None:
    named = Path(choice).expanduser()
    python = _python_of(named) if named.is_dir() else named
    if not os.access(python, os.X_OK):
        raise EngineNotInstalledError(f"`{choice}` is neither a Python nor a virtual environment")
    environment = Environment(str(python.absolute()), choice, "")
    return _supported(requirements, environment, _site_packages(python.absolute().parent.parent))


def _supported(
    requirements: Requirements, environment: Environment, folders: Sequence[str | Path]
) -> Environment | None:
    version = installed_version(requirements.distribution, folders)
    if version is None or not is_within(version, requirements.versions):
        return None
    return Environment(environment.python, environment.origin, version, environment.folder)


def _python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def _site_packages(prefix: Path) -> list[Path]:
    return [*prefix.glob("lib/python3*/site-packages"), *prefix.glob("lib/python3*/dist-packages")]


def _install(folder: Path, lock: Path, progress: Callable[[str], None]) -> None:
    _run_uv(("venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)), progress)
    _run_uv(
        (
            *("pip", "install", "--python", str(_python_of(folder)), "--compile-bytecode", "--require-hashes"),
            *("--requirements", str(lock)),
        ),
        progress,
    )


def _run_uv(arguments: Sequence[str], progress: Callable[[str], None]) -> None:
    """Run uv with the user's package index; raises EnvironmentBuildError with its last lines."""
    import uv

    from registry.package_index import uv_variables

    settings = {**os.environ, **uv_variables(os.environ), "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"}
    lines: list[str] = []
    with subprocess.Popen(
        (uv.find_uv_bin(), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=_environments_folder(),
        env=settings,
        text=True,
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            progress(lines[-1])
    if process.returncode:
        raise EnvironmentBuildError(
            _cause_of(lines),
            details=lines[-ERROR_LINES:],
            hint="look at the package index settings: `PIP_INDEX_URL`, pip.conf, `UV_DEFAULT_INDEX`",
        )


def _cause_of(lines: Sequence[str]) -> str:
    first = next((line for line in lines if line.startswith("error:")), None)
    return "uv could not make the engine's environment" + (f": {first.removeprefix('error:').strip()}" if first else "")
