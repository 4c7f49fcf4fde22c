"""What became of jobs that are over: a tenant's last ones, for a while.

A ring in pieces. The newest piece takes one entry for each job that ends; when it is full the
oldest piece is dropped as a whole, so that an entry costs no more than putting it in. Handles and
names are remembered, workloads and results are not.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from trigear.broker.jobs import RUNNING
from trigear.model import JobEnd

OUTCOMES: Final = 10_000
"""How many outcomes of each tenant are remembered, unless told otherwise."""

_PIECES: Final = 8
"""Into how many pieces a ring is cut. More of them: less that is dropped at a time, and more to
look through."""

Entry = tuple[JobEnd, int, int, float, bytes, bytes]
"""End, the state before, losses, time of the wall clock, function, unique: as little as possible
is worked out when a job ends, because hardly anybody asks."""


class Outcome(NamedTuple):
    """How a job ended.

    ``attempts`` counts how often it was handed out, as far as an attempt came of it. ``ended`` is a
    time of the wall clock.
    """

    end: JobEnd
    attempts: int
    ended: float
    function: bytes
    unique: bytes


class Outcomes:
    """The last outcomes of one tenant.

    ``newest`` is the piece for new entries, by handle; whoever puts one in calls :meth:`turn` once
    there are ``piece`` of them.

    Args:
        limit: how many are remembered at least; about an eighth more at times.
    """

    __slots__ = ("_older", "newest", "piece")

    def __init__(self, limit: int) -> None:
        self.piece = max(-(-limit // _PIECES), 1)
        self.newest: dict[bytes, Entry] = {}
        self._older: deque[dict[bytes, Entry]] = deque(maxlen=-(-limit // self.piece))

    def turn(self) -> None:
        """Begin a new piece, and forget the oldest."""
        self._older.appendleft(self.newest)
        self.newest = {}

    def get(self, handle: bytes) -> Outcome | None:
        """What became of the job with this handle, if it is remembered."""
        for piece in (self.newest, *self._older):
            entry = piece.get(handle)
            if entry is not None:
                end, state, losses, ended, function, unique = entry
                return Outcome(end, losses + (state == RUNNING), ended, function, unique)
        return None

    def __len__(self) -> int:
        return len(self.newest) + sum(map(len, self._older))
