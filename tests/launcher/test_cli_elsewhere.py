"""`-p` and `launch chat` with `--url` or LAUNCH_URL: what runs there is asked, and nothing is started here."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from launcher.exposure import Exposure
from launcher.gateway import GatewayThread
from launcher.keys import key_of
from tests.fakes.echo import RunningEcho, free_port, running_echo
from tests.fakes.endpoint import Answer, Endpoint
from tests.fakes.gateway import gateway_to, served_by
from tests.launcher.commands import Run

ASK = ("-p", "hello there")


@pytest.fixture(scope="module")
def echo() -> Iterator[RunningEcho]:
    with running_echo("--no-system-role") as echo:
        yield echo


@pytest.fixture(scope="module")
def url(echo: RunningEcho) -> Iterator[str]:
    with gateway_to(served_by(echo)) as url:
        yield url.removesuffix("/v1")


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Let `launch chat` read what is typed into it here."""
    monkeypatch.setattr("sys.stdin", io.StringIO("hello  there\n/exit\n"))
    return monkeypatch


@pytest.mark.parametrize("named", [(), ("echo-model",), ("--model-name", "echo"), ("acme/Echo-Model-GGUF",)], ids=str)
def test_a_question_is_answered_from_there(run: Run, url: str, named: tuple[str, ...]) -> None:
    done = run(*named, *ASK, "--url", url)
    assert (done.code, done.out, done.err) == (0, "hello there", f"using echo-model at {url}/v1\n")


def test_the_variable_does_the_same_and_settings_of_a_launch_may_stay(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAUNCH_URL", f"{url}/v1")
    monkeypatch.setenv("LAUNCH_ENGINE", "llama.cpp")
    done = run(*ASK, "-p", "second", "--max-tokens", "1")
    assert (done.code, done.out) == (0, "hello\n\nsecond")
    assert run("smollm2-instruct", "--dry-run").code == 0


def test_for_programs_it_is_one_object(run: Run, url: str) -> None:
    done = run(*ASK, "--url", url, "--json")
    (answer,) = done.events
    assert (answer["event"], answer["text"], answer["usage"]["completion_tokens"]) == ("answer", "hello there", 2)


def test_a_prompt_may_be_raw(run: Run, url: str) -> None:
    assert run(*ASK, "--url", url, "--raw").out == "hello there"


def test_a_model_without_a_template_is_given_the_prompt_as_it_is(run: Run, echo: RunningEcho) -> None:
    base = replace(echo, target=echo.target._replace(abilities=frozenset()))
    with gateway_to(served_by(base)) as url:
        done = run(*ASK, "--url", url)
    assert (done.code, done.out) == (0, "hello there")
    assert done.err.endswith("`echo-model` has no chat template: the prompt is given as it is\n")


@pytest.mark.usefixtures("typed")
def test_a_conversation(run: Run, url: str) -> None:
    done = run("chat", "--url", url, "--system", "Be brief.")
    assert (done.code, done.out) == (0, "Be brief.\n\nhello  there\n")
    assert done.err.startswith(f"using echo-model at {url}/v1\n/system TEXT sets")
    assert "the template of `echo-model` has no system role" in done.err


def test_a_conversation_by_the_variable(run: Run, url: str, typed: pytest.MonkeyPatch) -> None:
    typed.setenv("LAUNCH_URL", url)
    assert run("chat", "echo").out == "hello  there\n"


def test_an_endpoint_that_has_too_much_to_do_does_not_end_the_conversation(run: Run, typed: pytest.MonkeyPatch) -> None:
    busy = Answer(429, {"error": {"message": "16 requests wait"}}, {"Retry-After": "3"})
    listed = Answer(200, {"data": [{"id": "one"}]})
    typed.setattr("sys.stdin", io.StringIO("hello\nagain\n"))
    with Endpoint({"/v1/models": listed, "/v1/chat/completions": busy}) as endpoint:
        done = run("chat", "--url", endpoint.url)
        assert done.code == 0
        assert done.err.count(f"error: `{endpoint.url}` has too much to do\n") == 2
        said = [json.loads(each.body)["messages"][-1]["content"] for each in endpoint.requests if each.body]
    assert said == ["hello", "again"]


def test_the_key_is_that_of_the_variable(run: Run, echo: RunningEcho, monkeypatch: pytest.MonkeyPatch) -> None:
    gateway = GatewayThread(served_by(echo), Exposure("127.0.0.1", 0, keys=(key_of("sesame", origin="test"),)))
    try:
        monkeypatch.setenv("LAUNCH_URL", gateway.url)
        refused = run(*ASK)
        monkeypatch.setenv("LAUNCH_API_KEY", "sesame")
        assert run(*ASK).out == "hello there"
    finally:
        gateway.stop()
    assert refused.code == 1
    assert refused.err.startswith(f"error: `{gateway.url.removesuffix('/v1')}` wants a key\n")


@pytest.mark.parametrize(
    ("line", "refused"),
    [
        (("smollm2-instruct", *ASK, "--engine", "vllm"), "--model-engine"),
        (("chat", "-c", "4096"), "--context-length"),
        (("chat", "--new"), "--new"),
        (("chat", "--model-path", "x.gguf"), "--model-path"),
        ((*ASK, "--offline"), "--offline"),
        ((*ASK, "--port", "8000"), "--port"),
        ((*ASK, "--dry-run"), "--dry-run"),
        ((*ASK, "--api-key", "x"), "--api-key"),
        ((*ASK, "--", "--mlock"), "--"),
    ],
    ids=lambda words: " ".join(words) if isinstance(words, tuple) else None,
)
def test_options_of_a_launch_are_refused_by_name(
    run: Run, url: str, monkeypatch: pytest.MonkeyPatch, line: tuple[str, ...], refused: str
) -> None:
    monkeypatch.setenv("LAUNCH_URL", url)
    done = run(*line)
    assert (done.code, done.out) == (2, "")
    assert done.err == f"error: `{refused}` is for a launch, and `{url}` is asked instead\n\nhint: unset LAUNCH_URL\n"


def test_the_hint_is_for_how_it_was_said(run: Run, url: str) -> None:
    done = run("chat", "--url", url, "--gpus", "2")
    assert done.err.endswith("\n\nhint: take `--url` away to launch it here\n")


def test_whom_to_ask_without_what(run: Run, url: str) -> None:
    done = run("echo-model", "--url", url)
    assert done.code == 2
    assert done.err.endswith(f"no question\n\nhint: launch chat --url {url}, or a question with `--prompt`\n")


def test_what_is_not_served_there(run: Run, url: str) -> None:
    done = run("chat", "other", "--url", url)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"error: `{url}` serves no `other`; there are: `echo-model`\n\nhint: launch chat echo-model --url {url}\n"
    )


def test_nothing_answers_there(run: Run) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    done = run(*ASK, "--url", url)
    assert done.code == 1
    assert done.err.startswith(f"error: Nothing answers at `{url}`: Connection refused\n")
