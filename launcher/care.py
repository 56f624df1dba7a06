"""How running engines are watched."""

from __future__ import annotations

from typing import NamedTuple


class Care(NamedTuple):
    """How engines are watched: how often in a row one that crashed is started again, and after how long without a sign
    of life it counts as hanging, 0 for never.
    """

    max_restarts: int = 3
    hang_after_s: float = 120.0
