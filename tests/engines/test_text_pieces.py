"""Text from tokens one by one: whole characters, and the spaces that a tokenizer writes only between words."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_pieces import TextPieces


class Bytes:
    """A tokenizer whose tokens are bytes; 256 is special."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        assert skip_special_tokens
        assert not clean_up_tokenization_spaces
        return bytes(token for token in ids if token < 256).decode(errors="replace")


class Words:
    """A tokenizer as SentencePiece has them: the space before the first word of what it decodes is not written."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        return "".join(self.words[token] for token in ids).removeprefix(" ")


@given(prompt=st.text(max_size=8), answer=st.text(max_size=20))
def test_pieces_add_up_and_are_whole_characters(prompt: str, answer: str) -> None:
    answer = answer.replace("\N{REPLACEMENT CHARACTER}", "")
    pieces = TextPieces(Bytes(), list(prompt.replace("\N{REPLACEMENT CHARACTER}", "").encode()))
    texts = [pieces.add(token) for token in answer.encode()]
    assert "".join(texts) == answer
    assert all(len(text) <= 1 for text in texts)


def test_a_special_token_adds_nothing_and_hides_nothing() -> None:
    pieces = TextPieces(Bytes(), [65])
    assert [pieces.add(token) for token in (66, 256, 67)] == ["B", "", "C"]


@pytest.mark.parametrize(("prompt", "text"), [([0, 1], " boats go"), ([], "boats go")])
def test_a_space_comes_before_the_first_word_where_the_prompt_asks_for_it(prompt: list[int], text: str) -> None:
    pieces = TextPieces(Words(" the", " river", " boats", " go"), prompt)
    assert pieces.add(2) + pieces.add(3) == text


def test_an_alternative_is_spelt_as_it_would_be_and_changes_nothing() -> None:
    pieces = TextPieces(Words(" the", " river", " boats", " go"), [0])
    assert [pieces.look_at(1), pieces.look_at(3), pieces.add(1), pieces.look_at(2)] == [
        " river",
        " go",
        " river",
        " boats",
    ]
