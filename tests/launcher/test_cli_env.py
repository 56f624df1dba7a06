"""`launch env`: lines that a shell takes, for the endpoint that runs."""

from __future__ import annotations

import subprocess

import pytest

from launcher import connect
from tests.fakes.answering import answering
from tests.fakes.echo import free_port
from tests.launcher.commands import Run, command, started, wait_for_event

NAMES = ("OPENAI_BASE_URL", "OPENAI_API_KEY", "OPENAI_MODEL", "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY")
ODD = 'it\'s a "na me"; $(touch /tmp/x) `id`\\'


def test_the_running_model_is_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with started("mistral-instruct-v0.2", "--engine", "echo", "--port", "0", "--json") as server:
        url = str(wait_for_event(server, "ready")["url"])
        for named in (url, url.removesuffix("/v1"), url.removeprefix("http://")):
            monkeypatch.setenv("LAUNCH_URL", named)
            assert run("env", "--json").json["variables"] == {
                "OPENAI_BASE_URL": url,
                "OPENAI_API_KEY": "none",
                "OPENAI_MODEL": "mistral-instruct-v0.2",
                "ANTHROPIC_BASE_URL": url.removesuffix("/v1"),
                "ANTHROPIC_API_KEY": "none",
            }
        monkeypatch.delenv("LAUNCH_URL")
        found = [run("env", *name, "--json").json["variables"] for name in ((), ("mistral-7b-instruct-v0.2",))]
        assert {variables["OPENAI_BASE_URL"] for variables in found} == {url}
        with connect() as newest, connect(model="mistral-7b-instruct-v0.2") as named_so:
            assert newest.base_url == named_so.base_url == url
        assert run("env", "other", "--json").json["variables"]["OPENAI_BASE_URL"] == "http://127.0.0.1:8000/v1"
        server.terminate()
        assert server.wait(30) == 0


def test_a_shell_takes_the_lines_whatever_is_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_URL", "https://gpu1:8443/")
    monkeypatch.setenv("LAUNCH_API_KEY", ODD)
    program = f'eval "$("$@")"; for name in {" ".join(NAMES)}; do eval "printf \'%s\\n\' \\"\\${{$name}}\\""; done'
    done = subprocess.run(["sh", "-c", program, "sh", *command("env", ODD)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["https://gpu1:8443/v1", ODD, ODD, "https://gpu1:8443", ODD]
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("shell", "line"),
    [
        ("sh", "export OPENAI_MODEL='a'\"'\"'b\\'"),
        ("fish", r"set -gx OPENAI_MODEL 'a\'b\\'"),
        ("powershell", "$env:OPENAI_MODEL = 'a''b\\'"),
    ],
)
def test_lines_of_other_shells(run: Run, shell: str, line: str) -> None:
    assert run("env", "a'b\\", "--shell", shell).out.splitlines()[2] == line


def test_by_default_it_is_the_default_address_without_a_key(run: Run) -> None:
    lines = run("env", "some-model").out.splitlines()
    assert lines[0] == "export OPENAI_BASE_URL=http://127.0.0.1:8000/v1"
    assert lines[1] == "export OPENAI_API_KEY=none"
    assert lines[3] == "export ANTHROPIC_BASE_URL=http://127.0.0.1:8000"


def test_another_shell_is_wrong_usage(run: Run) -> None:
    done = run("env", "x", "--shell", "csh")
    assert (done.code, done.out) == (2, "")
    assert done.err == "error: `--shell` must be one of sh, fish, powershell, not `csh`\n"


def test_nothing_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    monkeypatch.setenv("LAUNCH_URL", url)
    done = run("env")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(
        f"error: Nothing answers at `{url}`: Connection refused\n\nhint: launch smollm2-instruct"
    )
    error = run("env", "--json").json
    assert (error["event"], error["kind"], error["facts"]["url"]) == ("error", "endpoint", url)


@pytest.mark.parametrize(
    ("status", "body", "cause"),
    [
        (401, b"{}", "`{url}` wants a key"),
        (404, b"{}", "`{url}` is no OpenAI-compatible endpoint"),
        (200, b"<html>", "`{url}` is no OpenAI-compatible endpoint"),
        (200, b'{"data": [{}]}', "`{url}` is no OpenAI-compatible endpoint"),
        (200, b'{"data": []}', "`{url}` serves no model now"),
    ],
)
def test_what_answers_is_of_no_use(
    run: Run, monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, cause: str
) -> None:
    with answering(status, body) as url:
        monkeypatch.setenv("LAUNCH_URL", url)
        done = run("env")
        assert (done.code, done.out) == (1, "")
        assert done.err.startswith(f"error: {cause.format(url=url)}")
        assert "\n\nhint: " in done.err
