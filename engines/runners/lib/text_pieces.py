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
        self._known = self._decode()
        self._fresh = len(self._ids)

    def add(self, token: int) -> str:
        """Return the text that the token adds, empty while a character is incomplete."""
        self._ids.append(token)
        text = self._decode()
        if len(text) <= len(self._known) or text.endswith(UNFINISHED):
            return ""
        added = text[len(self._known) :]
        self._ids = self._ids[self._fresh :]
        self._fresh = len(self._ids)
        self._known = self._decode()
        return added

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
