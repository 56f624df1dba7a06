"""The endpoint in front of an echo engine, and bare requests to it."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from openai import OpenAI

from launcher.access_log import AccessLog
from launcher.gateway import GatewayThread, Served
from tests.fakes.echo import RunningEcho

NAMES = ("echo-model", "echo", "acme/Echo-Model-GGUF")
LIMIT_S = 60


class Answer(NamedTuple):
    """An answer to a bare request: its status, its body and its headers."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def served_by(echo: RunningEcho, *, slots: int = 4, max_queue: int | None = None) -> Served:
    return Served(NAMES, echo.address, echo.target, slots=slots, max_queue=max_queue, version="1.0", pid=os.getpid())


@contextlib.contextmanager
def gateway_to(served: Served, access_log: AccessLog | None = None) -> Iterator[str]:
    """Serve in a thread, and yield the URL for clients."""
    gateway = GatewayThread(served, access_log=access_log)
    try:
        yield gateway.url
    finally:
        gateway.stop()


def client_of(url: str) -> OpenAI:
    return OpenAI(base_url=url, api_key="none", max_retries=0, timeout=LIMIT_S)


def ask(url: str, data: object = None, headers: Mapping[str, str] | None = None) -> Answer:
    """Return the answer to a GET, or to a POST of `data` as `curl -d` makes it."""
    body = data if isinstance(data, bytes) or data is None else json.dumps(data).encode()
    request = urllib.request.Request(url, body, dict(headers or {}))
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return Answer(answer.status, answer.read(), dict(answer.headers))
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read(), dict(error.headers))
