"""How long to wait before connecting again."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

LEAST: Final = 0.1
"""Seconds before the first new attempt, at most."""

MOST: Final = 30.0
"""Seconds between two attempts, at most."""

PATIENCE: Final = 10.0
"""Seconds that a call waits for a server while all are down: what a restart takes, amply."""

STEADY_SECONDS: Final = 10.0
"""A connection that lived so long was no mistake: the next one is tried soon. One that ended before
does not count as success, or a server that hangs up on everybody would be called without end."""


REFUSED_LEAST: Final = 2.0
REFUSED_MOST: Final = 60.0
"""Bounds, in seconds, where a server refuses the login: it will hardly take the next one, and it
counts what it refuses."""


class Backoff:
    """Waiting times with full jitter: anything between nothing and a bound that doubles.

    When a server comes back, its clients do not come back in the same moment.

    Args:
        random: gives numbers from 0 up to 1.
        least: the first bound, in seconds.
        most: the highest bound, in seconds.
    """

    __slots__ = ("_bound", "_least", "_most", "_random")

    def __init__(
        self, random: Callable[[], float], *, least: float = LEAST, most: float = MOST
    ) -> None:
        self._random = random
        self._least = self._bound = least
        self._most = most

    def next(self) -> float:
        """Seconds to wait now."""
        bound = self._bound
        self._bound = min(2 * bound, self._most)
        return self._random() * bound

    def reset(self) -> None:
        """Begin with the first bound again: a connection has held."""
        self._bound = self._least


def slow(random: Callable[[], float]) -> Backoff:
    """Waiting times where a server refuses the login: from a second to a minute."""
    return Backoff(lambda: 0.5 + random() / 2, least=REFUSED_LEAST, most=REFUSED_MOST)


def delay(seconds: float) -> str:
    """A waiting time for people: in milliseconds below a second."""
    return f"{seconds:.1f} s" if seconds >= 1 else f"{math.ceil(seconds * 1000)} ms"
