"""`connect` and `aconnect`: a model behind our own endpoint, and behind those of others."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engines.base import Address
from engines.session import AsyncSession, Session
from launcher import (
    AccessError,
    AsyncModel,
    AuthenticationError,
    BusyError,
    ContextOverflowError,
    EndpointError,
    GenerationError,
    InvalidRequestError,
    Model,
    Reply,
    UnknownModelError,
    UnsupportedParameterError,
    aconnect,
    connect,
)
from launcher.exposure import Exposure
from launcher.gateway import GatewayThread
from launcher.keys import key_of
from registry.errors import LaunchError
from registry.spec import GenerationDefaults, Reasoning
from tests.fakes.echo import RunningEcho, free_port, running_echo
from tests.fakes.endpoint import Answer, Endpoint, own_certificate
from tests.fakes.gateway import gateway_to, served_by

SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Grüße, 世界"}]
LONG = " ".join(["word"] * 400)


@dataclass
class City:
    name: str
    inhabitants: int


def weather(location: str, unit: str = "celsius") -> str:
    """Return the current weather at `location`."""
    return f"21 {unit} in {location}"


@pytest.fixture(scope="module")
def echo() -> Iterator[RunningEcho]:
    with running_echo(
        "--thinks",
        "so it is",
        abilities=frozenset({"chat", "embed"}),
        reasoning=Reasoning("<think>", "</think>", hybrid=True),
        defaults=GenerationDefaults(max_tokens=100),
    ) as echo:
        yield echo


@pytest.fixture(scope="module")
def url(echo: RunningEcho) -> Iterator[str]:
    with gateway_to(served_by(echo)) as url:
        yield url


@pytest.fixture
def model(url: str) -> Iterator[Model]:
    with connect(url) as model:
        yield model


# --- our own endpoint ------------------------------------------------------------------------------------------------


def test_what_is_known_of_it(url: str, model: Model) -> None:
    assert (model.name, model.context_length, model.base_url, model.api_key) == ("echo-model", 512, url, "none")
    assert repr(model) == f"<Model echo-model at {url.removesuffix('/v1')}>"
    assert not hasattr(model, "plan")


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_the_address_may_end_as_it_likes(url: str, end: str) -> None:
    plain = url.removesuffix("/v1")
    assert connect(plain + end).base_url == connect(plain.removeprefix("http://") + end).base_url == url


@pytest.mark.parametrize("name", ["echo-model", "ECHO", "acme/echo-model-gguf"])
def test_it_has_all_its_names(url: str, name: str) -> None:
    assert connect(url, model=name).chat("hello").text == "hello"


def test_the_environment_says_where_and_by_which_key(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAUNCH_URL", url)
    monkeypatch.setenv("LAUNCH_API_KEY", "secret")
    with connect() as model:
        assert (model.base_url, model.api_key) == (url, "secret")
        assert model.chat("hello").text == "hello"
    assert connect(url, api_key="other").api_key == "other"


def test_its_answers_are_those_of_the_engine(echo: RunningEcho, model: Model) -> None:
    here = Session(echo.address, echo.target)
    there, expected = model.chat(SYSTEM, temperature=0), here.chat(SYSTEM, temperature=0)
    assert (there.text, there.reasoning, there.finish_reason) == ("Grüße, 世界", "so it is", "stop")
    assert (there.usage, there.usage.reasoning_tokens) == (expected.usage, 3)
    assert there.timings.total_s >= there.timings.first_token_s > 0
    assert model.generate("one two three", max_tokens=2).text == "one two"
    assert model.generate("one two three", stop="two").text == "one "
    assert model.count_tokens(SYSTEM) == here.count_tokens(SYSTEM) == there.usage.prompt_tokens
    assert model.embed(["one", "two"]) == here.embed(["one", "two"])


def test_what_it_did_otherwise_than_asked_is_noted() -> None:
    with running_echo("--no-system-role") as echo, gateway_to(served_by(echo)) as url, connect(url) as model:
        expected = Session(echo.address, echo.target).chat(SYSTEM).notes
        assert model.chat(SYSTEM).notes == expected != ()
        assert model.chat("hello").notes == ()

        async def notes() -> tuple[str, ...]:
            async with aconnect(url) as twin:
                return (await twin.chat(SYSTEM)).notes

        assert asyncio.run(notes()) == expected


def test_streams_come_in_pieces(model: Model) -> None:
    with model.chat_stream("one two", reasoning="off") as stream:
        assert [chunk.text for chunk in stream if chunk.text] == ["one", " two"]
    assert stream.result.message == {"role": "assistant", "content": "one two"}


def test_json_tools_reasoning_and_log_probabilities(model: Model) -> None:
    assert model.chat("Paris", json_schema=City).parsed == City("echo", 1)
    reply = model.chat("Weather?", tools=[weather], tool_choice="required")
    call = reply.tool_calls[0]
    assert (call.name, call.arguments) == ("weather", {"location": "echo"})
    talk = [{"role": "user", "content": "Weather?"}, reply.message, call.answer(weather(**call.arguments))]
    assert model.chat(talk, tools=[weather]).text == "Weather?"
    assert model.chat("hello", reasoning="off").reasoning is None
    assert model.chat("hello", reasoning=1).reasoning == "so"
    logprobs = model.chat("one two", logprobs=1, reasoning="off").logprobs
    assert logprobs is not None
    assert [each.token for each in logprobs] == ["one", " two"]


def test_a_batch_keeps_its_order(model: Model) -> None:
    questions = [f"question {n}" for n in range(20)]
    assert [reply.text for reply in model.chat_batch(questions)] == questions
    one, other = model.chat_batch(["one", LONG + LONG], return_errors=True)
    assert isinstance(one, Reply)
    assert isinstance(other, ContextOverflowError)


def test_the_models_own_defaults_hold(model: Model) -> None:
    """They are the endpoint's affair: only what was asked for is sent."""
    assert model.generate(LONG).usage.completion_tokens == 100


def test_async(url: str) -> None:
    async def use() -> None:
        async with aconnect(url) as model:
            assert isinstance(model, AsyncModel)
            assert (model.name, model.context_length, model.base_url) == ("echo-model", 512, url)
            assert (await model.chat(SYSTEM)).text == "Grüße, 世界"
            assert (await model.chat("Paris", json_schema=City)).parsed == City("echo", 1)
            assert await model.count_tokens("hello") == (await model.chat("hello")).usage.prompt_tokens
            async with model.chat_stream("one two", reasoning="off") as stream:
                assert [chunk.text async for chunk in stream if chunk.text] == ["one", " two"]
            replies = await asyncio.gather(*(model.generate(f"word {n}") for n in range(20)))
            assert [reply.text for reply in replies] == [f"word {n}" for n in range(20)]
            with pytest.raises(ContextOverflowError):
                await model.chat(LONG + LONG)
        with pytest.raises(GenerationError, match="closed"):
            await model.chat("hello")

    asyncio.run(use())


# --- what our endpoint refuses ---------------------------------------------------------------------------------------


def test_a_prompt_beyond_the_context_has_both_numbers(model: Model) -> None:
    with pytest.raises(ContextOverflowError) as raised:
        model.generate("word " * 600)
    assert (raised.value.prompt_tokens, raised.value.context_length) == (602, 512)
    assert raised.value.message == "The prompt has 602 tokens, the context 512"
    with pytest.raises(ContextOverflowError, match="`max_tokens` of 600 is more"):
        model.generate("hello", max_tokens=600)


def test_what_it_cannot_do_is_said_before_anything_is_sent(model: Model) -> None:
    with pytest.raises(UnsupportedParameterError, match=r"`http://127.0.0.1:\d+` cannot honour `infill`"):
        model.infill("def f(", "):")
    with pytest.raises(InvalidRequestError, match="`top_p` must be"):
        model.chat("hello", top_p=2)


def test_what_it_does_not_serve_is_said_with_what_it_does(url: str) -> None:
    with pytest.raises(UnknownModelError, match="serves no `gpt-9`; there are: `echo-model`") as raised:
        connect(url, model="gpt-9")
    assert (raised.value.suggestions, raised.value.hint) == (("echo-model",), 'model="echo-model"')


def test_a_model_that_makes_no_vectors() -> None:
    with (
        running_echo() as echo,
        gateway_to(served_by(echo)) as url,
        pytest.raises(UnsupportedParameterError, match="ability `embed`"),
    ):
        connect(url).embed(["one"])


def test_leaving_a_stream_frees_the_slot() -> None:
    with (
        running_echo("--tokens-per-second", "20", slots=1) as echo,
        gateway_to(served_by(echo)) as url,
        connect(url) as model,
    ):
        with model.chat_stream(LONG) as stream:
            next(stream)
        assert model.chat("free", timeout_s=10).text == "free"
        with pytest.raises(GenerationError, match=r"did not finish within 0\.3 s"):
            model.chat(LONG, timeout_s=0.3)


def test_an_engine_that_dies_there_breaks_the_answer() -> None:
    with running_echo("--tokens-per-second", "20") as echo, gateway_to(served_by(echo)) as url, connect(url) as model:
        stream = model.chat_stream(LONG)
        next(stream)
        echo.process.kill()
        with pytest.raises(GenerationError, match="`echo` ended while it answered"):
            stream.read()


def test_our_endpoint_wants_its_key(echo: RunningEcho) -> None:
    exposure = Exposure(keys=(key_of("right", origin="a test"),))
    gateway = GatewayThread(served_by(echo), exposure)
    try:
        with pytest.raises(AuthenticationError, match="wants a key"):
            connect(gateway.url)
        with pytest.raises(AuthenticationError, match="refuses the key"):
            connect(gateway.url, api_key="wrong")
        assert connect(gateway.url, api_key="right").chat("hello").text == "hello"
    finally:
        gateway.stop()


def test_our_endpoint_says_when_its_queue_is_full() -> None:
    with (
        running_echo("--tokens-per-second", "20", slots=1) as echo,
        gateway_to(served_by(echo, slots=1, max_queue=0)) as url,
        connect(url) as model,
        model.chat_stream(LONG) as stream,
    ):
        next(stream)
        with pytest.raises(BusyError, match="has too much to do") as raised:
            model.chat("hello")
        assert raised.value.retry_after_s >= 1


# --- endpoints of others ---------------------------------------------------------------------------------------------


def listing(*entries: str | dict[str, Any]) -> Answer:
    data = [{"id": entry, "object": "model"} if isinstance(entry, str) else entry for entry in entries]
    return Answer(200, {"object": "list", "data": data})


def said(text: str) -> Answer:
    """Return a stream as OpenAI sends it."""
    chunk = {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
    last = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}
    return Answer(200, b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in (chunk, last, usage)))


def test_only_what_was_asked_for_is_sent_with_the_key() -> None:
    with Endpoint({"/api/v1/models": listing("m"), "/api/v1/chat/completions": said("Paris")}) as endpoint:
        model = connect(f"{endpoint.url}/api/v1", api_key="secret")
        assert model.chat(SYSTEM, temperature=0, max_tokens=5).text == "Paris"
        assert [request.key for request in endpoint.requests] == ["Bearer secret", "Bearer secret"]
        assert json.loads(endpoint.requests[-1].body) == {
            "model": "m",
            "messages": SYSTEM,
            "temperature": 0,
            "max_tokens": 5,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


def test_its_context_may_be_unknown_or_told_as_vllm_does() -> None:
    with Endpoint({"/v1/models": listing("m", {"id": "n", "max_model_len": 4096})}) as endpoint:
        assert connect(endpoint.url, model="m").context_length is None
        assert connect(endpoint.url, model="n").context_length == 4096
        with pytest.raises(UnknownModelError, match="serves several models; there are: `m`, `n`"):
            connect(endpoint.url)


def test_one_without_a_list_is_asked_for_the_model_that_is_named() -> None:
    with Endpoint({"/v1/chat/completions": said("Paris")}) as endpoint:
        assert connect(endpoint.url, model="m").chat("hello").text == "Paris"
        with pytest.raises(EndpointError, match="is no OpenAI-compatible endpoint: it has no list of models"):
            connect(endpoint.url)


def test_one_that_does_not_count_says_so_and_reasoning_is_not_counted() -> None:
    thought = said("Paris").body.replace(b'{"content": "Paris"}', b'{"content": "Paris", "reasoning_content": "hm"}')
    answers = {"/v1/models": listing("m"), "/v1/chat/completions": Answer(200, thought)}
    with Endpoint(answers) as endpoint, connect(endpoint.url) as model:
        with pytest.raises(UnsupportedParameterError, match="does not count tokens: it has no `/tokenize`"):
            model.count_tokens("hello")
        reply = model.chat("hello")
        assert (reply.reasoning, reply.usage.reasoning_tokens) == ("hm", 0)
        with pytest.raises(UnsupportedParameterError, match="cannot honour `reasoning`"):
            model.chat("hello", reasoning="off")


def refusal(message: str, code: object = None, param: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "x", "param": param, "code": code}}


TURNED_AWAY: list[tuple[Answer, type[LaunchError], str, dict[str, Any]]] = [
    (
        Answer(401, refusal("no key")),
        AuthenticationError,
        "refuses the key",
        {"details": ("no key",), "permanent": True},
    ),
    (Answer(403, refusal("Host `x`")), AccessError, "does not serve us", {"details": ("Host `x`",)}),
    (
        Answer(429, refusal("full"), {"Retry-After": "7"}),
        BusyError,
        "has too much to do",
        {"retry_after_s": 7, "details": ("full",), "permanent": False, "hint": "ask again in 7 s"},
    ),
    (Answer(503, b"down"), EndpointError, "is not ready", {"retry_after_s": None, "details": ("503 down",)}),
    (
        Answer(400, refusal("no `x`", "unsupported_parameter", "x")),
        UnsupportedParameterError,
        "refused the request: no `x`",
        {"parameter": "x"},
    ),
    (
        Answer(400, refusal("bad", "invalid_value", "y")),
        InvalidRequestError,
        "refused the request: bad",
        {"parameter": "y"},
    ),
    (
        Answer(404, refusal("There is no model `m` here", "model_not_found")),
        UnknownModelError,
        "has the model no longer: There is no model `m` here",
        {"permanent": True},
    ),
    (Answer(500, refusal("broken", "internal_error")), GenerationError, "failed: broken", {"permanent": False}),
    (Answer(502, b"<html>"), GenerationError, "answered 502: <html>", {}),
]


@pytest.mark.parametrize(("answer", "kind", "message", "facts"), TURNED_AWAY)
@pytest.mark.parametrize("ask", [Session.chat, lambda model, text: asyncio.run(_ask(model, text))])
def test_refusals_are_our_errors(
    answer: Answer, kind: type[LaunchError], message: str, facts: dict[str, Any], ask: Callable[[Model, str], object]
) -> None:
    answers = {"/v1/models": listing("m"), "/v1/chat/completions": answer}
    with Endpoint(answers) as endpoint, pytest.raises(kind, match=f"`{endpoint.url}` {message}") as raised:
        ask(connect(endpoint.url, api_key="secret"), "hello")
    assert {name: getattr(raised.value, name) for name in facts} == facts
    assert "secret" not in repr(raised.value.facts()) + str(raised.value)
    assert pickle.loads(pickle.dumps(raised.value)).facts() == raised.value.facts()


async def _ask(model: Model, text: str) -> object:
    async with aconnect(model.base_url, api_key=model.api_key) as other:
        return await other.chat(text)


def test_without_a_key_one_is_wanted() -> None:
    with (
        Endpoint({"/v1/models": Answer(401, b"")}) as endpoint,
        pytest.raises(AuthenticationError, match="wants a key"),
    ):
        connect(endpoint.url)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(status: int) -> None:
    async def use(url: str) -> None:
        async with aconnect(url, api_key="secret"):
            raise AssertionError("nobody is there")

    with Endpoint({"/v1/models": listing("m")}) as other:
        elsewhere = {"Location": f"{other.url}/v1/models?token=x"}
        with Endpoint({"/v1/models": Answer(status, b"", elsewhere)}) as endpoint:
            with pytest.raises(EndpointError, match=f"redirects to `{other.url}`$"):
                connect(endpoint.url, api_key="secret")
            with pytest.raises(EndpointError, match=f"redirects to `{other.url}`$"):
                asyncio.run(use(endpoint.url))
        assert other.requests == []


# --- nobody there ----------------------------------------------------------------------------------------------------


def both(url: str) -> list[EndpointError]:
    """Return what `connect` and `aconnect` raise for a URL."""

    async def use() -> None:
        async with aconnect(url):
            raise AssertionError("nobody is there")

    with pytest.raises(EndpointError) as first:
        connect(url)
    with pytest.raises(EndpointError) as second:
        asyncio.run(use())
    assert (first.value.message, first.value.hint) == (second.value.message, second.value.hint)
    return [first.value, second.value]


def test_where_nobody_listens_a_command_is_named_that_starts_it() -> None:
    port = free_port()
    error, _ = both(f"http://127.0.0.1:{port}/v1")
    assert error.message == f"Nothing answers at `http://127.0.0.1:{port}`: Connection refused"
    assert error.hint == f"launch smollm2-instruct --port {port}"
    assert (error.url, error.status) == (f"http://127.0.0.1:{port}", None)


@pytest.mark.parametrize(
    ("url", "message", "hint"),
    [
        ("http://", "`http:` is no URL of an endpoint", "http://127.0.0.1:8000"),
        ("ftp://gpu1", "`ftp://gpu1` is no URL of an endpoint", "http://127.0.0.1:8000"),
        ("http://me:pass@gpu1", "The URL of `http://gpu1` has a password in it", "give a key instead"),
    ],
)
def test_a_url_that_is_none(url: str, message: str, hint: str) -> None:
    error, _ = both(url)
    assert (error.message, error.hint) == (message, hint)
    assert "pass@" not in repr(error.facts())


def test_an_endpoint_that_ends_leaves_the_handle_with_its_cause(echo: RunningEcho) -> None:
    with gateway_to(served_by(echo)) as url:
        model = connect(url)
    with pytest.raises(EndpointError, match="Nothing answers"):
        model.chat("hello")


# --- TLS -------------------------------------------------------------------------------------------------------------


def test_a_certificate_must_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = own_certificate(tmp_path)
    answers = {"/v1/models": listing("m"), "/v1/chat/completions": said("Paris")}
    with Endpoint(answers, certificate=certificate) as endpoint:
        assert endpoint.url.startswith("https://")
        error, _ = both(endpoint.url)
        assert error.message.startswith(f"The certificate of `{endpoint.url}` is not trusted: ")
        assert endpoint.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert connect(endpoint.url).chat("hello").text == "Paris"
        assert _chat_async(endpoint.url) == "Paris"


def _chat_async(url: str) -> str:
    async def use() -> str:
        async with aconnect(url) as model:
            return (await model.chat("hello")).text

    return asyncio.run(use())


def test_an_endpoint_without_tls_is_told_from_one_with(url: str) -> None:
    error, _ = both(url.replace("http:", "https:"))
    assert "does not speak TLS" in error.message


# --- keys ------------------------------------------------------------------------------------------------------------


def test_a_key_is_shown_to_nobody() -> None:
    address = Address("http://gpu1", is_endpoint=True, key="secret")
    assert "secret" not in f"{address!r} {address}"


@pytest.mark.parametrize("key", ["with\r\nX-More: 1", "schlüssel"])
def test_a_key_that_cannot_be_sent_is_refused_without_being_shown(url: str, key: str) -> None:
    with pytest.raises(AuthenticationError, match="cannot stand in a header") as raised:
        connect(url, api_key=key)
    assert key not in repr(raised.value)


def test_both_handles_have_the_same_methods() -> None:
    def methods(handle: type) -> set[str]:
        return {name for name in dir(handle) if not name.startswith("_")}

    assert methods(Model) == methods(AsyncModel) >= methods(AsyncSession)
