"""A client without Trio, for scripts and web views: each call waits for its answer.

::

    with connect_blocking("localhost:4730", timeout=10) as client:
        answer = client.submit("reverse", b"hello")

Several jobs can be under way at once: waiting for one of them takes in what arrives for the others.

Blocking code has no cancel scopes, so time limits are seconds here: ``timeout`` of the client, for
each of its calls. A call that runs out of time raises ``TimeoutError`` and means what cancelling
it would mean with the client for Trio:

=========================  ========================================================================
call                       running out of time means
=========================  ========================================================================
``connect_blocking``       the attempt to connect is given up, and the next server is tried
``submit``                 you stop waiting; the job may have been sent, and may run
``submit_background``      whether the server has the job is unknown; submit it again with the same
                           ``unique`` to be sure
``schedule``               whether the server has the schedule is unknown; ask again to be sure
``job``                    as ``submit_background``
iterating over a job       nothing is lost: go on iterating
``result`` of a job        nothing is lost: ask again
``status``, ``echo``,      you stop waiting; the answer is dropped when it comes
``status_of_unique``,
``admin``
``result`` of the client   you stop asking; ask again
=========================  ========================================================================

The connection stays usable in each case. When it breaks, it stays broken: connect again.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Final, Literal

from trigear.errors import JobFailed, JobLost, JobRaised, LocalProtocolError
from trigear.model import Priority, public
from trigear.protocol import events, schedule_talks
from trigear.runtime.blocking_link import Waiting, open_blocking_link
from trigear.runtime.order import SCHEDULE_IN_DOUBT, schedule_order
from trigear.runtime.result import Result, keeps_none, pauses, result_in
from trigear.runtime.talking import hold_blocking
from trigear.runtime.values import (
    JobStatus,
    again,
    as_data,
    as_name,
    as_priority,
    epoch_of,
    shown,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime
    from types import TracebackType
    from zoneinfo import ZoneInfo

    from trigear.protocol.asking import Request
    from trigear.runtime.address import Address
    from trigear.runtime.blocking_link import BlockingLink
    from trigear.runtime.values import AnyPriority

NOT_ACCEPTED: Final = "the server did not say that it has the job"


@public
class BlockingJob(Waiting):
    """A foreground job that the server has accepted; made by :meth:`BlockingClient.job`.

    Iterate over it for its updates; :meth:`result` waits for its end.
    """

    __slots__ = ("_client", "_end", "_handle", "_keep", "_parts", "_token", "_updates")

    def __init__(self, client: BlockingClient, token: Request, *, keep: bool) -> None:
        super().__init__()
        self._client = client
        self._token = token
        self._handle: bytes | None = None
        self._updates: deque[events.Update] = deque()
        self._keep = keep
        self._parts: list[bytes] = []
        self._end: events.End | None = None

    @property
    def handle(self) -> bytes:
        """The job's name at the server."""
        assert self._handle is not None, "a job is handed out with its handle"
        return self._handle

    @property
    def done(self) -> bool:
        """Whether no more will be heard of the job: it ended, or the connection broke."""
        return self._end is not None or self.failure is not None

    def hear(self, event: events.OfRequest) -> bool:
        match event:
            case events.Created():
                self._handle = event.handle
                super().hear(event)
            case events.Status():
                # Only the newest is of interest to a reader that is behind.
                if self._updates and isinstance(self._updates[-1], events.Status):
                    self._updates.pop()
                self._updates.append(event)
            case events.Data() | events.Warning():
                self._updates.append(event)
                if self._keep and isinstance(event, events.Data):
                    self._parts.append(event.data)
            case events.Completed() | events.Failed() | events.Raised():
                self._end = event
                return True
            case _:
                return super().hear(event)
        return False

    def __iter__(self) -> BlockingJob:
        return self

    def __next__(self) -> events.Update:
        """The next Status, Data or Warning, until the job is over, however it ended.

        Raises:
            TimeoutError: none came within the client's time. Nothing is lost: go on.
        """
        self._client._link.wait_for(
            lambda: bool(self._updates) or self.done,
            self._client._until(),
            f"nothing was heard of job {shown(self.handle)}",
        )
        if not self._updates:
            raise StopIteration
        return self._updates.popleft()

    def arrived(self) -> list[events.Update]:
        """The updates that have come and were not iterated over yet; waits for nothing."""
        found = list(self._updates)
        self._updates.clear()
        return found

    def result(self) -> bytes:
        """Wait for the end of the job.

        Returns:
            All its data, and what it completed with. Without ``keep``, only the latter.

        Raises:
            JobFailed: it failed.
            JobRaised: it raised an exception.
            JobLost: the connection broke before the end was known; the job may still run.
            TimeoutError: it did not end within the client's time. Nothing is lost: ask again.
        """
        return self._result(self._client._until())

    def _result(self, until: float | None) -> bytes:
        late = f"job {shown(self.handle)} did not end"
        self._client._link.wait_for(lambda: self.done, until, late)
        match self._end:
            case events.Completed(data=data):
                return b"".join([*self._parts, data])
            case events.Failed():
                raise JobFailed(self.handle)
            case events.Raised(data=data):
                raise JobRaised(self.handle, data)
            case None:
                assert self.failure is not None
                raise JobLost(self.handle) from again(self.failure)

    def forget(self) -> None:
        """Stop waiting for the job: what still comes of it is dropped.

        It may run; a trigear server drops it if it has not started and nobody else waits for it.
        """
        self._client._link.forget(self._token)


@public
class BlockingClient:
    """A connection to a server that submits jobs, for one thread at a time.

    Made by :func:`connect_blocking`. ``timeout`` is how many seconds each call may take, None for
    any time; set it whenever you like.
    """

    def __init__(self, link: BlockingLink, timeout: float | None) -> None:
        self.timeout = timeout
        self._link = link

    @property
    def address(self) -> Address:
        """Where the server is."""
        return self._link.address

    # Jobs

    def submit(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: AnyPriority = Priority.NORMAL,
    ) -> bytes:
        """Submit a job and wait for its end.

        Args:
            function: what the workers that can do it call it.
            workload: what the worker is given.
            unique: submissions to one function with the same unique become one job; ``-`` stands
                for the workload itself, nothing for no such joining.
            priority: jobs of higher priority are taken first: high, normal or low.

        Returns:
            All the data that the job sent, and what it completed with.

        Raises:
            JobFailed: the job failed.
            JobRaised: the job raised an exception in its worker.
            JobLost: the connection broke while the job was under way.
            Refused: the server did not accept the job.
            ConnectionLost: the connection broke before the server said that it has the job.
            TimeoutError: the job did not end in time; you stop waiting, it may run.
            LocalProtocolError: a name that cannot be sent, or the client is closed.
            TypeError: the workload is not bytes.
            ValueError: there is no such priority.
        """
        until = self._until()
        job = self._submit(function, workload, unique, priority, keep=True, until=until)
        try:
            return job._result(until)
        finally:
            job.forget()

    def submit_background(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: AnyPriority = Priority.NORMAL,
        at: datetime | float | None = None,
        delay: float | None = None,
    ) -> bytes:
        """Submit a job that goes on without us.

        Args:
            at: when it may begin, as a ``datetime`` with a time zone or in seconds since 1970;
                whole seconds, rounded up.
            delay: the same, in seconds from now by this machine's clock.

        The other arguments are those of :meth:`submit`. A job with a time has normal priority.

        Returns:
            The job's handle.

        Raises:
            Refused: the server did not accept the job.
            ConnectionLost: the connection broke before the server said that it has the job.
            TimeoutError: the server did not answer in time; whether it has the job is unknown.
            LocalProtocolError: a name that cannot be sent, a time that is none, a time together
                with a priority, or the client is closed.
            TypeError: the workload is not bytes.
            ValueError: there is no such priority.
        """
        name, data, key = as_name(function), as_data(workload), as_name(unique)
        rank, epoch = as_priority(priority), epoch_of(at, delay)
        self._link.check()
        if epoch is None:
            token = self._link.machine.submit(
                name, data, unique=key, priority=rank, background=True
            )
        elif rank is Priority.NORMAL:
            token = self._link.machine.submit_at(name, data, epoch, unique=key)
        else:
            raise LocalProtocolError("a job with a time of its own always has normal priority")
        reply = self._ask(token, NOT_ACCEPTED)
        assert isinstance(reply, events.Created)
        return reply.handle

    def schedule(
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
        """Have a background job submitted again and again, as :meth:`trigear.Client.schedule` does.

        Returns:
            The schedule's handle.

        Raises:
            Refused: the server did not accept it, or knows nothing of schedules.
            ConnectionLost: the connection broke before the server said that it has the schedule.
            TimeoutError: the server did not answer in time; asking again does no harm.
            LocalProtocolError, TypeError, ValueError: as there.
        """
        order = schedule_order(function, when, workload, unique, timezone, missed, priority)
        fields = order.fields()
        if fields is None:
            return hold_blocking(self.admin, schedule_talks.add(order))
        self._link.check()
        token = self._link.machine.submit_schedule(
            order.function, order.workload, fields, unique=order.unique
        )
        reply = self._ask(token, SCHEDULE_IN_DOUBT)
        assert isinstance(reply, events.Created)
        return reply.handle

    def job(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: AnyPriority = Priority.NORMAL,
        keep: bool = True,
    ) -> BlockingJob:
        """Submit a job and follow it; returns when the server has it.

        Several jobs may be under way at once.

        Args:
            keep: whether the data it sends on the way are kept for its result, too.

        The other arguments are those of :meth:`submit`.

        Raises:
            Refused: the server did not accept the job.
            ConnectionLost: the connection broke before the server said that it has the job.
            TimeoutError: the server did not answer in time; whether it has the job is unknown.
            LocalProtocolError: a name that cannot be sent, or the client is closed.
            TypeError: the workload is not bytes.
            ValueError: there is no such priority.
        """
        return self._submit(function, workload, unique, priority, keep=keep, until=self._until())

    # Questions

    def status(self, handle: str | bytes) -> JobStatus:
        """Ask about a job by its handle.

        Raises:
            ConnectionLost: the connection broke before the answer came.
            TimeoutError: the answer did not come in time.
        """
        self._link.check()
        reply = self._ask(self._link.machine.get_status(as_name(handle)))
        assert isinstance(reply, events.StatusResult)
        return JobStatus(reply.known, reply.running, reply.numerator, reply.denominator)

    def status_of_unique(self, unique: str | bytes) -> JobStatus:
        """Ask about a job by its unique.

        Raises:
            ConnectionLost: the connection broke before the answer came.
            Refused: the server cannot be asked this.
            TimeoutError: the answer did not come in time.
        """
        self._link.check()
        reply = self._ask(self._link.machine.get_status_unique(as_name(unique)))
        assert isinstance(reply, events.UniqueStatusResult)
        return JobStatus(
            reply.known, reply.running, reply.numerator, reply.denominator, reply.clients
        )

    def result(self, handle: str | bytes, *, wait: bool = False) -> Result:
        """Ask what became of a job, and for its result.

        Servers remember the outcome of each job for a while. Results are kept where the function's
        settings say so, see ``keep-results``.

        Args:
            handle: the job's name at the server.
            wait: whether to wait until the job is over, or unknown. The server is asked again and
                again for that, twenty times a second at first and once a second in the end.

        Raises:
            Refused: the result is kept, but cannot be read now.
            ConnectionLost: the connection broke before the answer came.
            LocalProtocolError: the server is none of trigear's.
            TimeoutError: the answer, or the end that was waited for, did not come in time. Nothing
                is lost: ask again.
        """
        link, name, until = self._link, as_name(handle), self._until()
        pause = pauses()
        while True:
            link.check()
            if not link.machine.extended:
                # It may not have said yet that it is; what it says is in order.
                self._ask(link.machine.echo(b""))
                if not link.machine.extended:
                    raise keeps_none(self.address)
            reply = self._ask(link.machine.get_result(name), until=until)
            assert isinstance(reply, events.ResultTold)
            result = result_in(reply)
            if result.settled or not wait:
                return result
            self._linger(next(pause), until, f"job {shown(name)} did not end")

    def _linger(self, seconds: float, until: float | None, late: str) -> None:
        """Let time pass, and take in what arrives for others meanwhile.

        Raises:
            TimeoutError: the time is up before; ``late`` says what did not happen.
        """
        end = time.monotonic() + seconds
        if until is not None and end > until:
            self._link.wait_for(lambda: False, until, late)
        while (left := end - time.monotonic()) > 0:
            self._link.turn(left)
            self._link.check()

    def echo(self, data: bytes) -> bytes:
        """Have the server send the same bytes back: it is alive, and has read all before them.

        Raises:
            ConnectionLost: the connection broke before the answer came.
            TimeoutError: the answer did not come in time.
        """
        self._link.check()
        reply = self._ask(self._link.machine.echo(as_data(data)))
        assert isinstance(reply, events.Echoed)
        return reply.data

    def admin(self, line: str | bytes) -> list[str]:
        """Give a text command, such as ``status``.

        Returns:
            The lines of the answer, without the dot that closes a list.

        Raises:
            Refused: the server answered with an `ERR` line.
            ConnectionLost: the connection broke before the answer was complete.
            LocalProtocolError: this is no line.
            TimeoutError: the answer did not come in time; the command may have been carried out.
        """
        self._link.check()
        reply = self._ask(self._link.machine.command(as_name(line)))
        assert isinstance(reply, events.Answer)
        return [answer.decode("utf-8", "surrogateescape") for answer in reply.lines]

    def wait(self) -> None:
        """Wait until the server says anything, of whichever job; see :meth:`BlockingJob.arrived`.

        Raises:
            ConnectionLost: the connection broke.
            TimeoutError: nothing came within the client's time.
        """
        self._link.check()
        if not self._link.turn(self.timeout):
            raise TimeoutError(f"nothing was heard in time: {self._link.address}")

    # The connection

    def close(self) -> None:
        """Hang up. The server drops jobs that nobody waits for any more, unless they run."""
        self._link.close()

    def __enter__(self) -> BlockingClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _submit(
        self,
        function: str | bytes,
        workload: bytes,
        unique: str | bytes,
        priority: AnyPriority,
        *,
        keep: bool,
        until: float | None,
    ) -> BlockingJob:
        self._link.check()
        token = self._link.machine.submit(
            as_name(function),
            as_data(workload),
            unique=as_name(unique),
            priority=as_priority(priority),
        )
        job = BlockingJob(self, token, keep=keep)
        self._link.listen(token, job)
        try:
            self._link.reply(job, until, NOT_ACCEPTED)
        except BaseException:
            self._link.forget(token)
            raise
        return job

    def _ask(
        self, token: Request, late: str = "no answer came", until: float | None = None
    ) -> events.OfRequest:
        waiting = Waiting()
        self._link.listen(token, waiting)
        try:
            return self._link.reply(waiting, until or self._until(), late)
        finally:
            self._link.forget(token)

    def _until(self) -> float | None:
        return None if self.timeout is None else time.monotonic() + self.timeout


@public
def connect_blocking(
    servers: str | Address | Iterable[str | Address],
    *,
    timeout: float | None = None,
    client_id: str | None = None,
) -> BlockingClient:
    """Connect to a server that jobs shall be submitted to, without Trio.

    Args:
        servers: `HOST[:PORT]`, `[IPV6]:PORT`, `gearman://HOST[:PORT]` or `unix:PATH`; or several of
            them, which are tried in their order.
        timeout: seconds that each attempt to connect and each call may take; None for any time.
        client_id: what the server's list of connections calls this one; one word.

    Returns:
        The connection; ``with`` closes it.

    Raises:
        ConnectionLost: nobody answers at any of them.
        ConfigError: this is no address.
        LocalProtocolError: the client id is not one word.
    """
    link = open_blocking_link(servers, timeout)
    try:
        if client_id is not None:
            link.machine.set_client_id(as_name(client_id))
        # Without the first option a job that raises looks like one that fails, without the second a
        # server does not hear that nobody waits for a job any more. Those that do not know them say
        # so; then that is how it is.
        link.machine.abandon(link.machine.option(b"exceptions"))
        link.machine.abandon(link.machine.extend())
    except BaseException:
        link.close()
        raise
    return BlockingClient(link, timeout)
