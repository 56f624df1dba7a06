"""What the endpoint answers where there is an answer, in OpenAI's shapes: objects and lists."""

from __future__ import annotations

import base64
import json
import struct
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from engines.endpoint import NOTES, NOTES_APART
from engines.exchanges import Embeddings
from engines.generation import Reply, TokenLogprob


def chat_completion(name: str, reply: Reply[Any]) -> dict[str, Any]:
    """Return a whole answer to a conversation."""
    message: dict[str, Any] = {**reply.message, "refusal": None}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    logprobs = None if reply.logprobs is None else {"content": [_logprob(*each) for each in reply.logprobs]}
    return _whole("chatcmpl", "chat.completion", name, reply, {"message": message, "logprobs": logprobs})


def call_events(name: str, reply: Reply[Any], *, wants_usage: bool) -> bytes:
    """Return the events of a stream for an answer that had to be whole before it was known to be a call of a tool."""
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": "chat.completion.chunk", "created": int(time.time())}
    calls = [{"index": index, **call.described()} for index, call in enumerate(reply.tool_calls)]
    first: dict[str, Any] = {"index": 0, "delta": {"role": "assistant", "tool_calls": calls}, "finish_reason": None}
    last: dict[str, Any] = {"index": 0, "delta": {}, "finish_reason": reply.finish_reason}
    events: list[dict[str, Any]] = [{"choices": [first]}, {"choices": [last]}]
    if wants_usage:
        events.append({"choices": [], "usage": _usage(reply)})
    texts = [json.dumps({**head, "model": name, **event}) for event in events]
    return "".join(f"data: {text}\n\n" for text in [*texts, "[DONE]"]).encode()


def text_completion(name: str, reply: Reply[Any]) -> dict[str, Any]:
    """Return a whole continuation of a prompt."""
    logprobs = None if reply.logprobs is None else _old_logprobs(reply.logprobs)
    return _whole("cmpl", "text_completion", name, reply, {"text": reply.text, "logprobs": logprobs})


def embeddings(name: str, found: Embeddings, *, in_base64: bool) -> dict[str, Any]:
    """Return vectors, as numbers or as the base64 of their 4-byte values, which OpenAI's client asks for."""
    encoded: list[Any] = [_base64_of(vector) for vector in found.vectors] if in_base64 else list(found.vectors)
    return {
        "object": "list",
        "model": name,
        "data": [{"object": "embedding", "index": index, "embedding": each} for index, each in enumerate(encoded)],
        "usage": {"prompt_tokens": found.prompt_tokens, "total_tokens": found.prompt_tokens},
    }


def _base64_of(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def _logprob(token: str, logprob: float, alternatives: Sequence[tuple[str, float]]) -> dict[str, Any]:
    return {**_pair(token, logprob), "top_logprobs": [_pair(*each) for each in alternatives]}


def _pair(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}


def _old_logprobs(logprobs: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Return the shape that completions have: lists beside each other."""
    offsets = [0]
    for each in logprobs:
        offsets.append(offsets[-1] + len(each.token))
    return {
        "tokens": [each.token for each in logprobs],
        "token_logprobs": [each.logprob for each in logprobs],
        "top_logprobs": [dict(each.alternatives) for each in logprobs],
        "text_offset": offsets[:-1],
    }


def _whole(prefix: str, kind: str, name: str, reply: Reply[Any], content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": name,
        "choices": [{"index": 0, **content, "finish_reason": reply.finish_reason}],
        "usage": _usage(reply),
    }


def _usage(reply: Reply[Any]) -> dict[str, Any]:
    usage = reply.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def noting_headers(ignored: Iterable[str], notes: Sequence[str]) -> dict[str, str]:
    """Return the response's headers for parameters that changed nothing, and for what was done otherwise than asked."""
    said = {"x-ignored-parameters": ", ".join(ignored), NOTES: NOTES_APART.join(notes)}
    return {name: text.encode("ascii", "replace").decode() for name, text in said.items() if text}
