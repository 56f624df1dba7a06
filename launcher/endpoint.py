"""An endpoint that runs somewhere: where it is, what it serves, and what clients of OpenAI and Anthropic must know."""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from engines.base import Address
from registry.errors import AuthenticationError, EndpointError

DEFAULT_URL = "http://127.0.0.1:8000"
# Clients insist on a key; an endpoint on loopback asks for none.
NO_KEY = "none"


def read_url(model: str | None = None, environ: Mapping[str, str] = os.environ) -> str:
    """Return the endpoint's address without `/v1`.

    It is LAUNCH_URL, else the newest that runs on this machine, of `model` where one is named, else where `launch NAME`
    serves by default.
    """
    return _shortened(environ.get("LAUNCH_URL", "").strip() or find_served(model) or DEFAULT_URL)


def read_key(environ: Mapping[str, str] = os.environ) -> str | None:
    """Return the key that LAUNCH_API_KEY holds, or None."""
    return environ.get("LAUNCH_API_KEY", "").strip() or None


def find_served(model: str | None = None) -> str | None:
    """Return the address of the newest endpoint that answers on this machine, for `model` where one is named."""
    from launcher.overview import called, running_models

    running = running_models()
    served = [each for each in (running if model is None else called(model, running)) if each.is_answering]
    newest = max((each.server for each in served if each.server is not None), key=lambda it: it.began_s, default=None)
    return None if newest is None else newest.url


def endpoint_address(url: str | None = None, api_key: str | None = None, *, model: str | None = None) -> Address:
    """Return where the endpoint is and the key for it; where they are not given by the environment and what runs here.

    Raises EndpointError for what is no URL of HTTP, or has a password in it, and AuthenticationError for no such key.
    """
    found = _shortened(url) if url else read_url(model)
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise EndpointError(f"`{found}` is no URL of an endpoint", url=found, hint=DEFAULT_URL)
    if "@" in parts.netloc:
        shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        raise EndpointError(f"The URL of `{shown}` has a password in it", url=shown, hint="give a key instead")
    key = api_key or read_key()
    if key and not (key.isascii() and key.isprintable()):
        raise AuthenticationError("The key cannot stand in a header: it has more than letters, digits and signs")
    return Address(found, is_endpoint=True, key=key)


def download_model_name(address: Address) -> str:
    """Return the first model that an endpoint serves; raises EndpointError, AuthenticationError, UnknownModelError."""
    from engines.connection import run
    from engines.endpoint import read_ids

    return run(address.url, address, read_ids(address))[0]


def client_variables(address: Address, model: str) -> dict[str, str]:
    """Return what OpenAI's and Anthropic's clients read from their environment; Anthropic's add `/v1` themselves."""
    key = address.key or NO_KEY
    return {
        "OPENAI_BASE_URL": f"{address.url}/v1",
        "OPENAI_API_KEY": key,
        "OPENAI_MODEL": model,
        "ANTHROPIC_BASE_URL": address.url,
        "ANTHROPIC_API_KEY": key,
    }


def _shortened(url: str) -> str:
    return (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1").rstrip("/")
