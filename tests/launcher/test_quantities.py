"""How times, sizes and lengths may be written."""

from __future__ import annotations

import pytest

from launcher.quantities import parse_context, parse_size_bytes, parse_time_s


def test_times() -> None:
    given = ("0", "90s", "10m", "2h", "30d", "2w", "12H", "1.5m", " 1m ")
    assert [parse_time_s(text) for text in given] == [0, 90, 600, 7200, 2_592_000, 1_209_600, 43_200, 90, 60]


def test_sizes() -> None:
    given = ("50GB", "500 mb", "1.5T", "20k", "7", "7B", "8GiB", "1.5 KiB")
    assert [parse_size_bytes(text) for text in given] == [50e9, 500e6, 1.5e12, 20e3, 7, 7, 8 << 30, 1536]


def test_lengths_of_contexts() -> None:
    assert [parse_context(text) for text in ("8192", "8,192", "8_192", "MAX")] == [8192, 8192, 8192, "max"]


@pytest.mark.parametrize("text", ["", "s", "90", "-1s", "1x", "1h30m", "²s", "9" * 16 + "s"])
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="must be a time such as"):
        parse_time_s(text)


@pytest.mark.parametrize("text", ["", "-1GB", "GB", "1 2", "1,5GB", "1PB", "iB", "²GB"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="must be a size such as"):
        parse_size_bytes(text)


@pytest.mark.parametrize("text", ["", "8k", "-1", "most", "²"])
def test_what_is_no_length(text: str) -> None:
    with pytest.raises(ValueError, match="must be a whole number or `max`"):
        parse_context(text)
