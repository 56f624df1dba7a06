"""The server that our own runners share, in front of a model of words: through our session, and by bare HTTP."""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from engines.connection import Connection
from engines.generation import Post
from engines.session import Session
from openai_server import Token, add_arguments, serve
from registry.errors import ContextOverflowError, GenerationError
from tests.fakes.word_backend import Served, WordBackend, served

TALK = [{"role": "user", "content": "one two three"}]
CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


@pytest.fixture
def running() -> Iterator[Served]:
    with served(WordBackend()) as words:
        yield words


@pytest.fixture
def thinking() -> Iterator[Served]:
    with served(WordBackend(), "--reasoning-start", "<think>", "--reasoning-end", "</think>") as words:
        yield words


def session(words: Served) -> Session:
    return Session(words.address, words.target)


def ask(words: Served, path: str, body: object) -> tuple[int, Any]:
    connection = Connection("words", words.address)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        status = connection.send(Post(path, data))
        return status, json.loads(connection.read_all())
    finally:
        connection.close()


def get(words: Served, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(words.address.socket))
    connection.request("GET", path)
    answer = connection.getresponse()
    try:
        return answer.status, json.load(answer)
    finally:
        connection.close()


def events(words: Served, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    connection = Connection("words", words.address)
    try:
        assert connection.send(Post(path, json.dumps({**body, "stream": True}).encode())) == 200
        lines = [line.removeprefix(b"data: ") for line in connection.read_all().split(b"\n\n") if line]
    finally:
        connection.close()
    assert lines.pop() == b"[DONE]"
    return [json.loads(line) for line in lines]


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


# --- answers ---------------------------------------------------------------------------------------------------------


def test_a_text_is_gone_on_with(running: Served) -> None:
    result = session(running).generate("one two three")
    assert result.text == "one two three"
    assert (result.finish_reason, result.usage.prompt_tokens, result.usage.completion_tokens) == ("stop", 4, 3)


def test_a_conversation_goes_through_the_template(running: Served) -> None:
    reply = session(running).chat("hello")
    assert reply.text == " [user] hello [assistant]"
    assert reply.reasoning is None


def test_a_stream_has_the_pieces_as_they_were_made(running: Served) -> None:
    with session(running).generate_stream("one two three") as stream:
        assert [(chunk.text, chunk.finish_reason) for chunk in stream] == [
            ("one", None),
            (" two", None),
            (" three", None),
            ("", "stop"),
        ]


def test_a_stream_has_the_shape_of_openais(running: Served) -> None:
    opening, word, end, usage = events(
        running, CHAT, {"messages": TALK, "max_tokens": 1, "stream_options": {"include_usage": True}}
    )
    assert opening["object"] == "chat.completion.chunk"
    assert opening["model"] == "word-model"
    assert opening["choices"][0]["delta"] == {"role": "assistant", "content": None}
    assert word["choices"] == [{"index": 0, "delta": {"content": " [user]"}, "finish_reason": None}]
    assert end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 6, "completion_tokens": 1, "total_tokens": 7}
    assert len({event["id"] for event in (opening, word, end, usage)}) == 1


def test_without_a_wish_for_it_a_stream_has_no_usage(running: Served) -> None:
    assert not any("usage" in event for event in events(running, COMPLETION, {"prompt": "one"}))


def test_an_answer_can_come_as_a_whole(running: Served) -> None:
    _, answer = ask(running, CHAT, {"messages": TALK, "max_tokens": 2})
    assert answer["object"] == "chat.completion"
    message = {"role": "assistant", "content": " [user] one"}
    assert answer["choices"] == [{"index": 0, "finish_reason": "length", "message": message}]
    assert answer["usage"]["completion_tokens"] == 2
    _, answer = ask(running, COMPLETION, {"prompt": "one two"})
    assert answer["object"] == "text_completion"
    assert answer["choices"] == [{"index": 0, "finish_reason": "stop", "text": "one two"}]


def test_parts_of_text_are_one_content(running: Served) -> None:
    parts = [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]
    _, answer = ask(running, CHAT, {"messages": [{"role": "user", "content": parts}]})
    assert answer["choices"][0]["message"]["content"] == " [user] one two [assistant]"


def test_every_wish_reaches_the_model(running: Served) -> None:
    wishes = {"temperature": 0.5, "top_p": 0.25, "top_k": 7, "min_p": 0.125, "repetition_penalty": 1.5, "seed": 3}
    schema = {"type": "object"}
    ask(
        running,
        COMPLETION,
        {
            **wishes,
            "prompt": "one",
            "max_tokens": 9,
            "logprobs": 2,
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}},
        },
    )
    made = running.backend.started[0]._asdict()
    assert made == {**wishes, "prompt_ids": [1, 3], "max_tokens": 9, "logprobs": 2, "json_schema": schema}


def test_a_character_in_two_tokens_comes_when_it_is_whole(running: Served) -> None:
    running.backend.reply = ["a", Token(9, ""), Token(10, "é"), "漢"]
    with session(running).generate_stream("x") as stream:
        assert [chunk.text for chunk in stream] == ["a", "é", "漢", ""]
    assert stream.result.usage.completion_tokens == 4


def test_health_models_and_what_there_is_not(running: Served) -> None:
    assert get(running, "/health") == (200, {"status": "ok"})
    status, models = get(running, "/v1/models")
    assert (status, models["data"][0]["id"]) == (200, "word-model")
    status, answer = get(running, "/nothing")
    assert (status, answer["error"]["code"]) == (404, 404)


def test_it_listens_on_a_port_too(unused_port: int) -> None:
    with served(WordBackend(), on_port=unused_port) as words:
        assert session(words).generate("one").text == "one"


def test_a_port_that_is_taken_ends_it_with_the_reason() -> None:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        arguments = parser.parse_args(["--model", "m", "--alias", "m", "--ctx-size", "64", "--port", port])
        with pytest.raises(SystemExit, match=r"words: error: .*address already in use"):
            serve(WordBackend(), arguments)


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- where an answer ends --------------------------------------------------------------------------------------------


def test_a_stop_string_over_tokens_is_no_part_of_the_answer(running: Served) -> None:
    running.backend.reply = ["he", "llo", " wo", "rld", "!"]
    result = session(running).generate("x", stop=["o wor", "never"])
    assert (result.text, result.finish_reason, result.usage.completion_tokens) == ("hell", "stop", 4)
    assert running.backend.closed == 1


def test_what_only_began_like_a_stop_string_is_part_of_the_answer(running: Served) -> None:
    running.backend.reply = ["on", "e sto"]
    result = session(running).generate("x", stop="stop", max_tokens=2)
    assert (result.text, result.finish_reason) == ("one sto", "length")


def test_the_end_of_the_context_ends_the_answer(running: Served) -> None:
    running.backend.reply = ["word "] * 100
    result = session(running).generate("one " * 59)
    assert (result.finish_reason, result.usage.total_tokens) == ("length", 64)


def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(running: Served) -> None:
    with pytest.raises(ContextOverflowError) as caught:
        session(running).generate("one " * 63)
    assert (caught.value.prompt_tokens, caught.value.context_length) == (65, 64)
    status, answer = ask(running, COMPLETION, {"prompt": "one " * 63})
    assert (status, answer["error"]["n_prompt_tokens"], answer["error"]["n_ctx"]) == (400, 65, 64)
    assert running.backend.started == []


# --- thinking --------------------------------------------------------------------------------------------------------


def test_thinking_comes_apart_from_the_answer(thinking: Served) -> None:
    thinking.backend.reply = ["<th", "ink>", "\n", "I ", "ponder", " ", "\n</", "think>", "\n\n", "Yes", "."]
    reply = session(thinking).chat("really?")
    assert (reply.text, reply.reasoning) == ("Yes.", "I ponder")
    assert (reply.usage.completion_tokens, reply.usage.reasoning_tokens) == (11, 7)
    _, answer = ask(thinking, CHAT, {"messages": TALK})
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "Yes.", "reasoning_content": "I ponder"}


def test_a_template_may_have_opened_the_thinking(thinking: Served) -> None:
    thinking.backend.opening = " <think> \n"
    thinking.backend.reply = ["I ponder", "</think>", "Yes"]
    reply = session(thinking).chat("really?")
    assert (reply.text, reply.reasoning) == ("Yes", "I ponder")


def test_what_a_schema_holds_is_the_answer_even_where_thinking_was_opened(thinking: Served) -> None:
    thinking.backend.opening = " <think> \n"
    thinking.backend.reply = ['{"a":', " 1}"]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    _, answer = ask(thinking, CHAT, {"messages": TALK, "response_format": schema})
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": '{"a": 1}'}


def test_without_thinking_all_is_the_answer(thinking: Served) -> None:
    thinking.backend.reply = ["<the", "n> </think>"]
    reply = session(thinking).chat("really?")
    assert (reply.text, reply.reasoning) == ("<then> </think>", None)


def test_thinking_that_does_not_end_is_kept(thinking: Served) -> None:
    thinking.backend.reply = ["<think>", "I ponder </thi"]
    reply = session(thinking).chat("really?", max_tokens=2)
    assert (reply.text, reply.reasoning, reply.finish_reason) == ("", "I ponder </thi", "length")


def test_a_text_that_is_gone_on_with_keeps_its_tags(thinking: Served) -> None:
    thinking.backend.reply = ["<think>", "no</think>"]
    assert session(thinking).generate("x").text == "<think>no</think>"


# --- log-probabilities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (CHAT, {"messages": TALK, "logprobs": True, "top_logprobs": 2}),
        (COMPLETION, {"prompt": "x", "logprobs": 2}),
        (COMPLETION, {"prompt": "x", "logprobs": True, "top_logprobs": 2}),
    ],
)
def test_log_probabilities_come_with_the_text(running: Served, path: str, body: dict[str, Any]) -> None:
    running.backend.reply = ["é"]
    choice = events(running, path, body)[1 if path == CHAT else 0]["choices"][0]
    (scored,) = choice["logprobs"]["content"]
    assert {key: scored[key] for key in ("token", "bytes", "logprob")} == {
        "token": "é",
        "bytes": [195, 169],
        "logprob": -0.5,
    }
    assert [(one["token"], one["logprob"]) for one in scored["top_logprobs"]] == [("é", -0.5), ("é?", -1.5)]
    _, whole = ask(running, path, body)
    assert whole["choices"][0]["logprobs"]["content"] == [scored]


def test_log_probabilities_are_those_of_the_text(running: Served) -> None:
    running.backend.reply = ["one", " s", "to", "p", "never"]
    body = {"messages": TALK, "logprobs": True, "stop": " stop"}
    _, answer = ask(running, CHAT, body)
    assert [scored["token"] for scored in answer["choices"][0]["logprobs"]["content"]] == ["one"]
    running.backend.reply = ["one", " s", "to"]
    _, answer = ask(running, CHAT, body)
    assert [scored["token"] for scored in answer["choices"][0]["logprobs"]["content"]] == ["one", " s", "to"]


# --- tools -----------------------------------------------------------------------------------------------------------

CALL = {"name": "look", "arguments": {"at": "é"}}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
WITH_TOOLS = {"messages": TALK, "tools": TOOLS, "chat_template_kwargs": {"knows_tools": True}}


@pytest.fixture
def calling() -> Iterator[Served]:
    with served(WordBackend(), "--tool-calls", "hermes") as words:
        yield words


@pytest.mark.parametrize("text", ["Wait. <tool_call>\n{}\n</tool_call>\n<tool_call>{}</tool_call>"])
def test_calls_are_read_from_what_the_model_writes(calling: Served, text: str) -> None:
    whole = text.replace("{}", json.dumps(CALL))
    calling.backend.reply = [whole[at : at + 3] for at in range(0, len(whole), 3)]
    calling.backend.context_length = 1024
    _, answer = ask(calling, CHAT, WITH_TOOLS)
    (choice,) = answer["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Wait. ", "tool_calls")
    calls = choice["message"]["tool_calls"]
    assert [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls] == [
        ("look", {"at": "é"})
    ] * 2
    assert len({call["id"] for call in calls}) == 2
    *_, last = events(calling, CHAT, WITH_TOOLS)
    assert [call["index"] for call in last["choices"][0]["delta"]["tool_calls"]] == [0, 1]


def test_a_call_that_must_be_made_is_asked_for_by_its_schema(calling: Served) -> None:
    parameters = {"$defs": {"place": {"type": "string"}}, "properties": {"at": {"$ref": "#/$defs/place"}}}
    tools = [*TOOLS, {"type": "function", "function": {"name": "go", "parameters": parameters}}]
    calling.backend.reply = [json.dumps(CALL)]
    _, answer = ask(calling, CHAT, {**WITH_TOOLS, "tools": tools, "tool_choice": "required"})
    assert answer["choices"][0]["finish_reason"] == "tool_calls"
    assert answer["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "look"
    schema = calling.backend.started[0].json_schema
    assert schema is not None
    assert [each["properties"]["name"] for each in schema["anyOf"]] == [{"const": "look"}, {"const": "go"}]
    moved = schema["anyOf"][1]["properties"]["arguments"]["properties"]["at"]
    assert moved == {"$ref": "#/anyOf/1/properties/arguments/$defs/place"}


def test_what_only_looks_like_a_call_is_text(calling: Served) -> None:
    for text in ("<tool_call> me maybe", "<tool", 'a <tool_call>{"name": "look"}</tool_call>'):
        calling.backend.reply = [text]
        _, answer = ask(calling, CHAT, WITH_TOOLS)
        assert answer["choices"][0]["message"] == {"role": "assistant", "content": text}
        assert answer["choices"][0]["finish_reason"] == "stop"


def test_calls_and_what_they_returned_are_told_to_the_template(calling: Served) -> None:
    described = {"name": "look", "arguments": '{"at": "é"}'}
    calls = [{"id": "a", "type": "function", "function": described}]
    talk = [*TALK, {"role": "assistant", "content": "", "tool_calls": calls}, {"role": "tool", "content": "seen"}]
    ask(calling, CHAT, {"messages": talk})
    assert calling.backend.rendered[1]["tool_calls"][0]["function"]["arguments"] == {"at": "é"}
    described["arguments"] = "{"
    assert ask(calling, CHAT, {"messages": talk})[0] == 400


def test_tools_that_the_template_does_not_know_are_refused(calling: Served, running: Served) -> None:
    status, answer = ask(calling, CHAT, {"messages": TALK, "tools": TOOLS})
    assert (status, answer["error"]["param"]) == (400, "tools")
    assert ask(calling, CHAT, {"messages": TALK, "tools": TOOLS, "tool_choice": "none"})[0] == 200
    status, answer = ask(running, CHAT, WITH_TOOLS)
    assert (status, answer["error"]["param"]) == (400, "tools")


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": ["a"]}, "prompt"),
        ({}, "prompt"),
        ({"prompt": "x", "messages": TALK}, "messages"),
        ({"prompt": "x", "frequency_penalty": 1}, "frequency_penalty"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "max_tokens": 1.5}, "max_tokens"),
        ({"prompt": "x", "max_tokens": True}, "max_tokens"),
        ({"prompt": "x", "temperature": -1}, "temperature"),
        ({"prompt": "x", "top_p": 0}, "top_p"),
        ({"prompt": "x", "top_p": 2}, "top_p"),
        ({"prompt": "x", "top_k": -1}, "top_k"),
        ({"prompt": "x", "min_p": 1.1}, "min_p"),
        ({"prompt": "x", "repetition_penalty": 0}, "repetition_penalty"),
        ({"prompt": "x", "seed": -1}, "seed"),
        ({"prompt": "x", "seed": "a"}, "seed"),
        ({"prompt": "x", "stop": [""]}, "stop"),
        ({"prompt": "x", "stop": 1}, "stop"),
        ({"prompt": "x", "n": 2}, "n"),
        ({"prompt": "x", "logprobs": 21}, "logprobs"),
        ({"prompt": "x", "top_logprobs": 1}, "top_logprobs"),
        ({"prompt": "x", "stream": 1}, "stream"),
        ({"prompt": "x", "stream_options": 1}, "stream_options"),
        ({"prompt": "x", "response_format": {"type": "xml"}}, "response_format"),
        ({"prompt": "x", "response_format": {"type": "json_schema"}}, "response_format.json_schema"),
    ],
)
def test_what_makes_no_sense_is_refused(running: Served, body: dict[str, Any], parameter: str) -> None:
    status, answer = ask(running, COMPLETION, body)
    assert (status, answer["error"]["code"], answer["error"]["param"]) == (400, 400, parameter)
    assert running.backend.started == []


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages.0.content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages.0.content"),
        ({"messages": TALK, "tools": {}}, "tools"),
        ({"messages": TALK, "tools": [{"type": "function"}]}, "tools.0.function"),
        ({"messages": TALK, "tool_choice": "look"}, "tool_choice"),
        ({"messages": TALK, "chat_template_kwargs": 1}, "chat_template_kwargs"),
    ],
)
def test_conversations_without_sense_are_refused(running: Served, body: dict[str, Any], parameter: str) -> None:
    status, answer = ask(running, CHAT, body)
    assert (status, answer["error"]["param"]) == (400, parameter)


@pytest.mark.parametrize("body", [b"{", b"[]", b""])
def test_a_body_that_is_no_object_is_refused(running: Served, body: bytes) -> None:
    status, answer = ask(running, CHAT, body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_numbers_that_are_none_are_refused(running: Served) -> None:
    status, _ = ask(running, COMPLETION, b'{"prompt": "x", "temperature": NaN}')
    assert status == 400


def test_a_wish_that_the_model_cannot_follow_is_refused_with_a_status(running: Served) -> None:
    schema = {"name": "x", "schema": {"$ref": "#/nowhere"}}
    wish = {"prompt": "x", "stream": True, "response_format": {"type": "json_schema", "json_schema": schema}}
    status, answer = ask(running, COMPLETION, wish)
    assert (status, answer["error"]["param"]) == (400, "json_schema")


def test_the_templates_words_are_in_the_refusal(running: Served) -> None:
    status, answer = ask(running, CHAT, {"messages": [{"role": "system", "content": "x"}, *TALK]})
    assert (status, answer["error"]["param"]) == (400, "messages")
    assert answer["error"]["message"].endswith("there is no system role")


def test_our_session_puts_a_system_message_where_the_template_takes_it(running: Served) -> None:
    reply = session(running).chat([{"role": "system", "content": "Be brief."}, *TALK])
    assert "Be brief." in reply.text


def test_features_that_a_model_lacks_are_refused() -> None:
    backend = WordBackend()
    backend.features = frozenset()
    with served(backend) as words:
        status, answer = ask(words, COMPLETION, {"prompt": "x", "logprobs": 1})
        assert (status, answer["error"]["param"]) == (400, "logprobs")
        status, answer = ask(words, CHAT, {"messages": TALK, "response_format": {"type": "json_object"}})
        assert (status, answer["error"]["param"]) == (400, "json_schema")


def test_tokens_of_prompts_and_conversations_are_told(running: Served) -> None:
    assert ask(running, "/tokenize", {"prompt": "one two"}) == (200, {"tokens": [1, 3, 4], "count": 3})
    assert ask(running, "/tokenize", {"prompt": "one two", "add_special_tokens": False})[1]["tokens"] == [3, 4]
    _, counted = ask(running, "/tokenize", {"messages": TALK, "add_generation_prompt": True})
    _, answer = ask(running, CHAT, {"messages": TALK})
    assert counted["count"] == answer["usage"]["prompt_tokens"] == len(counted["tokens"])
    for nonsense in ({}, {"messages": TALK, "add_generation_prompt": False}):
        assert ask(running, "/tokenize", nonsense)[0] == 400


def test_a_model_that_breaks_before_its_answer_is_an_error(running: Served) -> None:
    running.backend.reply = [ValueError("no room")]
    status, answer = ask(running, COMPLETION, {"prompt": "x", "stream": True})
    assert (status, answer["error"]["message"]) == (500, "ValueError: no room")


def test_a_model_that_breaks_in_its_answer_is_an_error(running: Served) -> None:
    running.backend.reply = ["one", RuntimeError("no room")]
    with session(running).generate_stream("x") as stream:
        assert next(stream).text == "one"
        with pytest.raises(GenerationError, match="no room"):
            stream.read()
    running.backend.reply = None
    assert session(running).generate("one").text == "one"


# --- clients that leave, and many of them ----------------------------------------------------------------------------


def test_a_client_that_leaves_frees_the_slot_at_once(running: Served) -> None:
    running.backend.reply = ["one", "two"]
    stream = session(running).generate_stream("x")
    assert next(stream).text == "one"
    running.backend.gate.clear()
    stream.close()
    wait_until(lambda: running.backend.closed == 1)
    running.backend.gate.set()
    assert session(running).generate("x").text == "onetwo"


def test_a_client_that_leaves_before_its_turn_has_none(running: Served) -> None:
    running.backend.gate.clear()
    first, second = (session(running).generate_stream("x") for _ in range(2))
    threads = [threading.Thread(target=next, args=(stream, None)) for stream in (first, second)]
    for count, thread in enumerate(threads, start=1):
        thread.start()
        wait_until(lambda count=count: running.backend.waiting == count)  # type: ignore[misc]
    second.close()
    wait_until(lambda: running.backend.closed == 1)
    running.backend.gate.set()
    first.close()
    for thread in threads:
        thread.join()
    assert len(running.backend.started) == 1


def test_a_client_that_wants_a_whole_answer_may_leave_too(running: Served) -> None:
    running.backend.gate.clear()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(running.address.socket))
    body = b'{"prompt": "x"}'
    connection.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
    wait_until(lambda: running.backend.waiting == 1)
    connection.close()
    wait_until(lambda: running.backend.closed == 1)


def test_many_are_answered_at_once() -> None:
    with served(WordBackend(slots=8)) as words, ThreadPoolExecutor(64) as pool:
        texts = [f"ask {number} of many" for number in range(64)]
        results = list(pool.map(session(words).generate, texts))
    assert [result.text for result in results] == texts
