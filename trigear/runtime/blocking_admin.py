"""Look into a server and steer it, without Trio; see :mod:`trigear.runtime.admin`.

::

    with connect_admin_blocking("localhost:4730", timeout=10) as admin:
        for function in admin.status():
            print(function.function, function.total)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeVar

from trigear.model import Priority, public
from trigear.protocol import dead_talks, schedule_talks, session_talks, talks
from trigear.runtime.blocking import connect_blocking
from trigear.runtime.talking import hold_blocking
from trigear.runtime.values import as_priority

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType
    from zoneinfo import ZoneInfo

    from trigear.protocol.dead_talks import DeadLetterDetails, DeadLetterStatus
    from trigear.protocol.schedule_talks import ScheduleDetails, ScheduleStatus
    from trigear.protocol.session_talks import SessionStatus, TenantQuota, WhoAmI
    from trigear.protocol.talks import (
        ConnectionStatus,
        FunctionSetting,
        FunctionStatus,
        ListedJob,
        PriorityStatus,
        Talk,
    )
    from trigear.runtime.address import Address
    from trigear.runtime.blocking import BlockingClient
    from trigear.runtime.values import AnyPriority
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientTLS

Value = TypeVar("Value")


@public
class BlockingAdmin:
    """The operator of one server, for one thread. Made by :func:`connect_admin_blocking`.

    Its methods are those of :class:`~trigear.Admin`, and raise the same, and ``TimeoutError`` where
    no answer comes in time; what was asked may have been done then.
    """

    def __init__(self, client: BlockingClient) -> None:
        self._client = client

    def hold(self, talk: Talk[Value]) -> Value:
        """Hold a talk with the server, and return what came of it."""
        return hold_blocking(self._client.admin, talk)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def __enter__(self) -> BlockingAdmin:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Looking

    def status(self) -> list[FunctionStatus]:
        """Every function with its jobs and workers."""
        return self.hold(talks.status())

    def priority_status(self) -> list[PriorityStatus]:
        """Every function with its queued jobs by priority."""
        return self.hold(talks.priority_status())

    def workers(self) -> list[ConnectionStatus]:
        """Every connection with the functions it serves; oldest last."""
        return self.hold(talks.workers())

    def jobs(self) -> list[ListedJob]:
        """Every job that is queued or runs."""
        return self.hold(talks.jobs())

    def loading(self) -> bool:
        """Whether jobs are still on their way from the store into the server's memory: until then
        lists do not show all of them."""
        return self.hold(talks.loading())

    def sessions(self) -> list[SessionStatus]:
        """The connections of every tenant for an operator, else of one's own; oldest first."""
        return self.hold(session_talks.sessions())

    def tenants(self) -> list[TenantQuota]:
        """What every tenant may have and what it has, for an operator; else one's own."""
        return self.hold(session_talks.tenants())

    def whoami(self) -> WhoAmI:
        """Who this connection belongs to. Servers that ask nobody do not know the question."""
        return self.hold(session_talks.whoami())

    # Steering

    def end_session(self, session: int) -> bool:
        """End a connection by the number that :meth:`sessions` has; the jobs it has go to others.
        Returns whether there was one."""
        return self.hold(session_talks.end_session(session))

    def reload(self) -> None:
        """Have the server read its configuration, certificates and users anew, as at SIGHUP. Its
        log says what came of it. Like the next two for operators, and unknown to servers that ask
        nobody who they are."""
        self.hold(session_talks.reload())

    def drain(self) -> None:
        """Have the server stop once what runs is done; nothing new begins."""
        self.hold(session_talks.drain())

    def shutdown(self) -> None:
        """Have the server stop at once."""
        self.hold(session_talks.shutdown())

    def cancel(self, handle: str | bytes) -> bool:
        """End a job; whoever waits for it hears that it failed. Returns whether there was one."""
        return self.hold(talks.cancel(handle))

    def create_function(self, function: str | bytes) -> None:
        """Make a function known before anybody serves it."""
        self.hold(talks.create_function(function))

    def drop_function(self, function: str | bytes) -> None:
        """Forget a function without workers; its queued jobs are dropped."""
        self.hold(talks.drop_function(function))

    def max_queue(self, function: str | bytes, *limits: int) -> None:
        """Limit the jobs of a function: one number for all priorities, or one each for high,
        normal and low; 0 or nothing for no limit."""
        self.hold(talks.max_queue(function, limits))

    def requeue(self, handle: str | bytes) -> bool:
        """Put a job at the end of its queue, without counting an attempt. One that runs is taken
        from its worker, one that waits for its time waits no longer. Returns whether there was
        one."""
        return self.hold(talks.requeue(handle))

    def set_priority(self, handle: str | bytes, priority: AnyPriority) -> bool:
        """Give a job another priority. Returns whether there was one."""
        return self.hold(talks.set_priority(handle, as_priority(priority)))

    # Settings of functions

    def functions(self, function: str | bytes | None = None) -> list[FunctionSetting]:
        """The settings of every function, or of one, and where each comes from."""
        return self.hold(talks.functions(function))

    def pause(self, function: str | bytes) -> None:
        """Have no jobs of a function handed out; submissions are taken."""
        self.hold(talks.pause(function))

    def resume(self, function: str | bytes) -> None:
        """Have jobs of a paused function handed out again."""
        self.hold(talks.resume(function))

    def set(
        self, function: str | bytes, setting: str, value: str | float | bool | Sequence[int]
    ) -> None:
        """Set something of a function, as :meth:`functions` names it; that wins over the server's
        configuration and outlives the server."""
        self.hold(talks.set_value(function, setting, value))

    def reset(self, function: str | bytes, setting: str | None = None) -> None:
        """Take back what was set of a function, one setting or all, limits and pauses among
        them."""
        self.hold(talks.reset(function, setting))

    # Dead letters

    def dead_list(self, function: str | bytes | None = None) -> list[DeadLetterStatus]:
        """The dead letters, of one function or of all, in the order in which they died."""
        return self.hold(dead_talks.listed(function))

    def dead_show(self, handle: str | bytes) -> DeadLetterDetails | None:
        """All of one dead letter, with its workload; None if there is none."""
        return self.hold(dead_talks.details(handle))

    def dead_retry(self, handle: str | bytes) -> bool:
        """Make a dead letter a job again, under its handle and with all its attempts. Returns
        whether there was one."""
        return self.hold(dead_talks.retry(handle))

    def dead_retry_all(self, function: str | bytes | None = None) -> int:
        """Make all of them jobs again, of one function or of all. Returns how many there were."""
        return self.hold(dead_talks.retry_all(function))

    def dead_delete(self, handle: str | bytes) -> bool:
        """Forget a dead letter. Returns whether there was one."""
        return self.hold(dead_talks.delete(handle))

    def dead_delete_all(self, function: str | bytes | None = None) -> int:
        """Forget all of them, of one function or of all. Returns how many there were."""
        return self.hold(dead_talks.delete_all(function))

    # Schedules

    def schedules(self) -> list[ScheduleStatus]:
        """Every schedule, oldest first."""
        return self.hold(schedule_talks.schedules())

    def schedule(self, name: str | bytes) -> ScheduleDetails | None:
        """All about one schedule, named by its handle, or by its unique where only one has it;
        None if there is none."""
        return self.hold(schedule_talks.details(name))

    def add_schedule(
        self,
        function: str | bytes,
        when: str,
        workload: bytes = b"",
        *,
        unique: str | bytes = b"",
        timezone: str | ZoneInfo = "UTC",
        missed: Literal["once", "skip"] = "once",
        priority: AnyPriority = Priority.NORMAL,
    ) -> bytes:
        """As :meth:`trigear.BlockingClient.schedule`. Returns the schedule's handle."""
        return self._client.schedule(
            function,
            when,
            workload,
            unique=unique,
            timezone=timezone,
            missed=missed,
            priority=priority,
        )

    def pause_schedule(self, name: str | bytes) -> None:
        """Have a schedule make no runs until it is resumed."""
        self.hold(schedule_talks.pause(name))

    def resume_schedule(self, name: str | bytes) -> None:
        """Have a paused schedule go on; what was due meanwhile is left out."""
        self.hold(schedule_talks.resume(name))

    def run_schedule(self, name: str | bytes) -> bytes:
        """Have a schedule make a run at once. Returns the handle of its job."""
        return self.hold(schedule_talks.run(name))

    def remove_schedule(self, name: str | bytes) -> None:
        """Have no such schedule any more; jobs that it has made stay."""
        self.hold(schedule_talks.remove(name))


@public
def connect_admin_blocking(
    address: str | Address = "localhost",
    *,
    timeout: float | None = None,
    tls: ClientTLS | None = None,
    auth: Auth | None = None,
) -> BlockingAdmin:
    """Connect to the server that is to be looked into, without Trio.

    Args:
        address: `HOST[:PORT]`, `[IPV6]:PORT`, `gearman://HOST[:PORT]`, `gearmans://HOST[:PORT]`
            (TLS) or `unix:PATH`.
        timeout: seconds that connecting and each question may take; None for any time.
        tls: whom to trust and who we are, as for :func:`trigear.connect`.
        auth: who to log in as, likewise.

    Returns:
        The connection; ``with`` closes it.

    Raises:
        ConnectionLost: nobody answers there.
        LoginFailed: the server refuses the login, or it would not be safe.
        ConfigError: this is no address, or a file of TLS cannot be used.
    """
    return BlockingAdmin(connect_blocking(address, timeout=timeout, tls=tls, auth=auth))
