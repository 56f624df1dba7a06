"""What long work tells about itself: one value for the command line, for Python callers and for tests."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

Stage = Literal["resolve", "fallback", "licence", "install", "download", "verify", "start", "load", "log", "check"]

# A rate is that of the last seconds: long enough to be steady, short enough to show a change.
RATE_OVER_S = 8.0
RATE_FROM_S = 0.2


class Progress(NamedTuple):
    """How far a stage is: `done` of `total`, in bytes for `download` and `verify`; `total` of None: not known.

    `text` is the file of which `file_done` of `file_total` bytes are there, or what is going on. `bytes_per_s` is the
    rate of the last seconds, None where it is too early to tell. `fallback` says why another hub is tried,
    `licence` what to beware of in one that is not open; `log` is a line that the engine said.
    """

    stage: Stage
    done: int
    total: int | None
    text: str
    file_done: int | None = None
    file_total: int | None = None
    bytes_per_s: float | None = None

    @property
    def counts_bytes(self) -> bool:
        return self.stage in ("download", "verify")

    @property
    def is_note(self) -> bool:
        """True if `text` says what goes on with a download, such as that a server is silent, and is no file."""
        return self.counts_bytes and self.file_done is None

    @property
    def seconds_left(self) -> float | None:
        """How long the rest takes at this rate, in seconds."""
        if self.total is None or not self.bytes_per_s:
            return None
        return max(0.0, (self.total - self.done) / self.bytes_per_s)


Report = Callable[[Progress], None]


class Told(Protocol):
    """Hears of one file how many of its bytes are there and, where there is something to say, what is going on."""

    def __call__(self, done_bytes: int, note: str = "", /) -> None: ...


def ignore(progress: Progress) -> None:
    """Tell nobody."""


def with_rate(report: Report, clock: Callable[[], float] = time.monotonic) -> Report:
    """Return a report that adds the rate to what counts bytes, and hands on the rest as it is; for any thread."""
    lock = threading.Lock()
    samples: deque[tuple[float, int]] = deque()
    stage: Stage | None = None

    def metered(progress: Progress) -> None:
        nonlocal stage
        if not progress.counts_bytes:
            return report(progress)
        with lock:
            if progress.stage != stage or (samples and progress.done < samples[-1][1]):
                samples.clear()
            stage = progress.stage
            samples.append((clock(), progress.done))
            progress = progress._replace(bytes_per_s=_rate(samples))
        return report(progress)

    return metered


def _rate(samples: deque[tuple[float, int]]) -> float | None:
    now, done = samples[-1]
    while now - samples[0][0] > RATE_OVER_S and len(samples) > 2:
        samples.popleft()
    # Reports come by the hundred a second; a sample for each hundredth of the window is enough.
    if len(samples) > 2 and samples[-1][0] - samples[-3][0] < RATE_OVER_S / 100:
        del samples[-2]
    since_s, before = now - samples[0][0], samples[0][1]
    return (done - before) / since_s if since_s >= RATE_FROM_S else None
