"""Makes the Python environment of an engine with uv: from its lock, or of a version that was asked for by name."""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from engines.base import Requirements
from engines.environment import (
    DONE,
    LOCKS,
    Environment,
    engine_of,
    find_environment,
    installed_version,
    managed_folder,
    python_of,
    site_packages,
)
from engines.uv_trouble import Trouble, no_compiler_for, trouble_in
from registry.errors import EnvironmentBuildError
from registry.progress import Progress, Report, ignore

ERROR_LINES = 12
SILENCE_S = 10.0
_UNITS = {"KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


def build_environment(requirements: Requirements, *, report: Report = ignore) -> Environment:
    """Return the managed environment, made by uv if there is none yet.

    Processes that come at once build once. What an interrupted build left is built anew. Raises EnvironmentBuildError.
    """
    from filelock import FileLock

    folder = managed_folder(requirements)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if (found := find_environment(requirements, choice="managed")) is not None:
            return found
        _check_compiler(requirements)
        # One that was made without a compiler may be in use, and only gets more.
        is_whole = find_environment(requirements._replace(needs=()), choice="managed") is not None
        try:
            if not is_whole:
                shutil.rmtree(folder, ignore_errors=True)
            make_environment(folder, requirements, report)
        except BaseException:
            if not is_whole:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        version = installed_version(requirements.distribution, site_packages(folder)) or ""
        (folder / DONE).write_text(version)
    return Environment(str(python_of(folder)), "managed", version, folder)


def make_environment(folder: Path, requirements: Requirements, report: Report = ignore) -> None:
    """Install what an engine needs into the environment at `folder`, made if need be; raises EnvironmentBuildError."""
    told = UvLines(report)
    try:
        _install(folder, requirements, told)
    except _UvError as error:
        trouble = trouble_in(str(error))
        raise EnvironmentBuildError(
            _failure(requirements, trouble),
            details=str(error).splitlines()[-ERROR_LINES:],
            hint=trouble.hint,
        ) from error


def _failure(requirements: Requirements, trouble: Trouble) -> str:
    return f"`{engine_of(managed_folder(requirements))}` could not be set up: {trouble.message}"


class _UvError(Exception):
    """uv ended with an error; the message is all that it said."""


def _install(folder: Path, requirements: Requirements, told: Callable[[str | None], None]) -> None:
    if not python_of(folder).is_file():
        run_uv(("venv", "--quiet", "--no-project", "--python", sys.executable, str(folder)), {}, told)
    pip = ("pip", "install", "--python", str(python_of(folder)), *_without(requirements, folder, told))
    sources = uv_sources(requirements, os.environ)
    if requirements.torch_backend and not requirements.release:
        first = folder / "first"
        first.write_text(_torch_and_what_is_built_with_it(requirements))
        run_uv((*pip, "--no-deps", "--requirements", str(first)), sources | torch_source(requirements, sources), told)
    elif requirements.release:
        sources |= torch_source(requirements, sources)
    run_uv((*pip, "--compile-bytecode", *_what(requirements)), sources, told)


def _torch_and_what_is_built_with_it(requirements: Requirements) -> str:
    """Return those entries of a lock that are to come while PyTorch's index is in force, which has more than torch.

    uv takes all that it holds to be PyTorch's from there, torchao and triton among them, and those have hashes of PyPI.
    """
    names = "|".join(map(re.escape, ("torch", *requirements.compiled)))
    text = (LOCKS / requirements.lock).read_text("utf-8")
    return "".join(re.findall(rf"(?m)^(?:{names})==(?:.*\\\n)*.*\n", text))


def _without(requirements: Requirements, folder: Path, told: Callable[[str], None]) -> Iterator[str]:
    """Yield uv's options for what is left out: what upstream asks for in vain, and what cannot be compiled here."""
    without = (LOCKS / requirements.lock).with_suffix(".without")
    if without.is_file():
        yield from ("--excludes", str(without))
    if requirements.compiled and not has_compiler():
        left_out = folder / "without"
        left_out.write_text("\n".join(requirements.compiled))
        told(f"without {', '.join(requirements.compiled)}, since there is no C compiler here")
        yield from ("--excludes", str(left_out))


def has_compiler() -> bool:
    """Return whether extensions of this Python can be compiled: there is a compiler, and Python's headers."""
    headers = Path(sysconfig.get_path("include"), "Python.h")
    return headers.is_file() and any(map(shutil.which, ("cc", "gcc", "clang")))


def _check_compiler(requirements: Requirements) -> None:
    """Raise EnvironmentBuildError where what is needed cannot be compiled."""
    names = sorted(set(requirements.compiled).intersection(requirements.needs))
    if names and not has_compiler():
        trouble = no_compiler_for(names[0])
        raise EnvironmentBuildError(_failure(requirements, trouble), hint=trouble.hint)


def inputs_of(requirements: Requirements) -> Path:
    """Return the file that says what the lock was made from: the build's own, or the engine's."""
    own = (LOCKS / requirements.lock).with_suffix(".in")
    return own if own.is_file() else own.with_name(own.name.replace(f"-{requirements.variant}.in", ".in"))


def _what(requirements: Requirements) -> Iterator[str]:
    if not requirements.release:
        yield from ("--requirements", str(LOCKS / requirements.lock))
        return
    for line in inputs_of(requirements).read_text("utf-8").split():
        name = re.split(r"[=<>]", line)[0]
        yield name if name != requirements.distribution else f"{name}=={requirements.release}"


def uv_sources(requirements: Requirements, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that point uv at the index of a build, beside the user's own."""
    from registry.package_index import uv_variables

    found = uv_variables(environ)
    if requirements.index_url:
        own = found.get("UV_INDEX") or environ.get("UV_INDEX")
        found["UV_INDEX"] = " ".join(filter(None, (requirements.index_url, own)))
    return found


def torch_source(requirements: Requirements, sources: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that points uv at PyTorch's own index for torch.

    There is none where the user names an index or find-links of their own, which then decide on the build.
    """
    if any(os.environ.get(name) or sources.get(name) for name in _OWN_INDEXES):
        return {}
    return {"UV_TORCH_BACKEND": requirements.torch_backend}


_OWN_INDEXES = (
    *("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_NO_INDEX"),
    "UV_TORCH_BACKEND",
)


def run_uv(arguments: Sequence[str], variables: Mapping[str, str], told: Callable[[str | None], None]) -> None:
    """Run uv; raises _UvError with all that it said.

    It runs in the folder of the locks, whose uv.toml adds to the user's own settings and keeps those of a project out.
    """
    import uv

    lines: list[str] = []
    with subprocess.Popen(
        (uv.find_uv_bin(), *arguments),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=LOCKS,
        env={**os.environ, **variables, "UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1"},
    ) as process:
        assert process.stdout is not None
        for line in lines_of(process.stdout):
            if line is not None:
                lines.append(line)
            told(line)
    if process.returncode:
        raise _UvError("\n".join(lines))


def lines_of(stream: IO[bytes], silence_s: float = SILENCE_S) -> Iterator[str | None]:
    """Yield the lines that a program writes as they come, and None each time that it wrote nothing for so long."""
    rest = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while True:
            if not selector.select(silence_s):
                yield None
                continue
            chunk = os.read(stream.fileno(), 1 << 16)
            *lines, rest = (rest + (chunk or b"\n")).split(b"\n")
            yield from (line.decode(errors="replace").rstrip() for line in lines)
            if not chunk:
                return


class UvLines:
    """Turns uv's lines into progress: what is being fetched, built or installed, and the bytes that are here.

    None stands for a silence, in which the last thing still goes on: it is told again, with how long that has taken.
    """

    def __init__(self, report: Report, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._clock = clock
        self._coming: dict[str, int] = {}
        self._done_bytes = 0
        self._text, self._since = "", clock()

    def __call__(self, line: str | None) -> None:
        if line is None:
            took_s = round(self._clock() - self._since)
            self._tell(f"{self._text}: {took_s // 60}:{took_s % 60:02}")
        elif text := self._read(line):
            self._text, self._since = text, self._clock()
            self._tell(text)

    def _tell(self, text: str) -> None:
        self._report(Progress("install", self._done_bytes, None, text))

    def _read(self, line: str) -> str:
        if found := re.match(r" *Downloading (\S+) \(([\d.]+)([KMG]iB)\)", line):
            self._coming[found[1]] = int(float(found[2]) * _UNITS[found[3]])
            return self._fetching()
        if found := re.match(r" *Downloaded (\S+)", line):
            self._done_bytes += self._coming.pop(found[1], 0)
            return self._fetching()
        if found := re.match(r" *Building (\S+)", line):
            return f"building {found[1].replace('==', ' ')} from source, which may take minutes"
        return line.strip()

    def _fetching(self) -> str:
        largest = sorted(self._coming.items(), key=lambda each: -each[1])[:3]
        coming = ", ".join(f"{name} {_megabytes(size)}" for name, size in largest)
        here = [f"{_megabytes(self._done_bytes)} here"] if self._done_bytes else []
        return ", ".join((*here, *([f"fetching {coming}"] if coming else [])))


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.0f} MB"
