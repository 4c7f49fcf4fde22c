"""Quotas: how much of a server a tenant may take up.

A tenant with quotas has an *allowance*. Everything the tenant has here is charged to it before it
is made, and given back when it is gone, so that what is charged is what counting would find;
:mod:`trigear.broker.check` counts. Whether something is refused depends on this tenant alone:
nobody can tell from it what others have. A tenant without quotas has no allowance, and pays
nothing for those that have.

A job counts from its submission to its end, on its way to the store, while it waits and while it
runs; what is restored counts, too, but is never refused, because it was accepted once. Its size is
that of its workload and of its names. Dead letters are no jobs and do not count until they are
made jobs again. Schedules are no jobs either; there may be as many of them as of jobs.

A function counts while it has jobs or workers, or something was set for it by command. Those that
have nothing of it are *idle*. They stay in the lists, where people expect the ones they know, until
their place is needed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from trigear.broker.functions import Function, Tenant
    from trigear.broker.jobs import Job


@dataclass(frozen=True, slots=True)
class Quotas:
    """What a tenant may have at a time; 0 is any number.

    ``max_queued_bytes`` and ``max_job_bytes`` are in bytes, ``max_background_age`` in seconds.
    """

    max_connections: int = 1_000
    max_workers: int = 500
    max_functions: int = 1_000
    max_queued_jobs: int = 100_000
    max_queued_bytes: int = 256 * 1024 * 1024
    max_job_bytes: int = 16 * 1024 * 1024
    max_abilities_per_connection: int = 1_000
    max_background_age: float = 0.0


class OverQuota(Exception):
    """The tenant may not have what is asked for.

    Args:
        quota: the name of the quota that stands against it.
    """

    def __init__(self, quota: str) -> None:
        super().__init__(f"Quota exceeded: {quota}")
        self.quota = quota


class Usage(NamedTuple):
    """What a tenant has."""

    workers: int
    functions: int
    queued_jobs: int
    queued_bytes: int


class Allowance:
    """What is charged to a tenant that has quotas.

    ``connections`` and ``workers`` are connections of the tenant, and those of them that have
    registered a function. ``idle`` has every function that is idle, and some that are not any more;
    the longest idle come first.
    """

    __slots__ = (
        "connections",
        "exceeded",
        "idle",
        "queued_bytes",
        "queued_jobs",
        "quotas",
        "workers",
    )

    def __init__(self, quotas: Quotas) -> None:
        self.quotas = quotas
        self.connections = 0
        self.workers = 0
        self.queued_jobs = 0
        self.queued_bytes = 0
        self.idle: dict[Function, None] = {}
        self.exceeded: Counter[str] = Counter()
        """How often something was refused, by the name of the quota."""

    def refuse(self, quota: str) -> OverQuota:
        """Count a refusal; the exception is to be raised."""
        self.exceeded[quota] += 1
        return OverQuota(quota)

    def connect(self) -> None:
        """Charge a connection.

        Raises:
            OverQuota: it may not be.
        """
        most = self.quotas.max_connections
        if most and self.connections >= most:
            raise self.refuse("max-connections")
        self.connections += 1

    def register(self, abilities: int) -> None:
        """Charge a connection that has so many abilities and wants another one.

        Raises:
            OverQuota: it may not have it.
        """
        quotas = self.quotas
        if abilities:
            if 0 < quotas.max_abilities_per_connection <= abilities:
                raise self.refuse("max-abilities-per-connection")
        elif 0 < quotas.max_workers <= self.workers:
            raise self.refuse("max-workers")

    def admit(self, size: int, delay: float = 0.0) -> None:
        """Charge a new job.

        Args:
            size: its bytes.
            delay: seconds until it may begin.

        Raises:
            OverQuota: it may not be.
        """
        quotas = self.quotas
        jobs, bytes_ = self.queued_jobs, self.queued_bytes + size
        if 0 < quotas.max_job_bytes < size:
            raise self.refuse("max-job-bytes")
        if 0 < quotas.max_queued_jobs <= jobs:
            raise self.refuse("max-queued-jobs")
        if 0 < quotas.max_queued_bytes < bytes_:
            raise self.refuse("max-queued-bytes")
        if 0 < quotas.max_background_age < delay:
            raise self.refuse("max-background-age")
        self.queued_jobs, self.queued_bytes = jobs + 1, bytes_

    def measure(self, size: int) -> None:
        """Whether a job may have so many bytes at all.

        Raises:
            OverQuota: it may not.
        """
        if 0 < self.quotas.max_job_bytes < size:
            raise self.refuse("max-job-bytes")

    def admit_schedule(self, others: int, bytes_of_others: int, size: int) -> None:
        """Whether there may be a schedule of this size beside others. They are not charged: there
        may be as many of them as of jobs.

        Raises:
            OverQuota: it may not be.
        """
        self.measure(size)
        if 0 < self.quotas.max_queued_jobs <= others:
            raise self.refuse("max-queued-jobs")
        if 0 < self.quotas.max_queued_bytes < bytes_of_others + size:
            raise self.refuse("max-queued-bytes")

    def charge(self, size: int) -> None:
        """Charge a job that is not asked for, because it was accepted once."""
        self.queued_jobs += 1
        self.queued_bytes += size

    def give_back(self, size: int) -> None:
        """A job has ended."""
        self.queued_jobs -= 1
        self.queued_bytes -= size

    def rest(self, function: Function) -> None:
        """The function may have become idle."""
        self.idle.pop(function, None)
        self.idle[function] = None


def size_of(job: Job) -> int:
    """What a job counts, in bytes; only before its end."""
    return len(job.workload) + len(job.function.name) + len(job.unique) + len(job.reducer)


def usage_of(tenant: Tenant) -> Usage:
    """What a tenant has, counted. Linear in its jobs."""
    jobs = [job for book in tenant.books.values() for job in book.values()]
    functions = tenant.functions.values()
    return Usage(
        workers=len({peer for function in functions for peer in function.workers}),
        functions=sum(not function.idle for function in functions),
        queued_jobs=len(jobs),
        queued_bytes=sum(map(size_of, jobs)),
    )
