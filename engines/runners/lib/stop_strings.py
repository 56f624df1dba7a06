"""The end of an answer at a stop string, which the answer does not contain and which may come in pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class StopFilter:
    """Lets text through up to the stop string that is whole first, and holds back what may become one.

    So the answer does not depend on where the pieces are cut.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.is_stopped = False
        self._stops = stops
        self._held = ""

    def feed(self, text: str) -> str:
        """Return what is certain to be part of the answer."""
        if not self._stops:
            return text
        text = self._held + text
        found = min(((at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0), default=None)
        self.is_stopped = found is not None
        sure = len(text) - held_back(text, self._stops) if found is None else found[1]
        self._held = "" if self.is_stopped else text[sure:]
        return text[:sure]

    def finish(self) -> str:
        """Return what was held back and did not become a stop string."""
        return self._held


def held_back(text: str, stops: Iterable[str]) -> int:
    """Return how many characters at the end of `text` may be the beginning of a stop string."""
    lengths = (length for stop in stops for length in range(len(stop) - 1, 0, -1) if text.endswith(stop[:length]))
    return max(lengths, default=0)
