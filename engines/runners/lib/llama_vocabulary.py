"""The tokens of a GGUF model: texts to tokens and back, by llama.cpp's own functions."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import llama_cpp

LONGEST_PIECE_BYTES = 16384


class Vocabulary:
    """Of `shown`, those that are one special token are part of the text that a model writes, as others are not."""

    def __init__(self, llama: llama_cpp.Llama, shown: Sequence[str]) -> None:
        self._llama = llama
        self._vocab = llama_cpp.llama_model_get_vocab(llama.model)
        self._beginning = llama.token_bos() if llama_cpp.llama_vocab_get_add_bos(self._vocab) else None
        self._buffer = ctypes.create_string_buffer(LONGEST_PIECE_BYTES)
        tokens = [llama.tokenize(text.encode(), add_bos=False, special=True) for text in shown]
        self._shown = {ids[0] for ids in tokens if len(ids) == 1}
        self.piece = functools.lru_cache(maxsize=65536)(self._piece)

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a prompt; the beginning stands before them once, if the model wants it."""
        tokens: list[int] = self._llama.tokenize(text.encode(), add_bos=False, special=True)
        if self._beginning is not None and tokens[:1] != [self._beginning]:
            tokens.insert(0, self._beginning)
        return tokens

    def spell(self, token: int) -> bytes:
        """Return the bytes of a token, those of a special one too."""
        return self._read(token, special=True)

    def is_end(self, token: int) -> bool:
        """Return whether the token ends an answer."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def for_grammars(self) -> Any:
        """Return llguidance's view of the tokens."""
        from llguidance.llamacpp import lltokenizer_from_vocab

        ends = [token for token in range(llama_cpp.llama_vocab_n_tokens(self._vocab)) if self.is_end(token)]
        return lltokenizer_from_vocab(self._vocab, eos_token=ends)

    def _piece(self, token: int) -> bytes:
        """Return the bytes that a token adds to an answer."""
        return self._read(token, special=token in self._shown)

    def _read(self, token: int, *, special: bool) -> bytes:
        length = llama_cpp.llama_token_to_piece(self._vocab, token, self._buffer, LONGEST_PIECE_BYTES, 0, special)
        return self._buffer.raw[: max(0, length)]
