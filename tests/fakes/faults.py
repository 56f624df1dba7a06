"""Keeps what was tried and what happened, and holds it to the records in docs/ that docs/generate.py makes pages of."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

FOLDER = Path(__file__).parents[2] / "docs"


class Trial(NamedTuple):
    """One thing that was tried against a download; docs/generate.py names the faults.

    `corrupt_files` is how many wrong files lie under their names after it.
    `twice_bytes` are right bytes that were here already and were sent again, None where the server gives no parts.
    """

    fault: int
    through: str
    tried: str
    happened: str
    corrupt_files: int
    twice_bytes: int | None

    @property
    def harm(self) -> int:
        return self.corrupt_files + (self.twice_bytes or 0)


class LaunchTrial(NamedTuple):
    """One thing that was tried against what is launched and served.

    `lost` is how many requests got neither their answer nor an error, `left` how many processes, sockets and records
    were there after it.
    """

    fault: int
    through: str
    tried: str
    happened: str
    lost: int
    left: int

    @property
    def harm(self) -> int:
        return self.lost + self.left


class _Trial(Protocol):
    @property
    def harm(self) -> int: ...
    def __getitem__(self, index: slice, /) -> tuple[Any, ...]: ...
    def __lt__(self, other: Any, /) -> bool: ...
    def _asdict(self) -> dict[str, Any]: ...


T = TypeVar("T", bound=_Trial)


class Trials(Generic[T]):
    """The trials of one run: each must be as recorded, or all are recorded anew where FAULTS_RECORD is set."""

    def __init__(self, kind: type[T], name: str) -> None:
        self.is_recording = bool(os.environ.get("FAULTS_RECORD"))
        self._path = FOLDER / name
        self._recorded = {} if self.is_recording else {trial[:3]: trial for trial in self._read(kind)}
        self._run: list[T] = []

    def add(self, trial: T) -> None:
        """Hold a trial to the record, and to what must never happen."""
        assert trial.harm == 0, trial
        self._run.append(trial)
        if not self.is_recording:
            assert trial == self._recorded.get(trial[:3]), "record what happens now: CONTRIBUTING says how"

    def write(self) -> None:
        """Write the record of a run that is to be recorded."""
        if self.is_recording and self._run:
            rows = [trial._asdict() for trial in sorted(self._run)]
            self._path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def _read(self, kind: type[T]) -> list[T]:
        """Return what was recorded."""
        return [kind(**row) for row in json.loads(self._path.read_text("utf-8"))] if self._path.exists() else []
