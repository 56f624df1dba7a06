"""The only place that prints: answers and data on stdout, all else on stderr; for people, or as JSON for programs."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, TextIO

from launcher.plans import JSON_SCHEMA
from registry.errors import LaunchError
from registry.progress import Progress

if TYPE_CHECKING:
    from launcher.progress_display import ProgressDisplay

# What takes less than this shows no progress; where there is no terminal, this is between two lines.
DISPLAY_AFTER_S = 0.5
LINE_EVERY_S = 10.0
# What these do is told each time it changes, but not where all of it takes a moment.
_QUIET_AT_FIRST = ("load", "check")


class Output:
    """Prints for one command. `as_json`: one object a line on stdout; `quiet`: errors only.

    Without `has_events` programs get answers and errors, and nothing of what goes on before them.
    """

    _shown: ClassVar[_Stage | None] = None  # of all outputs, since they have one terminal

    def __init__(
        self, *, as_json: bool = False, quiet: bool = False, verbose: bool = False, has_events: bool = True
    ) -> None:
        self.as_json = as_json
        self.has_events = has_events
        self.quiet = quiet
        self.verbose = verbose
        self._is_thinking = False

    # --- stdout: answers and data

    def write(self, text: str) -> None:
        """Print a piece of an answer as it is; what was thought before it ends first."""
        if self._is_thinking and text:
            self._is_thinking = False
            text = f"\n\n{text.lstrip()}"
        sys.stdout.write(text)
        sys.stdout.flush()

    def think(self, text: str) -> None:
        """Show on a terminal, dimmed, a piece of what the model thinks; it is no part of the answer."""
        if text and not self.quiet and is_terminal(sys.stdout):
            sys.stdout.write(_coloured(text, "2"))
            sys.stdout.flush()
            self._is_thinking = True

    def data(self, value: object) -> None:
        """Print a value as JSON."""
        self.write(json.dumps(value, ensure_ascii=False, indent=None if self.as_json else 2) + "\n")

    def lines(self, lines: Sequence[str]) -> None:
        """Print text that was asked for."""
        self.write("".join(f"{line}\n" for line in lines))

    def event(self, name: str, facts: Mapping[str, Any]) -> None:
        """Print an event for programs; people see nothing."""
        if self.as_json and self.has_events:
            self.result(name, facts)

    def result(self, name: str, facts: Mapping[str, Any]) -> None:
        """Print for programs what they came for."""
        if self.as_json:
            self.write(json.dumps({"schema": JSON_SCHEMA, "event": name, **facts}, ensure_ascii=False) + "\n")

    def table(self, headings: Sequence[str], rows: Sequence[Sequence[str]], records: Sequence[object]) -> None:
        """Print a list: one JSON array, a table on a terminal, or lines of tab-separated values in a pipe."""
        if self.as_json:
            self.data(records)
        elif is_terminal(sys.stdout):
            _print_table(headings, rows)
        else:
            self.lines(["\t".join(row) for row in rows])

    # --- stderr: what happens

    def say(self, text: str) -> None:
        """Print a line for people."""
        if not self.quiet and not self.as_json:
            self.end_progress()
            print(text, file=sys.stderr, flush=True)

    def pass_on(self, line: str) -> None:
        """Print a line that another of our programs has printed for us."""
        if self.as_json:
            self.write(f"{line}\n")
        else:
            self.say(line)

    def warn(self, text: str) -> None:
        """Print a warning, which programs get as an event."""
        self.event("warning", {"message": text})
        self.say(f"{_coloured('warning:', '33')} {text}")

    def error(self, error: LaunchError) -> None:
        """Print an error: its cause, its facts, then what to do about it."""
        self.end_progress()
        if self.as_json:
            self.result("error", describe_error(error))
            return
        detail = "".join(f"  {line}\n" for line in error.details)
        hint = f"\n{_coloured('hint:', '36')} {error.hint}\n" if error.hint else ""
        print(f"{_coloured('error:', '1;31')} {error.message}\n{detail}{hint}", end="", file=sys.stderr, flush=True)

    def progress(self, progress: Progress) -> None:
        """Show how far a stage is, once it has taken a while."""
        if progress.stage == "log":
            return
        if progress.stage in ("fallback", "licence"):
            self.event(progress.stage, {"message": progress.text})
            self.say(f"  {progress.text}")
            return
        if Output._shown is None or Output._shown.name != progress.stage:
            self.end_progress()
            Output._shown = _Stage(progress.stage, self)
        Output._shown.update(progress)

    def progress_and_log(self, progress: Progress) -> None:
        """Show every line that an engine or its set-up says."""
        if progress.total is None and progress.stage in ("install", "log"):
            self.say(f"  {progress.text}")
        else:
            self.progress(progress)

    def end_progress(self) -> None:
        """Take the progress off the screen."""
        shown, Output._shown = Output._shown, None
        if shown is not None:
            shown.end()


class _Stage:
    """One stage of long work, shown as suits the reader: a bar, lines now and then, or JSON events."""

    def __init__(self, name: str, output: Output) -> None:
        self.name = name
        self._output = output
        self._display: ProgressDisplay | None = None
        self._latest: Progress | None = None
        self._lock = threading.Lock()
        self._next_line_at = 0.0
        self._lines_from = time.monotonic() + DISPLAY_AFTER_S
        self._printed = ""
        self._timer = threading.Timer(DISPLAY_AFTER_S, self._show)
        self._timer.daemon = True
        self._is_silent = output.quiet and not output.as_json
        self._is_drawn = not self._is_silent and not output.as_json and _can_draw(sys.stderr)
        if self._is_drawn:
            self._timer.start()

    def update(self, progress: Progress) -> None:
        with self._lock:
            self._latest = progress
            if self._display is not None:
                self._display.update(progress)
            elif not self._is_drawn and not self._is_silent:
                self._line(progress)

    def _line(self, progress: Progress) -> None:
        """Tell where there is no terminal: the first time, the last time, what is noted, and now and then between.

        Programs hear of the end of each file. What a loading engine does is told each time, if it takes a while.
        """
        is_end = progress.total is not None and progress.done >= progress.total
        is_end |= self._output.as_json and progress.file_done is not None and progress.file_done == progress.file_total
        now = time.monotonic()
        if not is_end and not progress.is_note and self.name not in _QUIET_AT_FIRST and now < self._next_line_at:
            return
        self._next_line_at = now + (1.0 if self._output.as_json else LINE_EVERY_S)
        if self._output.as_json:
            self._output.event(progress.stage, _event_of(progress))
        elif self.name not in _QUIET_AT_FIRST or (now > self._lines_from and not is_end):
            self._print_once(f"{progress.stage}: {describe_progress(progress)}")

    def _print_once(self, line: str) -> None:
        if line != self._printed:
            print(line, file=sys.stderr, flush=True)
        self._printed = line

    def _show(self) -> None:
        from launcher.progress_display import ProgressDisplay

        with self._lock:
            if self._latest is not None:
                self._display = ProgressDisplay()
                self._display.update(self._latest)

    def end(self) -> None:
        self._timer.cancel()
        with self._lock:
            self._latest = None
            if self._display is not None:
                self._display.close()


def _event_of(progress: Progress) -> dict[str, object]:
    """Return a stage's state as programs get it; in bytes for `download` and `verify`."""
    if progress.file_done is None:
        return {"done": progress.done, "total": progress.total, "text": progress.text}
    return {
        "file": progress.text,
        "done": progress.file_done,
        "total": progress.file_total,
        "total_done": progress.done,
        "total_bytes": progress.total,
        "bytes_per_s": None if progress.bytes_per_s is None else round(progress.bytes_per_s),
    }


def describe_progress(progress: Progress) -> str:
    """Return a stage's state as text: `2.70 GB of 4.37 GB, 38 MB/s, 0:45 left  file.gguf`."""
    if progress.is_note or not progress.counts_bytes or not progress.total:
        return progress.text
    parts = [f"{format_bytes(progress.done)} of {format_bytes(progress.total)}"]
    if progress.bytes_per_s is not None and progress.done < progress.total:
        parts.append(f"{format_bytes(progress.bytes_per_s)}/s")
    if progress.seconds_left:
        parts.append(f"{format_clock(progress.seconds_left)} left")
    return f"{', '.join(parts)}  {progress.text}".rstrip()


def format_clock(seconds: float) -> str:
    """Return a time as clocks show it, which counts down without changing its form: `0:45`, `1:02:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe_error(error: LaunchError) -> dict[str, Any]:
    """Return an error as plain data."""
    return {
        "kind": error.kind,
        "message": error.message,
        "hint": error.hint,
        "permanent": error.permanent,
        "details": list(error.details),
        "facts": {name: _plain(value) for name, value in error.facts().items()},
    }


def _plain(value: Any) -> object:
    """Return a fact as JSON has it; a rejection with its names."""
    if hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, tuple | list):
        return [_plain(each) for each in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)


def format_bytes(size_bytes: float) -> str:
    """Return a size as people read it, in decimal units: `4.37 GB`, `98 MB`."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:.2f} {unit}" if unit == "GB" else f"{value:.0f} {unit}"
    return f"{size_bytes:.0f} bytes"


def format_count(number: int, noun: str) -> str:
    """Return a number of things: `1 file`, `3 files`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def format_seconds(seconds: float) -> str:
    """Return a time as people read it: `0.8 s`, `45 s`, `2:01`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    return f"{seconds:.0f} s" if seconds < 60 else f"{seconds // 60:.0f}:{seconds % 60:02.0f}"


def is_terminal(stream: TextIO) -> bool:
    return stream.isatty()


def _can_draw(stream: TextIO) -> bool:
    """Return whether what stands on the screen can be changed: an editor's shell may be a terminal that cannot."""
    return is_terminal(stream) and os.environ.get("TERM") != "dumb"


def _coloured(text: str, code: str) -> str:
    if not _can_draw(sys.stderr) or os.environ.get("NO_COLOR"):
        return text
    return f"\033[{code}m{text}\033[0m"


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(highlight=False).print(table)
