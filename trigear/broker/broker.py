"""The broker: decides which job goes where, synchronously, and says what to send.

Theory of operation. Every method is one decision: it changes the model completely and returns what
the caller must tell its own peer; other peers are told through their sinks. ``now`` comes in with
every decision. Nothing here blocks, waits or reads a clock.

What workers do with jobs is in :mod:`trigear.broker.assignments`, what operators do in
:mod:`trigear.broker.steering`, tenants and functions are in :mod:`trigear.broker.registry`; here
are the clients, the comings and goings of connections, and time.

Invariants, which :mod:`trigear.broker.check` checks:

* the counters of a function are what counting its jobs gives;
* a job in state RUNNING is in the ``jobs`` of exactly the peer it names;
* ENDED jobs are in no book and match no unique;
* a worker asleep is among the sleepers of all its functions, awake among none;
* what is charged to a tenant with quotas is what it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trigear.broker.assignments import Late
from trigear.broker.dead_letters import DeadLetters
from trigear.broker.jobs import (
    ENDED,
    PARKED,
    PENDING,
    QUEUED,
    RUNNING,
    Job,
    key_of,
)
from trigear.broker.outcomes import OUTCOMES
from trigear.broker.peers import Ability, Peer
from trigear.broker.quotas import OverQuota, Quotas, size_of
from trigear.broker.registry import FunctionBusy, Registry
from trigear.model import JobEnd, Now

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.broker.assignments import Keeper, Observer
    from trigear.broker.functions import Function, Rules, Tenant

WALL_CHECK: Final = 10.0
"""Longest sleep while jobs wait for a time of day, in seconds: the wall clock may be set."""


class QueueFull(Exception):
    """The function's limit for this priority is reached."""


class Broker(Registry):
    """All jobs of one server.

    Args:
        mint: makes a job handle from (tenant, function, unique); never the same twice.
        rules: the rules of a function, by tenant and function.
        observer: is told of jobs that are given up.
        keeper: where background jobs are recorded; None keeps jobs in memory only.
        wakeup: None for as many sleepers as there are jobs to cover; a number wakes that many for
            every job, 0 all.
        partition_of: the partition of (tenant, function).
        term: stands in the upper bits of every ``seq``, and grows with each owner of the queue;
            nothing that is restored may have a ``sequence`` from it.
        outcomes: how many ended jobs of each tenant are remembered.
        chance: a number from 0 to 1 at random, for the delays of jobs that are tried again.
        quotas: the quotas of a tenant; None: it has none.
    """

    def __init__(
        self,
        mint: Callable[[str, bytes, bytes], bytes],
        rules: Callable[[str, bytes], Rules],
        observer: Observer,
        *,
        keeper: Keeper | None = None,
        wakeup: int | None = None,
        partition_of: Callable[[str, bytes], int] = lambda _tenant, _function: 0,
        term: int = 0,
        outcomes: int = OUTCOMES,
        chance: Callable[[], float] = lambda: 1.0,
        quotas: Callable[[str], Quotas | None] = lambda _tenant: None,
    ) -> None:
        super().__init__(
            rules, observer, keeper, wakeup, partition_of, term, outcomes, chance, quotas
        )
        self.dead = DeadLetters(self, keeper)
        self._mint = mint

    # Clients

    def submit(
        self,
        peer: Peer,
        name: bytes,
        unique: bytes,
        workload: bytes,
        priority: int,
        background: bool,
        now: Now,
        *,
        due: float = 0.0,
        reducer: bytes = b"",
    ) -> Job:
        """Take a submission: a new job, or one more interest in a job that is there already.

        ``due`` is in seconds of the wall clock. If the job's ``gate`` is not None afterwards, ask
        :meth:`waits_for_store` whether the reply has to wait.

        Raises:
            QueueFull: the function's limit is reached and the submission would make a new job.
            OverQuota: the tenant may not have another job, or function.
        """
        tenant = peer.tenant
        function = tenant.functions.get(name)
        if function is None:
            function = self.wanted_function(tenant, name)
        key = key_of(unique, workload) if unique else None
        if key is not None and (job := function.uniques.get(key)) is not None:
            self._attach(peer, job, background, now)
            return job
        limit = function.limits[priority]
        if limit and function.total + function.pending >= limit:
            raise QueueFull
        if (allowance := tenant.allowance) is not None:
            size = len(workload) + len(name) + len(unique) + len(reducer)
            allowance.admit(size, due - now.wall if background else 0.0)
        handle = self._mint(tenant.name, name, unique)
        job = Job(
            function, handle, unique, key, workload, priority, background, due, now.wall, reducer
        )
        function.jobs.add(handle, job)
        if key is not None:
            function.uniques.add(key, job)
        if background:
            if self._keeper is not None:
                self._seq = job.seq = self._seq + 1
                function.pending += 1
                self._keep(job)
                return job
        else:
            job.waiters = [peer]
            peer.waiting[job] = None
        self._enter(job, now)
        return job

    def begin_run(
        self,
        tenant: Tenant,
        name: bytes,
        unique: bytes,
        workload: bytes,
        priority: int,
        now: Now,
    ) -> tuple[Job, bool]:
        """Make a background job that nobody submits, or want one in the background that is there.

        Returns:
            The job, and whether it is new. A new one has no record yet, which is up to the caller:
            it waits for :meth:`stored` or :meth:`not_stored`.

        Raises:
            QueueFull, OverQuota: as :meth:`submit`.
        """
        function = self.wanted_function(tenant, name)
        key = key_of(unique, workload)
        if key is not None and (job := function.uniques.get(key)) is not None:
            self._want(job, now)
            return job, False
        limit = function.limits[priority]
        if limit and function.total + function.pending >= limit:
            raise QueueFull
        if tenant.allowance is not None:
            tenant.allowance.admit(len(workload) + len(name) + len(unique))
        handle = self._mint(tenant.name, name, unique)
        job = Job(function, handle, unique, key, workload, priority, True, 0.0, now.wall, b"")
        function.jobs.add(handle, job)
        if key is not None:
            function.uniques.add(key, job)
        self._seq = job.seq = self._seq + 1
        function.pending += 1
        job.gate = []
        if self._keeper is not None:
            job.record = job.seq
        return job, True

    def restore(
        self,
        tenant: Tenant,
        name: bytes,
        unique: bytes,
        handle: bytes,
        workload: bytes,
        priority: int,
        now: Now,
        *,
        sequence: int,
        due: float = 0.0,
        submitted: float = 0.0,
        losses: int = 0,
        reducer: bytes = b"",
    ) -> Job | None:
        """Put back a background job that an earlier owner of the queue recorded.

        Jobs come in the order of their ``sequence``. Limits and quotas are not
        asked: the job was accepted once. One whose unique another job has got attracts none.

        Returns:
            The job; None if its handle is taken.
        """
        function = self.function(tenant, name)
        if tenant.job(handle) is not None:
            return None
        key = key_of(unique, workload) if unique else None
        if key is not None and key in function.uniques:
            key = None
        job = Job(function, handle, unique, key, workload, priority, True, due, submitted, reducer)
        job.seq = job.record = sequence
        job.losses = losses
        if tenant.allowance is not None:
            tenant.allowance.charge(size_of(job))
        function.jobs.add(handle, job)
        if key is not None:
            function.uniques.add(key, job)
        self._enter(job, now)
        return job

    def revive(self, job: Job, now: Now) -> None:
        """Take a job in that was here before. If it is to be recorded first, it waits for that.

        Raises:
            OverQuota: the tenant may not have another job.
        """
        function = job.function
        if function.tenant.allowance is not None:
            function.tenant.allowance.admit(size_of(job))
        function.jobs.add(job.handle, job)
        if job.key is not None:
            function.uniques.add(job.key, job)
        if self._keeper is None:
            self._enter(job, now)
        else:
            self._seq = job.seq = job.record = self._seq + 1
            job.gate = []
            function.pending += 1

    def _keep(self, job: Job) -> None:
        assert self._keeper is not None
        job.gate = []
        job.record = job.seq
        self._keeper.keep(job)

    def waits_for_store(self, job: Job, background: bool) -> bool:
        """Whether the reply to a submission that met this job must wait for its commit."""
        return job.gate is not None and (background or job.state == PENDING)

    def wait_for_store(self, job: Job, peer: Peer, token: object) -> None:
        """Leave a token for the reply: ``created`` or ``not_stored`` of the peer's sink."""
        assert job.gate is not None
        job.gate.append((peer, token))

    def stored(self, job: Job, now: Now) -> None:
        """The job's record is committed."""
        gate, job.gate = job.gate, None
        assert gate is not None
        for peer, token in gate:
            peer.sink.created(token, job.handle)
        if job.state == PENDING:
            job.function.pending -= 1
            self._enter(job, now)
        elif job.state != ENDED:
            self._promote(job, now)
            self._unpark(job, now)

    def not_stored(self, job: Job, now: Now) -> None:
        """The job's record was not written, and is known not to be."""
        gate, job.gate = job.gate, None
        assert gate is not None
        job.record = 0
        for peer, token in gate:
            peer.sink.not_stored(token)
        if job.state == PENDING:
            job.function.pending -= 1
            self._end(job, JobEnd.NOT_STORED, now)
        elif job.state not in (ENDED, RUNNING) and not job.wanted:
            self._end(job, JobEnd.ABANDONED, now)

    def _attach(self, peer: Peer, job: Job, background: bool, now: Now) -> None:
        if background:
            self._want(job, now)
            return
        waiters = job.waiters
        if isinstance(waiters, list):
            waiters.append(peer)
        else:
            job.waiters = [peer]
        peer.waiting[job] = None
        self._unpark(job, now)

    def _want(self, job: Job, now: Now) -> None:
        """Somebody wants a job in the background that is there already."""
        if not job.background and job.gate is None:
            # A background submission onto a foreground job: from its commit on the job lives on
            # without clients.
            if self._keeper is None:
                self._promote(job, now)
            else:
                self._keep(job)
        self._unpark(job, now)

    def _promote(self, job: Job, now: Now) -> None:
        """A job goes on without clients from now on."""
        job.background = True
        if job.state in (QUEUED, PARKED):
            self._limit_wait(job, now)

    def cancel(self, tenant: Tenant, handle: bytes, now: Now) -> bool:
        """End a job; its clients are told that it failed. Returns whether there was one."""
        job = tenant.job(handle)
        if job is None or job.state == PENDING:
            return False
        self._tell_failed(job)
        if job.worker is not None:
            self._owe(job.worker, handle, None, now)
            job.worker.sink.cancelled(handle, "cancelled")
        self._end(job, JobEnd.CANCELLED, now)
        return True

    def detach(self, peer: Peer, handle: bytes, now: Now) -> bool:
        """One of the client's submissions stops waiting; a job that nobody wants and that has not
        started is dropped. Returns whether the client waited for it."""
        job = peer.tenant.job(handle)
        if job is None or peer not in job.waiters:
            return False
        # Not in place: who is being told of the job's end may be going through the list.
        waiters = list(job.waiters)
        waiters.remove(peer)
        job.waiters = waiters
        if peer not in waiters:
            del peer.waiting[job]
        if not job.wanted and job.state != RUNNING:
            self._end(job, JobEnd.ABANDONED, now)
        else:
            self._unpark(job, now)
        return True

    def status(self, tenant: Tenant, handle: bytes) -> Job | None:
        """The job with this handle, unless it is still on its way to the store."""
        job = tenant.job(handle)
        return None if job is None or job.state == PENDING else job

    def status_of_unique(self, tenant: Tenant, unique: bytes) -> Job | None:
        """A job with this unique, of whichever function."""
        for function in tenant.functions.values():
            job = function.uniques.get(unique)
            if job is not None and job.state != PENDING:
                return job
        return None

    def choke(self, peer: Peer) -> None:
        """The connection does not read: foreground jobs that only it waits for are passed over."""
        if not peer.choked:
            peer.choked = True
            peer.tenant.choked += 1

    def unchoke(self, peer: Peer, now: Now) -> None:
        """The connection reads again."""
        if peer.choked:
            peer.choked = False
            peer.tenant.choked -= 1
            for job in peer.waiting:
                self._unpark(job, now)

    def _unpark(self, job: Job, now: Now) -> None:
        """A job that nobody read may be read again."""
        function = job.function
        if job.state == PARKED:
            if function.unread(job):
                return
            function.admit(job)
        elif job.state != QUEUED:
            return
        # An unread job behind a ghost stays in the queue, and whoever passed it over may sleep now.
        self._wake(function, now)

    # Workers

    def can_do(self, peer: Peer, name: bytes, timeout: float, now: Now) -> None:
        """Register a function; once more replaces the timeout (seconds, 0 for none).

        Raises:
            OverQuota: the tenant may not have another worker, or this connection another ability.
        """
        allowance = peer.tenant.allowance
        if allowance is None:
            function = self.function(peer.tenant, name)
        else:
            known = peer.tenant.functions.get(name)
            if known is None or known not in peer.abilities:
                allowance.register(len(peer.abilities))
            function = self.wanted_function(peer.tenant, name)
            allowance.workers += not peer.abilities
        self._stamp += 1
        peer.abilities[function] = Ability(-self._stamp, timeout)
        function.workers[peer] = None
        if peer.sleeping:
            function.sleepers[peer] = None
            self._wake(function, now)

    def cant_do(self, peer: Peer, name: bytes, now: Now) -> None:
        """Take a registration back; jobs that run stay where they are."""
        function = peer.tenant.functions.get(name)
        if function is not None and function in peer.abilities:
            self._unregister(peer, function, now)

    def reset_abilities(self, peer: Peer, now: Now) -> None:
        """Take all registrations back; jobs that run stay where they are."""
        for function in list(peer.abilities):
            self._unregister(peer, function, now)

    def _unregister(self, peer: Peer, function: Function, now: Now) -> None:
        del peer.abilities[function]
        del function.workers[peer]
        function.sleepers.pop(peer, None)
        if (allowance := peer.tenant.allowance) is not None:
            allowance.workers -= not peer.abilities
            if function.idle:
                allowance.rest(function)
        if peer.woken_for is function:
            self._wakeups.settle(peer)
            self._wake(function, now)

    # Connections

    def leave(self, peer: Peer, now: Now) -> None:
        """The connection is gone: its jobs are given to others, its interests end."""
        peer.sleeping = False
        for function in list(peer.abilities):
            self._unregister(peer, function, now)
        for handle, job in list(peer.ghosts.items()):
            if job is not None:
                job.function.unghost(job, peer)
            del peer.ghosts[handle]
        for job in list(peer.waiting):
            job.waiters = [waiter for waiter in job.waiters if waiter is not peer]
            if not job.wanted and job.state != RUNNING:
                self._end(job, JobEnd.ABANDONED, now)
            else:
                self._unpark(job, now)
        peer.waiting.clear()
        if peer.choked:
            peer.choked = False
            peer.tenant.choked -= 1
        for job in list(peer.jobs.values()):
            self._lose(job, now)

    # Time

    def next_deadline(self) -> float:
        """When :meth:`tick` has something to do, by the monotonic clock; infinity for never."""
        when = self._wakeups.next()
        for partition in self.partitions.values():
            when = min(when, partition.timers.next())
            if partition.delayed:
                due = partition.delayed.next() - self._wall_offset
                when = min(when, due, self._checked + WALL_CHECK)
        return when

    def tick(self, now: Now) -> None:
        """Do what is due."""
        self._compare_clocks(now)
        self._wakeups.run(now)
        for partition in self.partitions.values():
            partition.timers.run(now.monotonic, now)
            partition.delayed.run(now.wall, now)


__all__ = ["Broker", "FunctionBusy", "Late", "OverQuota", "QueueFull"]
