"""Times, sizes and lengths as people write them, on the command line and in files."""

from __future__ import annotations

import re
from typing import Literal

_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_BINARY_BYTES = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_NUMBER = r"([0-9]{1,15}(?:\.[0-9]{1,15})?)"


def parse_time_s(text: str) -> float:
    """Return seconds from `90s`, `10m`, `2h`, `1.5d`, `2w` or `0`; raises ValueError for what is no time."""
    found = re.fullmatch(rf"{_NUMBER}([smhdw]?)", text.strip().lower())
    # Without a unit, 30 could be seconds as well as days, and what is older is removed.
    if found is None or (not found[2] and float(found[1])):
        raise ValueError(f"must be a time such as `90s`, `10m` or `2h`, not `{text}`")
    return float(found[1]) * _SECONDS[found[2]]


def parse_size_bytes(text: str) -> int:
    """Return bytes from `12GB`, `500 MB`, `1.5T`, `8GiB` or a bare number; raises ValueError for what is no size."""
    found = re.fullmatch(rf"{_NUMBER}\s*(?:([kmgt])(i)?)?b?", text.strip().lower())
    if found is None:
        raise ValueError(f"must be a size such as `12GB` or `512MB`, not `{text}`")
    number, unit, is_binary = found.groups(default="")
    return round(float(number) * (_BINARY_BYTES if is_binary else _BYTES)[unit])


def parse_context(text: str) -> int | Literal["max"]:
    """Return tokens from `8192`, `8,192` or `8_192`, or `max`; raises ValueError for anything else."""
    if text.lower() == "max":
        return "max"
    digits = text.replace("_", "").replace(",", "")
    if not re.fullmatch(r"[0-9]{1,15}", digits):
        raise ValueError(f"must be a whole number or `max`, not `{text}`")
    return int(digits)
