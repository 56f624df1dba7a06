"""Who may import what: `registry` nothing of ours, `engines` only registry, runners nothing of ours."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("registry", "engines", "launcher")
ALLOWED = {"registry": {"registry"}, "engines": {"engines", "registry"}, "launcher": set(PACKAGES)}
RUNNERS = ROOT / "engines" / "runners"
# Tests that are shipped: only a test run imports them, and so pytest is there.
CONFORMANCE = "conformance.py"


def imported_packages(source: str, package: str) -> Iterator[str]:
    """Yield the first name of every module that `source`, a file of `package`, imports anywhere in it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield package if node.level else str(node.module).partition(".")[0]


def allowed_in(file: Path) -> set[str]:
    return set() if RUNNERS in file.parents else ALLOWED[file.relative_to(ROOT).parts[0]]


def normalized(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def python_files() -> list[Path]:
    return sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("file", python_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_point_one_way(file: Path) -> None:
    ours = set(imported_packages(file.read_text(encoding="utf-8"), file.relative_to(ROOT).parts[0])) & set(PACKAGES)
    assert ours <= allowed_in(file)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import launcher.api", {"launcher"}),
        ("def late():\n    from launcher.api import plan", {"launcher"}),
        ("from . import spec", {"registry"}),
        ("import os, engines.base", {"os", "engines"}),
    ],
)
def test_the_walk_sees_every_form_of_import(source: str, expected: set[str]) -> None:
    assert set(imported_packages(source, "registry")) == expected


def test_runners_may_import_nothing_of_ours() -> None:
    assert allowed_in(RUNNERS / "guard.py") == set()
    assert allowed_in(ROOT / "engines" / "base.py") == {"engines", "registry"}


def test_every_package_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {normalized(re.split(r"[<>=!~\[ ]", line)[0]) for line in project["dependencies"]}
    distributions = packages_distributions()
    files = (file for file in python_files() if RUNNERS not in file.parents and file.name != CONFORMANCE)
    imported = {name for file in files for name in imported_packages(file.read_text(encoding="utf-8"), "registry")}
    foreign = imported - set(PACKAGES) - sys.stdlib_module_names
    undeclared = {n for n in foreign if not declared & {normalized(d) for d in distributions.get(n, [n])}}
    assert undeclared == set()
