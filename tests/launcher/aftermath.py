"""What goes wrong with launches, and what is left then: a server to maltreat, its clients, and a look around."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from launcher.instances import MARK
from tests.fakes import misbehaving_echo
from tests.fakes.faults import LaunchTrial, Trials
from tests.launcher.commands import PROGRAM, Run, command, processes_with, wait_for_event

needs_proc = pytest.mark.skipif(not os.path.isdir("/proc"), reason="processes are found by /proc")
ECHO = ("smollm2", "--engine", "echo")
GONE_WITHIN_S = 5.0
LIMIT_S = 30.0
# Twenty words a second: long enough to be in the middle of it.
SLOWLY = ("--", "--tokens-per-second", "20")
STORY = "once upon a time " * 100


class Aftermath:
    """Gathers the trials of a test, which count when it has turned out that nothing is left."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._noted: list[LaunchTrial] = []

    def note(self, fault: int, through: str, tried: str, happened: str, *, lost: int = 0) -> None:
        """Say what was tried and happened; `lost` requests got neither an answer nor an error."""
        self._noted.append(LaunchTrial(fault, through, tried, happened, lost, 0))

    def close(self, trials: Trials[LaunchTrial]) -> None:
        """Look for what is left and launch once more."""
        left = wait_for_nothing(self._run)
        assert not left, left
        done = self._run(*ECHO, "-p", "hello")
        assert (done.code, done.out) == (0, "hello"), done.err
        for trial in self._noted:
            trials.add(trial)


def wait_for_nothing(run: Run) -> list[str]:
    """Return what is left of all launches of a test, at the latest after the time that they have for their end."""
    deadline = time.monotonic() + GONE_WITHIN_S
    while (left := _left(run)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _left(run: Run) -> list[str]:
    """Return processes, sockets' folders, and records after a `launch ps`, each in words."""
    shown = [f"`launch ps` shows {each}" for each in run("ps", "--json").json]
    sockets = Path(os.environ["XDG_RUNTIME_DIR"]).rglob("*.sock")
    records = (
        path for kind in ("instances", "servers") for path in Path(os.environ["LAUNCH_CACHE"], kind).glob("*.json")
    )
    return [*shown, *(f"process {pid}: {line_of(pid)}" for pid in launched()), *map(str, (*sockets, *records))]


# --- processes -------------------------------------------------------------------------------------------------------


def launched() -> list[int]:
    """Return the processes that this test's launches started, and all that those started."""
    return processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"])


def line_of(pid: int) -> str:
    """Return a process's command line, "" where it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def marked(pid: int) -> bool:
    """Return whether a process has the mark of an instance: an engine, its guard, or what it started."""
    with suppress(OSError):
        return f"\0{MARK}=".encode() in b"\0" + Path(f"/proc/{pid}/environ").read_bytes()
    return False


def guard_pids() -> list[int]:
    return [pid for pid in launched() if "guard.py" in line_of(pid)]


def engine_pids() -> list[int]:
    """Return the engines' own processes, not their guards, whose lines have the engines' at their end."""
    return [pid for pid in launched() if marked(pid) and "echo.py" in (line := line_of(pid)) and "guard" not in line]


def wait_for_engine() -> int:
    """Return the engine's process as soon as there is one."""
    deadline = time.monotonic() + LIMIT_S
    while not (found := engine_pids()):
        assert time.monotonic() < deadline, "there was no engine"
        time.sleep(0.01)
    return found[0]


# --- launches --------------------------------------------------------------------------------------------------------


class Server(NamedTuple):
    """A `launch … --json` that is ready; a program of its own."""

    process: subprocess.Popen[str]
    url: str

    def end(self) -> tuple[int, dict[str, Any]]:
        """Return its exit code and its last event, once it has ended."""
        out, err = self.process.communicate(timeout=LIMIT_S)
        lines = out.splitlines()
        return self.process.returncode, json.loads(lines[-1]) if lines else {"stderr": err}


@contextmanager
def launching(*arguments: str, misbehaves: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Start `launch … --json` at a free port, with the engine that misbehaves in echo's place where that is said."""
    program = misbehaving_echo.PROGRAM if misbehaves else PROGRAM
    words, separator, own = _split(arguments)
    with subprocess.Popen(
        command(*words, "--port", "0", "--json", *separator, *own, program=program),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _split(arguments: Sequence[str]) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    at = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:at], arguments[at : at + 1], arguments[at + 1 :]


@contextmanager
def serving(*arguments: str, misbehaves: bool = False) -> Iterator[Server]:
    with launching(*arguments, misbehaves=misbehaves) as process:
        yield Server(process, wait_for_event(process, "ready")["url"])


# --- clients ---------------------------------------------------------------------------------------------------------


class Heard(NamedTuple):
    """What a client got: the text of a stream, the error that ended it, and whether its end came."""

    status: int
    text: str
    error: dict[str, Any] | None
    is_whole: bool
    is_broken: bool

    @property
    def is_lost(self) -> bool:
        """Whether the client cannot know that its answer is not whole."""
        has_cause = self.error is not None and bool(self.error.get("message"))
        return not (self.is_whole or has_cause or self.is_broken)


class Asking:
    """A request for text that was sent; a stream where nothing else is said."""

    def __init__(self, url: str, prompt: str = STORY, *, headers: dict[str, str] | None = None, **more: object) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(str(address.hostname), address.port, LIMIT_S)
        body = json.dumps({"prompt": prompt, "stream": True, **more})
        self._connection.request("POST", f"{address.path}/completions", body, headers or {})
        self._lines: list[bytes] = []
        self._answer: http.client.HTTPResponse | None = None

    def wait_for_text(self) -> None:
        """Return when the answer has begun."""
        self._answer = self._connection.getresponse()
        while not self._lines or b'"text"' not in self._lines[-1]:
            line = self._answer.readline()
            assert line, "it ended before there was text"
            self._lines.append(line)

    def leave(self) -> None:
        """Close the connection, in the middle or at the end."""
        if self._answer is not None:
            self._answer.close()
        self._connection.close()

    def rest(self) -> Heard:
        """Return what has come when it is over."""
        is_broken = False
        try:
            self._answer = self._answer or self._connection.getresponse()
            self._lines += self._answer.read().splitlines()
        except (http.client.HTTPException, OSError):
            is_broken = True
        finally:
            self.leave()
        return heard(0 if self._answer is None else self._answer.status, self._lines, is_broken=is_broken)


def asking(url: str, count: int) -> list[Asking]:
    """Return streams that have begun."""
    streams = [Asking(url) for _ in range(count)]
    for stream in streams:
        stream.wait_for_text()
    return streams


def metric(url: str, name: str, **labels: str) -> float:
    """Return a sample of the endpoint's metrics, 0 where it is not there."""
    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/metrics", timeout=LIMIT_S) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = (sample for family in families for sample in family.samples)
    return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())


def wait_for_metric(url: str, name: str, value: float, **labels: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while metric(url, name, **labels) != value:
        assert time.monotonic() < deadline, f"{name} did not become {value}"
        time.sleep(0.02)


def heard(status: int, lines: Sequence[bytes], *, is_broken: bool = False) -> Heard:
    """Return what the lines of a stream, or of a refusal, say."""
    if status != 200:
        return Heard(status, "", json.loads(b"".join(lines) or b"{}").get("error"), False, is_broken)
    events = [line.removeprefix(b"data: ").strip() for line in lines if line.startswith(b"data: ")]
    is_whole = b"[DONE]" in events
    said = [json.loads(event) for event in events if event != b"[DONE]"]
    error = next((each["error"] for each in said if "error" in each), None)
    text = "".join(choice["text"] for each in said for choice in each.get("choices", ()))
    return Heard(status, text, error, is_whole and error is None, is_broken)
