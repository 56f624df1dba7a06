"""What the endpoint answers, in OpenAI's shapes: objects, lists and errors."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from engines.generation import Reply
from registry.errors import (
    ContextOverflowError,
    GenerationError,
    InvalidRequestError,
    LaunchError,
    UnknownModelError,
    UnsupportedParameterError,
)

# The first class that fits: HTTP status, OpenAI's type and code.
STATUSES: tuple[tuple[type[LaunchError], int, str, str], ...] = (
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (ContextOverflowError, 400, "invalid_request_error", "context_length_exceeded"),
    (UnsupportedParameterError, 400, "invalid_request_error", "unsupported_parameter"),
    (InvalidRequestError, 400, "invalid_request_error", "invalid_value"),
    (GenerationError, 502, "server_error", "engine_failed"),
    (LaunchError, 500, "server_error", "internal_error"),
)


def chat_completion(name: str, reply: Reply) -> dict[str, Any]:
    """Return a whole answer to a conversation."""
    message: dict[str, Any] = {**reply.message, "refusal": None}
    if reply.reasoning is not None:
        message["reasoning_content"] = reply.reasoning
    return _whole("chatcmpl", "chat.completion", name, reply, {"message": message})


def text_completion(name: str, reply: Reply) -> dict[str, Any]:
    """Return a whole continuation of a prompt."""
    return _whole("cmpl", "text_completion", name, reply, {"text": reply.text})


def _whole(prefix: str, kind: str, name: str, reply: Reply, content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": f"{prefix}-{uuid.uuid4().hex}",
        "object": kind,
        "created": int(time.time()),
        "model": name,
        "choices": [{"index": 0, **content, "logprobs": None, "finish_reason": reply.finish_reason}],
        "usage": _usage(reply),
    }


def _usage(reply: Reply) -> dict[str, Any]:
    usage = reply.usage
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def error_body(error: LaunchError) -> tuple[int, dict[str, Any]]:
    """Return the HTTP status and the object that OpenAI's clients make an exception of."""
    status, kind, code = next((row[1], row[2], row[3]) for row in STATUSES if isinstance(error, row[0]))
    return status, _error(error.message, kind, getattr(error, "parameter", None), code)


def error_response(error: LaunchError) -> web.Response:
    """Return our error as a response."""
    status, body = error_body(error)
    return web.json_response(body, status=status)


def http_error_response(error: web.HTTPException, what: str) -> web.Response:
    """Return an error of HTTP itself, such as a path that there is not, as a response about `what`."""
    return web.json_response(
        _error(f"{error.reason}: `{what}`", "invalid_request_error", None, None), status=error.status
    )


def error_event(error: LaunchError) -> bytes:
    """Return our error as the last event of a stream that broke off, perhaps inside an event."""
    return b"\n\ndata: " + json.dumps(error_body(error)[1]).encode() + b"\n\n"


def _error(message: str, kind: str, parameter: str | None, code: str | None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def ignored_header(ignored: Iterable[str]) -> dict[str, str]:
    """Return the response header that names the parameters that changed nothing, or none."""
    names = ", ".join(ignored)
    return {"x-ignored-parameters": names} if names else {}
