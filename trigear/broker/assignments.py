"""Assignments: which worker gets which job, and what becomes of it then.

A job that is handed out is assigned to one connection until that connection answers for it, gives
it back, takes too long, falls silent or leaves. Every way a job ends goes through here as well, for
an assignment may end with it.

Ghosts. A job whose worker took too long is queued again, and the assignment becomes a ghost: the
job is not offered to that connection until it answers, leaves, or one more timeout has passed. A
late answer counts while nobody else holds the job; afterwards it is dropped, not refused, because
a worker that is sent ERROR in its loop loses its place or dies. A job that a worker gives back
leaves a ghost as well: what else the worker said of it may have been on its way already.

Attempts. A job that was lost, timed out or, where its function says so, failed is tried again: at
once, or after a delay that grows. One that has no attempt left, or expires before its first, is
given up; of one in the background a dead letter may be left.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, Protocol

from trigear.broker.dead import NOTE_LIMIT, DeadLetter
from trigear.broker.jobs import (
    DELAYED,
    ENDED,
    NO_PROGRESS,
    PARKED,
    PENDING,
    QUEUED,
    RUNNING,
    Job,
)
from trigear.broker.quotas import size_of
from trigear.broker.wakeups import Wakeups
from trigear.model import TERM_SHIFT, JobEnd, Now

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trigear.broker.dead_letters import Told
    from trigear.broker.functions import Function, Partition
    from trigear.broker.peers import Peer

RELEASE_SECONDS: Final = 60.0
"""Where no timeout says otherwise, how long a job is not offered to a worker that gave it back, or
that it was taken from."""


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
        """Write into the job's record how many attempts it has lost, and when it is due, in the
        next batch."""

    def forget(self, job: Job) -> None:
        """Erase the job's record in the next batch."""

    def bury(self, letter: DeadLetter, record: int) -> None:
        """Write the dead letter down in the next batch, and erase the record of its job (0: it has
        none), both or neither."""

    def erase(self, letter: DeadLetter, told: Told | None = None) -> None:
        """Erase the dead letter in the next batch; without somebody who is told of the outcome it
        is tried until it is done."""

    def revive(self, letter: DeadLetter, job: Job, told: Told) -> None:
        """Erase the dead letter and record the job in the next batch, both or neither."""

    def rewrite(self, job: Job) -> None:
        """Write all of the job's record anew in the next batch."""


class Observer(Protocol):
    """Who is told what an operator should hear of."""

    def given_up(self, job: Job, end: JobEnd) -> None:
        """A background job is given up, and no client learns of it."""

    def ended(self, job: Job, end: JobEnd, attempts: int, data: bytes, now: Now) -> bool:
        """A job ended whose function keeps results.

        Returns:
            Whether the end of its record is taken care of, together with its result.
        """


class Assignments:
    """The workers' side of the broker, which is built on it."""

    def __init__(
        self,
        observer: Observer,
        keeper: Keeper | None,
        wakeup: int | None,
        term: int,
        chance: Callable[[], float],
    ) -> None:
        self.partitions: dict[int, Partition] = {}
        self._chance = chance
        self._wall_offset = 0.0
        self._checked = 0.0
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
            if job.timer is not None:
                # It does not expire any more.
                function.partition.delayed.cancel(job.timer)
                job.timer = None
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
            return function.first(peer) if function in ready else None
        if len(ready) < len(abilities):
            candidates = [function for function in ready if function in abilities]
        else:
            candidates = [function for function in abilities if function in ready]
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
    ) -> Sequence[Peer] | Late:
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

    def fail(
        self, peer: Peer, handle: bytes, end: JobEnd, now: Now, text: bytes = b""
    ) -> Sequence[Peer] | Late:
        """The worker's answer that a job failed. One in the background may be tried again, or
        become a dead letter, as its function's rules say; whoever waits for it is told all the same
        and waits no more.

        Args:
            peer: the worker.
            handle: the job.
            end: how it failed.
            now: the time.
            text: what the worker says about it.

        Returns:
            As :meth:`finish`.
        """
        job = peer.jobs.get(handle)
        held = job is not None
        if job is None:
            job = peer.ghosts.get(handle)
        if job is None or not job.background or (job.state in (RUNNING, ENDED) and not held):
            return self.finish(peer, handle, end, now, text)
        function = job.function
        rules = function.rules
        if not (rules.retry_failures or (rules.dead_letters and rules.dead_failures)):
            return self.finish(peer, handle, end, now, text)
        waiters = job.waiters
        for waiter in waiters:
            waiter.waiting.pop(job, None)
        job.waiters = ()
        job.note = peer.sink.address, text[:NOTE_LIMIT] or job.note[1]
        if not held:
            del peer.ghosts[handle]
            function.unghost(job, peer)
        if not rules.retry_failures:
            self._give_up(job, end, now, text)
        elif held:
            self._unassign(job)
            job.losses += 1
            self._again(job, now, failed=True, data=text)
        elif job.state == QUEUED:
            # The attempt was counted when the job was taken away, and the next one waits already.
            self._wake(function, now)
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
        if late:
            function = job.function
            if job.timer is not None:
                function.partition.timers.cancel(job.timer)
            self._timed_out(job, self._patience_with(peer, function), now)
        else:
            self._take_away(job, peer, now)
            if job.wanted:
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
            job.note = peer.sink.address, job.note[1]
            self._unassign(job)
            job.losses += 1
            self._give_up(job, JobEnd.TIMED_OUT, now)
            return
        function.haunt(job, peer, now.monotonic + timeout, self._ghost_rests)
        self._owe(peer, job.handle, job, now)
        self._lose(job, now)

    def _take_away(self, job: Job, peer: Peer, now: Now) -> None:
        """The job leaves its worker, without an attempt being counted, and is not offered to it for
        a while; the caller decides at once what becomes of it."""
        function = job.function
        until = now.monotonic + self._patience_with(peer, function)
        function.haunt(job, peer, until, self._ghost_rests)
        self._owe(peer, job.handle, job, now)
        self._unassign(job)
        job.progress = NO_PROGRESS

    @staticmethod
    def _patience_with(peer: Peer, function: Function) -> float:
        """The time that this worker has for a job of the function, whether or not it can do it
        still."""
        ability = peer.abilities.get(function)
        announced = ability.timeout if ability is not None else 0.0
        return announced or function.rules.timeout or RELEASE_SECONDS

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
        """An attempt ended without an answer."""
        assert job.worker is not None
        job.note = job.worker.sink.address, job.note[1]
        self._unassign(job)
        job.losses += 1
        if job.wanted:
            self._again(job, now, failed=False)
        else:
            self._end(job, JobEnd.ABANDONED, now)

    def _again(self, job: Job, now: Now, *, failed: bool, data: bytes = b"") -> None:
        """An attempt came to nothing: queue the job again, let it wait, or give it up."""
        rules = job.function.rules
        if 0 < rules.attempts <= job.losses:
            self._give_up(job, JobEnd.EXHAUSTED, now, data)
            return
        delay = rules.delay(job.losses, failed=failed)
        if delay:
            # Jobs that were lost together shall not all come back together.
            job.due = now.wall + delay * (0.5 + 0.5 * self._chance())
        # A job whose record is on its way is not counted: if it does not arrive there is none.
        if job.record and job.gate is None:
            assert self._keeper is not None
            self._keeper.lost(job)
        job.progress = NO_PROGRESS
        if delay:
            self._seq = job.seq = self._seq + 1
            self._delay(job, now)
        else:
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

    # How jobs wait

    def _enter(self, job: Job, now: Now) -> None:
        """A new job joins its function's queue, or waits for its time."""
        function = job.function
        function.total += 1
        function.waiting[job.priority] += 1
        if not job.seq:
            self._seq = job.seq = self._seq + 1
        if job.due > now.wall:
            self._delay(job, now)
            return
        function.admit(job)
        if function.rules.bounded:
            self._limit_wait(job, now)
        if function.sleepers:
            self._wake(function, now, fresh=True)

    def _delay(self, job: Job, now: Now) -> None:
        """The job waits for its time, outside the queue."""
        job.state = DELAYED
        job.timer = job.function.partition.delayed.set(job.due, self._due, job)
        self._compare_clocks(now)

    def _due(self, job: Job, now: Now) -> None:
        job.timer = None
        function = job.function
        function.admit(job)
        if function.rules.bounded:
            self._limit_wait(job, now)
        self._wake(function, now, fresh=True)

    def _limit_wait(self, job: Job, now: Now) -> None:
        """A background job in the queue expires in time if it has never been tried, and is given
        up when it is too old."""
        function = job.function
        rules = function.rules
        if not job.background or job.timer is not None:
            return
        ends = []
        if rules.expires and not job.losses:
            ends.append((job.since or now.wall) + rules.expires)
        if rules.oldest:
            ends.append((job.submitted or now.wall) + rules.oldest)
        if ends:
            job.timer = function.partition.delayed.set(min(ends), self._expire, job)
            self._compare_clocks(now)

    def _expire(self, job: Job, now: Now) -> None:
        job.timer = None
        self._give_up(job, JobEnd.EXPIRED, now)

    def _compare_clocks(self, now: Now) -> None:
        self._wall_offset = now.wall - now.monotonic
        self._checked = now.monotonic

    def _enqueue(self, job: Job, now: Now) -> None:
        """A job goes to the end of its queue, again."""
        self._seq = job.seq = self._seq + 1
        function = job.function
        function.admit(job)
        if function.rules.oldest:
            self._limit_wait(job, now)
        if function.sleepers:
            self._wake(function, now, fresh=True)

    # Ends

    def _give_up(self, job: Job, end: JobEnd, now: Now, data: bytes = b"") -> None:
        self._tell_failed(job)
        if not job.background and job.gate is None:
            self._end(job, end, now, data)
            return
        self._observer.given_up(job, end)
        if job.function.rules.dead_letters:
            self._bury(job, end, now, data)
        else:
            self._end(job, end, now, data)

    def _bury(self, job: Job, end: JobEnd, now: Now, data: bytes) -> None:
        """The job ends, and a dead letter stays."""
        function = job.function
        letter = DeadLetter(
            tenant=function.tenant.name,
            partition=function.partition.number,
            function=function.name,
            handle=job.handle,
            unique=job.unique,
            priority=job.priority,
            reducer=job.reducer,
            workload=job.workload,
            reason=end,
            attempts=job.losses + (job.state == RUNNING),
            submitted=job.submitted,
            died=now.wall,
            worker=job.note[0],
            text=job.note[1],
        )
        # What erases the record is what writes the letter down.
        record, job.record = job.record, 0
        self._end(job, end, now, data)
        self.lay(letter, function.rules.dead_keep, now)
        if self._keeper is not None:
            self._keeper.bury(letter, record)

    def lay(self, letter: DeadLetter, keep: float, now: Now) -> None:
        """Put a dead letter to the others, for so many seconds after its death; 0 for ever."""
        partition = self.partitions[letter.partition]
        partition.dead.setdefault(letter.tenant, {})[letter.handle] = letter
        if keep:
            letter.timer = partition.delayed.set(letter.died + keep, self._rest, letter)
            self._compare_clocks(now)

    def lift(self, letter: DeadLetter) -> None:
        """Take a dead letter away from the others."""
        partition = self.partitions[letter.partition]
        letters = partition.dead[letter.tenant]
        del letters[letter.handle]
        if not letters:
            del partition.dead[letter.tenant]
        if letter.timer is not None:
            partition.delayed.cancel(letter.timer)
            letter.timer = None

    def _rest(self, letter: DeadLetter, now: Now) -> None:
        """A dead letter was kept for long enough."""
        self.lift(letter)
        if self._keeper is not None:
            self._keeper.erase(letter)

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
            (partition.timers if state == RUNNING else partition.delayed).cancel(timer)
        job.state = ENDED
        if state == QUEUED:
            function.discard(job)
        function.jobs.remove(handle)
        if job.key is not None:
            function.uniques.remove(job.key)
        for peer in job.waiters:
            peer.waiting.pop(job, None)
        job.waiters = ()
        losses = 0
        if (past := job.past) is not None:
            losses = past.losses
            for peer in list(past.ghosts or ()):
                peer.ghosts[handle] = None
                function.unghost(job, peer)
        if (allowance := function.tenant.allowance) is not None:
            allowance.give_back(size_of(job))
            if not function.total and function.idle:
                allowance.rest(function)
        job.workload = b""
        function.ended[end] += 1
        outcomes = function.outcomes
        newest = outcomes.newest
        newest[handle] = (end, state, losses, now.wall, function.name, job.unique)
        if len(newest) >= outcomes.piece:
            outcomes.turn()
        if function.rules.keep_results and self._observer.ended(
            job, end, losses + (state == RUNNING), data, now
        ):
            return
        if job.record:
            assert self._keeper is not None
            self._keeper.forget(job)
