"""Keeps what was tried against the downloads and what happened, and holds it to the record in docs/faults.json."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import NamedTuple

RECORD = Path(__file__).parents[2] / "docs" / "faults.json"


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


class Trials:
    """The trials of one run: each must be as recorded, or all are recorded anew where FAULTS_RECORD is set."""

    def __init__(self) -> None:
        self.is_recording = bool(os.environ.get("FAULTS_RECORD"))
        self._recorded = {} if self.is_recording else {(row[0], *row[1:3]): row for row in read_trials()}
        self._run: list[Trial] = []

    def add(self, trial: Trial) -> None:
        """Hold a trial to the record, and to what must never happen."""
        assert trial.corrupt_files == 0
        assert not trial.twice_bytes
        self._run.append(trial)
        if not self.is_recording:
            assert trial == self._recorded.get(trial[:3]), "run `nox -s downloads` to record what happens now"

    def write(self) -> None:
        """Write the record of a run that is to be recorded."""
        if self.is_recording and self._run:
            rows = [trial._asdict() for trial in sorted(self._run)]
            RECORD.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def read_trials() -> list[Trial]:
    """Return what was recorded."""
    return [Trial(**row) for row in json.loads(RECORD.read_text(encoding="utf-8"))] if RECORD.exists() else []
