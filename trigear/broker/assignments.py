"""Assignments: which worker gets which job, and what becomes of it then.

A job that is handed out is assigned to one connection until that connection answers for it, gives
it back, takes too long, falls silent or leaves. Every way a job ends goes through here as well, for
an assignment may end with it.

Ghosts. A job whose worker took too long is queued again, and the assignment becomes a ghost: the
job is not offered to that connection until it answers, leaves, or one more timeout has passed. A
late answer counts while nobody else holds the job; afterwards it is dropped, not refused, because
a worker that is sent ERROR in its loop loses its place or dies. A job that a worker gives back
leaves a ghost as well: what else the worker said of it may have been on its way already.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

from trigear.broker.jobs import DELAYED, ENDED, PARKED, PENDING, QUEUED, RUNNING, Job
from trigear.broker.wakeups import Wakeups
from trigear.model import TERM_SHIFT, JobEnd, Now

if TYPE_CHECKING:
    from trigear.broker.peers import Peer

RELEASE_SECONDS: Final = 60.0
"""Where no timeout says otherwise, how long a job is not offered to a worker that gave it back."""


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

    def ended(self, job: Job, end: JobEnd, attempts: int, data: bytes, now: Now) -> bool:
        """A job ended whose function keeps results.

        Returns:
            Whether the end of its record is taken care of, together with its result.
        """


class Assignments:
    """The workers' side of the broker, which is built on it."""

    def __init__(
        self, observer: Observer, keeper: Keeper | None, wakeup: int | None, term: int
    ) -> None:
        self._observer = observer
        self._keeper = keeper
        self._seq = self.first_sequence = term << TERM_SHIFT
        self._stamp = 0
        self._wakeups = Wakeups(wakeup)
        self._wake = self._wakeups.wake
        self.late_answers = 0

    # Handing out

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

    # What workers say of their jobs

    def held(self, peer: Peer, handle: bytes) -> Job | Late:
        """The job that a WORK packet of this connection is about."""
        job = peer.jobs.get(handle)
        if job is not None:
            return job
        if handle in peer.ghosts:
            self.late_answers += 1
            return Late.GHOST
        return Late.STRANGER

    def finish(
        self, peer: Peer, handle: bytes, end: JobEnd, now: Now, data: bytes = b""
    ) -> list[Peer] | Late:
        """The worker's terminal answer for a job, with the data in it.

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
        self._end(job, end, now, data)
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
        else:
            function.haunt(job, peer, now.monotonic + timeout, self._ghost_rests)
            self._owe(peer, handle, job, now)
            self._unassign(job)
            if job.wanted:
                job.numerator = job.denominator = 0
                self._enqueue(job, now)
            else:
                self._end(job, JobEnd.ABANDONED, now)
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

    # How assignments end

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
            self._owe(peer, job.handle, None, now)
            self._unassign(job)
            job.losses += 1
            self._give_up(job, JobEnd.TIMED_OUT, now)
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

    def _lose(self, job: Job, now: Now) -> None:
        """An attempt ended without an answer: queue the job again, or give it up."""
        function = job.function
        self._unassign(job)
        job.losses += 1
        if not job.wanted:
            self._end(job, JobEnd.ABANDONED, now)
        elif 0 < function.rules.attempts <= job.losses:
            self._give_up(job, JobEnd.EXHAUSTED, now)
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

    def _enqueue(self, job: Job, now: Now) -> None:
        """A job goes to the end of its queue, again."""
        self._seq = job.seq = self._seq + 1
        function = job.function
        function.admit(job)
        if function.sleepers:
            self._wake(function, now, fresh=True)

    def _give_up(self, job: Job, end: JobEnd, now: Now) -> None:
        self._tell_failed(job)
        if job.background or job.gate is not None:
            self._observer.given_up(job, end)
        self._end(job, end, now)

    def _tell_failed(self, job: Job) -> None:
        for peer in job.waiters:
            peer.sink.failed(job.handle)

    def _end(self, job: Job, end: JobEnd, now: Now, data: bytes = b"") -> None:
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
        function.ended[end] += 1
        outcomes = function.outcomes
        newest = outcomes.newest
        newest[handle] = (end, state, job.losses, now.wall, function.name, job.unique)
        if len(newest) >= outcomes.piece:
            outcomes.turn()
        if function.rules.keep_results and self._observer.ended(
            job, end, job.losses + (state == RUNNING), data, now
        ):
            return
        if job.record:
            assert self._keeper is not None
            self._keeper.forget(job)
