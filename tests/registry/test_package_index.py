"""pip's settings in uv's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.package_index import uv_variables


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Return an environment whose only pip.conf is the one that a test writes to `<tmp_path>/pip.conf`."""
    return {"HOME": str(tmp_path), "PIP_CONFIG_FILE": str(tmp_path / "pip.conf"), "XDG_CONFIG_DIRS": str(tmp_path)}


def test_variables_become_uvs() -> None:
    found = uv_variables(
        {
            "PIP_CONFIG_FILE": "/dev/null",
            "PIP_INDEX_URL": "https://mirror/simple",
            "PIP_EXTRA_INDEX_URL": "https://a/simple https://b/simple",
            "PIP_FIND_LINKS": "/wheels /more",
        }
    )
    assert found == {
        "UV_DEFAULT_INDEX": "https://mirror/simple",
        "UV_INDEX": "https://a/simple https://b/simple",
        "UV_FIND_LINKS": "/wheels,/more",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_the_file_is_read(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://global/simple\nextra-index-url =\n  https://a\n  https://b\n"
        "[install]\nindex-url = https://install/simple\n"
    )
    found = uv_variables(environ)
    assert found["UV_DEFAULT_INDEX"] == "https://install/simple"
    assert found["UV_INDEX"] == "https://a https://b"


def test_variables_win_over_the_file(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = https://file/simple\n")
    assert uv_variables({**environ, "PIP_INDEX_URL": "https://variable/simple"})["UV_DEFAULT_INDEX"] == (
        "https://variable/simple"
    )


@pytest.mark.parametrize("name", ["UV_DEFAULT_INDEX", "UV_INDEX_URL"])
def test_what_is_set_for_uv_stands(environ: dict[str, str], name: str) -> None:
    found = uv_variables({**environ, "PIP_INDEX_URL": "https://pip/simple", name: "https://uv/simple"})
    assert "UV_DEFAULT_INDEX" not in found


def test_a_broken_file_is_passed_over(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "pip.conf").write_text("index-url without a section")
    assert "UV_DEFAULT_INDEX" not in uv_variables({**environ, "XDG_CONFIG_HOME": str(tmp_path / "none")})
