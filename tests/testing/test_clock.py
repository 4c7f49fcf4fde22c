"""The clock that stands still."""

from __future__ import annotations

import pytest

from trigear.model import Now
from trigear.testing.clock import START, SettableClock


def test_time_stands_still_until_told_to_move() -> None:
    clock = SettableClock()
    assert clock() == clock() == START
    assert clock.advance(2.5) == clock() == Now(START.monotonic + 2.5, START.wall + 2.5)


def test_the_wall_clock_can_be_set_in_either_direction() -> None:
    clock = SettableClock(Now(10.0, 500.0))
    clock.set_wall(400.0)
    assert clock() == Now(10.0, 400.0)
    clock.advance(1)
    assert clock() == Now(11.0, 401.0)


def test_time_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="does not go back"):
        SettableClock().advance(-1)
