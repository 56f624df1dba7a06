"""What the endpoint answers where it refuses or breaks: our errors in OpenAI's shape, or Anthropic's on its routes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from engines.base import MESSAGES
from registry.errors import (
    AuthenticationError,
    BodyTooLargeError,
    BusyError,
    ContextOverflowError,
    EngineEndedError,
    ForeignRequestError,
    GenerationError,
    InvalidRequestError,
    LaunchError,
    NotServedError,
    RetryLaterError,
    SlowClientError,
    UnavailableError,
    UnknownModelError,
    UnsupportedParameterError,
)

# The first class that fits: HTTP status, OpenAI's type and code.
STATUSES: tuple[tuple[type[LaunchError], int, str, str], ...] = (
    (AuthenticationError, 401, "invalid_request_error", "invalid_api_key"),
    (ForeignRequestError, 403, "invalid_request_error", "foreign_request"),
    (SlowClientError, 408, "invalid_request_error", "request_timeout"),
    (BodyTooLargeError, 413, "invalid_request_error", "request_too_large"),
    (UnknownModelError, 404, "invalid_request_error", "model_not_found"),
    (ContextOverflowError, 400, "invalid_request_error", "context_length_exceeded"),
    (UnsupportedParameterError, 400, "invalid_request_error", "unsupported_parameter"),
    (InvalidRequestError, 400, "invalid_request_error", "invalid_value"),
    (NotServedError, 501, "server_error", "not_supported"),
    (BusyError, 429, "rate_limit_error", "queue_full"),
    (UnavailableError, 503, "server_error", "model_unavailable"),
    (EngineEndedError, 502, "server_error", "engine_ended"),
    (GenerationError, 502, "server_error", "engine_failed"),
    (LaunchError, 500, "server_error", "internal_error"),
)
ANTHROPIC_TYPES: Mapping[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    429: "rate_limit_error",
    501: "not_supported_error",
    503: "overloaded_error",
}


def error_response(error: LaunchError, path: str, request_id: str) -> web.Response:
    """Return our error as a response to a request for `path`."""
    status, kind, code = _classified(error)
    body = _body(path, request_id, status, error.message, kind, getattr(error, "parameter", None), code)
    body["error"] |= _facts(error)
    return web.json_response(body, status=status, headers=_headers(error))


def http_error_response(error: web.HTTPException, method: str, path: str, request_id: str) -> web.Response:
    """Return an error of HTTP itself, such as a path that there is not, as a response."""
    message = f"{error.reason}: `{method} {path}`"
    body = _body(path, request_id, error.status, message, "invalid_request_error", None, None)
    kept = {name: value for name, value in error.headers.items() if name == "Allow"}
    return web.json_response(body, status=error.status, headers=kept)


def error_event(error: LaunchError, request_id: str) -> bytes:
    """Return our error as the last event of a stream that broke off, perhaps inside an event."""
    status, kind, code = _classified(error)
    body = _body("", request_id, status, error.message, kind, None, code)
    return b"\n\ndata: " + json.dumps(body).encode() + b"\n\n"


def messages_error_event(error: LaunchError, request_id: str) -> bytes:
    """Return the same as Anthropic's clients read it."""
    body = _body(MESSAGES, request_id, _classified(error)[0], error.message, "", None, None)
    return b"\n\nevent: error\ndata: " + json.dumps(body).encode() + b"\n\n"


def _classified(error: LaunchError) -> tuple[int, str, str]:
    return next((status, kind, code) for cls, status, kind, code in STATUSES if isinstance(error, cls))


def _body(
    path: str, request_id: str, status: int, message: str, kind: str, parameter: str | None, code: str | None
) -> dict[str, Any]:
    if path.startswith(MESSAGES):
        named = {"type": ANTHROPIC_TYPES.get(status, "api_error"), "message": message}
        return {"type": "error", "error": named, "request_id": request_id}
    error = {"message": message, "type": kind, "param": parameter, "code": code, "request_id": request_id}
    return {"error": error}


def _facts(error: LaunchError) -> dict[str, Any]:
    """Return what a program wants to know besides, by the names that llama.cpp's server has for it; and our hint."""
    facts: dict[str, Any] = {} if error.hint is None else {"hint": error.hint}
    if isinstance(error, ContextOverflowError) and error.prompt_tokens:
        facts |= {"n_prompt_tokens": error.prompt_tokens, "n_ctx": error.context_length}
    return facts


def _headers(error: LaunchError) -> dict[str, str]:
    """Return how to come in, when to try again, or that it is of no use: official clients look for that."""
    if isinstance(error, AuthenticationError):
        return {"WWW-Authenticate": "Bearer"}
    if isinstance(error, RetryLaterError):
        return {"Retry-After": str(error.retry_after_s)}
    return {"x-should-retry": "false"} if isinstance(error, NotServedError) else {}
