"""Requests: what is sent, what is refused; results."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.base import Wire
from engines.generation import (
    FIELDS,
    Chunk,
    Draft,
    Number,
    Reply,
    Result,
    Sampling,
    Target,
    Timings,
    Usage,
    check_sampling,
)
from engines.messages import Message, read_messages
from engines.requests import chat_request, completion_request
from registry.errors import ContextOverflowError, InvalidRequestError, UnsupportedParameterError
from registry.spec import GenerationDefaults

TARGET = Target("m", "echo", Wire(), 4096)
USAGE, TIMINGS = Usage(3, 4), Timings(0.0, 0.1, 0.5, 10.0)


def body_of(draft: Draft) -> dict[str, Any]:
    body = json.loads(draft.post().body or b"")
    assert isinstance(body, dict)
    return body


# --- what is sent ----------------------------------------------------------------------------------------------------


def test_every_field_is_sent_with_the_same_defaults_for_every_engine() -> None:
    body = body_of(completion_request(TARGET, "Hi", {}))
    assert body == {
        "model": "m",
        "prompt": "Hi",
        "max_tokens": 4096,
        "temperature": 0.7,
        "top_p": 0.95,
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_the_caller_comes_before_the_catalogue_and_the_catalogue_before_us() -> None:
    target = Target("m", "echo", Wire(), 4096, GenerationDefaults(temperature=0.2, top_k=40, max_tokens=100))
    body = body_of(chat_request(target, "Hi", {"temperature": 0.5}))
    assert (body["temperature"], body["top_k"], body["max_tokens"], body["top_p"]) == (0.5, 40, 100, 0.95)


def test_where_the_likeliest_token_is_taken_nothing_is_sorted_for_it() -> None:
    body = body_of(chat_request(TARGET, "Hi", {"temperature": 0, "top_p": 0.5, "top_k": 40, "min_p": 0.1}))
    assert (body["top_p"], body["top_k"], body["min_p"]) == (1.0, 0, 0.0)


def test_the_catalogues_limit_never_exceeds_the_context() -> None:
    target = Target("m", "echo", Wire(), 64, GenerationDefaults(max_tokens=100))
    assert body_of(chat_request(target, "Hi", {}))["max_tokens"] == 64


def test_fields_go_by_the_engines_names() -> None:
    wire = Wire(names={"repetition_penalty": "repeat_penalty"})
    body = body_of(chat_request(Target("m", "e", wire, 64), "Hi", {"repetition_penalty": 1.2}))
    assert body["repeat_penalty"] == 1.2
    assert "repetition_penalty" not in body


def test_top_k_is_switched_off_in_one_way() -> None:
    assert body_of(chat_request(TARGET, "Hi", {"top_k": -1}))["top_k"] == 0


def test_the_time_limit_stays_with_us() -> None:
    post = chat_request(TARGET, "Hi", {"timeout_s": 3})
    assert post.timeout_s == 3
    assert "timeout_s" not in body_of(post)


@pytest.mark.parametrize("stop", ["a", ["a"], ("a",)])
def test_stop_is_always_sent_as_a_list(stop: object) -> None:
    assert body_of(chat_request(TARGET, "Hi", {"stop": stop}))["stop"] == ["a"]


# --- what is refused -------------------------------------------------------------------------------------------------


def test_the_sampling_type_and_the_closed_list_have_the_same_fields() -> None:
    assert set(Sampling.__annotations__) == set(FIELDS)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"temperature": 2.5}, "`temperature` must be a number from 0 to 2, not `2.5`"),
        ({"temperature": -1}, "`temperature` must be a number from 0 to 2, not `-1`"),
        ({"temperature": True}, "`temperature` must be a number from 0 to 2, not `True`"),
        ({"temperature": math.nan}, "`temperature` must be a number from 0 to 2, not `nan`"),
        ({"temperature": None}, "`temperature` must be a number from 0 to 2, not `None`"),
        ({"top_p": 0}, "`top_p` must be a number above 0 and at most 1, not `0`"),
        ({"top_p": "0.5"}, "`top_p` must be a number above 0 and at most 1, not `'0.5'`"),
        ({"top_k": 1.0}, "`top_k` must be a whole number of at least -1, not `1.0`"),
        ({"min_p": 1.1}, "`min_p` must be a number from 0 to 1, not `1.1`"),
        ({"max_tokens": 0}, "`max_tokens` must be a whole number of at least 1, not `0`"),
        ({"repetition_penalty": 0}, "`repetition_penalty` must be a number above 0, not `0`"),
        ({"repetition_penalty": math.inf}, "`repetition_penalty` must be a number above 0, not `inf`"),
        ({"seed": 2**32}, "`seed` must be a whole number from 0 to 4294967294, not `4294967296`"),
        ({"stop": ""}, "`stop` must be a text or a list of texts, none of them empty, not `''`"),
        ({"stop": ["a", 1]}, "`stop` must be a text or a list of texts, none of them empty, not `['a', 1]`"),
    ],
)
def test_a_value_out_of_range_is_refused_with_its_range(sampling: Mapping[str, object], message: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        chat_request(TARGET, "Hi", sampling)
    assert raised.value.message == message
    assert raised.value.parameter == next(iter(sampling))


@settings(deadline=None)
@given(
    st.sampled_from([name for name, rule in FIELDS.items() if isinstance(rule, Number)]), st.floats() | st.integers()
)
def test_numbers_pass_exactly_inside_their_range(name: str, value: float) -> None:
    rule = FIELDS[name]
    assert isinstance(rule, Number)
    inside = math.isfinite(value) and rule.low <= value <= rule.high and not (rule.above and value == rule.low)
    allowed = inside and not (rule.kind is int and isinstance(value, float))
    if allowed:
        assert check_sampling({name: value}) == {name: value}
    else:
        with pytest.raises(InvalidRequestError):
            check_sampling({name: value})


def test_an_unknown_field_names_the_near_one() -> None:
    with pytest.raises(TypeError, match=r"^there is no `temprature`; did you mean `temperature`\?$"):
        chat_request(TARGET, "Hi", {"temprature": 0})
    with pytest.raises(TypeError, match=r"^there is no `xyzzy`$"):
        chat_request(TARGET, "Hi", {"xyzzy": 0})


def test_what_the_engine_cannot_honour_is_refused_and_never_sent() -> None:
    target = Target("m", "e", Wire(unsupported=frozenset({"seed", "min_p"})), 64)
    with pytest.raises(UnsupportedParameterError) as raised:
        chat_request(target, "Hi", {"seed": 1})
    assert (raised.value.parameter, raised.value.engine) == ("seed", "e")
    assert "min_p" not in body_of(chat_request(target, "Hi", {}))


def test_more_tokens_than_the_context_are_refused_with_both_numbers() -> None:
    with pytest.raises(ContextOverflowError, match="`max_tokens` of 5,000 is more than the context of 4,096 tokens"):
        chat_request(TARGET, "Hi", {"max_tokens": 5000})


@pytest.mark.parametrize("prompt", ["", None, ["Hi"]])
def test_an_empty_prompt_is_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequestError, match="The prompt must be a text that is not empty"):
        completion_request(TARGET, prompt, {})


# --- messages --------------------------------------------------------------------------------------------------------


def test_a_text_is_one_user_message() -> None:
    assert read_messages("Hi") == [{"role": "user", "content": "Hi"}]


def test_a_developer_is_the_system_and_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    user = {"role": "user", "content": parts, "name": None}
    messages: list[Message] = [{"role": "developer", "content": "Be brief."}, user]
    assert read_messages(messages) == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "ab"}]


@pytest.mark.parametrize(
    ("messages", "parameter"),
    [
        ("", "messages"),
        ([], "messages"),
        ({"role": "user", "content": "Hi"}, "messages"),
        (["Hi"], "messages.0"),
        ([{"role": "user", "content": "Hi", "tool_calls": []}], "messages.0"),
        ([{"role": "robot", "content": "Hi"}], "messages.0.role"),
        ([{"content": "Hi"}], "messages.0.role"),
        ([{"role": "user"}], "messages.0.content"),
        ([{"role": "user", "content": 1}], "messages.0.content"),
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}], "messages.0.content.0"),
    ],
)
def test_what_is_no_conversation_of_texts_is_refused_by_name(messages: Any, parameter: str) -> None:
    with pytest.raises(InvalidRequestError) as raised:
        read_messages(messages)
    assert raised.value.parameter == parameter


# --- results ---------------------------------------------------------------------------------------------------------


def test_results_print_as_their_text_and_pickle() -> None:
    result = Result("Hello", "stop", USAGE, TIMINGS)
    reply: Reply[None] = Reply("Hello", "stop", USAGE, TIMINGS, "hm")
    assert (str(result), str(reply)) == ("Hello", "Hello")
    for value in (result, reply, Chunk("a", "", "stop")):
        assert pickle.loads(pickle.dumps(value)) == value


def test_a_reply_is_ready_to_append_and_usage_adds_up() -> None:
    reply: Reply[None] = Reply("Hello", "stop", USAGE, TIMINGS)
    assert reply.message == {"role": "assistant", "content": "Hello"}
    assert reply.usage.total_tokens == 7
    talk: list[Message] = [{"role": "user", "content": "Hi"}, reply.message]
    assert read_messages(talk)[-1]["content"] == "Hello"
