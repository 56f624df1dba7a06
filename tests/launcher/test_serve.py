"""`launch NAME` without a question: the endpoint, what clients can do with it, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.echo import free_port
from tests.fakes.scripted_engine import wait_until_gone
from tests.launcher.commands import Run, processes_with, started, wait_for_event

pytestmark = pytest.mark.processes

MISTRAL = ("mistral-instruct-v0.2", "--engine", "echo")
GONE_WITHIN_S = 2.0
LIMIT_S = 30


@dataclass(frozen=True, slots=True)
class Serving:
    """A `launch NAME --json` that is ready; `pids` are its process and all that it has started."""

    process: subprocess.Popen[str]
    ready: dict[str, Any]
    pids: list[int]

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def engine_pid(self) -> int:
        """The engine's own process, not the launcher's nor the guard's, whose lines have the engine's at their end."""
        lines = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in self.pids}
        return next(pid for pid, line in lines.items() if "echo.py" in line and "guard.py" not in line)

    def wait(self) -> int:
        return self.process.wait(LIMIT_S)


@contextmanager
def serving(*arguments: str) -> Iterator[Serving]:
    with started("--port", "0", "--json", *(arguments or MISTRAL)) as process:
        ready = wait_for_event(process, "ready")
        yield Serving(process, ready, processes_with("XDG_RUNTIME_DIR", os.environ["XDG_RUNTIME_DIR"]))


def post(url: str, body: object) -> Any:
    """Return the JSON that a POST of JSON is answered with, as curl would get it."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
        return json.load(answer)


def test_ready_says_where() -> None:
    with serving() as server:
        assert set(server.ready) == {"schema", "event", "url", "pid", "name"}
        assert (server.ready["schema"], server.ready["name"]) == (1, "mistral-instruct-v0.2")
        assert server.ready["pid"] == server.process.pid
        assert server.url.startswith("http://127.0.0.1:")
        assert server.url.endswith("/v1")
        with urllib.request.urlopen(server.url.removesuffix("/v1") + "/health", timeout=LIMIT_S) as answer:
            assert answer.status == 200


def test_what_happens_is_told_on_stderr() -> None:
    with started(*MISTRAL, "--port", str(port := free_port())) as process:
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if '"messages"' in line:
                break
        process.terminate()
        assert process.wait(LIMIT_S) == 0
        assert process.stdout is not None
        assert process.stdout.read() == ""
    text = "".join(lines)
    assert text.startswith("mistral-instruct-v0.2 as gguf Q4_K_M on echo\n")
    assert re.search(rf"\nready.*   http://127\.0\.0\.1:{port}/v1   context 8,192 for each of 4   device ", text)
    assert f"curl http://127.0.0.1:{port}/v1/chat/completions" in text


def test_openais_own_client() -> None:
    talk: list[Any] = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "hello there  world"}]
    with serving() as server, openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client:
        assert "mistral-instruct-v0.2" in [model.id for model in client.models.list()]
        reply = client.chat.completions.create(model="mistral-instruct-v0.2", messages=talk)
        assert reply.choices[0].message.content == "hello there  world"
        assert (reply.choices[0].finish_reason, reply.usage and reply.usage.completion_tokens) == ("stop", 3)
        with client.chat.completions.create(model="mistral-instruct-v0.2", messages=talk, stream=True) as stream:
            pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert "".join(pieces) == "hello there  world"
        assert len([piece for piece in pieces if piece]) == 3
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="other", messages=talk)


def test_the_seeds_request_by_each_of_its_names() -> None:
    names = ("mistral-instruct-v0.2", "mistral-7b-instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.2")
    with serving() as server:
        for name in (*names, "TheBloke/Mistral-7B-Instruct-v0.2-GGUF"):
            answer = post(f"{server.url}/completions", {"model": name, "prompt": "San Francisco is a", "max_tokens": 2})
            assert answer["choices"][0]["text"] == "San Francisco"
            assert answer["choices"][0]["finish_reason"] == "length"


def test_a_wrong_value_is_refused_with_openais_error() -> None:
    with serving() as server, pytest.raises(urllib.error.HTTPError) as caught:
        post(f"{server.url}/completions", {"model": MISTRAL[0], "prompt": "x", "top_p": 2})
    with caught.value as refused:
        assert refused.code == 400
        assert "top_p" in json.load(refused)["error"]["message"]


def test_term_ends_it_well() -> None:
    with serving() as server:
        server.process.terminate()
        assert server.wait() == 0
        assert wait_until_gone(server.pids, GONE_WITHIN_S) == []


def test_term_lets_an_answer_end() -> None:
    words = "word " * 20
    with (
        serving(*MISTRAL, "--", "--tokens-per-second", "20") as server,
        openai.OpenAI(base_url=server.url, api_key="none", max_retries=0) as client,
        client.completions.create(model=MISTRAL[0], prompt=words.strip(), stream=True) as stream,
    ):
        pieces = [next(iter(stream)).choices[0].text]
        server.process.terminate()
        pieces += [chunk.choices[0].text for chunk in stream if chunk.choices]
        assert "".join(pieces) == words.strip()
        assert server.wait() == 0


def test_ctrl_c_ends_it() -> None:
    with serving() as server:
        server.process.send_signal(signal.SIGINT)
        assert server.wait() == 130
        assert wait_until_gone(server.pids, GONE_WITHIN_S) == []


def test_killed_it_leaves_nothing(run: Run) -> None:
    with serving() as server:
        assert len(server.pids) == 3 or not os.path.isdir("/proc")
        server.process.kill()
        assert wait_until_gone(server.pids, GONE_WITHIN_S) == []
        run("ps")  # its own socket is beyond the guard's knowledge
        assert list(Path(os.environ["XDG_RUNTIME_DIR"], "model-launcher").iterdir()) == []


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="the engine's process is found by /proc")
def test_an_engine_that_dies_and_is_not_to_be_started_again_is_an_error() -> None:
    with serving(*MISTRAL, "--max-restarts", "0") as server:
        os.kill(server.engine_pid, signal.SIGKILL)
        assert server.wait() == 1
        assert server.process.stdout is not None
        error = json.loads(server.process.stdout.read().splitlines()[-1])
        assert (error["event"], error["kind"], error["facts"]["exit_code"]) == ("error", "load", 137)
        assert wait_until_gone(server.pids, GONE_WITHIN_S) == []


def test_requests_are_written_to_the_access_log(tmp_path: Path) -> None:
    log = tmp_path / "access.jsonl"
    with serving(*MISTRAL, "--access-log", str(log), "--max-queue", "3") as server:
        post(f"{server.url}/completions", {"prompt": "San Francisco is a", "max_tokens": 2})
        with urllib.request.urlopen(server.url.removesuffix("/v1") + "/version", timeout=LIMIT_S) as answer:
            assert json.load(answer)["models"][MISTRAL[0]]["engine"] == "echo"
        server.process.terminate()
        assert server.wait() == 0
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["route"], line["status"]) for line in lines] == [("/v1/completions", 200), ("/version", 200)]
    assert (lines[0]["model"], lines[0]["completion_tokens"]) == (MISTRAL[0], 2)


def test_an_access_log_that_cannot_be_written_is_said_before_anything_starts(run: Run, tmp_path: Path) -> None:
    done = run(*MISTRAL, "--port", "0", "--access-log", str(tmp_path))
    assert done.code == 1
    assert f"The access log `{tmp_path}` cannot be written: Is a directory" in done.err
