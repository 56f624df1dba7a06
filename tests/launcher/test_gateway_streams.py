"""Streams on their way through: the same events however they are cut, and the usage where it was wanted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launcher.gateway.records import Record
from launcher.gateway.streams import EventStream, PassedStream


def event(**said: object) -> bytes:
    return b"data: " + json.dumps(said).encode() + b"\n\n"


def choice(text: str, reason: str | None = None) -> bytes:
    return event(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": reason}])


USAGE = event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10})
DONE = b"data: [DONE]\n\n"


def record() -> Record:
    return Record(id="1", client="", route="")


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    ends = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[begin:end] for begin, end in pairwise(ends)]


@given(
    texts=st.lists(st.text() | st.sampled_from(('"usage": {', "\n\n", 'data: {"usage":{}}')), max_size=5),
    places=st.lists(st.integers(0, 10_000), max_size=20),
)
def test_only_the_usage_is_taken_out_however_the_stream_is_cut(texts: list[str], places: list[int]) -> None:
    front = b"".join([choice(text) for text in texts] + [choice("", "stop")])
    whole = front + USAGE + DONE
    for hides, wanted in ((True, front + DONE), (False, whole)):
        noted = record()
        stream = EventStream(noted, hides_usage=hides)
        assert b"".join([stream.feed(piece) for piece in cut(whole, places)]) + stream.rest() == wanted
        assert (noted.prompt_tokens, noted.completion_tokens, noted.finish_reason) == (7, 3, "stop")
        assert (noted.first_token_s is not None) is any(texts)


def test_usage_beside_a_choice_stays() -> None:
    noted = record()
    last = event(choices=[{"text": "", "finish_reason": "length"}], usage={"prompt_tokens": 1, "completion_tokens": 2})
    assert EventStream(noted, hides_usage=True).feed(last) == last
    assert (noted.completion_tokens, noted.finish_reason) == (2, "length")


def test_what_only_looks_like_usage_goes_through() -> None:
    odd = b'data: {"usage": {broken\n\n'
    assert EventStream(record(), hides_usage=True).feed(odd) == odd


def test_an_event_that_was_cut_off_is_kept_to_the_end() -> None:
    stream = EventStream(record(), hides_usage=True)
    assert stream.feed(choice("one") + b'data: {"cho') == choice("one")
    assert stream.rest() == b'data: {"cho'


def test_it_is_whole_with_its_last_event_though_the_engine_has_not_hung_up() -> None:
    """Clients leave then: that is no answer broken off."""
    noted = record()
    stream = EventStream(noted, hides_usage=True)
    stream.feed(choice("one", "stop"))
    assert not noted.is_whole
    stream.feed(USAGE + DONE)
    assert noted.is_whole
    assert (noted.completion_tokens, noted.finish_reason) == (3, "stop")


@pytest.mark.parametrize(
    ("end", "tokens"),
    [
        (b'data: {"usage":{"output_tokens":2}}\n\nevent: message_stop\ndata: {"type":"message_stop"}\n\n', 2),
        (b'data: {"type": "response.completed", "response": {"usage": {"output_tokens": 5}}}\n\n', 5),
    ],
)
def test_a_passed_stream_is_whole_with_its_last_event(end: bytes, tokens: int) -> None:
    noted = record()
    stream = PassedStream(noted)
    stream.feed(b'data: {"delta":{"type":"text_delta","text":"a message_stop in a text"}}\n\n')
    assert not noted.is_whole
    stream.feed(end)
    assert (noted.is_whole, noted.completion_tokens) == (True, tokens)


@given(places=st.lists(st.integers(0, 10_000), max_size=20))
def test_a_passed_stream_is_noted_by_its_ends(places: list[int]) -> None:
    start = b'event: message_start\ndata: {"usage":{"input_tokens":5,"output_tokens":0}}\n\n'
    texts = b'data: {"delta":{"type":"text_delta","text":"word"}}\n\n' * 200
    end = b'data: {"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":200}}\n\n'
    whole, noted = start + texts + end, record()
    stream = PassedStream(noted)
    pieces = [start, *cut(texts + end, places)]
    assert b"".join([stream.feed(piece) for piece in pieces]) + stream.rest() == whole
    assert (noted.prompt_tokens, noted.completion_tokens, noted.finish_reason) == (5, 200, "end_turn")
