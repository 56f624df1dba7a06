"""Whether a server answers, how soon, and whether it takes the login that it is given."""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from registry.errors import LaunchError

LOGIN_REFUSED = (401, 403)


class Reached(NamedTuple):
    """What came of asking a server: its `status` of HTTP, or why there is none, and how long that took in seconds."""

    status: int | None
    trouble: LaunchError | None
    took_s: float


def ask(url: str, headers: Mapping[str, str], *, title: str, hint: str, timeout_s: float) -> Reached:
    """Ask for a page, and read no more of it than its status; the login that an address holds goes along."""
    from urllib3.exceptions import HTTPError

    from registry.transport import NotReachedError, Transport
    from registry.trouble import out_of_reach

    bare, login = split_login(url)
    transport = Transport(timeout_s, 1)
    started = time.monotonic()
    status: int | None = None
    trouble: LaunchError | None = None
    try:
        response = transport.get(bare, {**headers, **login}).response
        status = response.status
        response.close()
    except (NotReachedError, HTTPError) as error:
        trouble = out_of_reach(bare, error, title=title, hint=hint)
    except LaunchError as error:
        trouble = error
    finally:
        transport.close()
    return Reached(status, trouble, time.monotonic() - started)


def split_login(url: str) -> tuple[str, Mapping[str, str]]:
    """Return an address without the login that it holds, and the header that says the same."""
    parts = urlsplit(url)
    if "@" not in parts.netloc:
        return url, {}
    login = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return bare, {"Authorization": f"Basic {base64.b64encode(login.encode()).decode()}"}
