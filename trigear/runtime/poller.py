"""Waiting for sockets without going to sleep right away.

A processor that is put to sleep and woken between two packets is much of what they cost, above all
on virtual machines: for a job that is alone on its way it was half of the processor time and two
thirds of the waiting. So who waits looks again and again first, for about as long as sleeping would
cost. If nothing came, the next time it sleeps at once, then the next three times, and so on: where
peers take their time, hardly anything is spent on it, and where they need the very processor,
neither.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import select

SPIN: Final = 0.00003
"""Seconds of looking again and again, about what it costs to sleep and to be woken."""

VAIN: Final = 63
"""So many times in a row it sleeps at once, at most, because it has looked in vain."""

_perf: Final = time.perf_counter


class Poller:
    """Looks for events.

    Args:
        epoll: where.
        limit: most events to return at once.
    """

    __slots__ = ("_epoll", "_limit", "_vain", "sleeps")

    def __init__(self, epoll: select.epoll, limit: int) -> None:
        self._epoll = epoll
        self._limit = limit
        self._vain = 0
        self.sleeps = 0
        """How many times it will sleep at once."""

    def wait(self, patience: float) -> list[tuple[int, int]]:
        """Events that are there, or come within so many seconds."""
        poll, limit = self._epoll.poll, self._limit
        if not patience:
            return poll(0, limit)
        if self.sleeps:
            self.sleeps -= 1
            return poll(patience, limit)
        end = _perf() + SPIN
        while True:
            if events := poll(0, limit):
                self._vain = 0
                return events
            if _perf() >= end:
                break
        self.sleeps = self._vain = min(self._vain * 2 + 1, VAIN)
        return poll(patience, limit)
