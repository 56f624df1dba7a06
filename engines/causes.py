"""Why an engine ended, looked up in a table of what its log may say; and the causes that all of them may have."""

from __future__ import annotations

import re
from collections.abc import Iterable

from engines.base import Cause

FETCH_AGAIN = "remove the file and fetch it again"
TAKE_LESS = "ask for less: a smaller `--context-length`, `--concurrency` or quantization"
NOT_ENOUGH = Cause("there is not enough memory for the model and its context", TAKE_LESS, is_out_of_memory=True)


def find_cause(log: str, causes: Iterable[tuple[str, Cause]]) -> Cause | None:
    """Return the first cause whose pattern the log has; `{0}` in its message is the pattern's first group."""
    for pattern, cause in causes:
        if found := re.search(pattern, log):
            words = [group or "" for group in found.groups()]
            return cause._replace(message=cause.message.format(*words))
    return None
