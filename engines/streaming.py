"""How an engine's answer becomes chunks and a result, and its refusals our errors; no input or output here."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from engines.generation import Chunk, FinishReason, Reply, Result, Timings, TokenLogprob, Usage
from engines.tools import ToolCall, parse_call, parse_written_call
from registry.errors import (
    ContextOverflowError,
    EngineError,
    GenerationError,
    InvalidRequestError,
    UnknownModelError,
    UnsupportedParameterError,
)

FINISH_REASONS: Mapping[str, FinishReason] = {
    "stop": "stop",
    "eos": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "word": "stop",
    "limit": "length",
}


class _Call:
    """A call of a tool, as its pieces come."""

    def __init__(self) -> None:
        self.identity = self.name = self.arguments = ""

    def add(self, piece: Mapping[str, Any]) -> None:
        function = piece.get("function") or {}
        self.identity = piece.get("id") or self.identity
        self.name += function.get("name") or ""
        self.arguments += function.get("arguments") or ""


class StreamReader:
    """Reads the server-sent events of one request, fed in any pieces; make it when the request is sent.

    `alternatives` is how many of them are kept for each token's logarithm, None for neither. With `is_call` the text
    is a call of a tool, and nothing to be shown.

    After the last piece `finish` checks that nothing is missing, and `result` or `reply` is the whole answer.
    """

    def __init__(
        self,
        engine: str,
        clock: Callable[[], float] = time.perf_counter,
        *,
        alternatives: int | None = None,
        is_call: bool = False,
    ) -> None:
        self._engine = engine
        self._is_call = is_call
        self._alternatives = alternatives
        self._clock = clock
        self._started = self._first = self._last = clock()
        self._buffer = b""
        self._has_begun = False
        self._texts: list[str] = []
        self._reasonings: list[str] = []
        self._calls: dict[int, _Call] = {}
        self._logprobs: list[TokenLogprob] = []
        self._finish_reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._prompt_s: float | None = None

    def feed(self, data: bytes) -> list[Chunk]:
        """Return the chunks that `data` completes; raises GenerationError or ContextOverflowError that it carries."""
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [chunk for line in lines if (chunk := self._read_line(line)) is not None]

    def finish(self) -> None:
        """Raise GenerationError if the answer is not whole."""
        if self._finish_reason is None or self._usage is None:
            raise GenerationError(f"`{self._engine}` broke off its answer after {len(self._texts)} pieces")

    def result(self) -> Result:
        """Return the whole answer to a prompt; raises GenerationError before its end."""
        reply = self.reply()
        return Result(reply.text, reply.finish_reason, reply.usage, reply.timings, logprobs=reply.logprobs)

    def reply(self) -> Reply[None]:
        """Return the whole answer to a conversation; raises GenerationError before its end."""
        self.finish()
        assert self._finish_reason is not None
        assert self._usage is not None
        calls = self._tool_calls()
        return Reply(
            text="" if self._is_call else "".join(self._texts),
            # vLLM says `stop` after the call of a tool that was required (0.32).
            finish_reason="tool_calls" if calls and self._finish_reason == "stop" else self._finish_reason,
            usage=self._usage,
            timings=self._timings(self._usage),
            reasoning="".join(self._reasonings) or None,
            tool_calls=calls,
            logprobs=tuple(self._logprobs) or None,
        )

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        if self._is_call:
            return (parse_written_call(self._engine, "".join(self._texts)),)
        calls = [self._calls[index] for index in sorted(self._calls)]
        return tuple(parse_call(self._engine, call.identity, call.name, call.arguments) for call in calls)

    def _read_line(self, line: bytes) -> Chunk | None:
        name, _, value = line.partition(b":")
        if name != b"data" or value.strip() == b"[DONE]":
            return None
        try:
            event = json.loads(value)
        except ValueError as error:
            raise GenerationError(f"`{self._engine}` sent an event that is not JSON: {line[:80]!r}") from error
        return self._read_event(event)

    def _read_event(self, event: Mapping[str, Any]) -> Chunk | None:
        if event.get("error"):
            raise error_in(self._engine, event)
        if usage := event.get("usage"):
            self._read_usage(usage, event.get("timings") or {})
        elif "tokens_evaluated" in event:
            self._read_usage(_usage_of_infill(event), event.get("timings") or {})
        if "choices" not in event and "content" in event:  # llama.cpp fills in by a shape of its own
            return self._read_choice({"text": event["content"], "finish_reason": event.get("stop_type")})
        choices = event.get("choices") or [{}]
        return self._read_choice(choices[0])

    def _read_usage(self, usage: Mapping[str, Any], timings: Mapping[str, float]) -> None:
        details = usage.get("completion_tokens_details") or {}
        self._usage = Usage(
            usage["prompt_tokens"], usage.get("completion_tokens", 0), details.get("reasoning_tokens") or 0
        )
        if "prompt_ms" in timings:
            self._prompt_s = timings["prompt_ms"] / 1000

    def _read_choice(self, choice: Mapping[str, Any]) -> Chunk | None:
        delta = choice.get("delta") or {}
        text = delta.get("content") or choice.get("text") or ""
        reasoning = delta.get("reasoning_content") or delta.get("reasoning") or ""
        calls = delta.get("tool_calls") or ()
        if self._alternatives is not None and choice.get("logprobs"):
            self._logprobs += _read_logprobs(choice["logprobs"], self._alternatives)
        if text or reasoning or calls:
            self._keep(text, reasoning, calls)
        reason = self._read_finish_reason(choice.get("finish_reason"))
        if self._is_call:
            return Chunk("", reasoning, "tool_calls" if reason == "stop" else reason) if reasoning or reason else None
        return Chunk(text, reasoning, reason) if text or reasoning or reason else None

    def _keep(self, text: str, reasoning: str, calls: Iterable[Mapping[str, Any]]) -> None:
        self._last = self._clock()
        if not self._has_begun:
            self._has_begun, self._first = True, self._last
        if text:
            self._texts.append(text)
        if reasoning:
            self._reasonings.append(reasoning)
        for piece in calls:
            self._calls.setdefault(piece.get("index", 0), _Call()).add(piece)

    def _read_finish_reason(self, reason: str | None) -> FinishReason | None:
        if reason is None or reason == "none":  # what llama.cpp says while it fills in
            return None
        if reason not in FINISH_REASONS:
            raise GenerationError(f"`{self._engine}` broke off its answer: `{reason}`")
        self._finish_reason = FINISH_REASONS[reason]
        return self._finish_reason

    def _timings(self, usage: Usage) -> Timings:
        first_token_s = (self._first if self._has_begun else self._last) - self._started
        queue_s = 0.0 if self._prompt_s is None else max(0.0, first_token_s - self._prompt_s)
        decoded, decoding_s = usage.completion_tokens - 1, self._last - self._first
        speed = decoded / decoding_s if decoded > 0 and decoding_s > 0 else 0.0
        return Timings(queue_s, first_token_s, self._last - self._started, speed)


def _usage_of_infill(event: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"prompt_tokens": event["tokens_evaluated"], "completion_tokens": event["tokens_predicted"]}


def _read_logprobs(logprobs: Mapping[str, Any], alternatives: int) -> list[TokenLogprob]:
    """Return the tokens of OpenAI's chat shape, or of the older one of completions, which vLLM uses there.

    With the likeliest `alternatives` of each: engines give one more, or one where none was wanted.
    """
    if "content" in logprobs:
        rows = [
            (each["token"], each["logprob"], [(top["token"], top["logprob"]) for top in each["top_logprobs"]])
            for each in logprobs["content"] or ()
        ]
    else:
        tops = logprobs.get("top_logprobs") or [None] * len(logprobs["tokens"])
        ranked = [list((top or {}).items()) for top in tops]
        rows = list(zip(logprobs["tokens"], logprobs["token_logprobs"], ranked, strict=True))
    return [
        TokenLogprob(token, value, tuple(sorted(top, key=lambda pair: -pair[1])[:alternatives]))
        for token, value, top in rows
    ]


def refusal_of(engine: str, status: int, body: bytes) -> EngineError | UnknownModelError:
    """Return the error that an answer of HTTP `status` other than 200 stands for."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("error"), dict):
        return GenerationError(f"`{engine}` answered {status}: {body[:200].decode(errors='replace').strip()}")
    return error_in(engine, answer, status)


def error_in(engine: str, event: Mapping[str, Any], status: int | None = None) -> EngineError | UnknownModelError:
    """Return the error that an event, or an answer of HTTP `status`, carries in its key `error`."""
    error: dict[str, Any] = event["error"] if isinstance(event["error"], dict) else {"message": str(event["error"])}
    said, code = str(error.get("message", error)), error.get("code")
    if "n_prompt_tokens" in error and "n_ctx" in error:  # llama.cpp and our endpoint
        return context_overflow(error["n_prompt_tokens"], error["n_ctx"], is_least=" at least " in said)
    if overflow := _overflow_in(said):
        return overflow
    message, parameter = f"`{engine}` refused the request: {said}", error.get("param") or "request"
    if code == "model_not_found":
        return UnknownModelError(f"`{engine}` has the model no longer: {said}", name="", suggestions=())
    if code == "unsupported_parameter":
        return UnsupportedParameterError(message, parameter=parameter, engine=engine, hint=error.get("hint"))
    if 400 <= (code if isinstance(code, int) else status or 0) < 500:
        return InvalidRequestError(message, parameter=parameter, hint=error.get("hint"))
    return GenerationError(f"`{engine}` failed: {said}")


def _overflow_in(message: str) -> ContextOverflowError | None:
    """Return what vLLM says of a prompt that does not fit (0.32), or None where it is about something else.

    Its count may be the least that there are: it stops where the context is full, and refuses very long texts by their
    characters, of which a token has at most so many.
    """
    if found := re.search(r"context length is (\d+) tokens.* contains (at least )?(\d+) input tokens", message):
        return context_overflow(int(found[3]), int(found[1]), is_least=found[2] is not None)
    if found := re.search(r"context length is (\d+) tokens.* contains (\d+) char.* (\d+) char.* (\d+) input", message):
        context_length, characters, most_characters, most_tokens = map(int, found.groups())
        return context_overflow(-(-characters * most_tokens // most_characters), context_length, is_least=True)
    return None


def context_overflow(prompt_tokens: int, context_length: int, *, is_least: bool = False) -> ContextOverflowError:
    """Return the error for a prompt that does not fit, with both numbers; `is_least`: the prompt may have more."""
    return ContextOverflowError(
        f"The prompt has {'at least ' if is_least else ''}{prompt_tokens:,} tokens, the context {context_length:,}",
        prompt_tokens=prompt_tokens,
        context_length=context_length,
        hint="`--context-length` sets the context of each request",
    )
