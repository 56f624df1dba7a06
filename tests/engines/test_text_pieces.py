"""Text from tokens one by one: whole characters, and the spaces that a tokenizer writes only between words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text_pieces import TextPieces, hider


class Bytes:
    """A tokenizer whose tokens are bytes, two special ones, and one that was added and is not special."""

    added: Mapping[int, str] = {256: "<end>", 257: "[TOOL_CALLS]", 258: "<think>"}

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool = False
    ) -> str:
        assert not clean_up_tokenization_spaces
        kept = [token for token in ids if not (skip_special_tokens and token in (256, 257))]
        return b"".join(map(self._bytes, kept)).decode(errors="replace")

    def _bytes(self, token: int) -> bytes:
        return bytes((token,)) if token < 256 else self.added[token].encode()


class Words:
    """A tokenizer as SentencePiece has them: the space before the first word of what it decodes is not written."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool = False
    ) -> str:
        return "".join(self.words[token] for token in ids).removeprefix(" ")


def pieces_of(tokenizer: Bytes | Words, prompt_ids: Sequence[int], shown: Sequence[str] = ()) -> TextPieces:
    return TextPieces(tokenizer, prompt_ids, hider(tokenizer, shown))


@given(prompt=st.text(max_size=8), answer=st.text(max_size=20))
def test_pieces_add_up_and_are_whole_characters(prompt: str, answer: str) -> None:
    answer = answer.replace("\N{REPLACEMENT CHARACTER}", "")
    pieces = pieces_of(Bytes(), list(prompt.replace("\N{REPLACEMENT CHARACTER}", "").encode()))
    texts = [pieces.add(token) for token in answer.encode()]
    assert "".join(texts) == answer
    assert all(len(text) <= 1 for text in texts)


def test_a_special_token_adds_nothing_and_hides_nothing() -> None:
    pieces = pieces_of(Bytes(), [256, 65])
    assert [pieces.add(token) for token in (66, 256, 257, 258, 67)] == ["B", "", "", "<think>", "C"]


def test_special_tokens_that_begin_calls_or_thinking_are_text() -> None:
    pieces = pieces_of(Bytes(), [65], shown=("[TOOL_CALLS]", "<think>"))
    assert [pieces.add(token) for token in (256, 257, 91, 256)] == ["", "[TOOL_CALLS]", "[", ""]


@pytest.mark.parametrize(("prompt", "text"), [([0, 1], " boats go"), ([], "boats go")])
def test_a_space_comes_before_the_first_word_where_the_prompt_asks_for_it(prompt: list[int], text: str) -> None:
    pieces = pieces_of(Words(" the", " river", " boats", " go"), prompt)
    assert pieces.add(2) + pieces.add(3) == text


def test_an_alternative_is_spelt_as_it_would_be_and_changes_nothing() -> None:
    pieces = pieces_of(Words(" the", " river", " boats", " go"), [0])
    assert [pieces.look_at(1), pieces.look_at(3), pieces.add(1), pieces.look_at(2)] == [
        " river",
        " go",
        " river",
        " boats",
    ]
