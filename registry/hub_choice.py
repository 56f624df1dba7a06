"""Which hub to ask first: those that answer before those that do not; measured once, then remembered for a while."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from registry.cache import cache_folder, read_json, write_json
from registry.hubs import huggingface, modelscope
from registry.spec import Source

PROBE_LIMIT_S = 1.5
REMEMBERED_FOR_S = 6 * 3600.0

# What a measurement depends on: where the hubs are, and by which way they are reached.
_VARIABLES = (
    *("HF_ENDPOINT", "MODELSCOPE_ENDPOINT", "MODELSCOPE_DOMAIN"),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
)


def reachable_first(sources: Sequence[Source]) -> tuple[Source, ...]:
    """Return the sources in their own order, but those last whose hub gives no answer; uses the network at most once.

    Nothing is asked where there is nothing to choose, or the answer of the last hours is remembered.
    """
    hubs = [hub for hub in _endpoints() if any(source.hub == hub for source in sources)]
    if len(hubs) < 2:
        return tuple(sources)
    answers = _remembered() or _measure(hubs)
    return tuple(sorted(sources, key=lambda source: not answers.get(source.hub, True)))


def forget() -> None:
    """Let the next choice measure anew: what was measured has proved wrong."""
    with suppress(OSError):
        _memory().unlink()


def _endpoints() -> Mapping[str, str]:
    return {"huggingface": huggingface.endpoint(), "modelscope": modelscope.endpoint()}


def _measure(hubs: Iterable[str]) -> Mapping[str, bool]:
    """Return which hubs answer within the limit, all asked at once, and remember it if any does."""
    endpoints = _endpoints()
    answers = _ask_all({hub: endpoints[hub] for hub in hubs})
    if any(answers.values()):
        with suppress(OSError):  # a cache that cannot be written costs a measurement each time, nothing more
            write_json(_memory(), {"for": _circumstances(), "measured_at": time.time(), "answers": answers})
    return answers


def _ask_all(endpoints: Mapping[str, str]) -> dict[str, bool]:
    # Threads that are left behind: a name server that hangs heeds no time limit.
    answers = dict.fromkeys(endpoints, False)
    deadline = time.monotonic() + PROBE_LIMIT_S
    threads = [threading.Thread(target=_ask, args=(hub, url, answers), daemon=True) for hub, url in endpoints.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(answers)


def _ask(hub: str, url: str, answers: dict[str, bool]) -> None:
    import httpx2

    try:
        status = httpx2.head(url, timeout=PROBE_LIMIT_S, follow_redirects=False).status_code
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError):
        return
    answers[hub] = status < 500 and status != 407  # a proxy that wants a login first


def _remembered() -> Mapping[str, bool] | None:
    kept = read_json(_memory())
    if kept is None or kept.get("for") != _circumstances():
        return None
    age_s = time.time() - kept["measured_at"]
    answers: Mapping[str, bool] = kept["answers"]
    return answers if 0 <= age_s < REMEMBERED_FOR_S else None


def _circumstances() -> dict[str, str]:
    return {name: os.environ[name] for name in _VARIABLES if os.environ.get(name)}


def _memory() -> Path:
    return cache_folder() / "hubs.json"
