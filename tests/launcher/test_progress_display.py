"""What stands on the terminal while files come: a line each and a total, in the width there is."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from launcher.progress_display import ProgressDisplay
from registry.progress import Progress

GB = 1_000_000_000


def pictures(*told: Progress, width: int = 80) -> list[str]:
    """Return what stood on the terminal one after the other, without colours and what moves the cursor."""
    file = io.StringIO()
    display = ProgressDisplay(Console(file=file, force_terminal=True, width=width, color_system=None))
    for progress in told:
        display.update(progress)
    display.close()
    parts = re.split(r"\x1b\[2K", file.getvalue())
    return [text for part in parts if (text := re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", part)).strip()]


def shown(*told: Progress, width: int = 80) -> list[str]:
    """Return the lines of the last picture."""
    return [line.rstrip() for line in pictures(*told, width=width)[-1].split("\n") if line.strip()]


def part(number: int, done: int, *, of: int = 3) -> Progress:
    """Return how `done` GB of a part of 10 GB are told, with the parts before it whole."""
    name = f"model-{number:05}-of-{of:05}.safetensors"
    total = (10 * (number - 1) + done) * GB
    return Progress("download", total, 10 * of * GB, name, done * GB, 10 * GB, 38e6)


def test_a_line_a_file_and_a_total() -> None:
    one, two, total = shown(part(1, 10), part(2, 4), width=120)
    assert re.fullmatch(r" model-00001-of-00003\.safetensors +━+ 100 % 10\.0/10\.0 GB", one)
    assert re.fullmatch(r" model-00002-of-00003\.safetensors +━.* 40 % +4\.0/10\.0 GB", two)
    assert re.fullmatch(r" total +━.* 47 % 14\.0/30\.0 GB 38 MB/s +7:01 left", total)


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_nothing_is_wider_than_the_terminal(width: int) -> None:
    lines = shown(part(1, 10), part(2, 4), width=width)
    assert len(lines) == 3
    assert max(map(len, lines)) <= width


def test_one_file_is_its_own_total() -> None:
    (line,) = shown(Progress("download", 27, 44, "a/long/path/of/mistral-7b-instruct-v0.2.Q4_K_M.gguf", 27, 44, 1.0))
    assert re.fullmatch(r" …\S+Q4_K_M\.gguf +━.* 61 % 27/44 B 1 bytes/s +0:17 left", line)


def test_of_many_parts_the_newest_are_shown() -> None:
    lines = shown(*(part(number, 10, of=9) for number in range(1, 9)))
    assert len(lines) == 7
    assert "-of-00009" in lines[0]
    assert lines[-1].startswith(" total")


def test_what_is_not_counted_is_told_in_words() -> None:
    (line,) = shown(Progress("install", 0, None, "Downloading  xllamacpp"))
    assert re.search(r"Downloading xllamacpp +0:00:00", line)


def test_a_note_stays_above_the_bars_once() -> None:
    note = Progress("download", 3 * GB, 10 * GB, "`m.gguf`: the server is silent; trying again")
    picture = "\n".join(pictures(note, note, part(1, 3, of=1)))
    assert picture.count("  `m.gguf`: the server is silent; trying again\n") == 1
    assert re.search(r"1-of-00001\.safetensors ━.* 30 % +3\.0/10\.0 GB", picture)
