"""What is to be submitted, and the packet for it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trigear.errors import LocalProtocolError
from trigear.model import Priority
from trigear.protocol.choice import home_of
from trigear.runtime.values import as_data, as_name, as_priority, epoch_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime
    from zoneinfo import ZoneInfo

    from trigear.protocol.asking import Request
    from trigear.protocol.client import ClientConnection
    from trigear.protocol.schedule_talks import ScheduleOrder
    from trigear.runtime.blocking_pool import BlockingPool
    from trigear.runtime.pool import Pool
    from trigear.runtime.values import AnyPriority


@dataclass(frozen=True, slots=True)
class Order:
    """A job to be submitted, checked as far as it can be without a connection."""

    function: bytes
    workload: bytes
    unique: bytes
    priority: Priority

    @classmethod
    def of(
        cls,
        function: str | bytes,
        workload: bytes,
        unique: str | bytes,
        priority: AnyPriority,
        *,
        resubmit: bool = False,
    ) -> Order:
        """Read a caller's arguments.

        Raises:
            TypeError: the workload is not bytes.
            ValueError: there is no such priority; resubmitting without a unique.
        """
        order = cls(as_name(function), as_data(workload), as_name(unique), as_priority(priority))
        if resubmit and home_of(order.unique, order.workload, 1) is None:
            raise ValueError(
                "resubmit=True needs a unique: without one the server cannot tell that both "
                "submissions mean the same job"
            )
        return order

    def home(self, pool: Pool | BlockingPool) -> int | None:
        """The number of the server where this belongs."""
        return home_of(self.unique, self.workload, len(pool.upstreams))

    def epoch(
        self,
        at: datetime | float | None,
        delay: float | None,
        wall: Callable[[], float] = time.time,
    ) -> int | None:
        """When it may begin, in whole seconds since 1970; None for at once.

        Raises:
            LocalProtocolError: this is no time that can be sent, or it goes with a priority.
        """
        epoch = epoch_of(at, delay, wall)
        if epoch is not None and self.priority is not Priority.NORMAL:
            raise LocalProtocolError("a job with a time of its own always has normal priority")
        return epoch


IN_DOUBT: Final = "whether the server has the job is unknown"


def submission(order: Order, machine: ClientConnection) -> Request:
    """Queue a foreground submission."""
    return machine.submit(
        order.function, order.workload, unique=order.unique, priority=order.priority
    )


def background(order: Order, machine: ClientConnection, epoch: int | None) -> Request:
    """Queue a background submission, for its time if it has one."""
    if epoch is None:
        return machine.submit(
            order.function,
            order.workload,
            unique=order.unique,
            priority=order.priority,
            background=True,
        )
    return machine.submit_at(order.function, order.workload, epoch, unique=order.unique)


SCHEDULE_IN_DOUBT: Final = "whether the server has the schedule is unknown"


def schedule_home(order: ScheduleOrder, servers: int) -> int | None:
    """The number of the server where a schedule belongs: without a unique the workload tells
    schedules apart."""
    return home_of(order.unique or b"-", order.workload, servers)


def schedule_order(
    function: str | bytes,
    when: str,
    workload: bytes,
    unique: str | bytes,
    timezone: str | ZoneInfo,
    missed: str,
    priority: AnyPriority,
) -> ScheduleOrder:
    """Read a caller's arguments for a schedule.

    Raises:
        TypeError: the workload is not bytes.
        ValueError: there is no such priority or policy.
        LocalProtocolError: what cannot be sent.
    """
    from trigear.protocol.schedule_talks import ScheduleOrder

    return ScheduleOrder(
        as_name(function),
        when,
        as_data(workload),
        as_name(unique),
        str(timezone),
        missed,
        as_priority(priority),
    )
