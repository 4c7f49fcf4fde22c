"""A clock that stands still until it is told to move."""

from __future__ import annotations

from typing import Final

from trigear.model import Now

START: Final = Now(monotonic=1000.0, wall=1_800_000_000.0)
"""The first moment of a clock. The two readings are far apart, so that mixing them up shows."""


class SettableClock:
    """A pair of clocks. Calling it tells the time.

    Both advance together; the wall clock alone can be set, as administrators and NTP do.
    """

    def __init__(self, start: Now = START) -> None:
        self._now = start

    def __call__(self) -> Now:
        return self._now

    def advance(self, seconds: float) -> Now:
        """Let time pass, and return the new time."""
        if seconds < 0:
            raise ValueError(f"time does not go back, not by {-seconds} s")
        self._now = Now(self._now.monotonic + seconds, self._now.wall + seconds)
        return self._now

    def set_wall(self, wall: float) -> None:
        """Set the wall clock, in either direction, without time passing."""
        self._now = Now(self._now.monotonic, wall)
