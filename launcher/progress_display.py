"""Progress on a terminal: a bar where the total is known, else a spinner with what is happening."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from registry.progress import Progress


class ProgressDisplay:
    """What stands on the terminal while one stage goes on; `close` takes it away."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._bars: Bars | None = None
        self._task: Any = None

    def update(self, progress: Progress) -> None:
        """Show the newest state."""
        in_bytes = progress.stage in ("download", "verify") and progress.total is not None
        if self._bars is None:
            self._bars = Bars(*_columns(in_bytes), console=self._console, transient=True)
            self._task = self._bars.add_task("", total=progress.total, completed=progress.done)
            self._bars.start()
        text = " ".join(progress.text.split())
        self._bars.update(self._task, completed=progress.done, total=progress.total, description=text)

    def close(self) -> None:
        """Take it off the screen."""
        if self._bars is not None:
            self._bars.stop()


def _columns(in_bytes: bool) -> tuple[Any, ...]:
    if in_bytes:
        return (
            TextColumn("  {task.description}", markup=False),
            *(BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn(compact=True)),
        )
    return (TextColumn(" "), SpinnerColumn(), TextColumn("{task.description}", markup=False))
