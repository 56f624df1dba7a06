"""An endpoint that runs somewhere: where it is, what it serves, and what clients of OpenAI and Anthropic must know."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from registry.errors import LaunchError

DEFAULT_URL = "http://127.0.0.1:8000"
ANSWERS_WITHIN_S = 10.0
ANSWER_LIMIT_BYTES = 1 << 20
# Clients insist on a key; an endpoint on loopback asks for none.
NO_KEY = "none"


class NotServingError(LaunchError):
    """No endpoint answers at `url`, or what answers there is not one of ours to use."""

    kind = "not_serving"
    permanent = False

    def __init__(self, message: str, *, url: str, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.url = url


def read_url(environ: Mapping[str, str] = os.environ) -> str:
    """Return the endpoint's address without `/v1`: LAUNCH_URL, else where `launch NAME` serves by default."""
    named = environ.get("LAUNCH_URL", "").strip() or DEFAULT_URL
    return (named if "://" in named else f"http://{named}").rstrip("/").removesuffix("/v1").rstrip("/")


def read_key(environ: Mapping[str, str] = os.environ) -> str:
    """Return the key that LAUNCH_API_KEY holds, else the word `none`."""
    return environ.get("LAUNCH_API_KEY", "").strip() or NO_KEY


def client_variables(url: str, key: str, model: str) -> dict[str, str]:
    """Return what OpenAI's and Anthropic's clients read from their environment; Anthropic's add `/v1` themselves."""
    return {
        "OPENAI_BASE_URL": f"{url}/v1",
        "OPENAI_API_KEY": key,
        "OPENAI_MODEL": model,
        "ANTHROPIC_BASE_URL": url,
        "ANTHROPIC_API_KEY": key,
    }


def download_model_names(url: str, key: str) -> list[str]:
    """Return the names of the models that an endpoint serves; raises NotServingError."""
    from urllib3.exceptions import HTTPError

    from registry.transport import NotReachedError, Transport

    transport = Transport(ANSWERS_WITHIN_S, 1)
    try:
        response = transport.get(f"{url}/v1/models", {"Authorization": f"Bearer {key}"}).response
        status, body = response.status, response.read(ANSWER_LIMIT_BYTES)
    except (HTTPError, NotReachedError) as error:
        raise NotServingError(f"Nothing answers at {url}", url=url, hint=_start_hint(url)) from error
    finally:
        transport.close()
    if status in (401, 403):
        raise NotServingError(f"{url} wants a key", url=url, hint="set LAUNCH_API_KEY to one that it accepts")
    names = _read_names(body) if status == 200 else None
    if names is None:
        raise NotServingError(f"What answers at {url} is no OpenAI-compatible endpoint", url=url, hint=_start_hint(url))
    return names


def download_model_name(url: str, key: str) -> str:
    """Return the first model that an endpoint serves; raises NotServingError."""
    names = download_model_names(url, key)
    if not names:
        raise NotServingError(f"{url} serves no model now", url=url, hint="launch env NAME")
    return names[0]


def _read_names(body: bytes) -> list[str] | None:
    try:
        listed: Any = json.loads(body)
        return [str(model["id"]) for model in listed["data"]]
    except (ValueError, LookupError, TypeError):
        return None


def _start_hint(url: str) -> str:
    return "launch smollm2-instruct" if url == DEFAULT_URL else "look at LAUNCH_URL; to serve a model here: launch NAME"
