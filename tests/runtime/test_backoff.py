"""Waiting times with full jitter."""

from __future__ import annotations

import pytest

from trigear.runtime.backoff import Backoff, delay


def test_times_are_drawn_from_all_of_a_bound_that_doubles_until_it_starts_again() -> None:
    drawn = iter([0.0, 0.5, 0.75, 0.5, 0.5])
    backoff = Backoff(lambda: next(drawn), least=1.0, most=3.0)
    assert [backoff.next() for _ in range(4)] == [0.0, 1.0, 2.25, 1.5]
    backoff.reset()
    assert backoff.next() == 0.5


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0 ms"), (0.0004, "1 ms"), (0.05, "50 ms"), (2.25, "2.2 s")]
)
def test_a_short_wait_is_told_in_milliseconds(seconds: float, words: str) -> None:
    assert delay(seconds) == words
