"""How long work is told of: lines now and then in a pipe, events for programs, and bars on a terminal."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from launcher.output import DISPLAY_AFTER_S, Output, describe_progress, format_clock
from registry.progress import Progress
from tests.fakes.hub import HubServer
from tests.fakes.published import FILE, NAME, REPO
from tests.launcher.commands import Terminal

pytestmark = pytest.mark.processes

HALF = Progress("download", 2_700_000_000, 4_368_439_584, "m.gguf", 700_000_000, 2_368_439_584, 38e6)
WHOLE = HALF._replace(done=4_368_439_584, file_done=2_368_439_584)
SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


def test_progress_in_words() -> None:
    assert describe_progress(HALF) == "2.70 GB of 4.37 GB, 38 MB/s, 0:44 left  m.gguf"
    assert describe_progress(HALF._replace(bytes_per_s=None)) == "2.70 GB of 4.37 GB  m.gguf"
    assert describe_progress(WHOLE) == "4.37 GB of 4.37 GB  m.gguf"
    assert describe_progress(Progress("install", 0, None, "setting up llama.cpp")) == "setting up llama.cpp"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (9.6, "0:10"), (61, "1:01"), (3723, "1:02:03")])
def test_a_time_as_on_a_clock(seconds: float, text: str) -> None:
    assert format_clock(seconds) == text


def test_a_pipe_gets_the_first_line_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    for progress in (HALF, HALF, HALF._replace(file_done=2_368_439_584), WHOLE, WHOLE):
        output.progress(progress)
    output.end_progress()
    assert capsys.readouterr() == (
        "",
        "download: 2.70 GB of 4.37 GB, 38 MB/s, 0:44 left  m.gguf\ndownload: 4.37 GB of 4.37 GB  m.gguf\n",
    )


def test_a_pipe_gets_every_note(capsys: pytest.CaptureFixture[str]) -> None:
    output, note = Output(), HALF._replace(text="`m.gguf`: the server is silent; trying again", file_done=None)
    for progress in (HALF, note, note, HALF):
        output.progress(progress)
    output.end_progress()
    assert capsys.readouterr().err.splitlines()[1:] == ["download: `m.gguf`: the server is silent; trying again"]


def load(text: str) -> Progress:
    return Progress("load", 0, None, text)


def test_a_pipe_gets_a_line_for_each_thing_that_a_slow_engine_does(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    output.progress(load("loading m"))
    time.sleep(DISPLAY_AFTER_S + 0.1)
    for progress in (
        load("loading weights"),
        Progress("log", 0, None, "raw"),
        load("loading weights"),
        load("compiling"),
    ):
        output.progress(progress)
    output.progress(Progress("load", 1, 1, "ready"))
    output.end_progress()
    assert capsys.readouterr() == ("", "load: loading weights\nload: compiling\n")


def test_of_a_fast_engine_a_pipe_gets_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output()
    for progress in (load("loading m"), load("loading weights"), Progress("load", 1, 1, "ready")):
        output.progress(progress)
    output.end_progress()
    assert capsys.readouterr() == ("", "")


def test_what_the_engine_says_is_shown_for_the_asking(capsys: pytest.CaptureFixture[str]) -> None:
    Output(verbose=True).progress_and_log(Progress("log", 0, None, "(APIServer pid=1) INFO raw"))
    assert capsys.readouterr() == ("", "  (APIServer pid=1) INFO raw\n")


def test_programs_hear_of_everything_that_an_engine_does(capsys: pytest.CaptureFixture[str]) -> None:
    events = _events(
        capsys, load("loading m"), load("loading weights"), Progress("log", 0, None, "raw"), load("compiling")
    )
    assert [(event["event"], event["text"]) for event in events] == [
        ("load", "loading m"),
        ("load", "loading weights"),
        ("load", "compiling"),
    ]


def test_programs_hear_of_the_end_of_each_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert [event["done"] for event in _events(capsys, HALF, HALF, HALF._replace(file_done=2_368_439_584), HALF)] == [
        700_000_000,
        2_368_439_584,
    ]
    assert _events(capsys, HALF) == [
        {
            "schema": 1,
            "event": "download",
            "file": "m.gguf",
            "done": 700_000_000,
            "total": 2_368_439_584,
            "total_done": 2_700_000_000,
            "total_bytes": 4_368_439_584,
            "bytes_per_s": 38_000_000,
        }
    ]


def test_why_another_hub_is_tried(capsys: pytest.CaptureFixture[str]) -> None:
    told = Progress("fallback", 0, None, "Hugging Face is out of reach; trying ModelScope")
    assert _events(capsys, told) == [{"schema": 1, "event": "fallback", "message": told.text}]
    Output().progress(told)
    Output(quiet=True).progress(told)
    assert capsys.readouterr() == ("", f"  {told.text}\n")


def test_a_bar_on_a_terminal_and_the_cursor_after_ctrl_c(hub: HubServer, published: str) -> None:
    hub.add_repo(REPO, {FILE: b"GGUF" + bytes(2_000_000)})
    hub.bytes_per_s = 400_000
    with Terminal("pull", NAME, kind="xterm") as terminal:
        seen = terminal.read_until(" left")
        terminal.press_ctrl_c()
        seen += terminal.read_all()
        assert terminal.wait() == 130
    assert FILE in seen
    assert "kB/s" in seen
    assert seen.rindex(SHOW_CURSOR) > seen.rindex(HIDE_CURSOR)


@pytest.mark.usefixtures("published")
def test_a_terminal_that_cannot_be_drawn_on_gets_lines() -> None:
    with Terminal("pull", NAME, kind="dumb") as terminal:
        seen = terminal.read_all()
        assert terminal.wait() == 0
    assert f"download: 100 kB of 100 kB  {FILE}\n" in seen
    assert "\x1b" not in seen


def test_the_screen_is_free_before_an_error(hub: HubServer, published: str) -> None:
    hub.add_repo(REPO, {FILE: b"GGUF" + bytes(400_000)})
    hub.flip_byte(FILE)
    hub.bytes_per_s = 400_000  # or it is over before anything is shown
    with Terminal("pull", NAME, "--hub", "hf", kind="xterm") as terminal:
        before = terminal.read_until("error:")
        assert terminal.read_all().count("%") == 0
        assert terminal.wait() == 1
    assert before.rindex(SHOW_CURSOR) > before.rindex(HIDE_CURSOR)


def _events(capsys: pytest.CaptureFixture[str], *told: Progress) -> list[dict[str, Any]]:
    output = Output(as_json=True)
    for progress in told:
        output.progress(progress)
    output.end_progress()
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]
