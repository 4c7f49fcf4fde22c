"""What a broker shall do, in the plainest way: lists that are searched from the front.

Nothing here is fast, indexed or clever, and nothing knows how the broker does it. Who is woken is
left open, as wherever a server may choose; :mod:`tests.broker.test_model` checks instead that
nobody sleeps beside a job.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RELEASED = 60.0
"""Seconds for which a job is not offered to who gave it back, if no timeout says otherwise."""


class Full(Exception):
    """The submission is refused."""


class Busy(Exception):
    """The function cannot be dropped."""


@dataclass(eq=False)
class Work:
    """A job."""

    tenant: str
    function: bytes
    key: object
    workload: bytes
    priority: int
    background: bool
    due: float
    order: int
    handle: bytes = b""
    state: str = "new"
    waiters: list[Member] = field(default_factory=list)
    holder: Member | None = None
    deadline: float | None = None
    timeout: float = 0.0
    assigned: int = 0
    losses: int = 0
    banned: dict[Member, float] = field(default_factory=dict)
    storing: list[tuple[Member, object]] | None = None
    record: bool = False
    written: int | None = None
    """The losses in the record, if it was ever told of any."""
    outcome: tuple[str, int] | None = None
    """How it ended, and after how many attempts."""
    submitted: float = 0.0
    expires: float | None = None
    size: int = 0
    wish: object = None
    """Its key, unless another job has that already when this one comes out of the dead letters."""

    @property
    def over(self) -> bool:
        return self.state == "over"

    @property
    def wanted(self) -> bool:
        return self.background or bool(self.waiters) or self.storing is not None

    @property
    def unread(self) -> bool:
        return (
            not self.background and bool(self.waiters) and all(each.choked for each in self.waiters)
        )


@dataclass(eq=False)
class Member:
    """A connection."""

    tenant: str
    abilities: list[tuple[bytes, float]] = field(default_factory=list)
    owes: list[bytes] = field(default_factory=list)
    owed: dict[bytes, Work] = field(default_factory=dict)
    """Which work it was: a dead letter comes back under its old handle, as another one."""
    choked: bool = False
    asleep: bool = False
    told: list[tuple[str, bytes]] = field(default_factory=list)
    notices: list[tuple[bytes, str]] = field(default_factory=list)
    answers: list[tuple[object, bytes | None]] = field(default_factory=list)


@dataclass(eq=False)
class Letter:
    """What is left of a job that was given up."""

    work: Work
    end: str
    attempts: int
    died: float


@dataclass(frozen=True)
class Terms:
    """What holds for a function."""

    timeout: float = 0.0
    attempts: int = 0
    fail: bool = False
    at_once: int = 0
    delays: tuple[float, ...] = (0.0,)
    """After the first loss that is not tried again at once, the second, and so on."""
    retry: bool = False
    expires: float = 0.0
    dead: bool = False
    dead_failures: bool = False
    keep: float = 0.0

    def delay(self, losses: int, *, failed: bool) -> float:
        step = losses - (1 if failed else 1 + self.at_once)
        return 0.0 if step < 0 else self.delays[min(step, len(self.delays) - 1)]


@dataclass(frozen=True)
class Bounds:
    """What a tenant may have; 0 is any number."""

    jobs: int = 0
    size: int = 0
    job_size: int = 0
    workers: int = 0
    abilities: int = 0
    delay: float = 0.0


class Model:
    """All jobs of a server."""

    def __init__(
        self,
        terms: dict[bytes, Terms],
        *,
        durable: bool,
        time: float,
        wall: float,
        bounds: dict[str, Bounds] | None = None,
    ):
        self.terms = terms
        self.bounds = bounds or {}
        self.durable = durable
        self.time = time
        self.wall = wall
        self.works: list[Work] = []
        self.limits: dict[tuple[str, bytes], list[int]] = {}
        self.known: list[tuple[str, bytes]] = []
        self.ended: Counter[str] = Counter()
        self.late = 0
        self.given_up: list[bytes] = []
        self.letters: list[Letter] = []
        self.asked: list[tuple[Letter, Work | None]] = []
        """Changes of dead letters that are not stored yet."""
        self.paused: set[bytes] = set()
        self.counter = 0

    def number(self) -> int:
        self.counter += 1
        return self.counter

    # Looking

    def alive(self, tenant: str, function: bytes | None = None) -> list[Work]:
        return [
            work
            for work in self.works
            if not work.over and work.tenant == tenant and function in (None, work.function)
        ]

    def find(self, tenant: str, handle: bytes) -> Work | None:
        for work in self.alive(tenant):
            if work.handle == handle:
                return work
        return None

    def know(self, tenant: str, function: bytes) -> None:
        if (tenant, function) not in self.known:
            self.known.append((tenant, function))
            self.limits[tenant, function] = [0, 0, 0]

    def grabbable(self, member: Member, work: Work) -> bool:
        """Whether this member would be given this job if it came first."""
        return (
            work.state == "queued"
            and work.function not in self.paused
            and not work.unread
            and member not in work.banned
            and work.tenant == member.tenant
            and any(function == work.function for function, _ in member.abilities)
        )

    def next_for(self, member: Member) -> Work | None:
        for priority in (0, 1, 2):
            for function, _ in member.abilities:
                fitting = [
                    work
                    for work in self.works
                    if work.function == function
                    and work.priority == priority
                    and self.grabbable(member, work)
                ]
                if fitting:
                    return min(fitting, key=lambda work: work.order)
        return None

    # Clients

    def submit(
        self,
        member: Member,
        function: bytes,
        unique: bytes,
        workload: bytes,
        priority: int,
        background: bool,
        due: float,
        token: object,
    ) -> tuple[Work, bool]:
        """The job, and whether it is new. A new one gets its handle from the caller."""
        self.know(member.tenant, function)
        key: object = unique or None
        if unique == b"-":
            key = ("workload", workload) if workload else None
        for work in self.alive(member.tenant, function):
            if key is not None and work.key == key:
                self.attach(member, work, background, token)
                return work, False
        limit = self.limits[member.tenant, function][priority]
        if limit and len(self.alive(member.tenant, function)) >= limit:
            raise Full
        work = Work(
            member.tenant, function, key, workload, priority, background, due, self.number()
        )
        work.size = len(function) + len(unique) + len(workload)
        work.wish = key
        self.ask(work, due - self.wall if background else 0.0)
        work.submitted = self.wall
        self.works.append(work)
        if background and self.durable:
            work.state = "pending"
            work.storing = [(member, token)]
            work.record = True
            return work, True
        if not background:
            work.waiters.append(member)
        self.enter(work)
        return work, True

    def ask(self, work: Work, delay: float = 0.0) -> None:
        """Whether the tenant may have another job."""
        bounds = self.bounds.get(work.tenant, Bounds())
        present = self.alive(work.tenant)
        size = sum(each.size for each in present)
        if (
            (bounds.jobs and len(present) >= bounds.jobs)
            or (bounds.size and size + work.size > bounds.size)
            or (bounds.job_size and work.size > bounds.job_size)
            or (bounds.delay and delay > bounds.delay)
        ):
            raise Full

    def attach(self, member: Member, work: Work, background: bool, token: object) -> None:
        if not background:
            work.waiters.append(member)
            waits = work.state == "pending"
        elif work.background:
            waits = work.state == "pending"
        elif not self.durable:
            self.promote(work)
            waits = False
        else:
            if work.storing is None:
                work.storing = []
                work.record = True
            waits = True
        if waits:
            assert work.storing is not None
            work.storing.append((member, token))
        else:
            member.answers.append((token, work.handle))

    def enter(self, work: Work) -> None:
        work.state = "delayed" if work.due > self.wall else "queued"
        self.limit_wait(work)

    def limit_wait(self, work: Work) -> None:
        """A background job that waits for its first attempt expires."""
        limit = self.terms[work.function].expires
        if (
            limit
            and work.state == "queued"
            and work.background
            and not work.losses
            and work.expires is None
        ):
            work.expires = max(work.submitted, work.due) + limit

    def promote(self, work: Work) -> None:
        work.background = True
        self.limit_wait(work)

    def stored(self, work: Work) -> None:
        assert work.storing is not None
        for member, token in work.storing:
            member.answers.append((token, work.handle))
        work.storing = None
        if work.state == "pending":
            self.enter(work)
        elif not work.over:
            self.promote(work)

    def not_stored(self, work: Work) -> None:
        assert work.storing is not None
        for member, token in work.storing:
            member.answers.append((token, None))
        work.storing = None
        work.record = False
        if work.state == "pending":
            self.end(work, "NOT_STORED")
        elif work.state in ("queued", "delayed") and not work.wanted:
            self.end(work, "ABANDONED")

    def cancel(self, tenant: str, handle: bytes) -> bool:
        work = self.find(tenant, handle)
        if work is None or work.state == "pending":
            return False
        if work.holder is not None:
            self.owe(work.holder, work)
            work.holder.notices.append((handle, "cancelled"))
        self.fail_all(work, "CANCELLED")
        return True

    def detach(self, member: Member, handle: bytes) -> bool:
        work = self.find(member.tenant, handle)
        if work is None or member not in work.waiters:
            return False
        work.waiters.remove(member)
        if not work.wanted and work.state != "running":
            self.end(work, "ABANDONED")
        return True

    def drop(self, tenant: str, function: bytes, members: list[Member]) -> bool:
        if (tenant, function) not in self.known:
            return False
        works = self.alive(tenant, function)
        if any(work.state in ("pending", "running") for work in works) or any(
            function == name
            for member in members
            if member.tenant == tenant
            for name, _ in member.abilities
        ):
            raise Busy
        for work in works:
            self.fail_all(work, "DROPPED")
        self.known.remove((tenant, function))
        return True

    # Workers

    def can_do(
        self, member: Member, function: bytes, timeout: float, members: list[Member]
    ) -> None:
        """``members`` are all that are connected."""
        bounds = self.bounds.get(member.tenant, Bounds())
        workers = [each for each in members if each.tenant == member.tenant and each.abilities]
        if function not in [name for name, _ in member.abilities] and (
            (bounds.abilities and len(member.abilities) >= bounds.abilities)
            or (bounds.workers and not member.abilities and len(workers) >= bounds.workers)
        ):
            raise Full
        self.know(member.tenant, function)
        self.cant_do(member, function)
        member.abilities.insert(0, (function, timeout))

    def cant_do(self, member: Member, function: bytes) -> None:
        member.abilities = [each for each in member.abilities if each[0] != function]

    def grab(self, member: Member) -> Work | None:
        member.asleep = False
        work = self.next_for(member)
        if work is None:
            return None
        ability = next(each for each in member.abilities if each[0] == work.function)
        member.abilities.remove(ability)
        member.abilities.append(ability)
        work.state = "running"
        work.expires = None
        work.holder = member
        work.assigned = self.number()
        work.timeout = ability[1] or self.terms[work.function].timeout
        work.deadline = self.time + work.timeout if work.timeout else None
        return work

    def sleep(self, member: Member) -> bool:
        """Whether the member is woken at once."""
        member.asleep = self.next_for(member) is None
        return not member.asleep

    def finish(self, member: Member, handle: bytes, end: str) -> str:
        work = self.find(member.tenant, handle)
        if work is None or work.holder is not member:
            if handle not in member.owes:
                return "stranger"
            member.owes.remove(handle)
            if work is not member.owed[handle]:
                work = None
            if work is not None:
                work.banned.pop(member, None)
            if work is None or work.state == "running":
                self.late += 1
                return "ghost"
        for waiter in work.waiters:
            waiter.told.append((end, handle))
        terms = self.terms[work.function]
        if end == "complete" or not work.background:
            self.end(work, end)
        elif terms.retry:
            work.waiters = []
            if work.holder is not None:
                work.holder = None
                work.deadline = None
                work.losses += 1
                work.state = "queued"
                self.again(work, failed=True)
            return "retried"
        elif terms.dead and terms.dead_failures:
            work.waiters = []
            self.give_up(work, end)
        else:
            self.end(work, end)
        return "done"

    def held(self, member: Member, handle: bytes) -> str:
        work = self.find(member.tenant, handle)
        if work is not None and work.holder is member:
            return "held"
        if handle in member.owes:
            self.late += 1
            return "ghost"
        return "stranger"

    def release(self, member: Member, handle: bytes, late: bool) -> str:
        work = self.find(member.tenant, handle)
        if work is None or work.holder is not member:
            if handle not in member.owes:
                return "stranger"
            member.owes.remove(handle)
            if work is not None:
                work.banned.pop(member, None)
            return "done"
        work.timeout = self.patience(work, member)
        if late:
            self.overdue(work)
            return "done"
        self.take_away(work, member)
        return "done"

    def take_away(self, work: Work, member: Member) -> None:
        self.owe(member, work)
        work.banned[member] = self.time + work.timeout
        work.holder = None
        work.deadline = None
        work.state = "queued"
        work.order = self.number()
        if not work.wanted:
            self.end(work, "ABANDONED")

    def patience(self, work: Work, member: Member) -> float:
        timeouts = [timeout for function, timeout in member.abilities if function == work.function]
        return (*timeouts, 0.0)[0] or self.terms[work.function].timeout or RELEASED

    # Operators

    def requeue(self, tenant: str, handle: bytes) -> bool:
        work = self.find(tenant, handle)
        if work is None or work.state == "pending":
            return False
        if work.holder is not None:
            work.holder.notices.append((handle, "requeued"))
            work.timeout = self.patience(work, work.holder)
            self.take_away(work, work.holder)
            return True
        if work.state == "delayed":
            work.due = 0.0
            work.state = "queued"
            if work.record and work.storing is None:
                work.written = work.losses
        work.order = self.number()
        return True

    def set_priority(self, tenant: str, handle: bytes, priority: int) -> bool:
        work = self.find(tenant, handle)
        if work is None or work.state == "pending":
            return False
        work.priority = priority
        return True

    def revive(self, letter: Letter) -> Work:
        old = letter.work
        self.ask(old)
        self.letters.remove(letter)
        self.know(old.tenant, old.function)
        taken = [work.key for work in self.alive(old.tenant, old.function)]
        key = None if old.wish in taken else old.wish
        work = Work(
            *(old.tenant, old.function, key, old.workload, old.priority, True, 0.0, self.number())
        )
        work.handle = old.handle
        work.size = old.size
        work.wish = old.wish
        work.submitted = self.wall
        self.works.append(work)
        if self.durable:
            work.state = "pending"
            work.storing = []
            work.record = True
            self.asked.append((letter, work))
        else:
            self.enter(work)
        return work

    def remove(self, letter: Letter) -> None:
        self.letters.remove(letter)
        if self.durable:
            self.asked.append((letter, None))

    def settle(self, *, written: bool) -> None:
        asked, self.asked = self.asked, []
        for letter, work in asked:
            if work is not None:
                (self.stored if written else self.not_stored)(work)
            if not written:
                self.know(letter.work.tenant, letter.work.function)
                self.letters.append(letter)

    def fall_silent(self, member: Member) -> int:
        held = [work for work in self.works if work.holder is member]
        for work in sorted(held, key=lambda work: work.assigned):
            self.owe(member, work)
            self.lose(work)
        return len(held)

    def leave(self, member: Member) -> None:
        member.abilities = []
        member.choked = False
        member.asleep = False
        for work in self.alive(member.tenant):
            work.banned.pop(member, None)
            work.waiters = [each for each in work.waiters if each is not member]
        for work in self.alive(member.tenant):
            if not work.wanted and work.state != "running":
                self.end(work, "ABANDONED")
        held = [work for work in self.works if work.holder is member]
        for work in sorted(held, key=lambda work: work.assigned):
            self.lose(work)

    # Ends

    def owe(self, member: Member, work: Work) -> None:
        if work.handle not in member.owes:
            member.owes.append(work.handle)
        member.owed[work.handle] = work

    def lose(self, work: Work) -> None:
        work.holder = None
        work.deadline = None
        work.losses += 1
        work.state = "queued"
        if work.wanted:
            self.again(work, failed=False)
        else:
            self.end(work, "ABANDONED")

    def again(self, work: Work, *, failed: bool) -> None:
        terms = self.terms[work.function]
        if terms.attempts and work.losses >= terms.attempts:
            self.give_up(work, "EXHAUSTED")
            return
        delay = terms.delay(work.losses, failed=failed)
        if delay:
            work.due = self.wall + delay
            work.state = "delayed"
        if work.record and work.storing is None:
            work.written = work.losses
        work.order = self.number()

    def give_up(self, work: Work, end: str) -> None:
        durable = work.background or work.storing is not None
        attempts = work.losses + (work.state == "running")
        self.fail_all(work, end)
        if durable:
            self.given_up.append(work.handle)
            if self.terms[work.function].dead:
                self.letters.append(Letter(work, end, attempts, self.wall))

    def fail_all(self, work: Work, end: str) -> None:
        for waiter in work.waiters:
            waiter.told.append(("failed", work.handle))
        self.end(work, end)

    def end(self, work: Work, end: str) -> None:
        work.outcome = end, work.losses + (work.state == "running")
        work.state = "over"
        work.holder = None
        work.deadline = None
        work.waiters = []
        work.banned = {}
        work.record = False
        work.expires = None
        self.ended[end] += 1

    # Time

    def pass_time(self, time: float, wall: float) -> None:
        """What is due until then happens, in the order of its times."""
        ahead = wall - time
        while True:
            moments = [each for each in self.moments(ahead) if each[0] <= time]
            if not moments:
                break
            moment, _, call, args = min(moments, key=lambda each: each[:2])
            self.time = max(self.time, moment)
            self.wall = self.time + ahead
            call(*args)
        self.time = time
        self.wall = wall

    def moments(self, ahead: float) -> Iterator[tuple[float, float, Callable[..., None], tuple]]:
        """When something is to happen, and what; what is measured in durations goes first."""
        for work in self.works:
            if work.deadline is not None:
                yield work.deadline, work.assigned, self.too_late, (work,)
            for member, until in work.banned.items():
                yield until, 0, work.banned.pop, (member,)
            if work.state == "delayed":
                yield work.due - ahead, math.inf, self.enter, (work,)
            if work.expires is not None:
                yield work.expires - ahead, math.inf, self.give_up, (work, "EXPIRED")
        for letter in self.letters:
            if keep := self.terms[letter.work.function].keep:
                yield letter.died + keep - ahead, math.inf, self.letters.remove, (letter,)

    def too_late(self, work: Work) -> None:
        assert work.holder is not None
        work.holder.notices.append((work.handle, "timeout"))
        self.overdue(work)

    def overdue(self, work: Work) -> None:
        assert work.holder is not None
        self.owe(work.holder, work)
        if self.terms[work.function].fail:
            work.losses += 1
            work.state = "queued"
            self.give_up(work, "TIMED_OUT")
            return
        work.banned[work.holder] = self.time + work.timeout
        self.lose(work)
