"""The text that each token adds, by a Transformers tokenizer: whole characters only, spaces as the prompt asks for."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
LOOK_BACK = 6  # tokens of the prompt's end, which decide whether a space comes before the first word


def hider(tokenizer: Any, shown: Collection[str]) -> Callable[[int], bool]:
    """Return what says of a token that it is no part of a text: that it is special, and not one of `shown`.

    Each token is decoded both ways, once: not every tokenizer can list its special ones (mistral-common's, 5.23).
    """

    @functools.cache
    def is_hidden(token: int) -> bool:
        spelt = tokenizer.decode([token], skip_special_tokens=False)
        return bool(spelt) and spelt not in shown and not tokenizer.decode([token], skip_special_tokens=True)

    return is_hidden


class TextPieces:
    """Decodes tokens one by one, those that are hidden as nothing.

    A token's text depends on those before it, so a few of them are decoded again.
    """

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int], is_hidden: Callable[[int], bool]) -> None:
        self._tokenizer = tokenizer
        self._is_hidden = is_hidden
        self._ids = list(prompt_ids[-LOOK_BACK:])
        self._known = self._decode(self._ids)
        self._fresh = len(self._ids)

    def add(self, token: int) -> str:
        """Return the text that the token adds, empty while a character is incomplete."""
        self._ids.append(token)
        added = self._added_by(self._ids)
        if added:
            self._ids = self._ids[self._fresh :]
            self._fresh = len(self._ids)
            self._known = self._decode(self._ids)
        return added

    def look_at(self, token: int) -> str:
        """Return the text that another token would add here."""
        return self._added_by([*self._ids, token])

    def _added_by(self, ids: Sequence[int]) -> str:
        text = self._decode(ids)
        return "" if text.endswith(UNFINISHED) else text[len(self._known) :]

    def _decode(self, ids: Sequence[int]) -> str:
        visible = [token for token in ids if not self._is_hidden(token)]
        return str(self._tokenizer.decode(visible, skip_special_tokens=False, clean_up_tokenization_spaces=False))
