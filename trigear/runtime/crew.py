"""What the connections of a running worker share: its limits, its places, and its strays.

A grab takes a *place*, in its lane and in the crew; the place is free again when the job's handler
has ended. A handler that was told to stop and goes on is a *stray*: it swallows its cancellation,
hides behind a shield, or is a thread. Its job is given back, after a grace, and so is its place,
so that other jobs go on beside it. But there are no more strays with a place given back than the
worker has places: a worker whose every handler hangs shall not fill the machine with them.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from trigear.model import counted
from trigear.runtime.job import WorkerJob, text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trigear.errors import TrigearError
    from trigear.protocol.events import Assigned
    from trigear.runtime.shift import Shift

log: Final = logging.getLogger("trigear.worker")

STRAY_GRACE: Final = 3.0
"""Seconds that a handler may go on after it was told to stop, until it counts as a stray. More than
a program gets between SIGTERM and SIGKILL."""

Call = Callable[[WorkerJob], Awaitable[bytes | None]]
"""A handler of whatever kind, to be called on Trio."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function and how it is done; times in seconds."""

    call: Call
    timeout: float | None = None
    concurrency: int | None = None


@dataclass(eq=False, slots=True)
class Lane:
    """Functions that share a limit and their connections."""

    functions: Mapping[bytes, Function]
    limit: int
    taken: int = 0

    @property
    def timed(self) -> bool:
        """Whether a job of it may have to be handed back while others run."""
        return any(function.timeout is not None for function in self.functions.values())


@dataclass(slots=True)
class Counts:
    """How the jobs of a worker have ended so far."""

    started: int = 0
    completed: int = 0
    failed: int = 0
    raised: int = 0
    released: int = 0
    lost: int = 0


@dataclass(eq=False, slots=True)
class Crew:
    """What all connections of a running worker share.

    ``total`` is how many jobs it may begin in its life; None for any number. ``over`` is set when
    it shall end, because of ``failure`` or because nobody is at work any more. ``busy`` are the
    functions of jobs that have just ended, for whoever looks for the one that took so long.
    ``doing`` are the jobs whose handlers run and are no strays, ``strays`` counts those that are.
    """

    functions: Mapping[bytes, Function]
    max_jobs: int
    name: bytes
    heartbeat: float | None
    total: int | None = None
    counts: Counts = field(default_factory=Counts)
    shifts: list[Shift] = field(default_factory=list)
    draining: trio.Event = field(default_factory=trio.Event)
    drained_by: float = math.inf
    failure: TrigearError | None = None
    over: trio.Event = field(default_factory=trio.Event)
    keepers: int = 0
    ending: bool = False
    jobs: trio.Nursery = field(init=False)
    busy: set[bytes] = field(default_factory=set)
    doing: set[Held] = field(default_factory=set)
    strays: int = 0
    _waits: set[trio.CancelScope] = field(default_factory=set)
    _look_at: float = math.inf
    _nap: trio.CancelScope = field(default_factory=trio.CancelScope)
    _taken: int = 0
    _begun: int = 0
    _line: deque[Shift] = field(default_factory=deque)

    def lanes(self) -> list[Lane]:
        """The lanes of all functions."""
        shared = {
            name: function
            for name, function in self.functions.items()
            if function.concurrency is None
        }
        lanes = [Lane(shared, self.max_jobs)] if shared else []
        return lanes + [
            Lane({name: function}, min(function.concurrency, self.max_jobs))
            for name, function in self.functions.items()
            if function.concurrency is not None
        ]

    def take(self, shift: Shift) -> bool:
        """Take a place for a job; if there is none, stand in line for it."""
        lane = shift.lane
        if self.draining.is_set() or self.ending:
            return False
        left = self.total is None or self._begun < self.total
        if left and self._taken < self.max_jobs and lane.taken < lane.limit:
            self._taken += 1
            lane.taken += 1
            self._begun += 1
            return True
        if shift not in self._line:
            self._line.append(shift)
        return False

    def give(self, lane: Lane, *, unused: bool = False) -> None:
        """Give a place back; ``unused`` if no job has begun on it. The next in line take it."""
        self._taken -= 1
        lane.taken -= 1
        self._begun -= unused
        line, self._line = self._line, deque()
        for shift in line:
            shift.grab()

    # Strays

    def look_by(self, moment: float) -> None:
        """See at this time whether there are handlers that should have ended."""
        if moment < self._look_at:
            self._look_at = self._nap.deadline = moment

    async def look_for_strays(self) -> None:
        """Give up the jobs of handlers that go on although they were told to stop."""
        while True:
            with trio.CancelScope(deadline=self._look_at) as self._nap:
                await trio.sleep_forever()
            now = trio.current_time()
            late = [job for job in self.doing if job.stray_at <= now]
            stood_still = now - self._look_at > STRAY_GRACE
            for job in late:
                if stood_still:
                    # Nobody could end while nothing went on: the grace begins now.
                    job.stray_at = now + STRAY_GRACE
                else:
                    job.shift.give_up_stray(job)
            self._look_at = min((job.stray_at for job in self.doing), default=math.inf)

    def stray(self, job: Held) -> None:
        """A handler goes on, and its job is not its own any more."""
        self.doing.discard(job)
        self.strays += 1
        job.stray_since = trio.current_time()
        what = f"{job!r}: its handler goes on, {STRAY_GRACE:g} s after it was told to stop"
        if self.strays <= self.max_jobs:
            job.has_place = False
            log.warning("%s; other jobs are begun beside it", what)
            self.give(job.shift.lane)
        else:
            others = counted(self.strays - 1, "other does", "others do")
            log.error("%s; %s so as well: no job is begun in its place", what, others)

    async def wait_for_thread(self, job: Held, ended: trio.Event) -> None:
        """Wait for a thread that cannot be stopped; its job was given up when it was told to."""
        self.doing.discard(job)
        with trio.move_on_after(STRAY_GRACE):
            await ended.wait()
        if not ended.is_set():
            if job.stray_since is None:
                self.stray(job)
                job.shift.grab()
            await ended.wait()

    def ended(self, job: Held) -> None:
        """A handler has ended, and so has whatever it left behind."""
        self.doing.discard(job)
        if job.stray_since is not None:
            self.strays -= 1
            seconds = trio.current_time() - job.stray_since + STRAY_GRACE
            log.warning(
                "%r: its handler has ended %.1f s after it was told to stop; its answer is lost",
                job,
                seconds,
            )
        if job.has_place:
            self.give(job.shift.lane)

    # The end

    def drain(self, grace: float) -> None:
        """Begin no job any more; end when those that run have ended, or after the grace."""
        self.drained_by = min(self.drained_by, trio.current_time() + grace)
        self.draining.set()
        for scope in self._waits:
            scope.cancel()
        for shift in list(self.shifts):
            shift.drain()

    @contextmanager
    def until_drained(self) -> Iterator[trio.CancelScope]:
        """Cancel the body when the worker drains: what waits for a server shall not hold it up."""
        with trio.CancelScope() as scope:
            if self.draining.is_set():
                scope.cancel()
            self._waits.add(scope)
            try:
                yield scope
            finally:
                self._waits.discard(scope)

    def began(self) -> None:
        """Note that a job was begun; the last one begins the end."""
        self.counts.started += 1
        if self.total is not None and self.counts.started >= self.total:
            self.drain(math.inf)

    def stood_still(self, seconds: float) -> None:
        """Hear that the event loop did not get on."""
        names = self.busy.union(*(shift.functions for shift in self.shifts))
        busy = f", busy with {', '.join(sorted(map(text, names)))}" if names else ""
        log.warning(
            "the event loop stood still for %.1f s%s: meanwhile no other job goes on, and servers"
            " hear no sign of life. A handler that computes or blocks belongs into a thread: make"
            " it a plain `def`",
            seconds,
            busy,
        )

    def fail(self, failure: TrigearError) -> None:
        """End the worker with this error."""
        self.failure = self.failure or failure
        self.over.set()


class Held(WorkerJob):
    """A job in the hands of a shift."""

    __slots__ = (
        "deadline",
        "has_place",
        "notice",
        "scope",
        "shift",
        "stray_at",
        "stray_since",
        "timeout",
    )

    def __init__(self, assigned: Assigned, shift: Shift, timeout: float | None) -> None:
        super().__init__(assigned, shift)
        self.shift = shift
        self.timeout = math.inf if timeout is None else timeout
        self.deadline = trio.current_time() + self.timeout
        self.scope = trio.CancelScope(deadline=self.deadline)
        self.notice: str | None = None  # why the server does not want it any more
        self.has_place = True
        self.stray_at = math.inf
        self.stray_since: float | None = None

    def stop_by(self, moment: float) -> None:
        """Tell the handler to stop at this time at the latest, and expect that it does."""
        self.scope.deadline = min(self.scope.deadline, moment)
        self._expect_end(self.scope.deadline)

    def stop(self) -> None:
        """Tell the handler to stop."""
        self.scope.cancel()
        self._expect_end(trio.current_time())

    def _expect_end(self, moment: float) -> None:
        if moment + STRAY_GRACE < self.stray_at and self.stray_since is None:
            self.stray_at = moment + STRAY_GRACE
            self.shift.crew.look_by(self.stray_at)
