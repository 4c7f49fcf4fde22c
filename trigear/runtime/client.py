"""Submit jobs and wait for their ends, ask about jobs, give text commands.

::

    async with connect("localhost:4730") as client:
        answer = await client.submit("reverse", b"hello")

No call has a timeout: use ``trio.move_on_after`` and ``trio.fail_after``. What being cancelled
means:

=========================  ========================================================================
call                       cancelled means
=========================  ========================================================================
``connect``, entering      the attempt to connect is given up
``submit``                 you stop waiting; the job may have been sent, and may run
``submit_background``      whether the server has the job is unknown; submit it again with the same
                           ``unique`` to be sure
``open_job``, entering     as ``submit_background``
``open_job``, the body     as ``submit``; what the job still sends is dropped
``async for`` over a job   nothing is lost: go on iterating
``job.result``             nothing is lost: ask again
``job_status``, ``echo``,  you stop waiting; the answer is dropped when it comes
``admin``
``connect``, the body      what was queued is sent, for at most two seconds, then the connection
                           is closed; jobs that nobody waits for any more are dropped by the server
=========================  ========================================================================

In each case the connection stays usable for others.
"""

from __future__ import annotations

from collections import deque
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from trigear.errors import ConnectionLost, JobFailed, JobLost, JobRaised, Refused
from trigear.model import Priority
from trigear.protocol import events
from trigear.protocol.client import ClientConnection
from trigear.runtime.address import Address, parse_address
from trigear.runtime.link import Link, open_link, open_stream
from trigear.runtime.values import JobStatus, again, as_data, as_name

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from trigear.protocol.asking import Request


class _Waiting:
    """One who waits for the reply to a request."""

    __slots__ = ("_done", "_failure", "_reply")

    def __init__(self) -> None:
        self._done = trio.Event()
        self._reply: events.OfRequest | None = None
        self._failure: ConnectionLost | None = None

    def hear(self, event: events.OfRequest) -> bool:
        """Take an event in, and say whether it was the last one."""
        self._reply = event
        self._done.set()
        return True

    def lose(self, failure: ConnectionLost) -> None:
        """Hear that there will be no more events."""
        self._failure = failure
        self._done.set()

    async def reply(self) -> events.OfRequest:
        """Wait for the reply.

        Raises:
            Refused: the server answered ERROR.
            ConnectionLost: the connection broke before the reply came.
        """
        await self._done.wait()
        if self._reply is None:
            assert self._failure is not None
            raise again(self._failure)
        if isinstance(self._reply, events.Refused):
            raise Refused(self._reply.code, self._reply.text)
        return self._reply


class Job(_Waiting):
    """A foreground job that the server has accepted; made by :meth:`Client.open_job`.

    Iterate over it for its updates; :meth:`result` waits for its end. All its data are kept for
    the result, whether they were iterated over or not.
    """

    __slots__ = ("_changed", "_end", "_handle", "_parts", "_updates")

    def __init__(self) -> None:
        super().__init__()
        self._handle: bytes | None = None
        self._updates: deque[events.Update] = deque()
        self._parts: list[bytes] = []
        self._end: events.End | None = None
        self._changed = trio.lowlevel.ParkingLot()

    @property
    def handle(self) -> bytes:
        """The job's name at the server."""
        assert self._handle is not None, "a job is handed out with its handle"
        return self._handle

    def hear(self, event: events.OfRequest) -> bool:
        last = False
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
                if isinstance(event, events.Data):
                    self._parts.append(event.data)
            case events.Completed() | events.Failed() | events.Raised():
                self._end = event
                last = True
            case _:
                last = super().hear(event)
        self._changed.unpark_all()
        return last

    def lose(self, failure: ConnectionLost) -> None:
        super().lose(failure)
        self._changed.unpark_all()

    @property
    def _over(self) -> bool:
        return self._end is not None or self._failure is not None

    def __aiter__(self) -> Job:
        return self

    async def __anext__(self) -> events.Update:
        """The next Status, Data or Warning, until the job is over, however it ended."""
        await trio.lowlevel.checkpoint()
        while not self._updates:
            if self._over:
                raise StopAsyncIteration
            await self._changed.park()
        return self._updates.popleft()

    async def result(self) -> bytes:
        """Wait for the end of the job.

        Returns:
            All its data, and what it completed with.

        Raises:
            JobFailed: it failed.
            JobRaised: it raised an exception.
            JobLost: the connection broke before the end was known; the job may still run.
        """
        await trio.lowlevel.checkpoint()
        while not self._over:
            await self._changed.park()
        match self._end:
            case events.Completed(data=data):
                return b"".join([*self._parts, data])
            case events.Failed():
                raise JobFailed(self.handle)
            case events.Raised(data=data):
                raise JobRaised(self.handle, data)
            case None:
                assert self._failure is not None
                raise JobLost(self.handle) from again(self._failure)


class Client:
    """A connection to a server that submits jobs. Made by :func:`connect`.

    Any number of tasks may use it at once.
    """

    def __init__(self) -> None:
        self._waiting: dict[Request, _Waiting] = {}
        self._link: Link[ClientConnection]

    async def submit(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: Priority = Priority.NORMAL,
    ) -> bytes:
        """Submit a job and wait for its end.

        Args:
            function: what the workers that can do it call it.
            workload: what the worker is given.
            unique: submissions to one function with the same unique become one job; ``-`` stands
                for the workload itself, nothing for no such joining.
            priority: jobs of higher priority are taken first.

        Returns:
            All the data that the job sent, and what it completed with.

        Raises:
            JobFailed: the job failed.
            JobRaised: the job raised an exception in its worker.
            JobLost: the connection broke while the job was under way.
            Refused: the server did not accept the job.
            ConnectionLost: the connection broke before the server said that it has the job.
            LocalProtocolError: a name that cannot be sent.
            TypeError: the workload is not bytes.

        Cancellation: you stop waiting. The job may have been sent, and may run.
        """
        async with self.open_job(function, workload, unique=unique, priority=priority) as job:
            return await job.result()

    @asynccontextmanager
    async def open_job(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: Priority = Priority.NORMAL,
    ) -> AsyncIterator[Job]:
        """Submit a job and follow it. The body begins when the server has the job.

        Arguments are those of :meth:`submit`.

        Raises:
            Refused: the server did not accept the job.
            ConnectionLost: the connection broke before the server said that it has the job.
            LocalProtocolError: a name that cannot be sent.
            TypeError: the workload is not bytes.

        Cancellation: on entering, whether the server has the job is unknown. In the body, you stop
        listening; the job may run.
        """
        job = Job()
        self._link.check()
        token = self._link.machine.submit(
            as_name(function), as_data(workload), unique=as_name(unique), priority=priority
        )
        with self._listening(token, job):
            await job.reply()
            yield job

    async def submit_background(
        self,
        function: str | bytes,
        workload: bytes,
        *,
        unique: str | bytes = b"",
        priority: Priority = Priority.NORMAL,
    ) -> bytes:
        """Submit a job that goes on without us.

        Arguments are those of :meth:`submit`.

        Returns:
            The job's handle.

        Raises:
            Refused: the server did not accept the job.
            ConnectionLost: the connection broke before the server said that it has the job.
            LocalProtocolError: a name that cannot be sent.
            TypeError: the workload is not bytes.

        Cancellation: whether the server has the job is unknown.
        """
        self._link.check()
        reply = await self._reply_to(
            self._link.machine.submit(
                as_name(function),
                as_data(workload),
                unique=as_name(unique),
                priority=priority,
                background=True,
            )
        )
        assert isinstance(reply, events.Created)
        return reply.handle

    async def job_status(self, handle: bytes) -> JobStatus:
        """Ask about a job.

        Raises:
            ConnectionLost: the connection broke before the answer came.

        Cancellation: you stop waiting.
        """
        self._link.check()
        reply = await self._reply_to(self._link.machine.get_status(handle))
        assert isinstance(reply, events.StatusResult)
        return JobStatus(reply.known, reply.running, reply.numerator, reply.denominator)

    async def echo(self, data: bytes) -> bytes:
        """Have the server send the same bytes back: it is alive, and has read all before them.

        Raises:
            ConnectionLost: the connection broke before the answer came.

        Cancellation: you stop waiting.
        """
        self._link.check()
        reply = await self._reply_to(self._link.machine.echo(as_data(data)))
        assert isinstance(reply, events.Echoed)
        return reply.data

    async def admin(self, line: str) -> list[str]:
        """Give a text command, such as ``status``.

        Returns:
            The lines of the answer, without the dot that closes a list.

        Raises:
            Refused: the server answered with an `ERR` line.
            ConnectionLost: the connection broke before the answer was complete.
            LocalProtocolError: this is no line.

        Cancellation: you stop waiting. The command may have been carried out.
        """
        self._link.check()
        reply = await self._reply_to(self._link.machine.command(as_name(line)))
        assert isinstance(reply, events.Answer)
        return [answer.decode("utf-8", "surrogateescape") for answer in reply.lines]

    async def _reply_to(self, token: Request) -> events.OfRequest:
        waiting = _Waiting()
        with self._listening(token, waiting):
            return await waiting.reply()

    @contextmanager
    def _listening(self, token: Request, waiting: _Waiting) -> Iterator[None]:
        """Deliver the events of a request while the body runs, and drop them after it."""
        self._waiting[token] = waiting
        self._link.kick()
        try:
            yield
        finally:
            if self._waiting.pop(token, None) is not None:
                self._link.machine.abandon(token)

    def _deliver(self, event: events.Event) -> None:
        assert isinstance(event, events.OfRequest), "all that a client hears is about a request"
        waiting = self._waiting.get(event.token)
        if waiting is not None and waiting.hear(event):
            del self._waiting[event.token]

    def _ended(self, failure: ConnectionLost) -> None:
        for waiting in self._waiting.values():
            waiting.lose(failure)
        self._waiting.clear()


@asynccontextmanager
async def connect(address: str | Address, *, client_id: str | None = None) -> AsyncIterator[Client]:
    """Connect to a server that jobs shall be submitted to.

    Args:
        address: `HOST[:PORT]`, `[IPV6]:PORT`, `gearman://HOST[:PORT]` or `unix:PATH`.
        client_id: what the server's list of connections calls this one; one word.

    Raises:
        ConnectionLost: nobody answers there.
        ConfigError: this is no address.

    Cancellation: the attempt is given up; in the body, what was queued is sent first.
    """
    where = parse_address(address) if isinstance(address, str) else address
    stream = await open_stream(where)
    async with open_client(stream, name=str(where), client_id=client_id) as client:
        yield client


@asynccontextmanager
async def open_client(
    stream: trio.abc.Stream, *, name: str = "the server", client_id: str | None = None
) -> AsyncIterator[Client]:
    """As :func:`connect`, over a stream that leads to the server already; closes it.

    ``name`` is what the server is called in errors.
    """
    client = Client()
    async with open_link(
        stream, ClientConnection(), name, deliver=client._deliver, ended=client._ended
    ) as link:
        client._link = link
        if client_id is not None:
            link.machine.set_client_id(as_name(client_id))
        # Without this option a job that raises looks like one that fails. Servers that do not know
        # it say so; then that is how it is.
        link.machine.abandon(link.machine.option(b"exceptions"))
        link.kick()
        yield client
