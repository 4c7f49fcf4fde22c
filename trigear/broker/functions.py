"""Functions with their queues, and the two things they belong to: a tenant and a partition.

Keys. Everything is found by way of the tenant: a function under ``(tenant, function)``, a job to
coalesce with under ``(tenant, function, unique)``, a handle under ``(tenant, handle)``. There is no
way to ask for any of them without a tenant at hand.

Partitions. A partition is what one owner serves: the functions assigned to it with their queues,
uniques, handles, timers and counters, as one object that can be created, loaded and dropped whole.
A server of one machine has a single one.

Queues. Per priority a deque in the order of ``seq``, because nearly every job enters at the end
and leaves at the front. What has to enter in the middle (a delayed job that is due, a parked job
that is wanted again) goes to a small heap beside it; whichever front has the smaller ``seq`` is
next. Jobs that end while they are queued stay in the deque as husks without workload until they
reach the front or outnumber the living.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from trigear.broker.books import Book
from trigear.broker.jobs import PARKED, QUEUED, Job
from trigear.broker.outcomes import OUTCOMES, Outcomes
from trigear.broker.schedules import Schedules
from trigear.broker.timers import Timers
from trigear.model import JobEnd, Priority

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.broker.dead import DeadLetter
    from trigear.broker.peers import Peer
    from trigear.broker.quotas import Allowance
    from trigear.model import Now

RESULTS_COUNT: Final = 10_000
RESULTS_SIZE: Final = 64 * 1024 * 1024
"""How many results of a function are kept at most, and how many bytes, unless told otherwise."""

IDLE_FUNCTIONS: Final = 1_000
"""Fewer functions of a tenant are never too many, and the idle ones among them stay."""

_HUSKS: Final = 64
"""Ended jobs in a queue that are never worth a clean-up."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for the jobs of a function; all durations in seconds.

    ``timeout`` is for workers that announce none (0: none). ``attempts`` ends a job that was lost
    or timed out so often (0: never). With ``fail_on_timeout`` a job whose worker takes too long
    fails instead of being given to another.

    A job that is to be tried again waits: not at all for the first ``at_once`` losses, then for
    ``backoff``, then each time ``backoff_factor`` as long, at most ``backoff_limit``. With
    ``retry_failures`` a background job that its worker lets fail is tried again, too; to failures
    ``at_once`` does not apply.

    A background job that nobody has taken ``expires`` seconds after it could be had ends (0:
    never). One that is given up becomes a dead letter where ``dead_letters`` says so, with
    ``dead_failures`` also one that its worker lets fail; dead letters are kept for ``dead_keep``
    seconds (0: for ever).

    A ``paused`` function hands out no jobs. ``limits`` is how many jobs there may be before another
    one of high, normal or low priority is refused (0: any number).

    ``keep_results`` is for how many seconds results are kept (0: not at all), ``results_count`` and
    ``results_size`` how many and how many bytes of them at most; with ``reuse_results`` they answer
    new submissions.

    ``oldest`` is how many seconds after its submission a background job that does not run is given
    up, however often it was tried (0: never). ``steered`` says that something of this was set by
    command, so that the function is not forgotten while it is idle.
    """

    timeout: float = 0.0
    attempts: int = 0
    fail_on_timeout: bool = False
    at_once: int = 0
    backoff: float = 0.0
    backoff_factor: float = 1.0
    backoff_limit: float = 0.0
    retry_failures: bool = False
    expires: float = 0.0
    dead_letters: bool = False
    dead_failures: bool = False
    dead_keep: float = 0.0
    paused: bool = False
    limits: tuple[int, int, int] = (0, 0, 0)
    keep_results: float = 0.0
    results_count: int = RESULTS_COUNT
    results_size: int = RESULTS_SIZE
    reuse_results: bool = False
    oldest: float = 0.0
    steered: bool = False
    bounded: bool = field(init=False, default=False)
    """Whether a job can wait for too long at all."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "bounded", bool(self.expires or self.oldest))

    def delay(self, losses: int, *, failed: bool) -> float:
        """How long a job waits after so many lost attempts, before chance shortens it.

        Args:
            losses: how many there were, the one that has just come included.
            failed: whether the last one was a failure.
        """
        step = losses - 1 if failed else losses - 1 - self.at_once
        if step < 0 or not self.backoff:
            return 0.0
        try:
            return min(self.backoff * self.backoff_factor**step, self.backoff_limit)
        except OverflowError:
            return self.backoff_limit


class Partition:
    """The functions of one owner, with everything that hangs on them."""

    __slots__ = ("bygone", "dead", "delayed", "functions", "number", "schedules", "timers")

    def __init__(self, number: int) -> None:
        self.number = number
        self.functions: dict[tuple[str, bytes], Function] = {}
        self.timers = Timers()
        """Deadlines of assignments and ghosts, by the monotonic clock."""
        self.delayed = Timers()
        """What waits for a time of day: delayed jobs, and what expires; by the wall clock."""
        self.schedules = Schedules()
        self.dead: dict[str, dict[bytes, DeadLetter]] = {}
        """Dead letters by tenant and handle, in the order in which they died."""
        self.bygone: Counter[JobEnd] = Counter()
        """How many jobs of functions that were dropped since came to which end."""

    @property
    def ended(self) -> Counter[JobEnd]:
        """How many jobs came to which end."""
        ended = self.bygone.copy()
        for function in self.functions.values():
            ended.update(function.ended)
        return ended


class Tenant:
    """One tenant's view: aggregates over partitions, which can be rebuilt from them."""

    __slots__ = (
        "allowance",
        "books",
        "choked",
        "functions",
        "name",
        "outcomes",
        "ready",
        "sweep_at",
    )

    def __init__(self, name: str, outcomes: int = OUTCOMES) -> None:
        self.name = name
        self.outcomes = Outcomes(outcomes)
        """What became of its last jobs."""
        self.functions: dict[bytes, Function] = {}
        self.books: dict[int, Book] = {}
        """Jobs by handle, one book per partition."""
        self.ready: dict[Function, None] = {}
        """Functions with jobs in their queues that are not paused."""
        self.choked = 0
        """Connections that do not read what they are sent."""
        self.allowance: Allowance | None = None
        """What is charged to it; None: it has no quotas."""
        self.sweep_at = IDLE_FUNCTIONS
        """With so many functions, idle ones are forgotten."""

    def job(self, handle: bytes) -> Job | None:
        """The job with this handle, if it is known."""
        for book in self.books.values():
            job = book.get(handle)
            if job is not None:
                return job
        return None


class Function:
    """One function of one tenant: its queues, workers, limits and counters."""

    __slots__ = (
        "covering",
        "ended",
        "ghosted",
        "husks",
        "jobs",
        "late",
        "limits",
        "name",
        "outcomes",
        "partition",
        "paused",
        "pending",
        "queues",
        "ready",
        "rules",
        "runnable",
        "running",
        "sleepers",
        "tenant",
        "total",
        "uniques",
        "waiting",
        "workers",
    )

    def __init__(self, tenant: Tenant, partition: Partition, name: bytes, rules: Rules) -> None:
        self.tenant = tenant
        self.partition = partition
        self.name = name
        self.rules = rules
        self.outcomes = tenant.outcomes
        self.jobs = tenant.books.setdefault(partition.number, Book())
        """By handle; shared with the tenant's other functions in this partition."""
        self.uniques = Book()
        self.queues: tuple[deque[Job], ...] = (deque(), deque(), deque())
        self.late: tuple[list[tuple[int, Job]], ...] = ([], [], [])
        self.husks = 0
        self.ready = [0, 0, 0]
        """Jobs in state QUEUED by priority."""
        self.waiting = [0, 0, 0]
        """Jobs that are neither pending nor running, by priority."""
        self.runnable = 0
        """The sum of ``ready``."""
        self.running = 0
        self.pending = 0
        self.total = 0
        """All jobs but the pending ones."""
        self.ghosted = 0
        """(job, connection) pairs in which the job is not offered to the connection."""
        self.ended = dict.fromkeys(JobEnd, 0)
        """How many jobs came to which end."""
        self.limits = list(rules.limits)
        self.paused = rules.paused
        self.workers: dict[Peer, None] = {}
        self.sleepers: OrderedDict[Peer, None] = OrderedDict()
        """Longest asleep first. Ordered, because a dict finds its first key in linear time."""
        self.covering = 0
        """Workers woken for this function that have neither grabbed nor slept again."""

    def __repr__(self) -> str:
        return f"<Function {self.name!r} of {self.tenant.name}>"

    @property
    def idle(self) -> bool:
        """Whether nobody would miss it: it has neither jobs nor workers, and nothing was set for it
        by command."""
        return not (
            self.total
            or self.pending
            or self.workers
            or self.rules.steered
            or self.limits != list(self.rules.limits)
        )

    def admit(self, job: Job) -> None:
        """Put a job into its queue where its ``seq`` belongs."""
        priority = job.priority
        queue = self.queues[priority]
        if not queue or queue[-1].seq < job.seq:
            queue.append(job)
        else:
            heappush(self.late[priority], (job.seq, job))
        job.state = QUEUED
        self.ready[priority] += 1
        self.runnable += 1
        if self.runnable == 1 and not self.paused:
            self.tenant.ready[self] = None

    def unready(self, job: Job) -> None:
        """A queued job is no longer to be had; where it stands in the queue is not touched."""
        self.ready[job.priority] -= 1
        self.runnable -= 1
        if not self.runnable and not self.paused:
            del self.tenant.ready[self]

    def discard(self, job: Job) -> None:
        """A queued job ended: it stays in its queue as a husk."""
        self.unready(job)
        self.husks += 1
        if self.husks > _HUSKS and self.husks > self.runnable:
            for priority in Priority:
                living = [item for item in self.queues[priority] if item.state == QUEUED]
                self.queues[priority].clear()
                self.queues[priority].extend(living)
                late = self.late[priority]
                late[:] = sorted(entry for entry in late if entry[1].state == QUEUED)
            self.husks = 0

    def pause(self, *, paused: bool) -> None:
        """Hand out jobs no more, or again. The caller wakes who is to be woken."""
        self.paused = paused
        if not self.runnable:
            return
        if paused:
            del self.tenant.ready[self]
        else:
            self.tenant.ready[self] = None

    def best(self) -> int:
        """The most urgent priority with a job; only if there is any."""
        ready = self.ready
        return 0 if ready[0] else 1 if ready[1] else 2

    def queued_since(self) -> float | None:
        """Since when the longest waiting of the jobs that are next in line could have begun, by
        the wall clock; None if there is none. Linear in the jobs that are out of line."""
        fronts = [
            next((job.since for job in queue if job.state == QUEUED), None) for queue in self.queues
        ]
        late = [job.since for jobs in self.late for _, job in jobs if job.state == QUEUED]
        return min(filter(None, [*fronts, *late]), default=None)

    def first(self, peer: Peer) -> Job | None:
        """The job this connection would get, which stays where it is."""
        for priority in range(3):
            if self.ready[priority]:
                job = self._front(priority)
                if job is None:
                    continue
                if self.ghosted and job.ghosts is not None and peer in job.ghosts:
                    job = self._first_but_ghosts(priority, peer)
                    if job is None:
                        continue
                return job
        return None

    def _front(self, priority: int) -> Job | None:
        """The next job of a priority. Drops husks and parks what no client would read."""
        queue = self.queues[priority]
        late = self.late[priority]
        while True:
            while queue and queue[0].state != QUEUED:
                queue.popleft()
                self.husks -= 1
            if late:
                while late and late[0][1].state != QUEUED:
                    heappop(late)
                    self.husks -= 1
                if late and (not queue or late[0][0] < queue[0].seq):
                    job = late[0][1]
                    if not (self.tenant.choked and self.unread(job)):
                        return job
                    heappop(late)
                    self._park(job)
                    continue
            if not queue:
                return None
            job = queue[0]
            if not (self.tenant.choked and self.unread(job)):
                return job
            queue.popleft()
            self._park(job)

    @staticmethod
    def unread(job: Job) -> bool:
        """Whether nobody would read this job's result now."""
        waiters = job.waiters
        return bool(waiters) and not job.background and all(peer.choked for peer in waiters)

    def _park(self, job: Job) -> None:
        self.unready(job)
        job.state = PARKED

    def _first_but_ghosts(self, priority: int, peer: Peer) -> Job | None:
        """The first job that was not taken away from this connection before.

        Linear in the ghosts at the front of the queue, of which a connection has at most
        ``GHOST_LIMIT``.
        """
        fits = [
            next((job for job in self.queues[priority] if self._fits(job, peer)), None),
            *(job for _, job in self.late[priority] if self._fits(job, peer)),
        ]
        return min((job for job in fits if job), key=lambda job: job.seq, default=None)

    def _fits(self, job: Job, peer: Peer) -> bool:
        return (
            job.state == QUEUED
            and not (job.ghosts and peer in job.ghosts)
            and not (self.tenant.choked and self.unread(job))
        )

    def take(self, job: Job) -> None:
        """Remove a queued job that is about to run; at the front in nearly every case."""
        queue = self.queues[job.priority]
        late = self.late[job.priority]
        if queue and queue[0] is job:
            queue.popleft()
        elif late and late[0][1] is job:
            heappop(late)
        elif any(entry[1] is job for entry in late):
            late[:] = sorted(entry for entry in late if entry[1] is not job)
        else:
            queue.remove(job)
        self.unready(job)

    def haunt(
        self, job: Job, peer: Peer, until: float, rests: Callable[[Job, Peer, Now], None]
    ) -> None:
        """Do not offer the job to this connection until then, when ``rests`` is called."""
        if job.ghosts is None:
            job.ghosts = {}
        job.ghosts[peer] = self.partition.timers.set(until, rests, job, peer)
        self.ghosted += 1

    def unghost(self, job: Job, peer: Peer) -> None:
        """The job may be offered to this connection again."""
        ghosts = job.ghosts
        if ghosts is not None and (timer := ghosts.pop(peer, None)) is not None:
            self.partition.timers.cancel(timer)
            self.ghosted -= 1
            if not ghosts:
                job.ghosts = None
