"""Schedules at work: changed one step after another, recorded, and run when they are due.

Steps. Whatever is done to a schedule (adding, pausing, running, …) is a step: it looks at the
schedule as it is and makes another one, perhaps with a job. Both are written in one transaction;
when that is committed, the schedule is put in its place and the job can be grabbed. So after a
crash a run is neither lost nor made twice. Steps of one schedule take turns, steps of different
ones do not wait for each other.

No runs are made while the server drains or its store does not answer. What is due then stays due,
and by the time that is over may count as missed.
"""

from __future__ import annotations

import json
import logging
import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from trigear.broker.broker import WALL_CHECK, OverQuota, QueueFull
from trigear.broker.jobs import Job  # noqa: TC001 - a field's type, which mypyc wants
from trigear.broker.schedules import MISSED_SECONDS, Key, Missed, Schedule, distinction
from trigear.broker.timing import Timing, timing_of
from trigear.engine.gate import Together, line_of
from trigear.engine.records import Kind
from trigear.engine.refusals import FULL, over
from trigear.model import NEVER, Now, Priority, counted
from trigear.stores.base import Erase, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from trigear.broker.schedules import Schedules
    from trigear.engine.engine import Engine
    from trigear.stores.base import Line

log: Final = logging.getLogger("trigear.engine")

KIND: Final = "schedule"

RUNS_AT_ONCE: Final = 2048
"""How many runs may be on their way to the store: as many as fit into one batch."""

TURNS: Final = 64
"""How many steps that waited for others are begun in one go: what takes milliseconds."""

FULL_SECONDS: Final = 60.0
STORE_SECONDS: Final = 5.0
JOIN_SECONDS: Final = 1.0
"""When to try again: the queue is full, the store has not taken it, or the job to be joined is not
stored itself yet."""


class Refusal(Exception):
    """What was asked for cannot be done: ``code`` and ``text`` as in an ERROR packet."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(code, text)
        self.code = code
        self.text = text


class Asker(Protocol):
    """Who wants something done to a schedule, and is told of it once, perhaps at once."""

    def done(self, schedule: Schedule) -> None:
        """It is done, and recorded. This is the schedule now, or was until it was removed."""

    def refused(self, refusal: Refusal) -> None:
        """Nothing was done."""


class Step(NamedTuple):
    """What is about to happen. ``after`` is the schedule then, or None if there is none; ``job`` is
    a run that waits for its record. What the next owner can do without is not written."""

    after: Schedule | None
    job: Job | None = None
    write: bool = True


Change = Callable[[Schedule | None, Now], Step]
"""Makes a step from the schedule as it is, or raises :class:`Refusal`."""


class _Later(Exception):
    """A run cannot be made now; ``seconds`` from now it is tried again."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


@dataclass(frozen=True, slots=True)
class Order:
    """What a schedule shall be like."""

    tenant: str
    function: bytes
    unique: bytes
    workload: bytes
    timing: Timing
    missed: Missed = Missed.ONCE
    priority: int = Priority.NORMAL

    @property
    def key(self) -> Key:
        """That of the schedule."""
        return self.tenant, self.function, distinction(self.unique, self.workload)


class Scheduler:
    """The schedules of a server.

    Args:
        engine: whose.
        mint: makes their handles.
    """

    def __init__(self, engine: Engine, mint: Callable[[str, bytes, bytes], bytes]) -> None:
        self._engine = engine
        self._broker = engine.broker
        self._mint = mint
        self._steps: dict[Key, deque[tuple[Change, Asker | None]]] = {}
        """Steps of schedules by their keys. The first one of each is being written."""
        self._turns: deque[Key] = deque()
        """Schedules whose next step is to be begun, but not in this stretch."""
        self._turning = False
        """Whether a step is being begun that had to wait for others."""
        self._flying = 0
        """Runs on their way to the store."""
        self._missed = self._made_up = 0
        """Schedules that missed runs, and those of them that run for it, since the log said so."""
        self._checked = engine.now.monotonic
        self._offset = self._latest = engine.now.wall - engine.now.monotonic
        engine.kinds.register(Kind(KIND, self._restore))

    # Looking

    def _books(self) -> Iterator[Schedules]:
        return (partition.schedules for partition in self._broker.partitions.values())

    def _book(self, key: Key) -> Schedules:
        return self._broker.partition(key[0], key[1]).schedules

    def __len__(self) -> int:
        return sum(map(len, self._books()))

    def beside(self, order: Order) -> tuple[int, int]:
        """How many schedules the tenant has beside the one that is ordered, and their bytes."""
        books = list(self._books())
        count = sum(len(book.of(order.tenant)) for book in books)
        size = sum(book.size(order.tenant) for book in books)
        before = self._book(order.key).get(order.key)
        return (count, size) if before is None else (count - 1, size - before.size)

    def of(self, tenant: str) -> list[Schedule]:
        """A tenant's schedules."""
        return [schedule for book in self._books() for schedule in book.of(tenant).values()]

    def get(self, tenant: str, handle: bytes) -> Schedule | None:
        """The schedule with this handle."""
        for book in self._books():
            schedule = book.of(tenant).get(handle)
            if schedule is not None:
                return schedule
        return None

    def named(self, tenant: str, name: bytes) -> Schedule:
        """The schedule with this handle, or with this unique if only one has it.

        Raises:
            Refusal: there is none, or there are several.
        """
        schedule = self.get(tenant, name)
        if schedule is not None:
            return schedule
        found = [schedule for schedule in self.of(tenant) if schedule.unique == name]
        if not found:
            raise _unknown()
        if len(found) > 1:
            raise Refusal("AMBIGUOUS_SCHEDULE", "Several functions have one: name its handle")
        return found[0]

    # What can be asked for

    def add(self, order: Order, asker: Asker) -> None:
        """Make a schedule, or have the one with its key be like this from now on. That one keeps
        its handle, and stays paused if it is."""

        def change(before: Schedule | None, now: Now) -> Step:
            if before is None:
                return Step(self._new(order, now))
            after = replace(
                before, workload=order.workload, missed=order.missed, priority=order.priority
            )
            old, new = before.timing, order.timing
            if (old.text, old.zone) != (new.text, new.zone):
                after = replace(after, timing=new, since=now.wall, settled=now.wall)
            return Step(after, write=after != before)

        self._ask(order.key, change, asker)

    def _new(self, order: Order, now: Now) -> Schedule:
        return Schedule(
            tenant=order.tenant,
            partition=self._broker.partition(order.tenant, order.function).number,
            function=order.function,
            unique=order.unique,
            handle=self._mint(order.tenant, order.function, order.unique),
            workload=order.workload,
            priority=order.priority,
            timing=order.timing,
            missed=order.missed,
            since=now.wall,
            settled=now.wall,
        )

    def pause(self, schedule: Schedule, paused: bool, asker: Asker) -> None:
        """Have a schedule make no runs until it is resumed. What was due meanwhile is left out."""

        def change(before: Schedule | None, now: Now) -> Step:
            if before is None:
                raise _unknown()
            if before.paused == paused:
                return Step(before, write=False)
            return Step(replace(before.settle(now), paused=paused))

        self._ask(schedule.key, change, asker)

    def remove(self, schedule: Schedule, asker: Asker) -> None:
        """Have no such schedule any more. Runs that were made stay."""

        def change(before: Schedule | None, now: Now) -> Step:
            if before is None:
                raise _unknown()
            return Step(None)

        self._ask(schedule.key, change, asker)

    def run(self, schedule: Schedule, asker: Asker) -> None:
        """Make a run now, beside those that are due."""

        def change(before: Schedule | None, now: Now) -> Step:
            if before is None:
                raise _unknown()
            try:
                job, made = self._begin_run(before, now)
            except QueueFull:
                raise Refusal(*FULL) from None
            except OverQuota as error:
                raise Refusal(*over(error.quota)) from None
            except _Later:
                raise Refusal("QUEUE_ERROR", "The job to be joined is being stored") from None
            return Step(before.ran_as(job.handle, now), made)

        self._ask(schedule.key, change, asker)

    # Time

    def next_deadline(self) -> float:
        """When :meth:`tick` has something to do, by the monotonic clock; infinity for never."""
        if self._turns:
            return self._engine.now.monotonic
        # Asked after every pass, and mostly there is none.
        due = NEVER
        for partition in self._broker.partitions.values():
            due = min(due, partition.schedules.next())
        if due == NEVER or not self._may_run:
            return NEVER
        return min(due - self._offset, self._checked + WALL_CHECK)

    @property
    def _may_run(self) -> bool:
        engine = self._engine
        return (
            not engine.draining
            and not engine.refuses_durable
            and self._flying < RUNS_AT_ONCE
            # A run may have to join a job that has not been loaded yet.
            and engine.arriving is None
        )

    def tick(self, now: Now) -> None:
        """Go on with what waits for its turn, and make the runs that are due."""
        for _ in range(TURNS):
            if not self._turns:
                break
            self._take_turn(self._turns.popleft(), now)
        self._look_at_clocks(now)
        if self._may_run:
            for book in self._books():
                for key in book.take_due(now.wall):
                    self._ask(key, self._due, None)
            # One line for all of them, however many turns they take.
            if self._missed and all(book.next() > now.wall for book in self._books()):
                log.warning(
                    "%s missed runs; made up for by one run each: %d",
                    counted(self._missed, "schedule has", "schedules have"),
                    self._made_up,
                )
                self._missed = self._made_up = 0

    def _due(self, before: Schedule | None, now: Now) -> Step:
        """The step of a schedule that is due."""
        assert before is not None, "what is gone is not due"
        after = before.settle(now)
        missed = now.wall - before.due >= MISSED_SECONDS
        if not before.wants_run(now):
            self._missed += missed
            return Step(after, write=False)
        try:
            job, made = self._begin_run(before, now)
        except (QueueFull, OverQuota):
            if before.missed is Missed.ONCE:
                raise _Later(FULL_SECONDS) from None
            return Step(after, write=False)
        self._missed += missed
        self._made_up += missed
        return Step(after.ran_as(job.handle, now), made)

    def _begin_run(self, schedule: Schedule, now: Now) -> tuple[Job, Job | None]:
        """The job of a run; and again, if it was made for that.

        Raises:
            QueueFull, OverQuota: it cannot be made.
            _Later: it is there, but the store does not have it yet.
        """
        broker = self._broker
        job, made = broker.begin_run(
            broker.tenant(schedule.tenant),
            schedule.function,
            schedule.unique,
            schedule.workload,
            schedule.priority,
            now,
        )
        if made:
            return job, job
        if job.gate is not None:
            raise _Later(JOIN_SECONDS)
        return job, None

    def _look_at_clocks(self, now: Now) -> None:
        """Notice that the wall clock was set back; that it was set forward makes things due."""
        self._checked = now.monotonic
        self._offset = offset = now.wall - now.monotonic
        self._latest = max(self._latest, offset)
        if self._latest - offset > 1.0:
            self._latest = offset
            for book in self._books():
                for schedule in list(book):
                    after = schedule.follow(now)
                    if after is not schedule and schedule.key not in self._steps:
                        book.put(after)

    # Steps

    def _ask(self, key: Key, change: Change, asker: Asker | None) -> None:
        """Take a step when those before it are done. Without an asker it is the one of a schedule
        that is due, which is tried again."""
        steps = self._steps.get(key)
        if steps is not None:
            steps.append((change, asker))
            return
        self._steps[key] = deque([(change, asker)])
        self._begin(key, self._engine.now)

    def _begin(self, key: Key, now: Now) -> None:
        change, asker = self._steps[key][0]
        book = self._book(key)
        before = book.get(key)
        book.hold(key)
        try:
            step = change(before, now)
        except Refusal as refusal:
            assert asker is not None, "only who asks is refused"
            self._end(key, before, now)
            asker.refused(refusal)
            return
        except _Later as later:
            self._end(key, before, now, at=now.wall + later.seconds)
            return
        flight = _Flight(self, key, before, step, asker)
        if not step.write:
            flight.stored(now)
            return
        self._flying += step.job is not None
        lines: list[Line] = [] if step.job is None else [line_of(step.job)]
        if step.after is not None:
            lines.append(record_of(step.after))
        else:
            assert before is not None, "only what is there is removed"
            lines.append(Erase(KIND, before.tenant, before.handle, before.partition))
        self._engine.record(key[0], Together(tuple(lines)), flight)

    def arrive(self, flight: _Flight, now: Now) -> None:
        """A step is written, or needs not be."""
        step = flight.step
        if step.job is not None:
            self._flying -= 1
            self._broker.stored(step.job, now)
        self._end(flight.key, step.after, now)
        if flight.asker is not None:
            schedule = step.after or flight.before
            assert schedule is not None, "there was one, or there is"
            flight.asker.done(schedule)

    def turn_back(self, flight: _Flight, now: Now) -> None:
        """A step is not written, and known not to be."""
        step = flight.step
        if step.job is not None:
            self._flying -= 1
            self._broker.not_stored(step.job, now)
        if flight.asker is None:
            self._end(flight.key, flight.before, now, at=now.wall + STORE_SECONDS)
        else:
            self._end(flight.key, flight.before, now)
            flight.asker.refused(Refusal("QUEUE_ERROR", "The schedule could not be stored"))

    def _end(self, key: Key, after: Schedule | None, now: Now, at: float | None = None) -> None:
        """A step is over: leave the schedule like this, and take the next step.

        Any number of steps may wait, and each may be over at once: the step after such a one is
        left to the next tick, or else thousands of them would be begun without a pause, and pile
        up on the stack.
        """
        book = self._book(key)
        if after is not None:
            book.put(after.follow(now), at)
        elif book.get(key) is not None:
            book.drop(key)
        steps = self._steps[key]
        steps.popleft()
        if not steps:
            del self._steps[key]
        elif self._turning:
            self._turns.append(key)
        else:
            self._take_turn(key, now)

    def _take_turn(self, key: Key, now: Now) -> None:
        self._turning = True
        try:
            self._begin(key, now)
        finally:
            self._turning = False

    @property
    def at_rest(self) -> bool:
        """Whether no step is being taken or waits."""
        return not self._steps

    # The store

    def _restore(self, record: Record, about: Mapping[str, Any], now: Now) -> None:
        schedule = schedule_in(record, about)
        if self._broker.partition(record.tenant, record.function).number != record.partition:
            raise ValueError("the function does not belong to this partition")
        book = self._book(schedule.key)
        if book.get(schedule.key) is not None or self.get(record.tenant, record.key) is not None:
            raise ValueError("another schedule has the same place")
        book.put(schedule.follow(now))


class _Flight:
    """A step on its way to the store."""

    __slots__ = ("_scheduler", "asker", "before", "key", "step")

    def __init__(
        self,
        scheduler: Scheduler,
        key: Key,
        before: Schedule | None,
        step: Step,
        asker: Asker | None,
    ) -> None:
        self._scheduler = scheduler
        self.key = key
        self.before = before
        self.step = step
        self.asker = asker

    def stored(self, now: Now) -> None:
        self._scheduler.arrive(self, now)

    def not_stored(self, now: Now) -> None:
        self._scheduler.turn_back(self, now)


def _unknown() -> Refusal:
    return Refusal("UNKNOWN_SCHEDULE", "No schedule has this handle or unique")


def record_of(schedule: Schedule) -> Record:
    """What is written down of a schedule."""
    about = {
        "unique": schedule.unique.decode("utf-8", "surrogateescape"),
        "when": schedule.timing.text,
        "timezone": schedule.timing.zone,
        "missed": schedule.missed.value,
        "priority": int(schedule.priority),
        "since": schedule.since,
        "settled": schedule.settled,
        "paused": schedule.paused,
        "runs": schedule.runs,
        "ran": schedule.ran,
        "run": schedule.run.decode("utf-8", "surrogateescape"),
    }
    return Record(
        kind=KIND,
        tenant=schedule.tenant,
        key=schedule.handle,
        partition=schedule.partition,
        function=schedule.function,
        about=json.dumps(about),
        data=schedule.workload,
        expires=0.0,
    )


def schedule_in(record: Record, about: Mapping[str, Any]) -> Schedule:
    """The reverse of :func:`record_of`.

    Raises:
        KeyError, TypeError, ValueError: it makes no sense.
    """
    schedule = Schedule(
        tenant=record.tenant,
        partition=record.partition,
        function=record.function,
        unique=_name(about, "unique"),
        handle=record.key,
        workload=record.data,
        priority=Priority(about["priority"]),
        timing=timing_of(about["when"], about["timezone"]),
        missed=Missed(about["missed"]),
        since=_time(about, "since"),
        settled=_time(about, "settled"),
        paused=bool(about["paused"]),
        runs=int(about["runs"]),
        ran=_time(about, "ran"),
        run=_name(about, "run"),
    )
    if not schedule.handle:
        raise ValueError("it has no handle")
    if b"\0" in schedule.handle + schedule.function + schedule.unique:
        raise ValueError("a name with a NUL in it")
    return schedule


def _name(about: Mapping[str, Any], what: str) -> bytes:
    if not isinstance(about[what], str):
        raise TypeError(f"{what}: is no text")
    return str(about[what]).encode("utf-8", "surrogateescape")


def _time(about: Mapping[str, Any], what: str) -> float:
    moment = float(about[what])
    if not math.isfinite(moment):
        raise ValueError(f"{what}: is no time")
    return moment
