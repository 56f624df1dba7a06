"""What runs, as others see it and use it: records, attaching, and what is left when something was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher import launch
from launcher.instances import running_instances
from tests.fakes.scripted_engine import wait_until_gone
from tests.launcher.commands import LIMIT_S, Run, command, processes_with
from tests.launcher.commands import launch as launch_program

pytestmark = pytest.mark.processes

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are found by /proc")
ECHO = ("smollm2", "--engine", "echo")
# A program that uses a model until its stdin is closed, or it is killed.
USER = """
import sys
from launcher import launch
model = launch("smollm2", engine="echo")
print(model.chat("hello").text, flush=True)
sys.stdin.readline()
model.close()
print("closed", flush=True)
"""


def ours() -> list[int]:
    return processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"])


def using() -> subprocess.Popen[str]:
    """Start a program that has a handle on the model."""
    user = subprocess.Popen([sys.executable, "-c", USER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert user.stdout is not None
    assert user.stdout.readline() == "hello\n"
    return user


@pytest.fixture
def server(run: Run) -> Iterator[str]:
    """Run a detached server; yield the first lines that it said."""
    done = launch_program(*ECHO, "--detach", "--port", "0")
    assert done.code == 0, done.err
    yield done.err
    run("stop", "--all")
    assert ours() == []


# --- one engine, many users ------------------------------------------------------------------------------------------


def test_two_handles_share_an_engine_which_ends_with_the_last() -> None:
    with launch("smollm2", engine="echo") as first:
        with launch("smollm2", engine="echo") as second:
            assert len(running_instances()) == 1
            assert second.chat("hello").text == first.chat("hello").text == "hello"
        assert first.chat("still there").text == "still there"
    assert running_instances() == []


@needs_proc
def test_the_first_user_may_leave_before_the_second() -> None:
    with using() as first, using() as second:
        assert len(running_instances()) == 1
        assert first.communicate("\n", timeout=LIMIT_S)[0] == "closed\n"
        (instance,) = running_instances()
        assert instance.state == "ready"
        assert second.communicate("\n", timeout=LIMIT_S)[0] == "closed\n"
    assert wait_until_gone(ours(), 2) == []
    assert running_instances() == []


@needs_proc
def test_a_user_that_is_killed_leaves_it_to_the_others() -> None:
    with using() as first, using() as second:
        first.kill()
        first.wait()
        assert len(running_instances()) == 1
        assert second.communicate("\n", timeout=LIMIT_S)[0] == "closed\n"
    assert wait_until_gone(ours(), 2) == []


@pytest.mark.parametrize("options", [{"reuse": False}, {"concurrency": 9}, {"context_length": 8000, "threads": 2}])
def test_another_is_started_where_that_is_wanted_or_the_running_one_does_not_do(options: dict[str, object]) -> None:
    with launch("smollm2", engine="echo"), launch("smollm2", engine="echo", **options):  # type: ignore[arg-type]
        assert len(running_instances()) == 2


def test_less_than_the_running_one_has_is_served_by_it() -> None:
    with (
        launch("smollm2", engine="echo", context_length=4096, concurrency=2),
        launch("smollm2", engine="echo", context_length=1024, concurrency=1) as second,
    ):
        assert len(running_instances()) == 1
        assert second.context_length == 4096


def test_the_command_line_uses_what_runs_and_says_so(run: Run) -> None:
    with launch("smollm2", engine="echo"):
        (instance,) = running_instances()
        done = run(*ECHO, "-p", "hello")
        assert (done.code, done.out) == (0, "hello")
        assert done.err == f"using the running smollm2-instruct, pid {instance.pid}\n"
        done = run(*ECHO, "-p", "hello", "--new")
        assert "using the running" not in done.err


def test_an_engine_that_is_kept_waits_for_the_next(run: Run) -> None:
    assert run(*ECHO, "-p", "hello", "--keep", "10m").out == "hello"
    assert [each.state for each in running_instances()] == ["ready"]
    assert "using the running" in run(*ECHO, "-p", "again").err
    assert run("stop", "smollm2").code == 0
    assert running_instances() == []


@pytest.mark.parametrize("text", ["soon", "-1", "90", "1.5x", "h", "²s"])
def test_a_time_that_is_none(run: Run, text: str) -> None:
    done = run(*ECHO, "-p", "hello", f"--keep={text}")
    assert done.code == 2
    assert f"error: `--keep` must be a time such as `90s`, `10m` or `2h`, not `{text}`\n" in done.err


# --- a server without a terminal -------------------------------------------------------------------------------------


def test_a_detached_server_says_where_it_serves_and_goes_on(server: str, run: Run) -> None:
    assert "ready in " in server
    assert "Ctrl-C" not in server
    (record,) = run("ps", "--json").json
    assert record["name"] == "smollm2-instruct"
    assert record["state"] == "ready"
    assert record["url"] in server
    assert record["memory_bytes"] > 1_000_000
    assert record["uptime_s"] >= 0


def test_it_is_stopped_by_its_alias_and_once_more(server: str, run: Run) -> None:
    done = run("stop", "smollm2")
    assert (done.code, ours()) == (0, [])
    assert run("ps").err == "nothing runs\n"
    done = run("stop", "smollm2")
    assert (done.code, done.err) == (0, "`smollm2` does not run\n")


def test_its_logs_are_read_while_it_runs_and_afterwards(server: str, run: Run) -> None:
    assert "ready in " in run("logs", "smollm2", "--server").out
    while_it_runs = run("logs", "smollm2").out
    assert while_it_runs
    run("stop", "smollm2")
    done = run("logs", "smollm2-instruct")
    assert done.out.startswith(while_it_runs)
    assert done.err == "`smollm2-instruct` does not run; this is what it said last\n"


def test_logs_are_followed_until_it_ends(server: str, run: Run) -> None:
    with subprocess.Popen(command("logs", "smollm2", "-f"), stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline()
        run("stop", "smollm2")
        assert following.wait(LIMIT_S) == 0


def test_it_starts_again_with_the_same_options(server: str, run: Run) -> None:
    (before,) = run("ps", "--json").json
    assert launch_program("restart", "smollm2").code == 0
    (after,) = run("ps", "--json").json
    assert after["pid"] != before["pid"]
    assert after["state"] == "ready"


def test_it_starts_again_with_its_key(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as environment:
        environment.setenv("LAUNCH_API_KEY", "sk-somebody-has-to-show-this")
        assert launch_program(*ECHO, "--detach", "--port", "0").code == 0
    assert launch_program("restart", "smollm2").code == 0
    (running,) = run("ps", "--json").json
    with pytest.raises(urllib.error.HTTPError, match="401") as raised:
        urllib.request.urlopen(f"{running['url']}/models")
    raised.value.close()
    run("stop", "--all")


def test_a_key_in_sight_is_refused_where_it_would_stay_so(run: Run) -> None:
    for words in ((*ECHO, "--detach"), ("export", "systemd", *ECHO)):
        done = run(*words, "-ak", "sk-somebody-has-to-show-this")
        assert done.code == 2
        assert "`--api-key` would be in sight as long as it runs" in done.err
        assert "somebody" not in done.out + done.err


def test_what_somebody_else_holds_is_not_restarted(run: Run) -> None:
    with launch("smollm2", engine="echo"):
        done = run("restart", "smollm2")
        assert done.code == 1
        assert "was not started with `--detach`" in done.err
        assert done.err.endswith("hint: launch stop smollm2\n")


def test_a_server_that_fails_ends_the_command_with_its_cause(run: Run) -> None:
    done = launch_program(*ECHO, "--detach", "--port", "0", "--", "--no-such-option")
    assert done.code == 1
    assert done.err.count("\nerror: ") == 1
    assert "no-such-option" in done.err
    assert run("ps").err == "nothing runs\n"


# --- after a crash ---------------------------------------------------------------------------------------------------


@needs_proc
def test_after_the_servers_death_nothing_runs(server: str, run: Run) -> None:
    (record,) = run("ps", "--json").json
    os.kill(record["pid"], signal.SIGKILL)
    ends_at = time.monotonic() + 10
    while run("ps", "--json").json and time.monotonic() < ends_at:
        time.sleep(0.05)
    assert wait_until_gone(ours(), 2) == []
    assert launch_program(*ECHO, "-p", "hello").out == "hello"


def record_of_the_past() -> tuple[Path, dict[str, Any]]:
    """Return where a record was, and what it said, of an instance that has ended."""
    with launch("smollm2", engine="echo"):
        (path,) = Path(os.environ["LAUNCH_CACHE"], "instances").glob("*.json")
        record = json.loads(path.read_text())
    assert not path.exists()
    return path, record


@needs_proc
def test_what_a_killed_guard_left_is_ended_by_ps(run: Run) -> None:
    path, record = record_of_the_past()
    with subprocess.Popen(("sleep", "600"), env={**os.environ, "LAUNCH_INSTANCE": record["number"]}) as left:
        path.write_text(json.dumps(record))
        assert run("ps").err == "nothing runs\n"
        assert left.wait(LIMIT_S) == -signal.SIGKILL
    assert not path.exists()


def test_a_process_that_has_got_the_number_of_another_is_not_taken_for_it(run: Run) -> None:
    path, record = record_of_the_past()
    path.write_text(json.dumps({**record, "guard": [os.getpid(), record["guard"][1] - 3600]}))
    assert run("ps").err == "nothing runs\n"
    assert run("stop", "smollm2").err == "`smollm2` does not run\n"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 99}', '{"schema": 1, "name": 3}'])
def test_records_that_make_no_sense_are_left_alone(run: Run, text: str) -> None:
    path = Path(os.environ["LAUNCH_CACHE"], "instances", "x.json")
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert run("ps").err == "nothing runs\n"
    assert path.exists()
