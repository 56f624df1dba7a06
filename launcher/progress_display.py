"""Progress on a terminal: a line a file and a total with rate and time left, else a spinner with what goes on."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from launcher.output import format_bytes, format_clock
from registry.progress import Progress

# Of a model in many parts, the newest are shown.
FILES_SHOWN = 6
# What a line needs besides the file's name and the bar, which share the rest.
NUMBERS_WIDTH = 47
WIDEST_NAME = 44


class ProgressDisplay:
    """What stands on the terminal while one stage goes on; `close` takes it away."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._bars: Bars | None = None
        self._tasks: dict[str, Any] = {}
        self._noted = ""

    def update(self, progress: Progress) -> None:
        """Show the newest state."""
        bars = self._bars = self._bars or self._start(progress)
        if progress.is_note:
            self._note(progress.text)
        elif progress.file_done is None:
            self._set(bars, "", " ".join(progress.text.split()), progress.done, progress.total, "", "")
        else:
            self._update_file(bars, progress)
            if progress.total != progress.file_total:
                amount = _amount(progress.done, progress.total)
                self._set(bars, "", "total", progress.done, progress.total, amount, _pace(progress))

    def close(self) -> None:
        """Take it off the screen."""
        if self._bars is not None:
            self._bars.stop()

    def _start(self, progress: Progress) -> Bars:
        columns = self._columns_of_bytes() if progress.counts_bytes else _columns_of_text()
        bars = Bars(*columns, console=self._console, transient=True)
        bars.start()
        return bars

    def _note(self, text: str) -> None:
        """Let a line stay above, once."""
        if text != self._noted:
            self._console.print(f"  {text}", markup=False, soft_wrap=True)
        self._noted = text

    def _update_file(self, bars: Bars, progress: Progress) -> None:
        is_only = progress.total == progress.file_total
        name = _shortened(progress.text, self._name_width())
        amount = _amount(progress.file_done or 0, progress.file_total)
        pace = _pace(progress) if is_only else ""
        self._set(bars, progress.text, name, progress.file_done or 0, progress.file_total, amount, pace)
        shown = [each for each in bars.tasks if each.visible and each.id != self._tasks.get("")]
        for old in shown[:-FILES_SHOWN]:
            bars.update(old.id, visible=False)

    def _set(self, bars: Bars, key: str, text: str, done: int, total: int | None, amount: str, pace: str) -> None:
        if key and key not in self._tasks and "" in self._tasks:
            bars.remove_task(self._tasks.pop(""))  # the total stays below the files
        if key not in self._tasks:
            self._tasks[key] = bars.add_task(text, amount="", pace="")
        bars.update(self._tasks[key], total=total, completed=done, description=text, amount=amount, pace=pace)

    def _columns_of_bytes(self) -> tuple[Any, ...]:
        room = max(10, self._console.width - NUMBERS_WIDTH - self._name_width())
        return (
            TextColumn(" {task.description}", markup=False),
            BarColumn(bar_width=min(24, room)),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[amount]}", justify="right"),
            TextColumn("{task.fields[pace]}"),
        )

    def _name_width(self) -> int:
        return max(12, min(WIDEST_NAME, self._console.width - NUMBERS_WIDTH - 10))


def _columns_of_text() -> tuple[Any, ...]:
    return TextColumn(" "), SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn()


def _shortened(path: str, width: int) -> str:
    """Return a path's last `width` characters: its end tells quantization and part."""
    name = path.rpartition("/")[2]
    return name if len(name) <= width else f"…{name[1 - width :]}"


def _amount(done: int, total: int | None) -> str:
    """Return `2.7/4.4 GB`, in the unit of the total."""
    if total is None:
        return format_bytes(done)
    unit, factor = next(((u, f) for u, f in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)) if total >= f), ("B", 1.0))
    digits = 1 if factor == 1e9 else 0
    return f"{done / factor:.{digits}f}/{total / factor:.{digits}f} {unit}"


def _pace(progress: Progress) -> str:
    if progress.bytes_per_s is None:
        return ""
    rate = f"{format_bytes(progress.bytes_per_s)}/s"
    return rate if progress.seconds_left is None else f"{rate}  {format_clock(progress.seconds_left)} left"
