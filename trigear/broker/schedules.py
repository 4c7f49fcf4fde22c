"""Schedules: what makes background jobs again and again, by the calendar or in intervals.

A schedule is named by its handle, and there is one for each (tenant, function, unique); without a
unique of its own, or with ``-``, the workload stands for it. Each of its runs is a job.

A schedule never changes: whatever happens to it makes another that takes its place. ``settled`` is
the moment up to which everything that was due has been dealt with, by a run or without one; what
is due next follows from it and is not remembered, so that a server that was away for a while, or
finds its clock set anew, or has new rules for a time zone, has nothing to put right.

Late runs. What could not be made within ``MISSED_SECONDS`` was missed: because the server was down
or drained, its store did not answer, or its clock was set forward. Missed runs are never made up
one by one: by the schedule's policy there is one for all of them, or none.

A clock that is set back. What names times of day is not repeated for up to three hours; whatever
follows the clock, or was settled for a time further ahead than that, goes by the new time at once.
"""

from __future__ import annotations

import enum
from collections import Counter
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.timers import Timers
from trigear.broker.timing import Timing  # noqa: TC001 - a field's type, which mypyc wants
from trigear.model import NEVER

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.model import Now

MISSED_SECONDS: Final = 60.0
"""A run that is late by so much was missed."""

AHEAD_SECONDS: Final = 60.0
"""How far a clock may be set back before schedules that follow it notice."""

FAR_AHEAD_SECONDS: Final = 3 * 3600.0
"""The same for schedules that name times of day."""

TURN: Final = 32
"""Schedules that run in a row before others have their turn: about two milliseconds of work."""

Key = tuple[str, bytes, bytes]
"""Tenant, function, and what tells schedules of one function apart."""


class Missed(enum.Enum):
    """What becomes of missed runs."""

    ONCE = "once"
    """One run is made for all of them."""
    SKIP = "skip"
    """None is made."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """One schedule. All times are of the wall clock; ``ran`` is when the last run was made, 0 for
    never, and ``run`` the handle of its job."""

    tenant: str
    partition: int
    function: bytes
    unique: bytes
    handle: bytes
    workload: bytes
    priority: int
    timing: Timing
    missed: Missed
    since: float
    settled: float
    paused: bool = False
    runs: int = 0
    ran: float = 0.0
    run: bytes = b""

    @property
    def key(self) -> Key:
        """Under which there is one schedule only."""
        return self.tenant, self.function, distinction(self.unique, self.workload)

    @property
    def size(self) -> int:
        """What it counts in bytes, as each of its runs does."""
        return len(self.function) + len(self.unique) + len(self.workload)

    @property
    def due(self) -> float:
        """When the next run is due; infinity while it is paused."""
        return NEVER if self.paused else self.timing.next_after(self.settled, self.since)

    def wants_run(self, now: Now) -> bool:
        """Whether there is to be a run, now that one is due."""
        if self.missed is Missed.ONCE:
            return True
        begin = max(self.settled, now.wall - MISSED_SECONDS)
        return self.timing.next_after(begin, self.since) <= now.wall

    def settle(self, now: Now) -> Schedule:
        """What was due up to now is dealt with."""
        return replace(self, settled=now.wall)

    def ran_as(self, handle: bytes, now: Now) -> Schedule:
        """A run was made, whatever for."""
        return replace(self, runs=self.runs + 1, ran=now.wall, run=handle)

    def follow(self, now: Now) -> Schedule:
        """Go by this time, should it be earlier than what was settled."""
        ahead = self.settled - now.wall
        if ahead <= (AHEAD_SECONDS if self.timing.regular else FAR_AHEAD_SECONDS):
            return self
        return self.settle(now)


def distinction(unique: bytes, workload: bytes) -> bytes:
    """What tells a schedule from others of its function."""
    if unique not in (b"", b"-"):
        return unique
    # Has a NUL, which no unique on the wire can have.
    return b"-\0" + blake2b(workload, digest_size=24).digest()


class Schedules:
    """The schedules of one partition, and when which of them is due."""

    __slots__ = ("_by_key", "_due", "_of", "_sizes", "_timers", "_waiting")

    def __init__(self) -> None:
        self._by_key: dict[Key, Schedule] = {}
        self._of: dict[str, dict[bytes, Schedule]] = {}
        self._sizes: Counter[str] = Counter()
        self._waiting: dict[Key, list[Any]] = {}
        self._timers = Timers()
        self._due: list[Key] = []

    def __len__(self) -> int:
        return len(self._by_key)

    def __iter__(self) -> Iterator[Schedule]:
        return iter(self._by_key.values())

    def get(self, key: Key) -> Schedule | None:
        return self._by_key.get(key)

    def of(self, tenant: str) -> dict[bytes, Schedule]:
        """A tenant's schedules by their handles, oldest first."""
        return self._of.get(tenant, {})

    def size(self, tenant: str) -> int:
        """The bytes of a tenant's schedules."""
        return self._sizes[tenant]

    def put(self, schedule: Schedule, at: float | None = None) -> None:
        """Keep a schedule, in place of the one with its key if there is one.

        ``at`` is when to look at it again, if not when it is due.
        """
        key = schedule.key
        self.hold(key)
        before = self._by_key.get(key)
        self._sizes[schedule.tenant] += schedule.size - (0 if before is None else before.size)
        self._by_key[key] = schedule
        self._of.setdefault(schedule.tenant, {})[schedule.handle] = schedule
        when = schedule.due if at is None else at
        if when < NEVER:
            self._waiting[key] = self._timers.set(when, self._due.append, key)

    def drop(self, key: Key) -> None:
        """Forget a schedule."""
        self.hold(key)
        schedule = self._by_key.pop(key)
        of = self._of[schedule.tenant]
        del of[schedule.handle]
        self._sizes[schedule.tenant] -= schedule.size
        if not of:
            del self._of[schedule.tenant]
            del self._sizes[schedule.tenant]

    def hold(self, key: Key) -> None:
        """Have a schedule wait until it is put back; one that is not there has nothing to do."""
        timer = self._waiting.pop(key, None)
        if timer is not None:
            self._timers.cancel(timer)

    def next(self) -> float:
        """When the next one is due, by the wall clock; infinity for never."""
        return self._timers.next()

    def take_due(self, moment: float) -> list[Key]:
        """Those that are due by now, which wait until they are put back; a bounded number."""
        self._timers.run(moment, turn=TURN)
        due = self._due.copy()
        self._due.clear()
        for key in due:
            del self._waiting[key]
        return due
