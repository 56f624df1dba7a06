"""An engine's stream on its way through: sent on as it comes, with a look at what the log wants to know of it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from launcher.gateway.records import Record

END = b"\n\n"
DONE = b"[DONE]\n\n"
# The last events of Anthropic's streams and of OpenAI's newer ones.
LAST = re.compile(rb'"type": ?"(?:message_stop|response\.(?:completed|incomplete|failed))"')
# Only as a key of JSON: a quotation mark inside a text has a backslash before it.
BEGUN = re.compile(rb'"(?:content|text|reasoning|reasoning_content|delta)": ?"[^"]|"tool_calls": ?\[\{')
USAGE = re.compile(rb'"usage": ?\{')
FINISH_REASON = re.compile(rb'"finish_reason": ?"(\w+)"')
STOP_REASON = re.compile(rb'"stop_reason": ?"(\w+)"')
INPUT_TOKENS = re.compile(rb'"input_tokens": ?(\d+)')
OUTPUT_TOKENS = re.compile(rb'"output_tokens": ?(\d+)')
TAIL_BYTES = 4096


class EventStream:
    """The events of a chat or a completion, which end with the usage; `hides_usage` takes that event out again.

    Nothing is parsed but that event: of each piece it is only asked whether it ends with an event and has a usage.
    """

    def __init__(self, record: Record, *, hides_usage: bool) -> None:
        self._record = record
        self._hides_usage = hides_usage
        self._held = b""
        self._last = b""

    def feed(self, piece: bytes) -> bytes:
        """Return what may be sent on now: whole events."""
        if self._held:
            piece, self._held = self._held + piece, b""
        if not piece.endswith(END):
            end = piece.rfind(END) + len(END) if END in piece else 0
            piece, self._held = piece[:end], piece[end:]
        if self._record.first_token_s is None and BEGUN.search(piece):
            self._record.note_first_token()
        if piece.endswith(DONE):
            self._record.is_whole = True
        if b'"usage"' in piece and USAGE.search(piece):
            return self._read_usage(piece)
        self._last = piece or self._last
        return piece

    def rest(self) -> bytes:
        """Return what was held back and never became whole."""
        return self._held

    def _read_usage(self, piece: bytes) -> bytes:
        self._note_finish(self._last)
        self._note_finish(piece)
        events = piece.split(END)
        return END.join(event for event in events if not (self._is_usage(event) and self._hides_usage))

    def _note_finish(self, piece: bytes) -> None:
        if found := FINISH_REASON.findall(piece):
            self._record.finish_reason = found[-1].decode()

    def _is_usage(self, event: bytes) -> bool:
        """Return whether an event is there for the usage alone, and note that."""
        if not USAGE.search(event):
            return False
        try:
            said: Mapping[str, Any] = json.loads(event.partition(b":")[2])
        except ValueError:  # whatever it is, it is the client's
            return False
        usage = said["usage"]
        self._record.prompt_tokens = usage.get("prompt_tokens")
        self._record.completion_tokens = usage.get("completion_tokens")
        return not said.get("choices")


class PassedStream:
    """The bytes of an answer in the engine's own shape, a stream or not; nothing is taken out."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._first = b""
        self._tail = b""

    def feed(self, piece: bytes) -> bytes:
        self._first = self._first or piece
        if self._record.first_token_s is None and BEGUN.search(piece):
            self._record.note_first_token()
        self._tail = piece if len(piece) >= TAIL_BYTES else (self._tail + piece)[-TAIL_BYTES:]
        if LAST.search(piece):
            self._record.is_whole = True
            self._note_end()
        return piece

    def rest(self) -> bytes:
        """Note how it ended; nothing was held back."""
        self._note_end()
        return b""

    def _note_end(self) -> None:
        """Note the tokens and why it ended; the tokens that went in are in Anthropic's first event."""
        ends = self._tail
        self._record.prompt_tokens = _last_number(INPUT_TOKENS, ends) or _last_number(INPUT_TOKENS, self._first)
        self._record.completion_tokens = _last_number(OUTPUT_TOKENS, ends)
        if found := STOP_REASON.findall(ends):
            self._record.finish_reason = found[-1].decode()


def _last_number(pattern: re.Pattern[bytes], text: bytes) -> int | None:
    found = pattern.findall(text)
    return int(found[-1]) if found else None
