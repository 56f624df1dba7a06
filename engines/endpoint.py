"""Endpoints that run elsewhere, ours or any that is OpenAI-compatible: what they serve, and why they turn one away."""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import Mapping, Sequence
from socket import gaierror
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from engines.base import Address, Wire
from engines.exchanges import Exchange
from engines.generation import Post, Target
from registry.errors import AccessError, AuthenticationError, BusyError, EndpointError, UnknownModelError

WIRE = Wire(is_endpoint=True)
# What an endpoint is taken to have that does not list it.
FEATURES = frozenset({"embeddings", "json_schema", "logprobs", "tools"})
ABILITIES = frozenset({"chat", "embed"})
CONCURRENCY = 4
# What the server says of those who come, not of what they ask.
AT_THE_DOOR = frozenset({301, 302, 303, 307, 308, 401, 403, 429, 503})
# The header in which our endpoint says what it did otherwise than asked, and what is between two such notes.
NOTES, NOTES_APART = "x-notes", "; "
KEY_HINT = "LAUNCH_API_KEY, or `api_key`, must be a key that it accepts"
LIST_WITHIN_S = 30.0
SHOWN_CHARACTERS = 200


class Offer(NamedTuple):
    """A model that an endpoint serves, and to how many requests at once."""

    target: Target
    concurrency: int


def read_offer(address: Address, name: str | None) -> Exchange[Offer]:
    """Return what an endpoint serves as `name`, an id or an alias; without a name the only model that it has.

    Raises UnknownModelError that names those that there are, and EndpointError where there is no such list.
    """
    status, body = yield Post("/v1/models", None, LIST_WITHIN_S)
    if name is not None and status in (404, 405, 501):  # some have no list, and answer all the same
        return _offer(address, {"id": name})
    entries = _read_entries(address, status, body)
    return _offer(address, _choose(address, entries, name))


def read_ids(address: Address) -> Exchange[list[str]]:
    """Return the names of the models that an endpoint serves, of which there is one; raises as `read_offer`."""
    status, body = yield Post("/v1/models", None, LIST_WITHIN_S)
    ids = [str(entry["id"]) for entry in _read_entries(address, status, body)]
    if not ids:
        raise _nothing(address)
    return ids


def _nothing(address: Address) -> UnknownModelError:
    message = f"`{address.url}` serves no model now"
    return UnknownModelError(message, name="", suggestions=(), hint="launch smollm2-instruct")


def _read_entries(address: Address, status: int, body: bytes) -> Sequence[Mapping[str, Any]]:
    try:
        listed = json.loads(body)["data"] if status == 200 else None
    except (ValueError, LookupError, TypeError):
        listed = None
    if isinstance(listed, list) and all(isinstance(each, dict) and isinstance(each.get("id"), str) for each in listed):
        return listed
    raise EndpointError(
        f"`{address.url}` is no OpenAI-compatible endpoint: it has no list of models",
        url=address.url,
        status=status,
        details=[f"GET {address.url}/v1/models: {status} {_shown(body)}"],
        hint=_start_hint(address.url),
    )


def _choose(address: Address, entries: Sequence[Mapping[str, Any]], name: str | None) -> Mapping[str, Any]:
    if name is None and len(entries) == 1:
        return entries[0]
    wanted = (name or "").casefold()
    for entry in entries:
        if wanted in (each.casefold() for each in (entry["id"], *_texts(entry, "aliases"))):
            return entry
    ids = [entry["id"] for entry in entries]
    if not ids:
        raise _nothing(address)
    said = "serves several models" if name is None else f"serves no `{name}`"
    listed = ", ".join(f"`{each}`" for each in ids)
    message = f"`{address.url}` {said}; there are: {listed}"
    raise UnknownModelError(message, name=name or "", suggestions=ids, hint=f'model="{ids[0]}"')


def _offer(address: Address, entry: Mapping[str, Any]) -> Offer:
    """Return a model by its entry in the list; ours says what it can, of others only the context may be known."""
    length = entry.get("context_length", entry.get("max_model_len"))
    concurrency = entry.get("concurrency")
    target = Target(
        name=entry["id"],
        engine=address.url,
        wire=WIRE,
        context_length=length if isinstance(length, int) else None,
        features=frozenset(_texts(entry, "features")) if "features" in entry else FEATURES,
        abilities=frozenset(_texts(entry, "abilities")) if "abilities" in entry else ABILITIES,
    )
    return Offer(target, concurrency if isinstance(concurrency, int) and concurrency > 0 else CONCURRENCY)


def _texts(entry: Mapping[str, Any], key: str) -> list[str]:
    value = entry.get(key)
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []


def turned_away(
    address: Address, status: int, body: bytes, *, retry_after: str | None, location: str | None
) -> AccessError | BusyError | EndpointError:
    """Return the error for an answer whose status is one of `AT_THE_DOOR`, with two of its headers."""
    url, (details, hint) = address.url, _said(status, body)
    if status == 401:
        message = f"`{url}` refuses the key" if address.key else f"`{url}` wants a key"
        return AuthenticationError(message, details=details, hint=KEY_HINT)
    if status == 403:
        return AccessError(f"`{url}` does not serve us", details=details, hint=hint)
    if status not in (429, 503):
        return _redirected(url, status, location or "")
    wait_s = int(retry_after) if retry_after is not None and retry_after.isdecimal() else None
    hint = hint or (None if wait_s is None else f"ask again in {wait_s} s")
    if status == 429:
        return BusyError(f"`{url}` has too much to do", retry_after_s=wait_s or 1, hint=hint, details=details)
    message = f"`{url}` is not ready"
    return EndpointError(message, url=url, status=status, retry_after_s=wait_s, details=details, hint=hint)


def _redirected(url: str, status: int, location: str) -> EndpointError:
    where = urlsplit(location)
    to = f"`{where.scheme}://{where.netloc.rpartition('@')[2]}`" if where.netloc else "another path"
    hint = "give the address that it means; a redirect is not followed, because the key would go there"
    return EndpointError(f"`{url}` redirects to {to}", url=url, status=status, hint=hint)


def unreachable(address: Address, error: Exception) -> EndpointError:
    """Return the error for a connection that never came about."""
    cause: Any = getattr(error, "os_error", None) or getattr(error, "certificate_error", None) or error
    url = address.url
    if isinstance(cause, ssl.SSLCertVerificationError):
        message = f"The certificate of `{url}` is not trusted: {cause.verify_message}"
        return EndpointError(message, url=url, hint="SSL_CERT_FILE names a file with the certificates to trust")
    if isinstance(cause, ssl.SSLError):
        return EndpointError(f"`{url}` does not speak TLS: {cause.reason}", url=url, hint="http:// instead of https://")
    if isinstance(cause, gaierror):
        return EndpointError(f"There is no host `{urlsplit(url).hostname}`: {cause.strerror}", url=url)
    number = getattr(cause, "errno", None)
    reason = "no answer in time" if isinstance(cause, TimeoutError) else os.strerror(number) if number else str(cause)
    return EndpointError(f"Nothing answers at `{url}`: {reason}", url=url, hint=_start_hint(url))


def _start_hint(url: str) -> str:
    parts = urlsplit(url)
    if parts.hostname in ("127.0.0.1", "::1", "localhost"):
        return "launch smollm2-instruct" + (f" --port {parts.port}" if parts.port not in (None, 8000) else "")
    return "look at LAUNCH_URL, or `url`; to serve a model here: launch NAME"


def _said(status: int, body: bytes) -> tuple[list[str], str | None]:
    """Return the server's own words, as the details of an error, and its hint."""
    try:
        error = json.loads(body)["error"]
        return [str(error["message"])], error.get("hint")
    except (ValueError, LookupError, TypeError, AttributeError):
        return [f"{status} {_shown(body)}".strip()], None


def _shown(body: bytes) -> str:
    return body[:SHOWN_CHARACTERS].decode(errors="replace").strip()
