"""The Python environment that an engine runs in: the current one where it fits, else one that uv makes from a lock.

A managed environment's folder says what it is: `ENGINE-VARIANT-` and the beginning of its lock's digest, or
`ENGINE-VARIANT@VERSION` for a version that was asked for by name. `installing.py` makes them.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from engines.base import Requirements
from registry.cache import cache_folder
from registry.errors import EngineNotInstalledError

LOCKS = Path(__file__).with_name("locks")
DONE = "DONE"
_FOLDER = re.compile(r"(.+)-([^-@]+)(?:-([0-9a-f]{8})|@(.+))")


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
        return None if self.folder is None else engine_of(self.folder)

    @property
    def variant(self) -> str | None:
        """The build that a managed environment holds: `cpu`, `cuda13`, …."""
        found = None if self.folder is None else _FOLDER.fullmatch(self.folder.name)
        return None if found is None else found[2]

    @property
    def is_locked(self) -> bool:
        """True if a managed environment holds what a lock says, false if it is of a version asked for by name."""
        return self.folder is not None and "@" not in self.folder.name


def engine_of(folder: Path) -> str:
    """Return the engine that a managed environment's folder is named after."""
    found = _FOLDER.fullmatch(folder.name)
    return folder.name if found is None else found[1]


def find_environment(requirements: Requirements, *, choice: str = "auto") -> Environment | None:
    """Return the environment to run in, or None where the engine is not installed; starts and imports nothing.

    `choice` is `auto` (managed if it was made, else current), `managed`, `current`, a version that was installed by
    name, or the path of a Python or of a virtual environment. Raises EngineNotInstalledError where there is no Python
    at such a path.
    """
    if choice == "managed":
        return _find_managed(requirements)
    if choice == "current":
        return _find_current(requirements)
    if choice == "auto":
        return _find_managed(requirements) or _find_current(requirements)
    if is_version(choice):
        return _find_release(requirements, choice)
    return _find_named(requirements, choice)


def absence(engine: str, requirements: Requirements, choice: str) -> EngineNotInstalledError:
    """Return the error that says what an environment lacks, which was chosen and cannot be made, and the remedy."""
    if is_version(choice):
        return EngineNotInstalledError(
            f"`{engine}` {choice} is not installed", hint=f"launch engines install {engine}=={choice}"
        )
    python, folders = (sys.executable, sys.path) if choice == "current" else _named(choice)
    wanting = _wanting(requirements, folders)
    return EngineNotInstalledError(
        f"`{engine}` is not whole in the environment `{choice}`",
        details=[f"wanted: `{each}`" for each in wanting],
        hint=f"{python} -m pip install {shlex.join(wanting)}",
    )


def is_version(choice: str) -> bool:
    """Return whether an environment is chosen by a version, such as `0.31.0`, and not by a path."""
    return re.fullmatch(r"\d+(\.\w+)+(\+[\w.]+)?", choice) is not None


def managed_folder(requirements: Requirements) -> Path:
    """Return where the environment of this lock or version belongs, whether it was made or not."""
    stem = Path(requirements.lock).name.removesuffix(".txt")
    if requirements.release:
        return environments_folder() / f"{stem}@{requirements.release}"
    import hashlib

    digest = hashlib.sha256(b"".join(path.read_bytes() for path in lock_files(requirements))).hexdigest()
    return environments_folder() / f"{stem}-{digest[:8]}"


def lock_files(requirements: Requirements) -> Iterator[Path]:
    """Yield the lock and, if there is one, the list of what upstream asks for in vain."""
    lock = LOCKS / requirements.lock
    yield lock
    if (without := lock.with_suffix(".without")).is_file():
        yield without


def lock_bytes(requirements: Requirements) -> int | None:
    """Return the bytes that making the environment fetches, or None where the lock does not say."""
    with open(LOCKS / requirements.lock, encoding="utf-8") as lock:
        found = re.match(r"# download-bytes: (\d+)$", lock.readline().rstrip())
    return None if found is None else int(found[1]) or None


def list_environments() -> tuple[Environment, ...]:
    """Return the managed environments that are whole, in the order of their engines."""
    markers = sorted(environments_folder().glob(f"*/{DONE}"))
    return tuple(
        Environment(str(python_of(marker.parent)), "managed", marker.read_text(), marker.parent) for marker in markers
    )


def folders_of(engine: str) -> list[Path]:
    """Return the folders of an engine's managed environments, those of older locks and half-made ones too."""
    return sorted(folder for folder in environments_folder().glob("*/") if engine_of(folder) == engine)


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


def environments_folder() -> Path:
    return cache_folder() / "environments"


def _find_managed(requirements: Requirements) -> Environment | None:
    folder = managed_folder(requirements)
    python = python_of(folder)
    if not (folder / DONE).is_file() or not python.is_file():  # its base Python may have been removed
        return None
    if not _has_compiled(requirements, folder):
        return None
    return Environment(str(python), "managed", (folder / DONE).read_text(), folder)


def _has_compiled(requirements: Requirements, folder: Path) -> bool:
    """Return whether an environment, which may have been made without a compiler, has what is needed all the same."""
    names = set(requirements.compiled).intersection(requirements.needs)
    return all(installed_version(name, site_packages(folder)) is not None for name in names)


def _find_release(requirements: Requirements, version: str) -> Environment | None:
    engine = engine_of(managed_folder(requirements))
    found = (each for each in list_environments() if each.engine == engine and each.version == version)
    return next((each for each in found if each.variant == requirements.variant), None)


def _find_current(requirements: Requirements) -> Environment | None:
    if find_spec(requirements.import_name) is None:
        return None
    return _supported(requirements, Environment(sys.executable, "current", ""), sys.path)


def _find_named(requirements: Requirements, choice: str) -> Environment | None:
    python, folders = _named(choice)
    return _supported(requirements, Environment(python, choice, ""), folders)


def _named(choice: str) -> tuple[str, list[Path]]:
    """Return the Python that a path means, and where its packages are."""
    named = Path(choice).expanduser()
    python = (python_of(named) if named.is_dir() else named).absolute()
    if not os.access(python, os.X_OK):
        raise EngineNotInstalledError(f"`{choice}` is neither a Python nor a virtual environment")
    return str(python), site_packages(python.parent.parent)


def _supported(
    requirements: Requirements, environment: Environment, folders: Sequence[str | Path]
) -> Environment | None:
    if _wanting(requirements, folders):
        return None
    return environment._replace(version=installed_version(requirements.distribution, folders) or "")


def _wanting(requirements: Requirements, folders: Sequence[str | Path]) -> tuple[str, ...]:
    """Return what must be installed in `folders` for the engine to run, as pip takes it."""
    version = installed_version(requirements.distribution, folders)
    is_right = version is not None and is_within(version, requirements.versions)
    own = () if is_right else (f"{requirements.distribution}{requirements.versions}",)
    return (*own, *(name for name in requirements.needs if installed_version(name, folders) is None))


def python_of(folder: Path) -> Path:
    return folder / "bin" / "python"


def site_packages(prefix: Path) -> list[Path]:
    return [*prefix.glob("lib/python3*/site-packages"), *prefix.glob("lib/python3*/dist-packages")]
