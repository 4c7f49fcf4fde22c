"""The broker's bookkeeping against what counting its jobs gives.

Runs after an unexpected exception, to tell a fault of one connection from damage to the queues,
and in tests after every step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.broker.jobs import DELAYED, PARKED, PENDING, QUEUED, RUNNING
from trigear.broker.quotas import usage_of
from trigear.model import Priority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trigear.broker.functions import Function, Tenant


def charges_wrong(tenant: Tenant) -> Iterator[str]:
    """What is charged to a tenant and is not what it has; nothing, unless there is a bug. Its
    connections are left out: the broker does not know them."""
    allowance = tenant.allowance
    if allowance is None:
        return
    usage = usage_of(tenant)
    for what, charged, counted in (
        ("workers", allowance.workers, usage.workers),
        ("jobs", allowance.queued_jobs, usage.queued_jobs),
        ("bytes", allowance.queued_bytes, usage.queued_bytes),
    ):
        if charged != counted:
            yield f"tenant {tenant.name}: {charged} {what} are charged, counted {counted}"
    functions = tenant.functions.values()
    if lost := [each for each in functions if each.idle and each not in allowance.idle]:
        yield f"tenant {tenant.name}: {lost} are idle and not known to be"
    if gone := [each for each in allowance.idle if tenant.functions.get(each.name) is not each]:
        yield f"tenant {tenant.name}: {gone} are idle and not there"


def faults_of(function: Function) -> Iterator[str]:
    """What is wrong with a function's bookkeeping; nothing, unless there is a bug."""
    jobs = [job for job in function.jobs.values() if job.function is function]
    states = [job.state for job in jobs]
    queued = [
        sum(job.state == QUEUED and job.priority == priority for job in jobs)
        for priority in Priority
    ]
    waiting = [
        sum(job.state in (QUEUED, DELAYED, PARKED) and job.priority == priority for job in jobs)
        for priority in Priority
    ]
    ghosted = sum(len(job.ghosts or ()) for job in jobs)
    for what, found, counted in (
        ("queued", function.ready, queued),
        ("runnable", function.runnable, sum(queued)),
        ("waiting", function.waiting, waiting),
        ("running", function.running, states.count(RUNNING)),
        ("pending", function.pending, states.count(PENDING)),
        ("total", function.total, len(jobs) - states.count(PENDING)),
        ("ghosted", function.ghosted, ghosted),
        ("ready", function in function.tenant.ready, sum(queued) > 0 and not function.paused),
        ("covering", function.covering, sum(p.woken_for is function for p in function.workers)),
    ):
        if found != counted:
            yield f"{function!r}: {what} is {found}, counted {counted}"
    for job in jobs:
        if (job.state == RUNNING) != (job.worker is not None):
            yield f"{job!r} has worker {job.worker!r}"
        elif job.worker is not None and job.worker.jobs.get(job.handle) is not job:
            yield f"{job!r} is not held by its worker"
        if job.key is not None and function.uniques.get(job.key) is not job:
            yield f"{job!r} cannot be found by its unique"
    for peer in function.workers:
        if peer.sleeping != (peer in function.sleepers):
            yield f"{function!r}: a worker is asleep and not among the sleepers, or the reverse"
