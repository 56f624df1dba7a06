"""How tokens become an answer in OpenAI's shape: pieces of text, log-probabilities, why it ended, counted tokens."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from openai_backend import Token
from openai_request import Asked
from openai_tools import ANYTHING, Call, CallFilter, Format
from reasoning import ReasoningFilter, Tags
from stop_strings import StopFilter

Json = dict[str, Any]


class Piece(NamedTuple):
    """What is sent at once; the last one has a `finish_reason`."""

    text: str = ""
    reasoning: str = ""
    logprobs: Sequence[Token] = ()
    calls: Sequence[Call] = ()
    finish_reason: str | None = None


class Answer:
    """One answer while its tokens come; what was counted so far can be read at any time.

    `tags` enclose its thinking, which `is_open` where the prompt ended with the first of them; `style` is how the model
    writes calls.
    """

    def __init__(
        self,
        asked: Asked,
        prompt_tokens: int,
        tags: Tags | None = None,
        *,
        is_open: bool = False,
        style: Format | None = None,
    ) -> None:
        self.prompt_tokens = prompt_tokens
        self.completion_tokens = self.reasoning_tokens = 0
        self.prompt_s: float | None = None
        self.is_finished = False
        self._stops = StopFilter(asked.stops)
        self._reasoning = ReasoningFilter(tags, is_open=is_open)
        self._calls = CallFilter(None if not asked.tools else ANYTHING if asked.must_call else style)
        self._logprobs = _Logprobs() if asked.logprobs is not None else None
        self._is_plain = not asked.stops and tags is None and asked.logprobs is None and not asked.tools

    def feed(self, token: Token) -> Piece:
        """Return what the token adds, which may be nothing yet."""
        if self.completion_tokens == 0:
            self.prompt_s = token.prompt_s
        if token.is_end:
            return self.finish("stop")
        self.completion_tokens += 1
        return Piece(token.text) if self._is_plain else self._filter(token)

    def finish(self, reason: str = "length") -> Piece:
        """Return the last piece: what was held back."""
        self.is_finished = True
        split, last = self._reasoning.feed(self._stops.finish()), self._reasoning.finish()
        text = self._calls.feed(split.text + last.text)
        rest, calls = self._calls.finish()
        logprobs = self._logprobs.finish(self._stops.is_stopped) if self._logprobs else ()
        ended = "tool_calls" if calls and reason == "stop" else reason
        return Piece(text + rest, split.reasoning + last.reasoning, logprobs, calls, ended)

    def usage(self) -> Json:
        """Return the counted tokens, and the time that the prompt took where the model said it."""
        counts: Json = {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens}
        counts["total_tokens"] = self.prompt_tokens + self.completion_tokens
        if self.reasoning_tokens:
            counts["completion_tokens_details"] = {"reasoning_tokens": self.reasoning_tokens}
        timings = {} if self.prompt_s is None else {"timings": {"prompt_ms": round(self.prompt_s * 1000, 3)}}
        return {"usage": counts, **timings}

    def _filter(self, token: Token) -> Piece:
        was_inside = self._reasoning.is_inside
        sure = self._stops.feed(token.text)
        split = self._reasoning.feed(sure)
        self.reasoning_tokens += was_inside or self._reasoning.is_inside
        text = self._calls.feed(split.text)
        logprobs = self._logprobs.feed(token, len(sure)) if self._logprobs else ()
        if not self._stops.is_stopped:
            return Piece(text, split.reasoning, logprobs)
        last = self.finish("stop")
        reasoning = split.reasoning + last.reasoning
        return last._replace(text=text + last.text, reasoning=reasoning, logprobs=(*logprobs, *last.logprobs))


class _Logprobs:
    """Keeps each token until the text that it begins with is certain to be part of the answer."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Token]] = deque()
        self._made = self._sure = 0

    def feed(self, token: Token, sure: int) -> Sequence[Token]:
        """Return the tokens that are certain now that `sure` more characters are."""
        self._waiting.append((self._made, token))
        self._made += len(token.text)
        self._sure += sure
        taken = []
        while self._waiting and (self._waiting[0][0] < self._sure or self._made == self._sure):
            taken.append(self._waiting.popleft()[1])
        return taken

    def finish(self, is_stopped: bool) -> Sequence[Token]:
        """Return the rest, which after a stop string is none."""
        return () if is_stopped else [token for _, token in self._waiting]


# --- events ----------------------------------------------------------------------------------------------------------


class Envelope:
    """Writes the answers to one request; what is the same in all of its events is made once."""

    def __init__(self, identity: str, model: str, *, is_chat: bool) -> None:
        self._is_chat = is_chat
        kind = "chat.completion" if is_chat else "text_completion"
        self._head: Json = {"id": identity, "object": kind, "created": int(time.time()), "model": model}
        streamed = {**self._head, "object": kind + ".chunk"} if is_chat else self._head
        self._prefix = b"data: " + json.dumps(streamed)[:-1].encode() + b', "choices": '

    def opening(self) -> bytes:
        """Return the event that says who speaks, which a conversation's stream begins with."""
        return self._event([_choice({"role": "assistant", "content": None})]) if self._is_chat else b""

    def event(self, piece: Piece) -> bytes:
        """Return one piece as an event."""
        if not self._is_chat:
            choice: Json = {"index": 0, "text": piece.text, "finish_reason": piece.finish_reason}
        else:
            choice = _choice(_delta(piece), piece.finish_reason)
        if piece.logprobs:
            choice["logprobs"] = _logprobs_json(piece.logprobs)
        return self._event([choice])

    def closing(self, answer: Answer | None) -> bytes:
        """Return the end of the stream, after the counted tokens of an `answer`."""
        usage = b"" if answer is None else self._event([], answer.usage())
        return usage + b"data: [DONE]\n\n"

    def whole(self, pieces: Sequence[Piece], answer: Answer) -> Json:
        """Return all pieces as one answer."""
        text = "".join(piece.text for piece in pieces)
        reasoning = "".join(piece.reasoning for piece in pieces)
        logprobs = [token for piece in pieces for token in piece.logprobs]
        choice: Json = {"index": 0, "finish_reason": pieces[-1].finish_reason}
        if self._is_chat:
            thought = {"reasoning_content": reasoning} if reasoning else {}
            called = {"tool_calls": _calls_json(pieces[-1].calls)} if pieces[-1].calls else {}
            choice["message"] = {"role": "assistant", "content": text, **thought, **called}
        else:
            choice["text"] = text
        if logprobs:
            choice["logprobs"] = _logprobs_json(logprobs)
        return {**self._head, "choices": [choice], **answer.usage()}

    def _event(self, choices: Sequence[Json], more: Mapping[str, object] | None = None) -> bytes:
        tail = "}\n\n" if more is None else f", {json.dumps(more)[1:]}\n\n"
        return self._prefix + f"{json.dumps(choices)}{tail}".encode()


def error_event(body: Json) -> bytes:
    """Return the event that tells of an error in the middle of an answer."""
    return f"data: {json.dumps(body)}\n\n".encode()


def _choice(delta: Json, finish_reason: str | None = None) -> Json:
    return {"index": 0, "delta": delta, "finish_reason": finish_reason}


def _delta(piece: Piece) -> Json:
    delta: Json = {"reasoning_content": piece.reasoning} if piece.reasoning else {}
    if piece.text:
        delta["content"] = piece.text
    if piece.calls:
        delta["tool_calls"] = _calls_json(piece.calls)
    return delta


def _calls_json(calls: Sequence[Call]) -> list[Json]:
    return [
        {
            "index": index,
            "id": call.identity,
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for index, call in enumerate(calls)
    ]


def _logprobs_json(tokens: Sequence[Token]) -> Json:
    """Return log-probabilities as a chat has them; each alternative has its token's number besides."""
    return {
        "content": [
            {
                **_scored(token.id, token.text, token.logprob or 0.0),
                "top_logprobs": [_scored(*alternative) for alternative in token.top],
            }
            for token in tokens
        ]
    }


def _scored(token_id: int, text: str, logprob: float) -> Json:
    return {"id": token_id, "token": text, "bytes": list(text.encode()), "logprob": logprob}
