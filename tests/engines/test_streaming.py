"""Streams of events: read in any pieces, checked for their end, errors inside them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.generation import Chunk, Usage
from engines.streaming import StreamReader, refusal_of
from registry.errors import ContextOverflowError, GenerationError, InvalidRequestError

USAGE = {"usage": {"prompt_tokens": 5, "completion_tokens": 3}}
TEXTS = st.lists(st.text(min_size=1), min_size=1)


class Clock:
    """A clock that goes on by a second each time it is read."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1
        return self.now


def event(data: object) -> bytes:
    return b"data: " + json.dumps(data, ensure_ascii=False).encode() + b"\n\n"


def chat_stream(texts: Sequence[str], finish_reason: str = "stop") -> bytes:
    first = event({"choices": [{"delta": {"role": "assistant", "content": None}, "finish_reason": None}]})
    body = b"".join(event({"choices": [{"delta": {"content": text}, "finish_reason": None}]}) for text in texts)
    last = event({"choices": [{"delta": {}, "finish_reason": finish_reason}]}) + event({"choices": [], **USAGE})
    return first + body + last + b"data: [DONE]\n\n"


def read(stream: bytes) -> StreamReader:
    reader = StreamReader("echo")
    reader.feed(stream)
    return reader


@settings(deadline=None)
@given(TEXTS, st.data())
def test_any_cut_of_the_bytes_gives_the_same_answer(texts: list[str], data: st.DataObject) -> None:
    stream = chat_stream(texts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    reader = StreamReader("echo")
    edges = zip([0, *cuts], [*cuts, len(stream)], strict=True)
    chunks = [chunk for start, end in edges for chunk in reader.feed(stream[start:end])]
    assert [chunk.text for chunk in chunks] == [*texts, ""]
    assert reader.reply().text == "".join(texts)


def test_the_last_chunk_carries_the_finish_reason_and_usage_is_kept() -> None:
    reader = StreamReader("echo")
    assert reader.feed(chat_stream(["a"], "length")) == [Chunk("a"), Chunk("", "", "length")]
    assert reader.reply().finish_reason == "length"
    assert reader.reply().usage == Usage(5, 3)


def test_completions_comments_and_carriage_returns_are_read() -> None:
    text = event({"choices": [{"text": "Hi", "finish_reason": "stop"}], **USAGE})
    reader = read(b": ping\r\n\r\n" + text.replace(b"\n", b"\r\n") + b"data: [DONE]\r\n\r\n")
    assert reader.result().text == "Hi"


def test_reasoning_stays_apart_from_the_text() -> None:
    thought = event({"choices": [{"delta": {"reasoning_content": "hm"}, "finish_reason": None}]})
    reply = read(thought + chat_stream(["Yes"])).reply()
    assert (reply.text, reply.reasoning) == ("Yes", "hm")


def test_times_are_counted_from_the_request_and_speed_after_the_first_token() -> None:
    reader = StreamReader("echo", Clock())
    reader.feed(chat_stream(["a", "b", "c"]))
    timings = reader.reply().timings
    assert (timings.first_token_s, timings.total_s, timings.tokens_per_s, timings.queue_s) == (1, 3, 1, 0)


def test_waiting_is_what_the_engine_did_not_spend_on_the_prompt() -> None:
    reader = StreamReader("echo", Clock())
    reader.feed(chat_stream(["a"]) + event({"choices": [], **USAGE, "timings": {"prompt_ms": 250.0}}))
    assert reader.reply().timings.queue_s == 0.75


@pytest.mark.parametrize(
    "stream", [b"", chat_stream(["a"])[:60], event({"choices": [{"text": "a", "finish_reason": "stop"}]})]
)
def test_an_answer_without_its_end_is_no_answer(stream: bytes) -> None:
    with pytest.raises(GenerationError, match="`echo` broke off its answer"):
        read(stream).reply()


def test_an_unknown_finish_reason_breaks_the_answer() -> None:
    with pytest.raises(GenerationError, match="`abort`"):
        read(chat_stream(["a"], "abort"))


def test_an_event_that_is_no_json_breaks_the_answer() -> None:
    with pytest.raises(GenerationError, match="not JSON"):
        read(b"data: <html>\n\n")


def test_an_error_in_the_stream_is_raised() -> None:
    with pytest.raises(GenerationError, match="out of slots"):
        read(event({"error": {"code": 500, "message": "out of slots"}}))
    with pytest.raises(ContextOverflowError) as raised:
        read(event({"error": {"code": 400, "message": "too long", "n_prompt_tokens": 900, "n_ctx": 512}}))
    assert (raised.value.prompt_tokens, raised.value.context_length) == (900, 512)


def test_refusals_become_our_errors() -> None:
    refusal = refusal_of("echo", 400, b'{"error": {"message": "bad role", "type": "invalid_request_error"}}')
    assert isinstance(refusal, InvalidRequestError)
    assert refusal.message == "`echo` refused the request: bad role"
    assert isinstance(refusal_of("echo", 503, b'{"error": {"message": "loading"}}'), GenerationError)
    assert refusal_of("echo", 502, b"<html>no</html>").message == "`echo` answered 502: <html>no</html>"


# vLLM 0.32's words.
LIMIT = "This model's maximum context length is 512 tokens. However, your prompt contains"
OVERFLOWS = [
    (
        f"{LIMIT} at least 512 input tokens, which exceeds this limit even without any output tokens. Please "
        "reduce the length of the input prompt. (parameter=input_tokens, value=512)",
        (512, "The prompt has at least 512 tokens, the context 512"),
    ),
    (
        f"{LIMIT} 700 input tokens, which exceeds this limit even without any output tokens.",
        (700, "The prompt has 700 tokens, the context 512"),
    ),
    (
        f"{LIMIT} 26600 characters (more than 8687 characters, which is the upper bound for 511 input tokens). Please "
        "reduce the length of the input prompt.",
        (1565, "The prompt has at least 1,565 tokens, the context 512"),
    ),
]


@pytest.mark.parametrize(("words", "expected"), OVERFLOWS)
def test_vllms_words_for_too_long_a_prompt_are_understood(words: str, expected: tuple[int, str]) -> None:
    body = json.dumps({"error": {"message": words, "type": "BadRequestError", "param": None, "code": 400}}).encode()
    error = refusal_of("vllm", 400, body)
    assert isinstance(error, ContextOverflowError)
    assert (error.prompt_tokens, error.message) == expected
    assert error.context_length == 512
