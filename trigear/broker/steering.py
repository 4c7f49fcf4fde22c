"""What operators do to functions and jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.broker.assignments import Assignments
from trigear.broker.jobs import DELAYED, PARKED, PENDING, QUEUED, RUNNING, Job
from trigear.model import JobEnd

if TYPE_CHECKING:
    from trigear.broker.functions import Function, Rules, Tenant
    from trigear.model import Now


class Steering(Assignments):
    """The operators' side of the broker, which is built on it."""

    def take_rules(self, function: Function, rules: Rules, now: Now) -> None:
        """From now on these rules hold. Running assignments keep their deadlines, and delayed jobs
        their delays."""
        before, function.rules = function.rules, rules
        function.limits = list(rules.limits)
        if (rules.expires, rules.oldest) != (before.expires, before.oldest):
            for job in [job for job in function.jobs.values() if job.function is function]:
                if job.state in (QUEUED, PARKED):
                    self._cancel_timer(job)
                    self._limit_wait(job, now)
        if rules.dead_keep != before.dead_keep:
            letters = function.partition.dead.get(function.tenant.name, {})
            for letter in [each for each in letters.values() if each.function == function.name]:
                self.lift(letter)
                self.lay(letter, rules.dead_keep, now)
        if rules.paused != before.paused:
            function.pause(paused=rules.paused)
            self._wake(function, now)
        self._may_rest(function)

    @staticmethod
    def _may_rest(function: Function) -> None:
        """Something that kept a function from being idle is gone, perhaps."""
        allowance = function.tenant.allowance
        if allowance is not None and function.idle:
            allowance.rest(function)

    def requeue(self, tenant: Tenant, handle: bytes, now: Now) -> bool:
        """Put a job at the end of its queue, at once, without counting an attempt. It is taken from
        its worker if it runs, and waits no longer if it was to run later.

        Returns:
            Whether there was such a job.
        """
        job = tenant.job(handle)
        if job is None or job.state == PENDING:
            return False
        if job.state == RUNNING:
            peer = job.worker
            assert peer is not None
            peer.sink.cancelled(handle, "requeued")
            self._take_away(job, peer, now)
        elif job.state == QUEUED:
            job.function.take(job)
        elif job.state == DELAYED:
            self._cancel_timer(job)
            job.due = 0.0
            if job.record and job.gate is None:
                assert self._keeper is not None
                self._keeper.lost(job)
        if job.wanted:
            self._enqueue(job, now)
        else:
            self._end(job, JobEnd.ABANDONED, now)
        return True

    def set_priority(self, tenant: Tenant, handle: bytes, priority: int) -> bool:
        """Give a job another priority; in its new queue it stands where its age puts it.

        Returns:
            Whether there was such a job.
        """
        job = tenant.job(handle)
        if job is None or job.state == PENDING:
            return False
        if job.priority == priority:
            return True
        function = job.function
        queued = job.state == QUEUED
        if queued:
            function.take(job)
        if job.state != RUNNING:
            function.waiting[job.priority] -= 1
            function.waiting[priority] += 1
        job.priority = priority
        if queued:
            function.admit(job)
        if job.record and job.gate is None:
            assert self._keeper is not None
            self._keeper.rewrite(job)
        return True

    @staticmethod
    def _cancel_timer(job: Job) -> None:
        """A job that is in no worker's hands is not due any more, and does not expire."""
        if job.timer is not None:
            job.function.partition.delayed.cancel(job.timer)
            job.timer = None
