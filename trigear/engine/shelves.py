"""Results that are kept beside the jobs: in the store of jobs, or in memory if there is none.

What is known of each result but its data is in memory, so that most questions need no store. A
result is written together with the end of its job, in one transaction: whatever happens, either the
job is there or its result. Until that is written, and where nothing is, the data are in memory too.

Bounds hold for each function: a time, a number, a number of bytes. What is too old is dropped when
its time has come, some at a time; what is too much, when one more comes in, oldest first.
"""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.timers import Timers
from trigear.engine.finding import STATE_WORDS, Finding
from trigear.engine.gate import Together
from trigear.engine.records import Kind
from trigear.model import NEVER, JobEnd, counted, printable
from trigear.stores.base import Erase, Forget, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trigear.broker.functions import Rules
    from trigear.broker.jobs import Job
    from trigear.engine.engine import Engine
    from trigear.engine.finding import Told
    from trigear.model import Now
    from trigear.stores.base import Line

log: Final = logging.getLogger("trigear.engine")

KIND: Final = "result"

TRIM_TURN: Final = 256
"""Results beyond a bound that are dropped in a row before others have their turn."""

LOOK_SECONDS: Final = 10.0
"""Longest sleep while results wait for their end: the wall clock may be set."""

_SLACK: Final = 64
"""Gone results in a row of a function's that are never worth a clean-up."""

_WORDS: Final = frozenset(STATE_WORDS.values())


class Kept:
    """One result. ``size`` is that of its data, -1 if they were too large to be kept.

    ``data`` is None while they are in the store only. It is ``safe`` to rely on once it, or its
    job, would outlive a crash.
    """

    __slots__ = (
        "attempts",
        "data",
        "ended",
        "expires",
        "gone",
        "handle",
        "partition",
        "safe",
        "shelf",
        "size",
        "state",
        "timer",
        "unique",
    )

    def __init__(
        self,
        shelf: Shelf,
        handle: bytes,
        unique: bytes,
        partition: int,
        state: str,
        attempts: int,
        ended: float,
        expires: float,
        size: int,
        data: bytes | None,
        safe: bool,
    ) -> None:
        self.shelf = shelf
        self.handle = handle
        self.unique = unique
        self.partition = partition
        self.state = state
        self.attempts = attempts
        self.ended = ended
        self.expires = expires
        self.size = size
        self.data = data
        self.safe = safe
        self.gone = False
        self.timer: list[Any] | None = None

    def finding(self, data: bytes | None) -> Finding:
        """What is told of it, with its data if they are asked for and there."""
        size = None if self.size < 0 else self.size
        return Finding(
            self.state,
            self.attempts,
            self.ended,
            self.shelf.function,
            self.unique,
            self.handle,
            size,
            data,
        )


class Shelf:
    """The results of one function of one tenant, in the order of their ends."""

    __slots__ = ("bytes", "complained", "count", "function", "row", "tenant", "uniques", "unsorted")

    def __init__(self, tenant: str, function: bytes) -> None:
        self.tenant = tenant
        self.function = function
        self.row: deque[Kept] = deque()
        """Oldest first. What is gone stays until it is at the front, or there is much of it."""
        self.uniques: dict[bytes, Kept] = {}
        """The newest success of each unique that somebody chose."""
        self.count = 0
        self.bytes = 0
        self.unsorted = False
        self.complained: set[str] = set()


class _Writing:
    """A result on its way to the store, with the end of its job if that has a record."""

    __slots__ = ("_forget", "_kept", "_shelves")

    def __init__(self, shelves: Shelves, kept: Kept, forget: Forget | None) -> None:
        self._shelves = shelves
        self._kept = kept
        self._forget = forget

    def write(self) -> None:
        kept, forget = self._kept, self._forget
        engine, tenant = self._shelves.engine, kept.shelf.tenant
        if kept.gone:
            # Dropped before it could be written. The job has ended all the same.
            assert forget is not None
            engine.record(tenant, forget)
        else:
            lines: tuple[Line, ...] = (line_of(kept),)
            engine.record(tenant, Together(lines if forget is None else (*lines, forget)), self)

    def stored(self, now: Now) -> None:
        self._kept.safe = True
        if self._kept.size > 0:
            self._kept.data = None

    def not_stored(self, now: Now) -> None:
        if self._forget is not None:
            self.write()
        elif not self._kept.gone:
            # Its client has had it. Who asks for it later goes without rather than have memory
            # fill up with what a store does not take.
            self._shelves.drop(self._kept)


class Shelves:
    """All results of a server."""

    def __init__(
        self, engine: Engine, rules: Callable[[str, bytes], Rules], *, durable: bool
    ) -> None:
        self.engine = engine
        self._rules = rules
        self._durable = durable
        self._books: dict[str, dict[bytes, Kept]] = {}
        self._shelves: dict[tuple[str, bytes], Shelf] = {}
        self._expiry = Timers()
        self._unsettled: dict[Shelf, None] = {}
        self._looked = engine.now
        engine.kinds.register(Kind(KIND, self._restore, data=False))

    def __len__(self) -> int:
        return sum(map(len, self._books.values()))

    def _shelf(self, tenant: str, function: bytes) -> Shelf:
        shelf = self._shelves.get((tenant, function))
        if shelf is None:
            shelf = self._shelves[tenant, function] = Shelf(tenant, function)
        return shelf

    # In

    def keep(self, job: Job, end: JobEnd, attempts: int, data: bytes, now: Now) -> bool:
        """Keep the result of a job that has ended.

        Returns:
            Whether the job's record is erased together with that.
        """
        if self._durable and not job.record and self.engine.refuses_durable:
            return False
        function = job.function
        rules = function.rules
        shelf = self._shelf(function.tenant.name, function.name)
        whole = len(data) <= rules.results_size
        if not whole:
            self._complain(shelf, "a result is larger than all of them may be together", rules)
            data = b""
        kept = Kept(
            shelf,
            job.handle,
            job.unique,
            function.partition.number,
            STATE_WORDS[end],
            attempts,
            now.wall,
            now.wall + rules.keep_results,
            len(data) if whole else -1,
            data,
            not self._durable or bool(job.record),
        )
        self._put(kept)
        if not shelf.unsorted:
            self._trim(shelf, rules)
        if not self._durable:
            return False
        forget = Forget(kept.partition, job.record) if job.record else None
        _Writing(self, kept, forget).write()
        return True

    def _put(self, kept: Kept) -> None:
        shelf, handle = kept.shelf, kept.handle
        book = self._books.setdefault(shelf.tenant, {})
        before = book.get(handle)
        if before is not None:
            self.drop(before, erase=False)
        book[handle] = kept
        shelf.row.append(kept)
        shelf.count += 1
        shelf.bytes += max(kept.size, 0)
        # Whole seconds, so that many end in one go.
        kept.timer = self._expiry.set(math.ceil(kept.expires), self._expired, kept)
        unique = kept.unique
        if kept.size >= 0 and unique and unique != b"-" and kept.state == DONE:
            newest = shelf.uniques.get(unique)
            if newest is None or newest.ended <= kept.ended:
                shelf.uniques[unique] = kept

    def _restore(self, record: Record, about: Mapping[str, Any], now: Now) -> None:
        state, size = about["state"], about["size"]
        if state not in _WORDS:
            raise ValueError(f"state: {state!r}")
        if type(size) is not int or size < -1:
            raise ValueError(f"size: {size!r}")
        ended, attempts = float(about["ended"]), int(about["attempts"])
        unique = about["unique"]
        if not isinstance(unique, str):
            raise ValueError(f"unique: {unique!r}")
        if not (math.isfinite(ended) and math.isfinite(record.expires)):
            raise ValueError(f"ended at {ended}, expires at {record.expires}")
        shelf = self._shelf(record.tenant, record.function)
        kept = Kept(
            shelf,
            record.key,
            unique.encode("latin-1"),
            record.partition,
            state,
            attempts,
            ended,
            record.expires,
            size,
            None if size > 0 else b"",
            True,
        )
        # They come in the order of their handles, and bounds may be others than they were.
        shelf.unsorted = True
        self._unsettled[shelf] = None
        self._put(kept)

    # Out

    def drop(self, kept: Kept, *, erase: bool = True) -> None:
        """Forget a result, in the store as well."""
        shelf = kept.shelf
        kept.gone = True
        kept.data = None
        del self._books[shelf.tenant][kept.handle]
        shelf.count -= 1
        shelf.bytes -= max(kept.size, 0)
        if shelf.uniques.get(kept.unique) is kept:
            del shelf.uniques[kept.unique]
        assert kept.timer is not None
        self._expiry.cancel(kept.timer)
        row = shelf.row
        while row and row[0].gone:
            row.popleft()
        if len(row) > 2 * shelf.count + _SLACK:
            shelf.row = deque(kept for kept in row if not kept.gone)
        if erase:
            place = Erase(KIND, shelf.tenant, kept.handle, kept.partition)
            self.engine.record(shelf.tenant, place)

    def _expired(self, kept: Kept, now: Now) -> None:
        self.drop(kept)

    def _trim(self, shelf: Shelf, rules: Rules) -> bool:
        """Drop what is beyond the function's bounds, some at a time; returns whether that was
        all."""
        turn = TRIM_TURN
        while shelf.count > rules.results_count or shelf.bytes > rules.results_size:
            if not turn:
                return False
            turn -= 1
            what = "number" if shelf.count > rules.results_count else "size"
            self._complain(shelf, f"results are dropped before their time for their {what}", rules)
            self.drop(shelf.row[0])
        return True

    def _complain(self, shelf: Shelf, what: str, rules: Rules) -> None:
        """Say it once for each function."""
        if what not in shelf.complained:
            shelf.complained.add(what)
            log.warning(
                "function %s: %s; there is room for %s with %s",
                printable(shelf.function),
                what,
                counted(rules.results_count, "result"),
                counted(rules.results_size, "byte"),
            )

    # Asking

    def at_hand(self, tenant: str, handle: bytes, now: Now) -> Kept | None:
        """The result of the job with this handle, if it is kept."""
        book = self._books.get(tenant)
        kept = None if book is None else book.get(handle)
        return None if kept is None or kept.expires <= now.wall else kept

    def look(self, tenant: str, handle: bytes, now: Now, told: Told, *, data: bool) -> int:
        """Find a result by the handle of its job.

        Args:
            tenant: whose.
            handle: which.
            now: the time.
            told: hears what was found, or None; and why it could not be read, if so. At once,
                unless data have to be read for it.
            data: whether they are asked for.

        Returns:
            About how many bytes whoever asks will get later.
        """
        return self._tell(self.at_hand(tenant, handle, now), now, told, data=data)

    def find(
        self, tenant: str, function: bytes, unique: bytes, now: Now, told: Told, *, data: bool
    ) -> int:
        """Find the newest success by its unique; else as :meth:`look`. Without ``data``, only one
        that would outlive a crash."""
        shelf = self._shelves.get((tenant, function))
        kept = None if shelf is None else shelf.uniques.get(unique)
        if kept is not None and (kept.expires <= now.wall or not (data or kept.safe)):
            kept = None
        return self._tell(kept, now, told, data=data)

    def _tell(self, kept: Kept | None, now: Now, told: Told, *, data: bool) -> int:
        if kept is None:
            told(None, "")
            return 0
        if not data or kept.size <= 0 or kept.data is not None:
            told(kept.finding(kept.data if data and kept.size >= 0 else None), "")
            return 0
        what = (KIND, kept.shelf.tenant)
        self.engine.reads.ask(what, kept.handle, kept.size, now, _teller(kept, told))
        return kept.size

    def remove(
        self, tenant: str, handle: bytes, now: Now, told: Callable[[bool, str], None]
    ) -> None:
        """Drop a result because somebody says so; ``told`` hears whether there was one, and why it
        could not be dropped, if so."""
        kept = self.at_hand(tenant, handle, now)
        if kept is not None:
            self.drop(kept)
        told(kept is not None, "")

    # Time

    def next_deadline(self) -> float:
        if self._unsettled:
            return 0.0
        if not self._expiry:
            return NEVER
        looked = self._looked
        wait = min(self._expiry.next() - looked.wall, LOOK_SECONDS)
        return looked.monotonic + max(wait, 0.0)

    def tick(self, now: Now) -> None:
        self._looked = now
        shelf = next(iter(self._unsettled), None)
        if shelf is not None:
            if shelf.unsorted:
                shelf.row = deque(sorted(shelf.row, key=_by_end))
                shelf.unsorted = False
            if self._trim(shelf, self._rules(shelf.tenant, shelf.function)):
                del self._unsettled[shelf]
        self._expiry.run(now.wall, now)


DONE: Final = STATE_WORDS[JobEnd.COMPLETED]


def _by_end(kept: Kept) -> float:
    return kept.ended


def _teller(kept: Kept, told: Told) -> Callable[[Record | None, str], None]:
    """What becomes of data that were read, or were not there: then the result was dropped
    meanwhile, and what is known of it is told without them."""

    def tell(record: Record | None, why: str) -> None:
        if why:
            told(None, why)
        elif record is None:
            told(kept.finding(None)._replace(size=None), "")
        else:
            told(kept.finding(record.data), "")

    return tell


def line_of(kept: Kept) -> Record:
    """What is written down of a result whose data are at hand."""
    assert kept.data is not None
    shelf = kept.shelf
    about = {
        "state": kept.state,
        "attempts": kept.attempts,
        "ended": kept.ended,
        "unique": kept.unique.decode("latin-1"),
        "size": kept.size,
    }
    return Record(
        KIND,
        shelf.tenant,
        kept.handle,
        kept.partition,
        shelf.function,
        json.dumps(about, separators=(",", ":")),
        kept.data,
        kept.expires,
    )
