"""Stop strings, thinking and log-probabilities: the same whatever the pieces in which a text comes."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from openai_answer import Answer
from openai_backend import Token
from openai_request import Asked
from reasoning import ReasoningFilter, Split, Tags
from stop_strings import StopFilter

TEXTS = st.text("ab<>", max_size=24)
STOPS = st.lists(st.text("ab<>", min_size=1, max_size=4), max_size=3)
TAGS = Tags("<a>", "<b>")


@st.composite
def pieces_of(draw: st.DrawFn, texts: st.SearchStrategy[str]) -> list[str]:
    """Return a text in pieces, some of them empty."""
    text = draw(texts)
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def stopped(pieces: Sequence[str], stops: Sequence[str]) -> tuple[str, bool]:
    stop_filter = StopFilter(stops)
    text = ""
    for piece in pieces:
        text += stop_filter.feed(piece)
        if stop_filter.is_stopped:
            return text, True
    return text + stop_filter.finish(), False


def split(pieces: Sequence[str]) -> Split:
    reasoning = ReasoningFilter(TAGS)
    parts = [*(reasoning.feed(piece) for piece in pieces), reasoning.finish()]
    return Split("".join(part.reasoning for part in parts), "".join(part.text for part in parts))


@given(pieces_of(TEXTS), STOPS)
def test_a_text_ends_at_the_stop_string_that_is_whole_first(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)
    ends = {end: stop for stop in stops for end in range(len(whole) + 1) if whole[:end].endswith(stop)}
    if not ends:
        assert stopped(pieces, stops) == (whole, False)
        return
    first = min(ends)
    longest = max((stop for stop in stops if whole[:first].endswith(stop)), key=len)
    assert stopped(pieces, stops) == (whole[: first - len(longest)], True)


@given(pieces_of(TEXTS), STOPS)
def test_no_more_is_held_back_than_may_become_a_stop_string(pieces: list[str], stops: list[str]) -> None:
    stop_filter, sent, whole = StopFilter(stops), "", ""
    for piece in pieces:
        whole += piece
        sent += stop_filter.feed(piece)
        if stop_filter.is_stopped:
            return
        held = whole.removeprefix(sent)
        assert not held or any(stop.startswith(held) for stop in stops)


@given(pieces_of(st.text("x <>ab\n", max_size=24)))
def test_thinking_is_what_stands_between_the_tags(pieces: list[str]) -> None:
    whole = "".join(pieces)
    begun, start, rest = whole.lstrip().partition(TAGS.start)
    if begun or not start:
        assert split(pieces) == Split("", whole)
        return
    thought, end, answer = rest.partition(TAGS.end)
    assert split(pieces) == Split(thought.strip(), answer.lstrip() if end else "")


@given(pieces_of(TEXTS), STOPS)
def test_each_token_that_begins_in_the_answer_is_told(pieces: list[str], stops: list[str]) -> None:
    answer = Answer(Asked(prompt="x", stops=stops, logprobs=0), 1)
    told: list[Token] = []
    text = ""
    for number, piece in enumerate(pieces):
        made = answer.feed(Token(number, piece, -1.0))
        told.extend(made.logprobs)
        text += made.text
        if answer.is_finished:
            break
    else:
        last = answer.finish()
        told.extend(last.logprobs)
        text += last.text
    begins = [sum(map(len, pieces[:number])) for number in range(answer.completion_tokens)]
    expected = [number for number, begin in enumerate(begins) if begin < len(text) or not stopped(pieces, stops)[1]]
    assert [token.id for token in told if token.text] == [number for number in expected if pieces[number]]
