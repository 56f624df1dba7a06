"""Which licences are open, and what is said of the others."""

from __future__ import annotations

import pytest

from registry.licences import is_open, restriction
from registry.schema import validate_entry
from tests.registry.entries import entry


@pytest.mark.parametrize(
    "license_id",
    [
        *("Apache-2.0", "apache-2.0", "MIT", "BSD-3-Clause", "GPL-3.0-or-later", "CC-BY-4.0", "CC0-1.0"),
        *("MIT OR LicenseRef-Own", "Apache-2.0 AND MIT", "(MIT OR Apache-2.0) AND BSD-3-Clause"),
        "GPL-2.0-only WITH Classpath-exception-2.0",
    ],
)
def test_open_licences_need_no_word(license_id: str) -> None:
    assert is_open(license_id)
    assert restriction(license_id) is None


@pytest.mark.parametrize("license_id", [None, ""])
def test_where_no_licence_is_named_nothing_is_said(license_id: str | None) -> None:
    assert restriction(license_id) is None


@pytest.mark.parametrize(
    ("license_id", "words"),
    [
        ("LicenseRef-MNPL-0.1", "no production use"),
        ("LicenseRef-MRL-0.1", "no commercial use"),
        ("LicenseRef-Llama-3.1-Community", "large companies"),
        ("llama3.1", "large companies"),
        ("LicenseRef-Gemma", "what it may be used for"),
        ("LicenseRef-Qwen-Research", "research only"),
        ("LicenseRef-Qwen", "large companies"),
        ("CC-BY-NC-4.0", "no commercial use"),
        ("CC-BY-NC-SA-4.0", "no commercial use"),
        ("bigscience-openrail-m", "what it may be used for"),
        ("Apache-2.0 AND LicenseRef-Own", "read its terms"),
        ("LicenseRef-Own", "read its terms before use"),
        ("other", "read its terms before use"),
        ("MIT AND (LicenseRef-Own OR Apache-2.0)", "read its terms before use"),
    ],
)
def test_what_is_said_of_others_is_one_line_with_the_name(license_id: str, words: str) -> None:
    told = restriction(license_id)
    assert told is not None
    assert told.startswith(f"`{license_id}` is not an open licence: ")
    assert words in told
    assert "\n" not in told


def test_the_schema_takes_licences_that_are_not_open() -> None:
    assert validate_entry(entry(license="LicenseRef-MNPL-0.1"))["license"] == "LicenseRef-MNPL-0.1"
