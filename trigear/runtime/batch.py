"""Many jobs, some at a time.

Theory of operation. No task of its own: whoever iterates submits. Each step first fills the window
(so many jobs under way or not yet taken), then waits for the next job that may be handed out. So a
slow taker slows the submitting down, memory stays bounded, and a cancelled step loses nothing.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import trio

from trigear.errors import ConnectionLost, JobError, Refused
from trigear.model import public
from trigear.runtime.order import submission
from trigear.runtime.waiting import Following

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from trigear.protocol import events
    from trigear.protocol.asking import Request
    from trigear.runtime.order import Order
    from trigear.runtime.pool import Pool, Upstream


@public
@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job of a batch ended.

    ``index`` counts the workloads from 0. ``error`` is why there is no result, or None.
    """

    index: int
    workload: bytes
    data: bytes
    error: JobError | Refused | ConnectionLost | None = None

    def result(self) -> bytes:
        """All the data that the job sent, and what it completed with.

        Raises:
            JobFailed, JobRaised, JobLost, Refused, ConnectionLost: as ``Client.submit``.
        """
        if self.error is not None:
            raise self.error
        return self.data


class _Entry(Following):
    """One job of a batch."""

    __slots__ = ("batch", "index", "order", "token", "upstream")

    def __init__(self, batch: Batch, index: int, order: Order) -> None:
        super().__init__()
        self.batch = batch
        self.index = index
        self.order = order
        self.upstream: Upstream | None = None
        self.token: Request | None = None

    def hear(self, event: events.OfRequest) -> bool:
        last = super().hear(event)
        if last:
            self.batch._ended(self)
        return last

    def lose(self, failure: ConnectionLost | trio.ClosedResourceError) -> None:
        super().lose(failure)
        self.batch._ended(self)


@public
@final
class Batch:
    """The jobs of :meth:`Client.map`: iterate over it for an :class:`Outcome` of each.

    Whoever leaves the iteration early uses ``async with``, or calls :meth:`close`: then nobody
    waits for the jobs that are under way, as if each had been cancelled. Without that, their
    results are dropped.
    """

    def __init__(
        self,
        pool: Pool,
        orders: Iterator[Order],
        *,
        concurrency: int,
        ordered: bool,
        resubmit: bool,
    ) -> None:
        self._pool = pool
        self._orders = orders
        self._concurrency = concurrency
        self._ordered = ordered
        self._resubmit = resubmit
        self._count = 0
        self._next = 0
        self._more = True
        self._window: dict[int, _Entry] = {}
        self._unsent: deque[_Entry] = deque()
        self._over: deque[_Entry] = deque()
        self._changed = trio.lowlevel.ParkingLot()

    def __aiter__(self) -> Batch:
        return self

    async def __anext__(self) -> Outcome:
        """The next outcome.

        Raises:
            ConnectionLost: no server can be reached. Go on iterating to try again.
            TypeError, ValueError, LocalProtocolError: a workload that cannot be submitted; it is
                left out. So is one that raises what your own iterator raises.
            trio.ClosedResourceError: the client was left.

        Cancellation: nothing is lost: go on iterating.
        """
        await trio.lowlevel.checkpoint()
        while True:
            await self._fill()
            entry = self._take()
            if entry is not None:
                return outcome_of(entry)
            if not self._window:
                raise StopAsyncIteration
            await self._changed.park()

    async def __aenter__(self) -> Batch:
        await trio.lowlevel.checkpoint()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Wait no more for the jobs under way, and submit no others."""
        self._more = False
        for entry in self._window.values():
            if entry.token is not None and entry.upstream is not None:
                entry.upstream.forget(entry.token)
        self._window.clear()
        self._unsent.clear()
        self._over.clear()
        self._changed.unpark_all()

    async def _fill(self) -> None:
        """Submit as many as there is room for."""
        while self._unsent or self._has_next():
            entry = self._unsent[0]
            upstream = await self._pool.pick(entry.order.home(self._pool))
            if not self._unsent or self._unsent[0] is not entry:
                continue  # the batch was closed meanwhile, or another task was quicker
            # From here to the end of the round nothing waits: what is taken out is under way.
            self._unsent.popleft()
            try:
                token = submission(entry.order, upstream.machine)
            except BaseException:
                del self._window[entry.index]
                raise
            entry.upstream, entry.token = upstream, token
            upstream.listen(token, entry)

    def _has_next(self) -> bool:
        """Take the next order into the window, if there is one and room for it."""
        if not self._more or len(self._window) >= self._concurrency:
            return False
        order = next(self._orders, None)
        if order is None:
            self._more = False
            return False
        entry = self._window[self._count] = _Entry(self, self._count, order)
        self._unsent.append(entry)
        self._count += 1
        return True

    def _take(self) -> _Entry | None:
        """An entry that may be handed out now, out of the window."""
        if not self._ordered:
            entry = self._over.popleft() if self._over else None
        else:
            while self._next < self._count and self._next not in self._window:
                self._next += 1  # it was left out
            entry = self._window.get(self._next)
            if entry is not None and not entry.is_over:
                entry = None
        if entry is not None:
            del self._window[entry.index]
        return entry

    def _ended(self, entry: _Entry) -> None:
        """Nothing more will be heard of an entry."""
        if self._resubmit and entry.is_in_doubt:
            again = self._window[entry.index] = _Entry(self, entry.index, entry.order)
            self._unsent.append(again)
        elif not self._ordered:
            self._over.append(entry)
        self._changed.unpark_all()


def outcome_of(entry: _Entry) -> Outcome:
    """How a job ended."""
    data, error = b"", None
    try:
        data = entry.outcome()
    except (JobError, Refused, ConnectionLost) as its:
        error = its.with_traceback(None)
    return Outcome(entry.index, entry.order.workload, data, error)
