"""`launch export systemd`: a unit whose words are those that systemd reads."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.systemd import unit, unit_name
from tests.launcher.commands import launch

LINE = ("export", "systemd", "smollm2", "--engine", "echo", "--port", "8123")


def command_in(text: str) -> str:
    return next(line.removeprefix("ExecStart=") for line in text.split("\n") if line.startswith("ExecStart="))


def test_it_serves_what_the_command_line_says() -> None:
    done = launch(*LINE)
    assert done.code == 0, done.err
    assert command_in(done.out) == f"{sys.executable} -P -m launcher smollm2 --engine echo --port 8123"
    assert "RestartPreventExitStatus=2\n" in done.out
    assert "systemctl --user enable --now launch-smollm2-instruct.service" in done.err


def test_it_runs_where_it_was_asked_for_so_that_paths_hold(tmp_path: Path) -> None:
    folder = tmp_path / "100 % mine"
    folder.mkdir()
    done = launch(*LINE, folder=folder)
    assert f"WorkingDirectory={str(folder).replace('%', '%%')}\n" in done.out


def test_it_serves_the_models_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text("models: [smollm2-instruct]\n")
    line = ("export", "systemd", "--config", "small.yaml", "--port", "8123")
    done = launch(*line, folder=tmp_path)
    assert done.code == 0, done.err
    assert command_in(done.out) == f"{sys.executable} -P -m launcher serve --config small.yaml --port 8123"
    assert "systemctl --user enable --now launch-small.service" in done.err
    assert launch(*line, "--engine", "echo", folder=tmp_path).code == 2
    (tmp_path / "small.yaml").write_text("modles: []\n")
    assert "did you mean `models`" in launch(*line, folder=tmp_path).err


def test_what_could_not_be_served_is_refused() -> None:
    done = launch(*LINE, "--host", "0.0.0.0")
    assert done.code != 0
    assert done.out == ""


def test_the_key_of_now_is_in_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "EnvironmentFile" not in launch(*LINE).out
    monkeypatch.setenv("LAUNCH_API_KEY", r"k$ey-\"1`")
    done = launch(*LINE)
    assert "\nEnvironmentFile=%h/.config/systemd/user/launch-smollm2-instruct.env\n" in done.out
    assert "k$ey" not in done.out + done.err
    (line,) = [line for line in done.err.splitlines() if "umask" in line]
    (Path.home() / ".config/systemd/user").mkdir(parents=True)
    subprocess.run(("sh", "-c", line.removeprefix("#")), check=True)
    written = Path.home() / ".config/systemd/user/launch-smollm2-instruct.env"
    assert written.read_text() == "LAUNCH_API_KEY='k$ey-\\\"1`'\n"
    assert written.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd to ask")
def test_systemd_understands_it(tmp_path: Path) -> None:
    path = tmp_path / "launch.service"
    path.write_text(launch(*LINE).out)
    done = subprocess.run(("systemd-analyze", "verify", "--user", path), capture_output=True, text=True, check=False)
    assert "launch.service" not in done.stderr


WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(WORDS, min_size=1))
def test_any_words_come_through_as_they_are(words: list[str]) -> None:
    assert read(command_in(unit("name", words, Path("/")))) == words


def read(line: str) -> list[str]:
    """Return the words of a command as systemd reads them (systemd.syntax, systemd.service)."""
    words, word, is_quoted, is_escaped, is_begun = [], "", False, False, False
    for character in line:
        if is_escaped:
            word, is_escaped = word + {"n": "\n", "r": "\r"}.get(character, character), False
        elif character == "\\":
            is_escaped = is_begun = True
        elif character == '"':
            is_quoted, is_begun = not is_quoted, True
        elif character in " \t" and not is_quoted:
            words += [word] if is_begun else []
            word, is_begun = "", False
        else:
            word, is_begun = word + character, True
    words += [word] if is_begun else []
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


@pytest.mark.parametrize(("model", "file"), [("smollm2", "launch-smollm2.service"), ("a/b c", "launch-a-b-c.service")])
def test_its_file_has_a_name_that_systemd_takes(model: str, file: str) -> None:
    assert unit_name(model) == file
