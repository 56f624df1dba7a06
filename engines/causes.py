"""Why an engine ended, looked up in a table of what its log may say."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engines.base import Cause


def find_cause(log: str, causes: Iterable[tuple[str, Cause]]) -> Cause | None:
    """Return the first cause whose pattern the log has; `{0}` in its message is the pattern's first group."""
    for pattern, cause in causes:
        if found := re.search(pattern, log):
            words = [group or "" for group in found.groups()]
            return cause._replace(message=cause.message.format(*words))
    return None
