"""`launch NAME -p`: where questions come from, and that stdout holds the answers and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.launcher.commands import Run, Terminal, command, launch, processes_with, started

pytestmark = pytest.mark.processes

ECHO = ("smollm2-instruct", "--engine", "echo")
HEADLINE = "smollm2-instruct as gguf Q4_1 on echo\n"


@pytest.mark.parametrize("question", ["hello", "  two  spaces\tand a tab  ", "a line\n", "Grüße, 世界 🌍", "'\"`$HOME"])
def test_the_answer_alone_is_on_stdout_byte_for_byte(question: str) -> None:
    done = subprocess.run(command(*ECHO, "-p", question), stdin=subprocess.DEVNULL, capture_output=True, check=True)
    assert done.stdout.decode() == question
    assert done.stderr.decode() == HEADLINE


def test_answers_keep_the_questions_order(run: Run) -> None:
    done = run(*ECHO, "-p", "one", "--prompt", "two\n", "-p", "three")
    assert (done.code, done.out) == (0, "one\n\ntwo\n\nthree")


def test_a_question_from_a_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "question.txt").write_text("Wie geht’s?\n", encoding="utf-8")
    assert run(*ECHO, "-p", f"@{tmp_path}/question.txt").out == "Wie geht’s?"


def test_a_question_from_a_pipe() -> None:
    assert launch(*ECHO, "-p", "-", stdin="from a pipe\n").out == "from a pipe"
    assert launch(*ECHO, "-p", "Sum up:", stdin="many\nlines\n").out == "Sum up:\n\nmany\nlines"
    assert launch(*ECHO, "-p", "one", "-p", "two", stdin="more").out == "one\n\ntwo\n\nmore"
    assert launch(*ECHO, "-p", "one", "-p", "-", stdin="two").out == "one\n\ntwo"


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="the engine's process is found by /proc")
def test_an_engine_killed_while_it_answers_is_the_cause() -> None:
    slow = ("--", "--tokens-per-second", "5")
    with started(*ECHO, "-p", "a b c d e f g h i j k l m n o p", *slow) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(1) == "a"
        lines = {
            pid: Path(f"/proc/{pid}/cmdline").read_text()
            for pid in processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"])
        }
        os.kill(
            next(pid for pid, line in lines.items() if "echo.py" in line and "guard.py" not in line), signal.SIGKILL
        )
        assert process.wait(30) == 1
        assert "error: `echo` ended by SIGKILL\n" in process.stderr.read()


def test_a_question_from_a_redirected_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("the text")
    with (tmp_path / "text").open() as stdin:
        done = subprocess.run(command(*ECHO, "-p", "Read:"), stdin=stdin, capture_output=True, text=True, check=True)
    assert done.stdout == "Read:\n\nthe text"


def test_the_template_is_used_unless_raw(run: Run, tmp_path: Path) -> None:
    """Echo says how many tokens it read: the template's words, and those of the system message, are among them."""
    (tmp_path / "system").write_text("Be very brief")

    def tokens_read(*more: str) -> int:
        tokens = run(*ECHO, "-p", "hello", "--json", *more).json["usage"]["prompt_tokens"]
        assert isinstance(tokens, int)
        return tokens

    assert tokens_read("--raw") == 2  # the word, and the beginning of the text
    assert tokens_read() == 5
    assert tokens_read("--system", "Be brief") == tokens_read("--system", f"@{tmp_path}/system") - 1 == 9


def test_the_sampling_options_reach_the_engine(run: Run) -> None:
    limited = run(*ECHO, "-p", "one two three", "--max_tokens", "2", "--json").json
    assert (limited["text"], limited["finish_reason"]) == ("one two", "length")
    stopped = run(*ECHO, "-p", "one two three four", "--stop", "four", "--stop", " three", "--json").json
    assert (stopped["text"], stopped["finish_reason"]) == ("one two", "stop")


def test_every_sampling_option_is_understood(run: Run) -> None:
    options = ("--temperature", "0", "--top-p", "0.9", "--top-k", "40", "--min-p", "0.1", "--seed", "7")
    assert run(*ECHO, "-p", "hello", *options, "--repetition-penalty", "1.1").out == "hello"


def test_one_json_object_a_question(run: Run) -> None:
    done = run(*ECHO, "-p", "one", "-p", "two words", "--json")
    assert done.err == ""
    assert [(answer["event"], answer["text"]) for answer in done.events] == [("answer", "one"), ("answer", "two words")]
    answer = done.events[1]
    assert set(answer) == {"schema", "event", "text", "reasoning", "finish_reason", "usage", "timings", "notes"}
    assert answer["usage"] == {"prompt_tokens": 6, "completion_tokens": 2, "reasoning_tokens": 0, "total_tokens": 8}
    assert set(answer["timings"]) == {"queue_s", "first_token_s", "total_s", "tokens_per_s"}


def test_an_answer_by_a_schema_is_json(run: Run, tmp_path: Path) -> None:
    schema = tmp_path / "boat.json"
    schema.write_text('{"type": "object", "properties": {"boat": {"const": "Nyx"}}, "required": ["boat"]}')
    done = run(*ECHO, "-p", "A boat?", "--json-schema", str(schema))
    assert (done.code, json.loads(done.out)) == (0, {"boat": "Nyx"})
    done = run(*ECHO, "-p", "A boat?", "--json-schema", str(tmp_path / "gone.json"))
    assert (done.code, done.out) == (2, "")
    assert "cannot be read as a JSON schema" in done.err
    assert run(*ECHO, "-p", "A boat?", "--raw", "--json-schema", str(schema)).code == 2


def test_what_the_template_does_not_know_is_said_once(run: Run) -> None:
    done = run(*ECHO, "-p", "one", "-p", "two", "--system", "Be brief.", "--", "--no-system-role")
    assert (done.code, done.out) == (0, "Be brief.\n\none\n\nBe brief.\n\ntwo")
    assert done.err.count("has no system role") == 1


def test_what_the_model_cannot_do_is_refused_before_anything_starts(run: Run) -> None:
    for options in (("--reasoning", "on"), ("--suffix", "end")):
        done = run(*ECHO, "-p", "begin", *options)
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith("error: `smollm2-instruct` ")


def test_quiet_leaves_the_answer(run: Run) -> None:
    done = run(*ECHO, "-p", "hello", "--quiet")
    assert (done.code, done.out, done.err) == (0, "hello", "")


def test_a_quiet_error_is_still_told(run: Run) -> None:
    assert run("xyzzy", "-p", "hello", "--quiet").err.startswith("error: No model is called `xyzzy`")


def test_verbose_shows_what_the_engine_says(run: Run) -> None:
    assert run(*ECHO, "-p", "hello", "-v").out == "hello"


def test_a_question_longer_than_the_context(run: Run) -> None:
    done = run(*ECHO, "-p", "word " * 40, "--context-length", "32")
    assert (done.code, done.out) == (1, "")
    assert "error: " in done.err
    assert "32" in done.err


def test_on_a_terminal_the_answer_ends_its_line() -> None:
    with Terminal(*ECHO, "-p", "hello") as terminal:
        assert terminal.read_all() == f"{HEADLINE}hello\n"
        assert terminal.wait() == 0


def test_an_engine_option_changes_the_answer(run: Run) -> None:
    assert run(*ECHO, "-p", "hello", "--", "--reply", "something else").out == "something else"


def test_ctrl_c_ends_a_long_answer_and_all_else() -> None:
    with Terminal(*ECHO, "-p", "word " * 500, "--", "--tokens-per-second", "20") as terminal:
        terminal.read_until("word word")
        terminal.press_ctrl_c()
        assert "Traceback" not in terminal.read_all()
        assert terminal.wait() == 130


def test_a_reader_that_leaves_ends_it() -> None:
    with started(*ECHO, "-p", "word " * 500, "--", "--tokens-per-second", "200") as process:
        assert process.stdout is not None
        assert process.stdout.read(9) == "word word"
        process.stdout.close()
        assert process.wait(20) == 1
        assert process.stderr is not None
        assert process.stderr.read() == HEADLINE
