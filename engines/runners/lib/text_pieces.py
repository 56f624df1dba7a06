"""The text that each token adds, by a Transformers tokenizer: whole characters only, spaces as the prompt asks for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNFINISHED = "\N{REPLACEMENT CHARACTER}"
LOOK_BACK = 6  # tokens of the prompt's end, which decide whether a space comes before the first word


class TextPieces:
    """Decodes tokens one by one. A token's text depends on those before it, so a few of them are decoded again."""

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
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
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
