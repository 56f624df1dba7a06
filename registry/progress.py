"""What long work tells about itself: one value for the command line, for Python callers and for tests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

Stage = Literal["resolve", "install", "download", "verify", "start", "load"]


class Progress(NamedTuple):
    """How far a stage is: `done` of `total`, in bytes for `download` and `verify`; `total` of None: not known."""

    stage: Stage
    done: int
    total: int | None
    text: str


Report = Callable[[Progress], None]


def ignore(progress: Progress) -> None:
    """Tell nobody."""
