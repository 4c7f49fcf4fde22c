"""The broker: decides which job goes where, synchronously, and says what to send.

Theory of operation. Every method is one decision: it changes the model completely and returns what
the caller must tell its own peer; other peers are told through their sinks. ``now`` comes in with
every decision. Nothing here blocks, waits or reads a clock.

Invariants, which :mod:`trigear.broker.check` checks:

* the counters of a function are what counting its jobs gives;
* a job in state RUNNING is in the ``jobs`` of exactly the peer it names;
* ENDED jobs are in no book and match no unique;
* a worker asleep is among the sleepers of all its functions, awake among none.

Ghosts. A job whose worker took too long is queued again, and the assignment becomes a ghost: the
job is not offered to that connection until it answers, leaves, or one more timeout has passed. A
late answer counts while nobody else holds the job; afterwards it is dropped, not refused, because
a worker that is sent ERROR in its loop loses its place or dies.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

from trigear.broker.functions import Function, Partition, Rules, Tenant
from trigear.broker.jobs import (
    DELAYED,
    ENDED,
    PARKED,
    PENDING,
    QUEUED,
    RUNNING,
    Job,
    key_of,
)
from trigear.broker.peers import Ability, Peer, Sink
from trigear.broker.wakeups import Wakeups
from trigear.model import TERM_SHIFT, JobEnd, Now

if TYPE_CHECKING:
    from collections.abc import Callable

RELEASE_SECONDS: Final = 60.0
"""Where no timeout says otherwise, how long a job is not offered to a worker that gave it back."""

WALL_CHECK: Final = 10.0
"""Longest sleep while jobs wait for a time of day, in seconds: the wall clock may be set."""


class QueueFull(Exception):
    """The function's limit for this priority is reached."""


class FunctionBusy(Exception):
    """The function has workers, running jobs, or jobs on their way to the store."""


class Late(enum.Enum):
    """What came instead of a job when a connection answered for one it does not hold."""

    STRANGER = enum.auto()
    """The connection never held it."""
    GHOST = enum.auto()
    """It was taken away from the connection; the answer is dropped."""


class Keeper(Protocol):
    """Where durable jobs are recorded. What is kept is answered by ``stored`` or ``not_stored``."""

    def keep(self, job: Job) -> None:
        """Record the job in the next batch."""

    def lost(self, job: Job) -> None:
        """Write into the job's record how many attempts it has lost, in the next batch."""

    def forget(self, job: Job) -> None:
        """Erase the job's record in the next batch."""


class Observer(Protocol):
    """Who is told what an operator should hear of."""

    def given_up(self, job: Job, end: JobEnd) -> None:
        """A background job ended without success and without a client that would learn of it."""


class Broker:
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
    ) -> None:
        self._mint = mint
        self._rules = rules
        self._observer = observer
        self._keeper = keeper
        self._partition_of = partition_of
        self._seq = term << TERM_SHIFT
        self._stamp = 0
        self._wakeups = Wakeups(wakeup)
        self._wake = self._wakeups.wake
        self._wall_offset = 0.0
        self._checked = 0.0
        self.tenants: dict[str, Tenant] = {}
        self.partitions: dict[int, Partition] = {}
        self.late_answers = 0

    # Tenants and functions

    def tenant(self, name: str) -> Tenant:
        """The tenant of this name, new if need be."""
        tenant = self.tenants.get(name)
        if tenant is None:
            tenant = self.tenants[name] = Tenant(name)
        return tenant

    def function(self, tenant: Tenant, name: bytes) -> Function:
        """The tenant's function of this name, new if need be."""
        function = tenant.functions.get(name)
        if function is None:
            number = self._partition_of(tenant.name, name)
            partition = self.partitions.get(number)
            if partition is None:
                partition = self.partitions[number] = Partition(number)
            function = Function(tenant, partition, name, self._rules(tenant.name, name))
            partition.functions[tenant.name, name] = tenant.functions[name] = function
        return function

    def drop_function(self, tenant: Tenant, name: bytes) -> bool:
        """Forget a function; its queued jobs are dropped and their clients told.

        Returns:
            Whether there was such a function.

        Raises:
            FunctionBusy: it has workers, or jobs that run or are being stored.
        """
        function = tenant.functions.get(name)
        if function is None:
            return False
        if function.workers or function.running or function.pending:
            raise FunctionBusy
        for job in [job for job in function.jobs.values() if job.function is function]:
            self._tell_failed(job)
            self._end(job, JobEnd.DROPPED)
        del tenant.functions[name]
        del function.partition.functions[tenant.name, name]
        return True

    def apply_rules(self) -> None:
        """Ask for the rules of every function again. Running assignments keep their deadlines."""
        for partition in self.partitions.values():
            for function in partition.functions.values():
                function.rules = self._rules(function.tenant.name, function.name)

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
        """
        tenant = peer.tenant
        function = tenant.functions.get(name)
        if function is None:
            function = self.function(tenant, name)
        key = key_of(unique, workload) if unique else None
        if key is not None and (job := function.uniques.get(key)) is not None:
            self._attach(peer, job, background, now)
            return job
        limit = function.limits[priority]
        if limit and function.total + function.pending >= limit:
            raise QueueFull
        handle = self._mint(tenant.name, name, unique)
        job = Job(function, handle, unique, key, workload, priority, background, due, reducer)
        function.jobs[handle] = job
        if key is not None:
            function.uniques[key] = job
        if background:
            if self._keeper is not None:
                self._seq = job.seq = self._seq + 1
                function.pending += 1
                self._keep(job)
                return job
        else:
            job.waiters.append(peer)
            peer.waiting[job] = None
        self._enter(job, now)
        return job

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
        losses: int = 0,
        reducer: bytes = b"",
    ) -> Job | None:
        """Put back a background job that an earlier owner of the queue recorded.

        Jobs come in the order of their ``sequence``, before anybody is connected. Limits are not
        asked: the job was accepted once. One whose unique another job has got attracts none.

        Returns:
            The job; None if its handle is taken.
        """
        function = self.function(tenant, name)
        if tenant.job(handle) is not None:
            return None
        key = key_of(unique, workload) if unique else None
        if key in function.uniques:
            key = None
        job = Job(function, handle, unique, key, workload, priority, True, due, reducer)
        job.seq = job.record = sequence
        job.losses = losses
        function.jobs[handle] = job
        if key is not None:
            function.uniques[key] = job
        self._enter(job, now)
        return job

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
            job.background = True
            self._unpark(job, now)

    def not_stored(self, job: Job) -> None:
        """The job's record was not written, and is known not to be."""
        gate, job.gate = job.gate, None
        assert gate is not None
        job.record = 0
        for peer, token in gate:
            peer.sink.not_stored(token)
        if job.state == PENDING:
            job.function.pending -= 1
            self._end(job, JobEnd.NOT_STORED)
        elif job.state not in (ENDED, RUNNING) and not job.wanted:
            self._end(job, JobEnd.ABANDONED)

    def _attach(self, peer: Peer, job: Job, background: bool, now: Now) -> None:
        if not background:
            job.waiters.append(peer)
            peer.waiting[job] = None
        elif not job.background and job.gate is None:
            # A background submission onto a foreground job: from its commit on the job lives on
            # without clients.
            if self._keeper is None:
                job.background = True
            else:
                self._keep(job)
        self._unpark(job, now)

    def _enter(self, job: Job, now: Now) -> None:
        """A new job joins its function's queue, or waits for its time."""
        function = job.function
        function.total += 1
        function.waiting[job.priority] += 1
        if not job.seq:
            self._seq = job.seq = self._seq + 1
        if job.due > now.wall:
            job.state = DELAYED
            job.timer = function.partition.delayed.set(job.due, self._due, job)
            self._compare_clocks(now)
            return
        function.admit(job)
        if function.sleepers:
            self._wake(function, now, fresh=True)

    def _due(self, job: Job, now: Now) -> None:
        job.timer = None
        job.function.admit(job)
        self._wake(job.function, now, fresh=True)

    def _enqueue(self, job: Job, now: Now) -> None:
        """A job goes to the end of its queue, again."""
        self._seq = job.seq = self._seq + 1
        function = job.function
        function.admit(job)
        if function.sleepers:
            self._wake(function, now, fresh=True)

    def cancel(self, tenant: Tenant, handle: bytes, now: Now) -> bool:
        """End a job; its clients are told that it failed. Returns whether there was one."""
        job = tenant.job(handle)
        if job is None or job.state == PENDING:
            return False
        self._tell_failed(job)
        if job.worker is not None:
            self._owe(job.worker, handle, None, now)
            job.worker.sink.cancelled(handle, "cancelled")
        self._end(job, JobEnd.CANCELLED)
        return True

    def detach(self, peer: Peer, handle: bytes) -> bool:
        """One of the client's submissions stops waiting; a job that nobody wants and that has not
        started is dropped. Returns whether the client waited for it."""
        job = peer.tenant.job(handle)
        if job is None or peer not in job.waiters:
            return False
        # Not in place: who is being told of the job's end may be going through the list.
        waiters = job.waiters.copy()
        waiters.remove(peer)
        job.waiters = waiters
        if peer not in waiters:
            del peer.waiting[job]
        if not job.wanted and job.state != RUNNING:
            self._end(job, JobEnd.ABANDONED)
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
        elif job.state != QUEUED or not function.ghosted:
            return
        # Behind a ghost an unread job stays in the queue, passed over by one who now sleeps.
        self._wake(function, now)

    # Workers

    def can_do(self, peer: Peer, name: bytes, timeout: float, now: Now) -> None:
        """Register a function; once more replaces the timeout (seconds, 0 for none)."""
        function = self.function(peer.tenant, name)
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
        if peer.woken_for is function:
            self._wakeups.settle(peer)
            self._wake(function, now)

    def grab(self, peer: Peer, now: Now) -> Job | None:
        """The next job for this worker, assigned to it; None if there is none."""
        woken = self._wakeups.settle(peer)
        if peer.sleeping:
            self._wakeups.rouse(peer)
        job = self._find(peer)
        if job is not None:
            function = job.function
            function.take(job)
            priority = job.priority
            function.waiting[priority] -= 1
            function.running += 1
            job.state = RUNNING
            job.worker = peer
            peer.jobs[job.handle] = job
            abilities = peer.abilities
            ability = abilities[function]
            if len(abilities) > 1:
                self._stamp += 1
                ability.stamp = self._stamp
            timeout = ability.timeout or function.rules.timeout
            if timeout:
                job.timer = function.partition.timers.set(
                    now.monotonic + timeout, self._overdue, job, timeout
                )
        if woken is not None and woken.runnable > woken.covering and woken.sleepers:
            self._wake(woken, now)
        return job

    def pre_sleep(self, peer: Peer, now: Now) -> None:
        """The worker wants to sleep: it is woken at once if :meth:`grab` would have a job."""
        woken = self._wakeups.settle(peer)
        job = self._find(peer)
        if job is not None:
            if peer.sleeping:
                self._wakeups.rouse(peer)
            self._wakeups.send(peer, job.function, now)
        elif not peer.sleeping:
            peer.sleeping = True
            for function in peer.abilities:
                function.sleepers[peer] = None
        if woken is not None:
            self._wake(woken, now)

    def _find(self, peer: Peer) -> Job | None:
        """The job this worker would get: highest priority over all its functions, then the
        function whose turn it is, then first come first served."""
        abilities = peer.abilities
        ready = peer.tenant.ready
        if not ready:
            return None
        if len(abilities) == 1:
            (function,) = abilities
            return function.first(peer) if function.runnable else None
        if len(ready) < len(abilities):
            candidates = [function for function in ready if function in abilities]
        else:
            candidates = [function for function in abilities if function.runnable]
        if not candidates:
            return None
        best, _, chosen = min((f.best(), abilities[f].stamp, f) for f in candidates)
        job = chosen.first(peer)
        if job is not None and job.priority == best:
            return job
        # The summary spoke of jobs that this worker cannot have: look at each function's own.
        jobs = [job for function in candidates if (job := function.first(peer)) is not None]
        return min(jobs, key=lambda j: (j.priority, abilities[j.function].stamp), default=None)

    def held(self, peer: Peer, handle: bytes) -> Job | Late:
        """The job that a WORK packet of this connection is about."""
        job = peer.jobs.get(handle)
        if job is not None:
            return job
        if handle in peer.ghosts:
            self.late_answers += 1
            return Late.GHOST
        return Late.STRANGER

    def finish(self, peer: Peer, handle: bytes, end: JobEnd) -> list[Peer] | Late:
        """The worker's terminal answer for a job.

        Returns:
            Who waits for the job, one entry per submission; each is to be told.
        """
        job = peer.jobs.get(handle)
        if job is None:
            if handle not in peer.ghosts:
                return Late.STRANGER
            job = peer.ghosts.pop(handle)
            if job is not None:
                job.function.unghost(job, peer)
            if job is None or job.state in (RUNNING, ENDED):
                self.late_answers += 1
                return Late.GHOST
        waiters = job.waiters
        self._end(job, end)
        return waiters

    def excepted(self, peer: Peer, handle: bytes) -> bool:
        """Whether a WORK_FAIL follows this connection's own WORK_EXCEPTION, as some send it."""
        if peer.excepted and peer.excepted == handle:
            peer.excepted = b""
            return True
        return False

    def release(self, peer: Peer, handle: bytes, late: bool, now: Now) -> Late | None:
        """The worker gives a job back unharmed.

        Args:
            peer: the worker.
            handle: the job.
            late: because it took too long, which counts as a timeout; else no attempt is counted
                and the job is not offered to this worker again for a while.
            now: the time.

        Returns:
            None, or what the worker was if it does not hold the job.
        """
        job = peer.jobs.get(handle)
        if job is None:
            if handle not in peer.ghosts:
                return Late.STRANGER
            ghost = peer.ghosts.pop(handle)
            if ghost is not None:
                ghost.function.unghost(ghost, peer)
                if ghost.state == QUEUED:
                    self._wake(ghost.function, now)
            return None
        function = job.function
        timeout = peer.abilities[function].timeout if function in peer.abilities else 0.0
        timeout = timeout or function.rules.timeout or RELEASE_SECONDS
        if late:
            if job.timer is not None:
                function.partition.timers.cancel(job.timer)
            self._timed_out(job, timeout, now)
            # It has answered; nothing more is owed.
            del peer.ghosts[handle]
        else:
            function.haunt(job, peer, now.monotonic + timeout, self._ghost_rests)
            self._unassign(job)
            if job.wanted:
                job.numerator = job.denominator = 0
                self._enqueue(job, now)
            else:
                self._end(job, JobEnd.ABANDONED)
        return None

    def lose_jobs(self, peer: Peer, now: Now) -> int:
        """The worker has fallen silent: its jobs go to others, as if it had left.

        Returns:
            How many jobs it held.
        """
        jobs = list(peer.jobs.values())
        for job in jobs:
            self._owe(peer, job.handle, None, now)
            self._lose(job, now)
        return len(jobs)

    # Connections

    def leave(self, peer: Peer, now: Now) -> None:
        """The connection is gone: its jobs are given to others, its interests end."""
        peer.sleeping = False
        for function in list(peer.abilities):
            self._unregister(peer, function, now)
        for handle, job in list(peer.ghosts.items()):
            if job is not None:
                job.function.unghost(job, peer)
                if job.state == QUEUED:
                    self._wake(job.function, now)
            del peer.ghosts[handle]
        for job in list(peer.waiting):
            job.waiters = [waiter for waiter in job.waiters if waiter is not peer]
            if not job.wanted and job.state != RUNNING:
                self._end(job, JobEnd.ABANDONED)
            else:
                self._unpark(job, now)
        peer.waiting.clear()
        if peer.choked:
            peer.choked = False
            peer.tenant.choked -= 1
        for job in list(peer.jobs.values()):
            self._lose(job, now)

    def _lose(self, job: Job, now: Now) -> None:
        """An attempt ended without an answer: queue the job again, or give it up."""
        function = job.function
        self._unassign(job)
        job.losses += 1
        if not job.wanted:
            self._end(job, JobEnd.ABANDONED)
        elif 0 < function.rules.attempts <= job.losses:
            self._give_up(job, JobEnd.EXHAUSTED)
        else:
            # A job whose record is on its way is not counted: if it does not arrive there is none.
            if job.record and job.gate is None:
                assert self._keeper is not None
                self._keeper.lost(job)
            job.numerator = job.denominator = 0
            self._enqueue(job, now)

    def _unassign(self, job: Job) -> None:
        """The job leaves its worker; the caller decides at once what becomes of it."""
        peer = job.worker
        assert peer is not None
        del peer.jobs[job.handle]
        job.worker = None
        function = job.function
        function.running -= 1
        function.waiting[job.priority] += 1
        if (timer := job.timer) is not None:
            job.timer = None
            function.partition.timers.cancel(timer)
        # Waiting, and in no queue.
        job.state = PARKED

    def _give_up(self, job: Job, end: JobEnd) -> None:
        self._tell_failed(job)
        if job.background or job.gate is not None:
            self._observer.given_up(job, end)
        self._end(job, end)

    def _tell_failed(self, job: Job) -> None:
        for peer in job.waiters:
            peer.sink.failed(job.handle)

    def _end(self, job: Job, end: JobEnd) -> None:
        """The job is over. Whoever is to be told has been told."""
        function = job.function
        state = job.state
        handle = job.handle
        if state == RUNNING:
            worker = job.worker
            assert worker is not None
            del worker.jobs[handle]
            job.worker = None
            function.running -= 1
            function.total -= 1
        elif state != PENDING:
            function.waiting[job.priority] -= 1
            function.total -= 1
        if (timer := job.timer) is not None:
            job.timer = None
            partition = function.partition
            (partition.delayed if state == DELAYED else partition.timers).cancel(timer)
        job.state = ENDED
        if state == QUEUED:
            function.discard(job)
        del function.jobs[handle]
        if job.key is not None:
            del function.uniques[job.key]
        for peer in job.waiters:
            peer.waiting.pop(job, None)
        job.waiters = []
        if job.ghosts is not None:
            for peer in list(job.ghosts):
                peer.ghosts[handle] = None
                function.unghost(job, peer)
        job.workload = b""
        function.partition.ended[end] += 1
        if job.record:
            assert self._keeper is not None
            self._keeper.forget(job)

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

    def _compare_clocks(self, now: Now) -> None:
        self._wall_offset = now.wall - now.monotonic
        self._checked = now.monotonic

    def _overdue(self, job: Job, timeout: float, now: Now) -> None:
        """The deadline of an assignment has passed."""
        assert job.worker is not None
        job.worker.sink.cancelled(job.handle, "timeout")
        self._timed_out(job, timeout, now)

    def _timed_out(self, job: Job, timeout: float, now: Now) -> None:
        """The worker took too long: its assignment becomes a ghost."""
        job.timer = None
        peer = job.worker
        assert peer is not None
        function = job.function
        if function.rules.fail_on_timeout:
            job.losses += 1
            self._owe(peer, job.handle, None, now)
            self._give_up(job, JobEnd.TIMED_OUT)
            return
        function.haunt(job, peer, now.monotonic + timeout, self._ghost_rests)
        self._owe(peer, job.handle, job, now)
        self._lose(job, now)

    def _owe(self, peer: Peer, handle: bytes, job: Job | None, now: Now) -> None:
        forgotten = peer.owe(handle, job)
        if forgotten is not None:
            self._wake(forgotten.function, now)

    def _ghost_rests(self, job: Job, peer: Peer, now: Now) -> None:
        """One more timeout has passed: the job may be offered to that connection again."""
        job.function.unghost(job, peer)
        if job.state == QUEUED:
            self._wake(job.function, now)


__all__ = ["Broker", "FunctionBusy", "Keeper", "Late", "Observer", "QueueFull", "Sink"]
