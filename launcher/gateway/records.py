"""What is noted of each request while it is answered, for the metrics and the access log: never text, never keys."""

from __future__ import annotations

import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

# What may stand in a header and in a log as it came.
HARMLESS_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
# What nginx writes where the client hung up before the answer; nobody is sent it.
CLIENT_LEFT = 499


@dataclass(slots=True)
class Record:
    """One request: times are in seconds from its arrival, None where it did not come so far.

    `is_whole`: the last event of a stream has been sent.
    """

    id: str
    client: str
    route: str
    arrived: float = field(default_factory=time.perf_counter)
    key: str | None = None
    model: str | None = None
    status: int = 500
    is_stream: bool = False
    is_answering: bool = False
    is_whole: bool = False
    queued_s: float | None = None
    first_token_s: float | None = None
    total_s: float = 0.0
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    finish_reason: str | None = None
    error: str | None = None

    def age_s(self) -> float:
        """Return how long ago the request came."""
        return time.perf_counter() - self.arrived

    def note_first_token(self) -> None:
        if self.first_token_s is None:
            self.first_token_s = self.age_s()

    def line(self) -> dict[str, Any]:
        """Return the access log's object, without what is not known."""
        known = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request_id": self.id,
            "key": self.key,
            "client": self.client,
            "route": self.route,
            "model": self.model,
            "status": self.status,
            "stream": self.is_stream,
            "queued_ms": _milliseconds(self.queued_s),
            "first_token_ms": _milliseconds(self.first_token_s),
            "total_ms": _milliseconds(self.total_s),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "finish_reason": self.finish_reason,
            "error": self.error,
        }
        return {name: value for name, value in known.items() if value is not None}


RECORD: web.RequestKey[Record] = web.RequestKey("record", Record)


def new_record(request: web.Request) -> Record:
    """Return the record of a request that has just come; its id is the client's if that is short and harmless."""
    given = request.headers.get("X-Request-Id", "")
    resource = request.match_info.route.resource
    return Record(
        id=given if HARMLESS_ID.fullmatch(given) else uuid.uuid4().hex,
        client=request.remote or "",
        route="other" if resource is None else resource.canonical,
    )


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
