"""Tenants, their functions, and what they are charged for: made when they are first named, and
forgotten when nobody needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trigear.broker.functions import IDLE_FUNCTIONS, Function, Partition, Rules, Tenant
from trigear.broker.quotas import Allowance, Quotas, usage_of
from trigear.broker.steering import Steering
from trigear.model import JobEnd

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.broker.assignments import Keeper, Observer
    from trigear.model import Now


class FunctionBusy(Exception):
    """The function has workers, running jobs, or jobs on their way to the store."""


class Registry(Steering):
    """The functions' side of the broker, which is built on it."""

    def __init__(
        self,
        rules: Callable[[str, bytes], Rules],
        observer: Observer,
        keeper: Keeper | None,
        wakeup: int | None,
        partition_of: Callable[[str, bytes], int],
        term: int,
        outcomes: int,
        chance: Callable[[], float],
        quotas: Callable[[str], Quotas | None],
    ) -> None:
        super().__init__(observer, keeper, wakeup, term, chance)
        self._outcomes = outcomes
        self._rules = rules
        self._partition_of = partition_of
        self._quotas = quotas
        self.tenants: dict[str, Tenant] = {}

    def tenant(self, name: str) -> Tenant:
        """The tenant of this name, new if need be."""
        tenant = self.tenants.get(name)
        if tenant is None:
            tenant = self.tenants[name] = Tenant(name, self._outcomes)
            quotas = self._quotas(name)
            if quotas is not None:
                tenant.allowance = Allowance(quotas)
        return tenant

    def apply_quotas(self, connections: Callable[[Tenant], int]) -> None:
        """Ask for the quotas of every tenant again. What a tenant has already, it keeps.

        Args:
            connections: how many connections a tenant has.
        """
        for tenant in self.tenants.values():
            quotas = self._quotas(tenant.name)
            if quotas is None:
                tenant.allowance = None
            elif tenant.allowance is not None:
                tenant.allowance.quotas = quotas
            else:
                usage = usage_of(tenant)
                allowance = tenant.allowance = Allowance(quotas)
                allowance.connections = connections(tenant)
                allowance.workers = usage.workers
                allowance.queued_jobs = usage.queued_jobs
                allowance.queued_bytes = usage.queued_bytes
                allowance.idle = {each: None for each in tenant.functions.values() if each.idle}

    def partition(self, tenant: str, name: bytes) -> Partition:
        """The partition to which a function belongs, whether there is such a function or not."""
        number = self._partition_of(tenant, name)
        partition = self.partitions.get(number)
        if partition is None:
            partition = self.partitions[number] = Partition(number)
        return partition

    def function(self, tenant: Tenant, name: bytes) -> Function:
        """The tenant's function of this name, new if need be and whatever the quotas."""
        function = tenant.functions.get(name)
        if function is None:
            if len(tenant.functions) >= tenant.sweep_at:
                self._sweep(tenant)
            partition = self.partition(tenant.name, name)
            function = Function(tenant, partition, name, self._rules(tenant.name, name))
            partition.functions[tenant.name, name] = tenant.functions[name] = function
            self._may_rest(function)
        return function

    def wanted_function(self, tenant: Tenant, name: bytes) -> Function:
        """The same for somebody who asks for it.

        Raises:
            OverQuota: it would be new, and the tenant may not have another one.
        """
        allowance = tenant.allowance
        if allowance is not None and name not in tenant.functions:
            most = allowance.quotas.max_functions
            while most and len(tenant.functions) >= most:
                if not allowance.idle:
                    raise allowance.refuse("max-functions")
                self._forget_idle(next(iter(allowance.idle)), allowance)
        return self.function(tenant, name)

    def _sweep(self, tenant: Tenant) -> None:
        """Forget idle functions of a tenant that has many, the oldest first, else names that are
        used once would stay for ever. The others are not looked through again before there are a
        good deal more, so that a new function costs the same however many there are."""
        most = IDLE_FUNCTIONS * 3 // 4
        for function in list(tenant.functions.values()):
            if len(tenant.functions) <= most:
                break
            if function.idle:
                self._forget(function)
        left = len(tenant.functions)
        tenant.sweep_at = left + max(IDLE_FUNCTIONS - most, left // 4)

    def _forget_idle(self, function: Function, allowance: Allowance) -> None:
        """Forget a function that was idle, if it is idle still."""
        if function.idle:
            self._forget(function)
        else:
            del allowance.idle[function]

    def _forget(self, function: Function) -> None:
        """Forget a function that has no jobs and no workers."""
        # Its husks would hold the function, which holds them.
        for queue, late in zip(function.queues, function.late, strict=True):
            queue.clear()
            late.clear()
        function.partition.bygone.update(function.ended)
        tenant, name = function.tenant, function.name
        del tenant.functions[name]
        del function.partition.functions[tenant.name, name]
        if tenant.allowance is not None:
            tenant.allowance.idle.pop(function, None)

    def drop_function(self, tenant: Tenant, name: bytes, now: Now) -> bool:
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
            self._end(job, JobEnd.DROPPED, now)
        self._forget(function)
        return True

    def apply_rules(self, now: Now) -> None:
        """Ask for the rules of every function again."""
        for partition in self.partitions.values():
            for function in partition.functions.values():
                self.take_rules(function, self._rules(function.tenant.name, function.name), now)
