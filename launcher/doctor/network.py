"""The hubs and the package index: where they are, whether they answer, whether they take the login."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from launcher.doctor.checks import Check, side_by_side
from launcher.doctor.findings import Finding, without_logins
from launcher.output import format_seconds
from registry.hubs import open_hub
from registry.hubs.http import HttpHub
from registry.package_index import REACH_HINT, index_url
from registry.reach import LOGIN_REFUSED, Reached, ask
from registry.spec import HUBS
from registry.transport import proxy_of

AREA = "hub"
INDEX = "package index"
ANSWERS_WITHIN_S = 8.0
# Redirects each have that time, and a name server has its own.
LIMIT_S = 20.0


def examine(*, offline: bool) -> list[Finding]:
    """Return what came of asking each hub and the package index, all at once; if `offline`, only where they are."""
    hubs = [hub for hub in map(open_hub, HUBS) if isinstance(hub, HttpHub)]
    if offline:
        return [*map(_unasked, hubs), _index_finding("not asked: offline")]
    checks: dict[str, Check] = {hub.name: partial(examine_hub, hub) for hub in hubs}
    *found, index = side_by_side({**checks, INDEX: examine_index}, LIMIT_S, area=AREA)
    return [*graded(found), index]


def examine_hub(hub: HttpHub) -> list[Finding]:
    """Return whether a hub answers, and whether it takes the user's token; where it does not answer, an error."""
    if hub.is_offline():
        text = f"{hub.address()}, not asked: a variable forbids it"
        return [Finding(AREA, hub.name, "warning", text, f"unset {' '.join(hub.offline_variables)}", _facts(hub))]
    has_token = bool(hub.headers())
    page = hub.account_path if has_token else ""
    reached = ask(hub.address() + page, hub.headers(), title=hub.title, hint=hub.reach_hint, timeout_s=ANSWERS_WITHIN_S)
    return [judge_hub(hub, reached, has_token=has_token)]


def judge_hub(hub: HttpHub, reached: Reached, *, has_token: bool) -> Finding:
    """Return what an answer, or none, says of a hub."""
    facts = {**_facts(hub), "status": reached.status, "took_s": round(reached.took_s, 3), "has_token": has_token}
    if reached.trouble is not None:
        found = Finding.of_error(AREA, hub.name, reached.trouble)
        return found._replace(facts={**facts, **found.facts})
    where = f"{hub.address()}{_via(hub.address())} answers in {format_seconds(reached.took_s)}"
    if reached.status is not None and reached.status >= 500:
        return Finding(
            AREA, hub.name, "error", f"{where}: HTTP {reached.status}", "wait: the trouble is the hub's own", facts
        )
    if has_token and reached.status in LOGIN_REFUSED:
        text = f"{where}, which does not accept the token"
        return Finding(AREA, hub.name, "warning", text, f"log in anew with {hub.login_hint}", facts)
    return Finding(AREA, hub.name, "ok", f"{where}, {_token_words(reached, has_token=has_token)}", facts=facts)


def graded(found: Sequence[Finding]) -> list[Finding]:
    """Return hubs' findings with warnings for errors where another hub is well: models come from that one then."""
    if all(finding.state == "error" for finding in found):
        return list(found)
    return [each._replace(state="warning") if each.state == "error" else each for each in found]


def examine_index() -> list[Finding]:
    """Return whether the index that engines are set up from answers."""
    url = index_url()
    if url is None:
        return [_index_finding("none: a variable forbids it")]
    page = f"{url.rstrip('/')}/uv/"
    reached = ask(page, {}, title="The package index", hint=REACH_HINT, timeout_s=ANSWERS_WITHIN_S)
    return [judge_index(url, reached)]


def judge_index(url: str, reached: Reached) -> Finding:
    """Return what an answer, or none, says of the package index."""
    facts = {"url": without_logins(url), "status": reached.status, "took_s": round(reached.took_s, 3)}
    if reached.trouble is not None:
        found = Finding.of_error(AREA, INDEX, reached.trouble)
        return found._replace(facts={**facts, **found.facts})
    where = f"{without_logins(url)}{_via(url)} answers in {format_seconds(reached.took_s)}"
    if reached.status in LOGIN_REFUSED:
        remedy = "put the login into UV_DEFAULT_INDEX or PIP_INDEX_URL: https://USER:PASSWORD@HOST/…"
        return Finding(AREA, INDEX, "warning", f"{where}, which wants a login", remedy, facts)
    if reached.status != 200:
        remedy = "look at PIP_INDEX_URL, pip.conf and UV_DEFAULT_INDEX"
        return Finding(AREA, INDEX, "error", f"{where}: HTTP {reached.status}", remedy, facts)
    return Finding(AREA, INDEX, "ok", where, facts=facts)


def _unasked(hub: HttpHub) -> Finding:
    return Finding(AREA, hub.name, "ok", f"{hub.address()}, not asked: offline", facts=_facts(hub))


def _index_finding(text: str) -> Finding:
    return Finding(AREA, INDEX, "ok", text, facts={"url": without_logins(index_url() or "") or None})


def _facts(hub: HttpHub) -> dict[str, Any]:
    return {"url": hub.address()}


def _via(url: str) -> str:
    proxy = proxy_of(url)
    return "" if proxy is None else f" by the proxy {proxy.shown} ({proxy.variable})"


def _token_words(reached: Reached, *, has_token: bool) -> str:
    if not has_token:
        return "no token"
    return "token accepted" if reached.status == 200 else "token set"
