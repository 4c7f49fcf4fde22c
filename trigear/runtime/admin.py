"""Look into a server and steer it, by way of its text commands.

::

    async with connect_admin("localhost:4730") as admin:
        for function in await admin.status():
            print(function.function, function.total)

What is said to the server and how its answers are understood stands in the talks of
:mod:`trigear.protocol.talks`; here they are held. No call has a timeout: use
``trio.move_on_after``. A call that is cancelled, or breaks with ``in_doubt``, may have been carried
out.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Literal, TypeVar

from trigear.model import Priority, public
from trigear.protocol import dead_talks, schedule_talks, session_talks, talks
from trigear.runtime.backoff import PATIENCE
from trigear.runtime.client import connect
from trigear.runtime.talking import hold
from trigear.runtime.values import as_priority

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
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
    from trigear.runtime.client import Client
    from trigear.runtime.values import AnyPriority
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientTLS

Value = TypeVar("Value")


@public
class Admin:
    """The operator of one server. Made by :func:`connect_admin`; any number of tasks may use it.

    Every method raises ``Refused`` where the server refuses or does not know the command,
    ``ConnectionLost`` where it cannot be reached or goes away, ``RemoteProtocolError`` where its
    answer makes no sense, and ``LocalProtocolError`` for a name that cannot be sent.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def hold(self, talk: Talk[Value]) -> Value:
        """Hold a talk with the server, and return what came of it."""
        return await hold(self._client.admin, talk)

    # Looking

    async def status(self) -> list[FunctionStatus]:
        """Every function with its jobs and workers."""
        return await self.hold(talks.status())

    async def priority_status(self) -> list[PriorityStatus]:
        """Every function with its queued jobs by priority."""
        return await self.hold(talks.priority_status())

    async def workers(self) -> list[ConnectionStatus]:
        """Every connection with the functions it serves; oldest last."""
        return await self.hold(talks.workers())

    async def jobs(self) -> list[ListedJob]:
        """Every job that is queued or runs."""
        return await self.hold(talks.jobs())

    async def loading(self) -> bool:
        """Whether jobs are still on their way from the store into the server's memory: until then
        lists do not show all of them."""
        return await self.hold(talks.loading())

    async def sessions(self) -> list[SessionStatus]:
        """The connections of every tenant for an operator, else of one's own; oldest first."""
        return await self.hold(session_talks.sessions())

    async def tenants(self) -> list[TenantQuota]:
        """What every tenant may have and what it has, for an operator; else one's own."""
        return await self.hold(session_talks.tenants())

    async def whoami(self) -> WhoAmI:
        """Who this connection belongs to. Servers that ask nobody do not know the question."""
        return await self.hold(session_talks.whoami())

    # Steering

    async def end_session(self, session: int) -> bool:
        """End a connection by the number that :meth:`sessions` has; the jobs it has go to others.
        Returns whether there was one."""
        return await self.hold(session_talks.end_session(session))

    async def reload(self) -> None:
        """Have the server read its configuration, certificates and users anew, as at SIGHUP. Its
        log says what came of it. Like the next two for operators, and unknown to servers that ask
        nobody who they are."""
        await self.hold(session_talks.reload())

    async def drain(self) -> None:
        """Have the server stop once what runs is done; nothing new begins."""
        await self.hold(session_talks.drain())

    async def shutdown(self) -> None:
        """Have the server stop at once."""
        await self.hold(session_talks.shutdown())

    async def cancel(self, handle: str | bytes) -> bool:
        """End a job; whoever waits for it hears that it failed. Returns whether there was one."""
        return await self.hold(talks.cancel(handle))

    async def create_function(self, function: str | bytes) -> None:
        """Make a function known before anybody serves it."""
        await self.hold(talks.create_function(function))

    async def drop_function(self, function: str | bytes) -> None:
        """Forget a function without workers; its queued jobs are dropped."""
        await self.hold(talks.drop_function(function))

    async def max_queue(self, function: str | bytes, *limits: int) -> None:
        """Limit the jobs of a function: one number for all priorities, or one each for high,
        normal and low; 0 or nothing for no limit."""
        await self.hold(talks.max_queue(function, limits))

    async def requeue(self, handle: str | bytes) -> bool:
        """Put a job at the end of its queue, without counting an attempt. One that runs is taken
        from its worker, one that waits for its time waits no longer. Returns whether there was
        one."""
        return await self.hold(talks.requeue(handle))

    async def set_priority(self, handle: str | bytes, priority: AnyPriority) -> bool:
        """Give a job another priority. Returns whether there was one."""
        return await self.hold(talks.set_priority(handle, as_priority(priority)))

    # Settings of functions

    async def functions(self, function: str | bytes | None = None) -> list[FunctionSetting]:
        """The settings of every function, or of one, and where each comes from."""
        return await self.hold(talks.functions(function))

    async def pause(self, function: str | bytes) -> None:
        """Have no jobs of a function handed out; submissions are taken."""
        await self.hold(talks.pause(function))

    async def resume(self, function: str | bytes) -> None:
        """Have jobs of a paused function handed out again."""
        await self.hold(talks.resume(function))

    async def set(
        self, function: str | bytes, setting: str, value: str | float | bool | Sequence[int]
    ) -> None:
        """Set something of a function, as :meth:`functions` names it; that wins over the server's
        configuration and outlives the server."""
        await self.hold(talks.set_value(function, setting, value))

    async def reset(self, function: str | bytes, setting: str | None = None) -> None:
        """Take back what was set of a function, one setting or all, limits and pauses among
        them."""
        await self.hold(talks.reset(function, setting))

    # Dead letters

    async def dead_list(self, function: str | bytes | None = None) -> list[DeadLetterStatus]:
        """The dead letters, of one function or of all, in the order in which they died."""
        return await self.hold(dead_talks.listed(function))

    async def dead_show(self, handle: str | bytes) -> DeadLetterDetails | None:
        """All of one dead letter, with its workload; None if there is none."""
        return await self.hold(dead_talks.details(handle))

    async def dead_retry(self, handle: str | bytes) -> bool:
        """Make a dead letter a job again, under its handle and with all its attempts. Returns
        whether there was one."""
        return await self.hold(dead_talks.retry(handle))

    async def dead_retry_all(self, function: str | bytes | None = None) -> int:
        """Make all of them jobs again, of one function or of all. Returns how many there were."""
        return await self.hold(dead_talks.retry_all(function))

    async def dead_delete(self, handle: str | bytes) -> bool:
        """Forget a dead letter. Returns whether there was one."""
        return await self.hold(dead_talks.delete(handle))

    async def dead_delete_all(self, function: str | bytes | None = None) -> int:
        """Forget all of them, of one function or of all. Returns how many there were."""
        return await self.hold(dead_talks.delete_all(function))

    # Schedules

    async def schedules(self) -> list[ScheduleStatus]:
        """Every schedule, oldest first."""
        return await self.hold(schedule_talks.schedules())

    async def schedule(self, name: str | bytes) -> ScheduleDetails | None:
        """All about one schedule, named by its handle, or by its unique where only one has it;
        None if there is none."""
        return await self.hold(schedule_talks.details(name))

    async def add_schedule(
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
        """As :meth:`trigear.Client.schedule`. Returns the schedule's handle."""
        return await self._client.schedule(
            function,
            when,
            workload,
            unique=unique,
            timezone=timezone,
            missed=missed,
            priority=priority,
        )

    async def pause_schedule(self, name: str | bytes) -> None:
        """Have a schedule make no runs until it is resumed."""
        await self.hold(schedule_talks.pause(name))

    async def resume_schedule(self, name: str | bytes) -> None:
        """Have a paused schedule go on; what was due meanwhile is left out."""
        await self.hold(schedule_talks.resume(name))

    async def run_schedule(self, name: str | bytes) -> bytes:
        """Have a schedule make a run at once. Returns the handle of its job."""
        return await self.hold(schedule_talks.run(name))

    async def remove_schedule(self, name: str | bytes) -> None:
        """Have no such schedule any more; jobs that it has made stay."""
        await self.hold(schedule_talks.remove(name))


@public
@asynccontextmanager
async def connect_admin(
    address: str | Address = "localhost",
    *,
    patience: float = PATIENCE,
    tls: ClientTLS | None = None,
    auth: Auth | None = None,
) -> AsyncIterator[Admin]:
    """Connect to the server that is to be looked into; the body's end hangs up.

    Args:
        address: `HOST[:PORT]`, `[IPV6]:PORT`, `gearman://HOST[:PORT]`, `gearmans://HOST[:PORT]`
            (TLS) or `unix:PATH`.
        patience: seconds that a call waits while the server is down, before it raises
            ConnectionLost.
        tls: whom to trust and who we are, as for :func:`trigear.connect`.
        auth: who to log in as, likewise.

    Raises:
        ConnectionLost: on entering, nobody answers there.
        LoginFailed: the server refuses the login, or it would not be safe.
        ConfigError: this is no address, or a file of TLS cannot be used.

    Cancellation: on entering, the attempt is given up.
    """
    async with connect(address, patience=patience, tls=tls, auth=auth) as client:
        yield Admin(client)
