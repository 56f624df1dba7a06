"""The project's checks: `nox -l` lists them, `nox` runs the quick ones; CONTRIBUTING says when to use which."""

from __future__ import annotations

import ast
import functools
import os
import subprocess
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.sessions = ["lint", "types", "tests", "processes", "docs"]

# Newer ones format and judge differently, so each is moved on purpose.
RUFF = "ruff~=0.17.6"
MYPY = "mypy~=2.4.1"

UV_VARIABLES = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}


@nox.session
def tests(session: nox.Session) -> None:
    """Run the quick tests: no real engine, no network."""
    install(session, "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def processes(session: nox.Session) -> None:
    """Run the tests of launch as a program, with echo behind it: what its processes do, also when they are killed."""
    install(session, "-e", ".[test]")
    session.run("pytest", "-m", "processes and not engine and not index", *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """Run other people's clients against the endpoint: OpenAI's, Anthropic's, LangChain's, llm."""
    install(session, "-e", ".[test,clients]")
    session.run("pytest", "-m", "clients or not clients", "tests/clients", *session.posargs)


@nox.session
def engines(session: nox.Session) -> None:
    """Run the tests that start real engines, then launch one model in every format, quantization and engine.

    With arguments only the tests are run, with these. Environments and built weights are kept in `$TESTS_CACHE`.
    """
    install(session, "-e", ".[test,clients]")
    if not session.posargs:
        session.run("python", "-m", "tests.weights", env=index_variables())
    session.run("pytest", "-m", "engine or index", *session.posargs, env=index_variables())
    if not session.posargs:
        session.run("python", "-m", "tests.engines.matrix", env=index_variables())


@nox.session
def matrix(session: nox.Session) -> None:
    """Launch one model in every format, quantization and engine, and print what each took; `engines` ends with it."""
    install(session, "-e", ".[test]")
    session.run("python", "-m", "tests.engines.matrix", *session.posargs, env=index_variables())


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    install(session, RUFF)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of packages, tests, benchmarks, docs and this file."""
    install(session, MYPY, "nox", "types-PyYAML", "types-psutil", "-e", ".[test]")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation; a warning is an error."""
    install(session, "-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-E", "-b", "html", "docs", "docs/_build/html")


@nox.session
def startup(session: nox.Session) -> None:
    """Check what start-up imports, then measure how long `launch --help` and `launch list` take."""
    install(session, ".[test]", compiled=True)
    session.run("pytest", "tests/test_startup.py")
    session.run("python", "benchmarks/startup.py", *session.posargs)


@nox.session
def downloads(session: nox.Session) -> None:
    """Record what happens to downloads when everything else misbehaves; kill 200 pulls at a random byte."""
    install(session, "-e", ".[test]")
    faults = [str(file) for file in sorted(Path("tests").glob("*/test_faults_*.py"))]
    session.run("pytest", "-m", "downloads", *faults, env={"FAULTS_RECORD": "1"})
    session.run("python", "docs/generate.py")
    session.run("git", "diff", "--exit-code", "docs/faults.json", "docs/generated/faults.md", external=True)
    points, seed = (*session.posargs, "200", "4")[:2]
    session.run(
        "pytest",
        "-s",
        "-m",
        "downloads",
        "tests/registry/test_cut_points.py",
        env={"CUT_POINTS": points, "CUT_SEED": seed},
    )


@nox.session
def faults(session: nox.Session) -> None:
    """Record what happens to launches when files, engines, clients and kills misbehave; with real engines, too."""
    install(session, "-e", ".[test]")
    tests = [str(file) for file in sorted(Path("tests").glob("*/test_faults_*.py"))]
    session.run("pytest", "-m", "not downloads", *tests, env={"FAULTS_RECORD": "1", **index_variables()})
    session.run("python", "docs/generate.py")
    record = ("docs/faults-launches.json", "docs/generated")
    session.run("git", "diff", "--exit-code", *record, external=True)


@nox.session
def soak(session: nox.Session) -> None:
    """Serve many models with everything against them; arguments: `--minutes 10 --seed 4`."""
    install(session, "-e", ".[test]")
    session.run("python", "-m", "tests.soak", *session.posargs)


@nox.session(name="bench-downloads")
def bench_downloads(session: nox.Session) -> None:
    """Measure downloads against Hugging Face's own client, in pairs, from a server on this machine."""
    install(session, ".", compiled=True)
    session.run("python", "benchmarks/download.py", *session.posargs)


@nox.session
def locks(session: nox.Session) -> None:
    """Make the engines' locks anew from what they ask for, all of them or those that are named."""
    install(session, "-e", ".")
    session.run("python", "engines/locks/make.py", *session.posargs, env=index_variables())


@nox.session
def size(session: nox.Session) -> None:
    """Measure the base install as shipped: by uv, without byte code."""
    install(session, "uv")
    folder = os.path.join(session.create_tmp(), "installed")
    session.run("uv", "pip", "install", "--quiet", "--reinstall", "--target", folder, ".", env=index_variables())
    session.run("python", "benchmarks/size.py", folder, *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure first token and tokens per second against a bare script of the engine, in pairs."""
    install(session, ".", compiled=True)
    session.run("python", "benchmarks/first_token.py", *session.posargs, env=index_variables())


@nox.session(name="bench-engines")
def bench_engines(session: nox.Session) -> None:
    """Measure tokens per second against each engine's own server or API, in pairs."""
    install(session, "-e", ".[test]", compiled=True)
    session.run("python", "-m", "benchmarks.engines", *session.posargs, env=index_variables())


@nox.session(name="bench-gateway")
def bench_gateway(session: nox.Session) -> None:
    """Measure streams through the endpoint against the engine reached directly, in pairs."""
    install(session, "-e", ".[test]", compiled=True)
    session.run("python", "-m", "benchmarks.gateway", *session.posargs, env=index_variables())


def install(session: nox.Session, *arguments: str, compiled: bool = False) -> None:
    """Install into the session's environment; uv compiles to byte code only when told to, pip always does."""
    variables = index_variables()
    if compiled:
        variables["UV_COMPILE_BYTECODE"] = "1"
        arguments = ("--reinstall-package=model-launcher", *arguments) if session.venv_backend == "uv" else arguments
    session.install(*arguments, env=variables)


def index_variables() -> dict[str, str]:
    """Return pip's index settings in uv's words: uv reads neither PIP_* variables nor pip.conf."""
    return {name: value for name, value in pip_settings().items() if name not in os.environ}


@functools.cache
def pip_settings() -> dict[str, str]:
    """Return what `pip config list` says of indexes, as uv's variables; later lines win, the environment's are last."""
    pip = [sys.executable, "-m", "pip", "config", "list"]
    found = {}
    for line in subprocess.run(pip, capture_output=True, text=True, check=False).stdout.splitlines():
        key, _, value = line.partition("=")
        name = UV_VARIABLES.get(key.rpartition(".")[2])
        if name is not None:
            found[name] = (" " if name == "UV_INDEX" else ",").join(ast.literal_eval(value).split())
    if "UV_INDEX" in found:
        found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does: uv alone never looks past an extra index
    return found
