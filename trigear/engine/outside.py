"""Results that are kept elsewhere, by a :class:`~trigear.stores.results.ResultStore`.

A result leaves as a ticket, and the record of its job is erased once it has arrived: whatever
happens in between, the job is still there and runs again. Until then the result is told from
memory. Nothing is known here of what is kept already: whoever asks for it waits until the store was
asked.

A store that takes nothing for long must not fill the memory. Beyond ``WAITING_BYTES`` the oldest
results of the tenant that has most of them are let go of; their jobs stay in the store of jobs and
run again after the next start.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trigear.engine.finding import STATE_WORDS, Finding
from trigear.engine.reads import READ_BYTES, Reads
from trigear.model import JobEnd, counted
from trigear.stores.base import Forget
from trigear.stores.results import DONE, Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.broker.jobs import Job
    from trigear.engine.engine import Engine
    from trigear.engine.finding import Told
    from trigear.model import Now

log: Final = logging.getLogger("trigear.engine")

PUT_RESULTS: Final = 256
PUT_BYTES: Final = 4 * 1024 * 1024
"""A result larger than this is put alone."""

WAITING_BYTES: Final = 64 * 1024 * 1024
"""Results that wait for their store, in memory."""

GET: Final = "get"
FIND: Final = "find"
DROP: Final = "drop"
"""What a store is asked: for results by their handles, or by their functions and uniques; or to
drop some."""


@dataclass(frozen=True, eq=False, slots=True)
class Put:
    """A ticket: have the store keep these, then call the engine's ``put``."""

    results: tuple[Result, ...]


class _Waiting:
    """A result that the store does not have yet."""

    __slots__ = ("forget", "gone", "result", "size")

    def __init__(self, result: Result, forget: Forget | None) -> None:
        self.result = result
        self.forget = forget
        self.size = len(result.data or b"") + READ_BYTES
        self.gone = False


class Outside:
    """What waits for the store of results, and who waits for what is in it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.reads = Reads()
        self._waiting: OrderedDict[tuple[str, bytes], _Waiting] = OrderedDict()
        """By tenant and handle, oldest first."""
        self._uniques: dict[tuple[str, bytes, bytes], _Waiting] = {}
        self._flying: dict[_Waiting, None] = {}
        self._of: dict[str, OrderedDict[_Waiting, None]] = {}
        """By tenant, oldest first, but for those on their way."""
        self._sizes: dict[str, int] = {}
        """How much that is."""
        self._bytes = 0
        self._let_go = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def idle(self) -> bool:
        """Whether the store has everything, and nobody waits for it."""
        return not (self._waiting or self._flying) and self.reads.idle

    # In

    def keep(self, job: Job, end: JobEnd, attempts: int, data: bytes, now: Now) -> bool:
        """Keep the result of a job that has ended.

        Returns:
            Whether the job's record is erased once the result has arrived.
        """
        function = job.function
        rules = function.rules
        result = Result(
            tenant=function.tenant.name,
            handle=job.handle,
            function=function.name,
            unique=job.unique,
            state=STATE_WORDS[end],
            attempts=attempts,
            ended=now.wall,
            expires=now.wall + rules.keep_results,
            data=data if len(data) <= rules.results_size else None,
        )
        forget = Forget(function.partition.number, job.record) if job.record else None
        before = self._waiting.get((result.tenant, result.handle))
        if before is not None:
            self._withdraw(before)
        waiting = _Waiting(result, forget)
        self._waiting[result.tenant, result.handle] = waiting
        self._bytes += waiting.size
        self._rest(waiting)
        if result.state == DONE and result.unique and result.data is not None:
            self._uniques[result.tenant, result.function, result.unique] = waiting
        if self._bytes > WAITING_BYTES:
            self._let_some_go()
        return forget is not None

    def _rest(self, waiting: _Waiting, *, first: bool = False) -> None:
        """A result is not on its way, or not any more: then it is older than the others."""
        tenant = waiting.result.tenant
        of = self._of.setdefault(tenant, OrderedDict())
        of[waiting] = None
        of.move_to_end(waiting, last=not first)
        self._sizes[tenant] = self._sizes.get(tenant, 0) + waiting.size

    def _take(self, waiting: _Waiting) -> None:
        """The reverse; does nothing to one that is on its way."""
        tenant = waiting.result.tenant
        of = self._of.get(tenant)
        if of is None or waiting not in of:
            return
        del of[waiting]
        self._sizes[tenant] -= waiting.size
        if not of:
            del self._of[tenant], self._sizes[tenant]

    def _let_some_go(self) -> None:
        """Of the tenant that has most: nobody's results go because another one has so many."""
        gone = 0
        while self._bytes > WAITING_BYTES and self._sizes:
            tenant = max(self._sizes, key=self._sizes.__getitem__)
            self._leave(next(iter(self._of[tenant])))
            gone += 1
        if gone and not self._let_go:
            log.error(
                "the store of results takes nothing, and what waits for it is more than %s: the"
                " oldest results are let go of; their background jobs run again after the next"
                " start",
                counted(WAITING_BYTES, "byte"),
            )
        self._let_go += gone

    def _leave(self, waiting: _Waiting) -> None:
        """A result waits no more."""
        result = waiting.result
        waiting.gone = True
        self._take(waiting)
        del self._waiting[result.tenant, result.handle]
        self._bytes -= waiting.size
        key = result.tenant, result.function, result.unique
        if self._uniques.get(key) is waiting:
            del self._uniques[key]

    def _withdraw(self, waiting: _Waiting) -> bool:
        """A result is not to be kept after all. Returns whether it is on its way already."""
        self._leave(waiting)
        if waiting in self._flying:
            return True
        self._forget(waiting)
        return False

    def _forget(self, waiting: _Waiting) -> None:
        """The job of a result has ended for good."""
        if waiting.forget is not None:
            self._engine.record(waiting.result.tenant, waiting.forget)

    # To the store and back

    @property
    def has_ticket(self) -> bool:
        """Whether :meth:`next_ticket` would return one."""
        return not self._flying and bool(self._waiting)

    def next_ticket(self) -> Put | None:
        """What the store is to keep next, if anything and the last ticket is back."""
        if not self.has_ticket:
            return None
        size = 0
        for waiting in self._waiting.values():
            size += waiting.size
            if self._flying and (size > PUT_BYTES or len(self._flying) == PUT_RESULTS):
                break
            self._flying[waiting] = None
            self._take(waiting)
        return Put(tuple(waiting.result for waiting in self._flying))

    def put(self, *, kept: bool) -> None:
        """The results of the last ticket are kept now; or not all of them, and will be asked for
        again."""
        flying, self._flying = self._flying, {}
        if not kept:
            for waiting in reversed(flying):
                if not waiting.gone:
                    self._rest(waiting, first=True)
        for waiting in flying:
            if kept and not waiting.gone:
                self._leave(waiting)
            if waiting.gone:
                self._forget(waiting)
        if kept and self._let_go:
            log.warning(
                "the store of results works again; %s not there",
                counted(self._let_go, "result is", "results are"),
            )
            self._let_go = 0

    # Asking

    def at_hand(self, tenant: str, handle: bytes, now: Now) -> _Waiting | None:
        """The result of the job with this handle, if it is in memory."""
        return self._waiting.get((tenant, handle))

    def look(self, tenant: str, handle: bytes, now: Now, told: Told, *, data: bool) -> int:
        """As :meth:`trigear.engine.shelves.Shelves.look`; waits for the store."""
        waiting = self._waiting.get((tenant, handle))
        return self._tell(waiting, (GET, tenant), (tenant, handle), now, told)

    def find(
        self, tenant: str, function: bytes, unique: bytes, now: Now, told: Told, *, data: bool
    ) -> int:
        """As :meth:`trigear.engine.shelves.Shelves.find`; waits for the store."""
        key = tenant, function, unique
        waiting = self._uniques.get(key)
        if waiting is not None and waiting.forget is None and not data:
            waiting = None  # it might be gone with a crash
        return self._tell(waiting, (FIND, tenant), key, now, told)

    def _tell(
        self,
        waiting: _Waiting | None,
        what: tuple[str, str],
        key: tuple[object, ...],
        now: Now,
        told: Told,
    ) -> int:
        if waiting is not None:
            told(finding_of(waiting.result), "")
            return 0

        def tell(found: Result | None, why: str) -> None:
            if found is not None and found.expires <= self._engine.now.wall:
                found = None
            told(None if found is None else finding_of(found), why)

        self.reads.ask(what, key, READ_BYTES, now, tell)
        return READ_BYTES

    def remove(
        self, tenant: str, handle: bytes, now: Now, told: Callable[[bool, str], None]
    ) -> None:
        """Drop a result because somebody says so; ``told`` hears whether it could be, and why not
        if so. Whether there was one is not known."""
        waiting = self._waiting.get((tenant, handle))
        if waiting is not None and not self._withdraw(waiting):
            told(True, "")
            return
        # Behind the result itself, if that is on its way: the store does one thing at a time.
        self.reads.ask(
            (DROP, tenant),
            (tenant, handle),
            READ_BYTES,
            now,
            lambda _found, why: told(not why, why),
        )

    # Time

    def next_deadline(self) -> float:
        return self.reads.next_deadline()

    def tick(self, now: Now) -> None:
        self.reads.tick(now)


def finding_of(result: Result) -> Finding:
    """What is told of a result."""
    data = result.data
    return Finding(
        result.state,
        result.attempts,
        result.ended,
        result.function,
        result.unique,
        result.handle,
        None if data is None else len(data),
        data,
    )
