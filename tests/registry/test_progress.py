"""The rate that progress gets on its way."""

from __future__ import annotations

from collections.abc import Sequence

from registry.progress import Progress, with_rate


class Clock:
    """A time that moves only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def rates(steps: Sequence[tuple[float, int]], total: int = 1000) -> list[float | None]:
    clock, told = Clock(), list[Progress]()
    report = with_rate(told.append, clock)
    for clock.now, done in steps:
        report(Progress("download", done, total, "f", done, total))
    return [progress.bytes_per_s for progress in told]


def test_the_rate_counts_what_came_since_the_first_word() -> None:
    assert rates([(0, 500), (1, 600), (2, 700)]) == [None, 100.0, 100.0]


def test_it_is_too_early_to_tell_at_first() -> None:
    assert rates([(0, 0), (0.1, 50)]) == [None, None]


def test_it_is_that_of_the_last_seconds() -> None:
    steps = [(float(second), 100 * min(second, 5)) for second in range(30)]
    assert rates(steps)[5] == 100.0
    assert rates(steps)[-1] == 0.0


def test_many_words_a_second_do_not_change_it() -> None:
    told = rates([(step / 1000, step) for step in range(5001)], total=5000)
    assert told[-1] is not None
    assert abs(told[-1] - 1000) < 20


def test_another_stage_begins_anew_and_others_pass_as_they_are() -> None:
    clock, told = Clock(), list[Progress]()
    report = with_rate(told.append, clock)
    given = [Progress("verify", 0, 9, "f"), Progress("verify", 9, 9, "f"), Progress("download", 0, 9, "g")]
    for clock.now, progress in enumerate([*given, Progress("load", 0, None, "x")]):
        report(progress)
    assert [progress.bytes_per_s for progress in told] == [None, 9.0, None, None]
    assert told[-1] == Progress("load", 0, None, "x")


def test_the_time_that_is_left() -> None:
    assert Progress("download", 400, 1000, "f", bytes_per_s=100.0).seconds_left == 6.0
    assert Progress("download", 400, None, "f", bytes_per_s=100.0).seconds_left is None
    assert Progress("download", 400, 1000, "f").seconds_left is None
    assert Progress("download", 400, 1000, "f", bytes_per_s=0.0).seconds_left is None
