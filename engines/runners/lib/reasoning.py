"""A model's thinking apart from its answer: the text between two tags at the beginning."""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple

from stop_strings import held_back


class Tags(NamedTuple):
    """What a model writes before and after its thinking."""

    start: str
    end: str


class Split(NamedTuple):
    """What a piece of text adds to the thinking, and to the answer."""

    reasoning: str
    text: str


class _Place(Enum):
    BEFORE = auto()
    INSIDE = auto()
    BEHIND = auto()
    ANSWER = auto()


class ReasoningFilter:
    """Splits a text that comes in pieces; white space around the thinking belongs to neither part.

    `is_open` says that the prompt ended with the start tag. A text that does not begin with it is all answer.
    """

    def __init__(self, tags: Tags | None, *, is_open: bool = False) -> None:
        self._tags = tags or Tags("", "")
        self._place = _Place.INSIDE if is_open else _Place.BEFORE if tags else _Place.ANSWER
        self._held = ""
        self._is_blank = True  # nothing of the thinking was given out yet

    @property
    def is_inside(self) -> bool:
        """True while the thinking goes on."""
        return self._place is _Place.INSIDE

    def feed(self, text: str) -> Split:
        """Return what is certain to belong to either part."""
        if self._place is _Place.ANSWER:
            return Split("", text)
        self._held += text
        if self._place is _Place.BEFORE:
            self._look_for_start()
        reasoning = self._take_reasoning() if self._place is _Place.INSIDE else ""
        return Split(reasoning, self._take_answer())

    def finish(self) -> Split:
        """Return what was held back."""
        held, self._held = self._held, ""
        if self._place is _Place.INSIDE:
            return Split(held.strip() if self._is_blank else held.rstrip(), "")
        return Split("", held if self._place is _Place.BEFORE else "")

    def _look_for_start(self) -> None:
        begun = self._held.lstrip()
        if begun.startswith(self._tags.start):
            self._place, self._held = _Place.INSIDE, begun.removeprefix(self._tags.start)
        elif not self._tags.start.startswith(begun):
            self._place = _Place.ANSWER

    def _take_reasoning(self) -> str:
        if self._is_blank:
            self._held = self._held.lstrip()
        reasoning, end, rest = self._held.partition(self._tags.end)
        if end:
            self._place, self._held = _Place.BEHIND, rest
            return reasoning.rstrip()
        sure = self._held[: len(self._held) - held_back(self._held, (self._tags.end,))].rstrip()
        self._held = self._held[len(sure) :]
        self._is_blank = self._is_blank and not sure
        return sure

    def _take_answer(self) -> str:
        if self._place is _Place.BEHIND:
            self._held = self._held.lstrip()
            self._place = _Place.ANSWER if self._held else _Place.BEHIND
        if self._place is not _Place.ANSWER:
            return ""
        text, self._held = self._held, ""
        return text
