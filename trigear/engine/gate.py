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
from typing import TYPE_CHECKING, Final

from trigear.errors import StoreError, StoreFenced, StoreUnavailable, StoreUnknown
from trigear.stores.base import Batch, Forget, Keep, Line, Losses

if TYPE_CHECKING:
    from trigear.broker.broker import Broker
    from trigear.broker.jobs import Job
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
        self._queues: dict[str, deque[tuple[Line, Job | None]]] = {}
        self._flying: tuple[Batch, list[tuple[str, Line, Job | None]]] | None = None
        self._number = 0
        self._deadline = float("inf")
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
        function = job.function
        line = Keep(
            partition=function.partition.number,
            sequence=job.record,
            tenant=function.tenant.name,
            function=function.name,
            unique=job.unique,
            handle=job.handle,
            priority=job.priority,
            due=job.due,
            losses=job.losses,
            reducer=job.reducer,
            workload=job.workload,
        )
        self._add(function.tenant.name, line, job)

    def lost(self, job: Job) -> None:
        function = job.function
        line = Losses(function.partition.number, job.record, job.losses)
        self._add(function.tenant.name, line, None)

    def forget(self, job: Job) -> None:
        function = job.function
        self._add(function.tenant.name, Forget(function.partition.number, job.record), None)

    def _add(self, tenant: str, line: Line, job: Job | None) -> None:
        queue = self._queues.get(tenant)
        if queue is None:
            queue = self._queues[tenant] = deque()
        queue.append((line, job))

    @property
    def has_commit(self) -> bool:
        """Whether :meth:`next_commit` would return a batch."""
        return self._flying is None and bool(self._queues) and not self.fenced

    def next_commit(self, now: Now) -> Commit | None:
        """The next batch, if there are lines for one and the store has answered the last."""
        if not self.has_commit:
            return None
        taken: list[tuple[str, Line, Job | None]] = []
        size = 0
        queues = self._queues
        while queues and len(taken) < BATCH_LINES:
            tenant, queue = next(iter(queues.items()))
            line, job = queue[0]
            size += _LINE_BYTES + (len(line.workload) if isinstance(line, Keep) else 0)
            if size > BATCH_BYTES and taken:
                break
            taken.append((tenant, line, job))
            # Move the tenant whose turn it was to the end.
            queue.popleft()
            del queues[tenant]
            if queue:
                queues[tenant] = queue
        self._number += 1
        batch = Batch(self._number, tuple(line for _, line, _ in taken))
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
            self._deadline = float("inf")
            return
        if isinstance(error, StoreUnknown):
            self.stalled = True
            return
        self._flying = None
        self._deadline = float("inf")
        self.stalled = False
        if error is None:
            for _, _, job in taken:
                if job is not None:
                    self._broker.stored(job, now)
        else:
            assert isinstance(error, StoreUnavailable)
            # First what answers nobody goes back to the front, then refusals may add lines behind.
            for tenant, line, job in reversed(taken):
                if job is None:
                    self._queues.setdefault(tenant, deque()).appendleft((line, None))
            for _, _, job in taken:
                if job is not None:
                    self._broker.not_stored(job)

    def next_deadline(self) -> float:
        """When the store counts as stalled."""
        return float("inf") if self.stalled else self._deadline

    def tick(self, now: Now) -> None:
        if self._flying is not None and now.monotonic >= self._deadline:
            self.stalled = True
