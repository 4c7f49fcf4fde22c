"""A broker with everything around it that tests need: a clock, recording connections, a store
that answers when told to. After every step the broker's books are checked.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING
from zlib import crc32

from trigear.broker.broker import Broker, Late
from trigear.broker.check import charges_wrong, faults_of
from trigear.broker.functions import Rules
from trigear.broker.peers import Peer
from trigear.model import DEFAULT_TENANT, JobEnd, Now, Priority

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from trigear.broker.assignments import Keeper
    from trigear.broker.dead import DeadLetter
    from trigear.broker.dead_letters import Told
    from trigear.broker.functions import Function
    from trigear.broker.jobs import Job
    from trigear.broker.quotas import Allowance, Quotas

START = Now(1_000.0, 1_700_000_000.0)
"""The two clocks differ by much, so that nothing works which confuses them."""


def spread(partitions: int):
    """A pure partition function over so many partitions."""
    return lambda tenant, name: crc32(b"%s/%s" % (tenant.encode(), name)) % partitions


class Connection:
    """A client, a worker, or both; records what the broker tells it."""

    exceptions = False
    address = "10.0.0.7"

    def __init__(self, world: World, name: str, tenant: str) -> None:
        self.world = world
        self.name = name
        self.peer = Peer(world.broker.tenant(tenant), self)
        self.noops = 0
        self.heard: list[tuple[str, bytes]] = []
        """Terminal packets: what, of which job."""
        self.notices: list[tuple[bytes, str]] = []
        """Jobs that were taken away from this worker, and why."""
        self.notices: list[tuple[bytes, str]] = []
        """Jobs that were taken from this worker, and why."""
        self.answers: list[tuple[object, bytes | None]] = []
        """Late replies to submissions: token and handle, or None if it could not be stored."""

    def __repr__(self) -> str:
        return self.name

    # What the broker says

    def send(self, data: object) -> None:
        self.heard.append(data)

    def wake(self) -> None:
        self.noops += 1

    def failed(self, handle: bytes) -> None:
        self.heard.append(("failed", handle))

    def cancelled(self, handle: bytes, reason: str) -> None:
        self.notices.append((handle, reason))

    def created(self, token: object, handle: bytes) -> None:
        self.answers.append((token, handle))

    def not_stored(self, token: object) -> None:
        self.answers.append((token, None))

    # What a client does

    def submit(
        self,
        name: bytes = b"f",
        workload: bytes = b"work",
        *,
        unique: bytes = b"",
        priority: int = Priority.NORMAL,
        background: bool = False,
        due: float = 0.0,
        reducer: bytes = b"",
        token: object = None,
    ) -> Job:
        """Submit as a session does: leave a token if the reply has to wait for the store."""
        world = self.world
        job = world.broker.submit(
            self.peer,
            name,
            unique,
            workload,
            priority,
            background,
            world.now,
            due=due,
            reducer=reducer,
        )
        if job.gate is not None and world.broker.waits_for_store(job, background):
            world.broker.wait_for_store(job, self.peer, token)
        else:
            self.answers.append((token, job.handle))
        world.check()
        return job

    def background(self, name: bytes = b"f", workload: bytes = b"work", **more: object) -> Job:
        return self.submit(name, workload, background=True, **more)

    def choke(self) -> None:
        self.world.broker.choke(self.peer)
        self.world.check()

    def unchoke(self) -> None:
        self.world.broker.unchoke(self.peer, self.world.now)
        self.world.check()

    def cancel(self, handle: bytes) -> bool:
        found = self.world.broker.cancel(self.peer.tenant, handle, self.world.now)
        self.world.check()
        return found

    # What a worker does

    def can_do(self, *names: bytes, timeout: float = 0.0) -> None:
        for name in names or (b"f",):
            self.world.broker.can_do(self.peer, name, timeout, self.world.now)
        self.world.check()

    def cant_do(self, name: bytes = b"f") -> None:
        self.world.broker.cant_do(self.peer, name, self.world.now)
        self.world.check()

    def reset(self) -> None:
        self.world.broker.reset_abilities(self.peer, self.world.now)
        self.world.check()

    def grab(self) -> Job | None:
        job = self.world.broker.grab(self.peer, self.world.now)
        self.world.check()
        return job

    def sleep(self) -> None:
        self.world.broker.pre_sleep(self.peer, self.world.now)
        self.world.check()

    def grab_all(self) -> list[bytes]:
        """Grab and complete until there is nothing; the workloads in their order."""
        workloads = []
        while (job := self.grab()) is not None:
            workloads.append(job.workload)
            self.complete(job)
        return workloads

    def finish(self, job: Job, end: JobEnd, what: str) -> Late | None:
        waiters = self.world.broker.finish(self.peer, job.handle, end, self.world.now)
        return self._tell(waiters, job, what)

    def _tell(self, waiters: Sequence[Peer] | Late, job: Job, what: str) -> Late | None:
        if isinstance(waiters, Late):
            self.world.check()
            return waiters
        for peer in waiters:
            peer.sink.send((what, job.handle))
        self.world.check()
        return None

    def complete(self, job: Job) -> Late | None:
        return self.finish(job, JobEnd.COMPLETED, "complete")

    def fail(self, job: Job, text: bytes = b"") -> Late | None:
        """Answer WORK_EXCEPTION if there is a text, else WORK_FAIL."""
        end = JobEnd.RAISED if text else JobEnd.FAILED
        waiters = self.world.broker.fail(self.peer, job.handle, end, self.world.now, text)
        return self._tell(waiters, job, "fail")

    def held(self, job: Job) -> Job | Late:
        return self.world.broker.held(self.peer, job.handle)

    def leave(self) -> None:
        self.world.broker.leave(self.peer, self.world.now)
        self.world.check()

    # What tests ask

    def told(self, job: Job) -> list[str]:
        """The terminal packets about one job, in order."""
        return [what for what, handle in self.heard if handle == job.handle]


class Ledger:
    """A keeper that writes down what it is asked, until the test says how it went."""

    def __init__(self) -> None:
        self.kept: list[Job] = []
        self.records: set[int] = set()
        self.losses: dict[int, int] = {}
        self.dues: dict[int, float] = {}
        self.forgotten: list[int] = []
        self.rewritten: list[tuple[int, int]] = []
        """Records and the priority they were written again with."""
        self.letters: dict[bytes, DeadLetter] = {}
        self.asked: list[tuple[DeadLetter, Job | None, Told]] = []

    def keep(self, job: Job) -> None:
        assert job.record not in self.records, "one record per number"
        self.kept.append(job)
        self.records.add(job.record)

    def lost(self, job: Job) -> None:
        assert job.record in self.records, "only what was kept can be counted"
        self.losses[job.record] = job.losses
        self.dues[job.record] = job.due

    def forget(self, job: Job) -> None:
        assert job.record in self.records, "only what was kept can be forgotten"
        self.records.remove(job.record)
        self.forgotten.append(job.record)

    def rewrite(self, job: Job) -> None:
        assert job.record in self.records, "only what was kept can be written again"
        self.rewritten.append((job.record, job.priority))

    def bury(self, letter: DeadLetter, record: int) -> None:
        if record:
            assert record in self.records, "only what was kept can be forgotten"
            self.records.remove(record)
            self.forgotten.append(record)
        assert letter.handle not in self.letters
        self.letters[letter.handle] = letter

    def erase(self, letter: DeadLetter, told: Told | None = None) -> None:
        if told is None:
            del self.letters[letter.handle]
        else:
            self.asked.append((letter, None, told))

    def revive(self, letter: DeadLetter, job: Job, told: Told) -> None:
        assert job.record not in self.records, "one record per number"
        self.records.add(job.record)
        self.asked.append((letter, job, told))

    def settle(self, now: Now, *, written: bool) -> None:
        """What became of the changes of dead letters that somebody waits for."""
        asked, self.asked = self.asked, []
        for letter, job, told in asked:
            if written:
                del self.letters[letter.handle]
                told.stored(now)
            else:
                if job is not None:
                    self.records.remove(job.record)
                told.not_stored(now)


class World:
    """A broker under test."""

    def __init__(
        self,
        *,
        partitions: int = 1,
        wakeup: int | None = None,
        rules: Mapping[bytes, Rules] | None = None,
        durable: bool = False,
        keeper: Keeper | None = None,
        term: int = 0,
        chance: float = 1.0,
        quotas: Mapping[str, Quotas] | None = None,
    ) -> None:
        self.now = START
        self.quotas = dict(quotas or {})
        self.chance = chance
        """What every draw yields."""
        self.checking = True
        self.rules = dict(rules or {})
        self.given_up_jobs: list[tuple[bytes, JobEnd]] = []
        self.ledger = Ledger() if durable else None
        numbers = count(1)
        self.broker = Broker(
            lambda _tenant, _function, _unique: b"H:test:%03d" % next(numbers),
            lambda _tenant, function: self.rules.get(function, Rules()),
            self,
            keeper=self.ledger if durable else keeper,
            wakeup=wakeup,
            partition_of=spread(partitions),
            term=term,
            chance=lambda: self.chance,
            quotas=self.quotas.get,
        )

    def allowance(self, tenant: str = DEFAULT_TENANT) -> Allowance:
        """What is charged to a tenant that has quotas."""
        allowance = self.broker.tenant(tenant).allowance
        assert allowance is not None
        return allowance

    def given_up(self, job: Job, end: JobEnd) -> None:
        self.given_up_jobs.append((job.handle, end))

    def connect(self, name: str = "peer", tenant: str = DEFAULT_TENANT) -> Connection:
        return Connection(self, name, tenant)

    def worker(self, *names: bytes, timeout: float = 0.0, tenant: str = DEFAULT_TENANT):
        """A connection that can do these functions."""
        worker = self.connect("worker", tenant)
        worker.can_do(*names, timeout=timeout)
        return worker

    def sleeper(self, *names: bytes, timeout: float = 0.0, tenant: str = DEFAULT_TENANT):
        """A worker that found nothing and sleeps."""
        worker = self.worker(*names, timeout=timeout, tenant=tenant)
        worker.sleep()
        assert worker.noops == 0
        return worker

    def function(self, name: bytes = b"f", tenant: str = DEFAULT_TENANT) -> Function:
        return self.broker.function(self.broker.tenant(tenant), name)

    @property
    def functions(self) -> list[Function]:
        return [f for t in self.broker.tenants.values() for f in t.functions.values()]

    @property
    def ended(self) -> Counter[JobEnd]:
        """How many jobs came to which end, ends without any left out."""
        ended: Counter[JobEnd] = Counter()
        for partition in self.broker.partitions.values():
            ended.update(partition.ended)
        return +ended

    def status(self, job: Job) -> Job | None:
        return self.broker.status(job.function.tenant, job.handle)

    def drop(self, name: bytes = b"f", tenant: str = DEFAULT_TENANT) -> bool:
        found = self.broker.drop_function(self.broker.tenant(tenant), name, self.now)
        self.check()
        return found

    def pass_time(self, seconds: float) -> None:
        """Let time go by; the broker is called at each of its deadlines, as the server does."""
        end = Now(self.now.monotonic + seconds, self.now.wall + seconds)
        while (deadline := self.broker.next_deadline()) <= end.monotonic:
            wait = max(deadline - self.now.monotonic, 0.0)
            self.now = Now(max(deadline, self.now.monotonic), self.now.wall + wait)
            self.broker.tick(self.now)
            self.check()
        self.now = end

    def store_all(self) -> None:
        """The store has written everything it was given."""
        assert self.ledger is not None
        kept, self.ledger.kept = self.ledger.kept, []
        for job in kept:
            self.broker.stored(job, self.now)
        self.check()

    def lose_all(self) -> None:
        """The store has written nothing of what it was given."""
        assert self.ledger is not None
        kept, self.ledger.kept = self.ledger.kept, []
        for job in kept:
            self.ledger.records.discard(job.record)
            self.broker.not_stored(job, self.now)
        self.check()

    @contextmanager
    def unchecked(self) -> Iterator[None]:
        """For many steps: the books are checked once at the end."""
        self.checking = False
        yield
        self.checking = True
        self.check()

    def check(self) -> None:
        if not self.checking:
            return
        assert [fault for function in self.functions for fault in faults_of(function)] == []
        tenants = self.broker.tenants.values()
        assert [fault for tenant in tenants for fault in charges_wrong(tenant)] == []
