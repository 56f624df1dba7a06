"""The package `launcher` as others import it."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import launcher


def test_its_names_are_all_there() -> None:
    assert launcher.__all__ == sorted(launcher.__all__)
    assert dir(launcher) == launcher.__all__
    for name in launcher.__all__:
        assert getattr(launcher, name) is not None


def test_it_exports_every_error_that_a_launch_raises() -> None:
    from registry.errors import LaunchError

    def tree(root: type[LaunchError]) -> set[str]:
        children = (child for child in root.__subclasses__() if child.__module__ == root.__module__)
        return {root.__name__}.union(*map(tree, children))

    assert tree(LaunchError) <= set(launcher.__all__)


def test_another_name_is_an_error() -> None:
    with pytest.raises(AttributeError, match="module `launcher` has no `lunch`"):
        launcher.lunch  # noqa: B018 - the access is the test
    with pytest.raises(ImportError):
        exec("from launcher import lunch")


@pytest.mark.parametrize("package", ["registry", "engines", "launcher"])
def test_its_types_are_published(package: str) -> None:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).with_name("py.typed").is_file()


@pytest.mark.parametrize("path", ["registry/__init__.py", "registry.py", "engines/__init__.py", "engines.py"])
def test_a_package_of_the_users_that_hides_ours_is_named(tmp_path: Path, path: str) -> None:
    own = tmp_path / path
    own.parent.mkdir(exist_ok=True)
    own.write_text("")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import launcher"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    name = path.partition("/")[0].removesuffix(".py")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: `import {name}` finds `{own}`, which hides the package of that name that model-launcher needs:"
        " rename it, or start Python from another folder"
    )


def test_a_folder_without_an_init_hides_nothing(tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import launcher; print(launcher.plan.__name__)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "plan\n"
