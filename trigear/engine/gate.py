"""The reply gate: what is recorded, in which batch, and who may be answered when.

A durable submission leaves a line for the next batch, and its reply waits. One batch is with the
store at a time; whatever gathers meanwhile makes the next one, so that commits group themselves
without a timer. A batch takes lines from the tenants in turn, each tenant's in order.

What may come back, and what follows:

* written: the jobs of the batch can be grabbed, their submitters are answered;
* unavailable: nothing was written; submitters are refused, and what was to be erased or
  counted is tried again with the next batch;
* unknown: nobody is answered until the store knows; the batch stays where it is;
* fenced: another server owns the queue; nobody is answered any more, the server stops.

After ``STALL_SECONDS`` without an answer the store counts as stalled and new durable submissions
are refused, until it answers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from trigear.broker.jobs import Job
from trigear.engine.dead import place_of, record_of
from trigear.errors import StoreError, StoreFenced, StoreUnavailable, StoreUnknown
from trigear.model import NEVER
from trigear.stores.base import RECORD_VERSION, Batch, Forget, Keep, Line, Losses, Record

if TYPE_CHECKING:
    from trigear.broker.broker import Broker
    from trigear.broker.dead import DeadLetter
    from trigear.model import Now

BATCH_LINES: Final = 4096
BATCH_BYTES: Final = 4 * 1024 * 1024
"""A line larger than this makes a batch of its own."""

STALL_SECONDS: Final = 5.0

_LINE_BYTES: Final = 128
"""What a line counts beside its workload."""


@dataclass(frozen=True, slots=True)
class Commit:
    """A ticket: write this batch, then call the engine's ``done`` with the outcome."""

    batch: Batch


class Pending(Protocol):
    """Who has to know what became of a line that is about no job in the queue."""

    def stored(self, now: Now) -> None:
        """The line is written."""

    def not_stored(self, now: Now) -> None:
        """It was not written, and is known not to be."""


class Together(NamedTuple):
    """Lines that are written in one transaction or not at all."""

    lines: tuple[Line, ...]


_Entry = tuple[Line | Together, Job | Pending | None]


class Gate:
    """Lines on their way to the store; the broker's keeper."""

    __slots__ = (
        "_broker",
        "_deadline",
        "_flying",
        "_number",
        "_queues",
        "fenced",
        "stalled",
    )

    def __init__(self) -> None:
        self._broker: Broker | None = None
        self._queues: dict[str, deque[_Entry]] = {}
        self._flying: tuple[Batch, list[tuple[str, _Entry]]] | None = None
        self._number = 0
        self._deadline = NEVER
        self.stalled = False
        self.fenced = False

    def serve(self, broker: Broker) -> None:
        """Say whom to tell about commits."""
        self._broker = broker

    @property
    def idle(self) -> bool:
        """Whether everything is written."""
        return self._flying is None and not self._queues

    def keep(self, job: Job) -> None:
        self.write(job.function.tenant.name, line_of(job), job)

    def lost(self, job: Job) -> None:
        function = job.function
        line = Losses(function.partition.number, job.record, job.losses, job.due)
        self.write(function.tenant.name, line, None)

    def forget(self, job: Job) -> None:
        function = job.function
        self.write(function.tenant.name, Forget(function.partition.number, job.record), None)

    def bury(self, letter: DeadLetter, record: int) -> None:
        lines: tuple[Line, ...] = (record_of(letter),)
        if record:
            lines += (Forget(letter.partition, record),)
        self.write(letter.tenant, Together(lines), None)

    def erase(self, letter: DeadLetter, told: Pending | None = None) -> None:
        self.write(letter.tenant, place_of(letter), told)

    def revive(self, letter: DeadLetter, job: Job, told: Pending) -> None:
        self.write(letter.tenant, Together((line_of(job), place_of(letter))), told)

    def rewrite(self, job: Job) -> None:
        self.write(job.function.tenant.name, line_of(job), None)

    def write(self, tenant: str, line: Line | Together, who: Job | Pending | None) -> None:
        """Have the line written in one of the next batches, behind the tenant's earlier ones.

        ``who`` is told of the outcome; without, a line that was not written is tried again until
        it is.
        """
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
        queue.append((line, who))

    @property
    def has_commit(self) -> bool:
        """Whether :meth:`next_commit` would return a batch."""
        return self._flying is None and bool(self._queues) and not self.fenced

    def next_commit(self, now: Now) -> Commit | None:
        """The next batch, if there are lines for one and the store has answered the last."""
        if not self.has_commit:
            return None
        taken: list[tuple[str, _Entry]] = []
        lines: list[Line] = []
        size = 0
        queues = self._queues
        while queues and len(lines) < BATCH_LINES:
            tenant, queue = next(iter(queues.items()))
            entry = queue[0]
            line = entry[0]
            # The line of nearly every entry, without a call.
            if line.__class__ is Keep:
                size += _LINE_BYTES + len(line.workload)
            else:
                size += _size_of(line)
            if size > BATCH_BYTES and taken:
                break
            taken.append((tenant, entry))
            if isinstance(line, Together):
                lines.extend(line.lines)
            else:
                lines.append(line)
            queue.popleft()
            if not queue:
                del queues[tenant]
            elif len(queues) > 1:
                # Move the tenant whose turn it was to the end.
                del queues[tenant]
                queues[tenant] = queue
        self._number += 1
        batch = Batch(self._number, tuple(lines))
        self._flying = batch, taken
        self._deadline = now.monotonic + STALL_SECONDS
        return Commit(batch)

    def done(self, commit: Commit, error: StoreError | None, now: Now) -> None:
        """The store answered: None for written, else what went wrong."""
        assert self._flying is not None
        assert self._broker is not None
        batch, taken = self._flying
        assert batch is commit.batch, "one batch at a time"
        if isinstance(error, StoreFenced):
            self.fenced = True
            self._deadline = NEVER
            return
        if isinstance(error, StoreUnknown):
            self.stalled = True
            return
        self._flying = None
        self._deadline = NEVER
        self.stalled = False
        if error is None:
            for _, (_, who) in taken:
                if isinstance(who, Job):
                    self._broker.stored(who, now)
                elif who is not None:
                    who.stored(now)
        else:
            assert isinstance(error, StoreUnavailable)
            # First what answers nobody goes back to the front, then refusals may add lines behind.
            for tenant, entry in reversed(taken):
                if entry[1] is None:
                    self._queues.setdefault(tenant, deque()).appendleft(entry)
            for _, (_, who) in taken:
                if isinstance(who, Job):
                    self._broker.not_stored(who, now)
                elif who is not None:
                    who.not_stored(now)

    def next_deadline(self) -> float:
        """When the store counts as stalled."""
        return NEVER if self.stalled else self._deadline

    def tick(self, now: Now) -> None:
        if self._flying is not None and now.monotonic >= self._deadline:
            self.stalled = True


def line_of(job: Job) -> Keep:
    """What is written down of a job."""
    function = job.function
    # One for each background job, and by its names it costs five times as much.
    return tuple.__new__(
        Keep,
        (
            function.partition.number,
            job.record,
            function.tenant.name,
            function.name,
            job.unique,
            job.handle,
            job.priority,
            job.due,
            job.submitted,
            job.losses,
            job.reducer,
            job.workload,
            RECORD_VERSION,
        ),
    )


def _size_of(line: Line | Together) -> int:
    """About how many bytes the line adds to its batch."""
    if isinstance(line, Keep):
        return _LINE_BYTES + len(line.workload)
    if isinstance(line, Record):
        return _LINE_BYTES + len(line.about) + len(line.data)
    if isinstance(line, Together):
        return sum(map(_size_of, line.lines))
    return _LINE_BYTES
