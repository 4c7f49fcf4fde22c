"""Do jobs: handlers written for Trio, several jobs at once, on one connection.

::

    worker = Worker(max_jobs=16)

    @worker.function("reverse", timeout=30)
    async def reverse(job: WorkerJob) -> bytes:
        await job.status(1, 2)
        return job.workload[::-1]

    await worker.run("localhost:4730")

What the server hears of a job's end:

===============================  ==================================================================
the handler                      the server hears
===============================  ==================================================================
returns bytes, or nothing        WORK_COMPLETE
raises, or returns what is       WORK_EXCEPTION with the exception's name and text, and nothing
neither                          after it
is cancelled at its timeout      nothing: the same timeout is running at the server, which gives
                                 the job to somebody else
is cancelled from outside        nothing: the connection closes, and the server gives the job to
                                 somebody else; a failure would lose it
===============================  ==================================================================

Being cancelled: :meth:`Worker.run` cancels its handlers, sends what is queued for at most two
seconds and closes the connection. In a handler, ``job.status``, ``job.data`` and ``job.warning``
have queued what they were given before they can be cancelled.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import platform
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import trio

from trigear.errors import ConnectionLost, Refused, TrigearError
from trigear.protocol import events
from trigear.protocol.worker import State, WorkerConnection
from trigear.runtime.address import Address, parse_address
from trigear.runtime.link import Link, hidden_nursery, open_link, open_stream
from trigear.runtime.values import again, as_data, as_name

log: Final = logging.getLogger("trigear.worker")

LEAST_TIMEOUT_MS: Final = 1000
"""Servers raise shorter timeouts to this."""


class WorkerJob:
    """One job, as its handler sees it.

    ``workload`` is what was submitted; ``function``, ``handle`` and ``unique`` are its names.
    """

    __slots__ = ("_link", "function", "handle", "unique", "workload")

    def __init__(self, link: Link[WorkerConnection], assigned: events.Assigned) -> None:
        self._link = link
        self.function = assigned.function
        self.handle = assigned.handle
        self.unique = assigned.unique
        self.workload = assigned.workload

    def __repr__(self) -> str:
        return f"<job {_text(self.handle)} of function {_text(self.function)}>"

    async def status(self, numerator: int, denominator: int) -> None:
        """Say how far the job has got.

        Raises:
            ConnectionLost: the connection broke. The handler will be cancelled.
            LocalProtocolError: the job is over, or a number is negative.

        Cancellation: it is said nevertheless.
        """
        self._link.machine.work_status(self.handle, numerator, denominator)
        await self._sent()

    async def data(self, data: bytes) -> None:
        """Send a part of the result to those who wait for the job.

        Raises:
            ConnectionLost: the connection broke. The handler will be cancelled.
            LocalProtocolError: the job is over.

        Cancellation: it is sent nevertheless.
        """
        self._link.machine.work_data(self.handle, as_data(data))
        await self._sent()

    async def warning(self, data: bytes) -> None:
        """Send a warning to those who wait for the job.

        Raises:
            ConnectionLost: the connection broke. The handler will be cancelled.
            LocalProtocolError: the job is over.

        Cancellation: it is sent nevertheless.
        """
        self._link.machine.work_warning(self.handle, as_data(data))
        await self._sent()

    async def _sent(self) -> None:
        self._link.kick()
        await self._link.taken()


Handler = Callable[[WorkerJob], Awaitable[bytes | None]]
AnyHandler = TypeVar("AnyHandler", bound=Handler)


@dataclass(frozen=True, slots=True)
class _Function:
    handler: Handler
    timeout: float | None


class Worker:
    """A set of functions, and the will to do their jobs.

    Args:
        max_jobs: how many jobs it does at once on a connection.
        client_id: what the server calls it in its list of workers, one word; by default the name
            of the machine and the number of the process.

    Raises:
        ValueError: ``max_jobs`` is less than one.
    """

    def __init__(self, *, max_jobs: int = 1, client_id: str | None = None) -> None:
        if max_jobs < 1:
            raise ValueError(f"max_jobs={max_jobs}: a worker does at least one job at a time")
        self.max_jobs = max_jobs
        self.client_id = client_id or f"{platform.node() or 'worker'}-{os.getpid()}"
        self._functions: dict[bytes, _Function] = {}

    def function(
        self, name: str | bytes, *, timeout: float | None = None
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Make the decorated coroutine function the handler of a function.

        It is returned unchanged. See :meth:`register`.
        """

        def decorate(handler: AnyHandler) -> AnyHandler:
            self.register(name, handler, timeout=timeout)
            return handler

        return decorate

    def register(
        self, name: str | bytes, handler: Handler, *, timeout: float | None = None
    ) -> None:
        """Make ``handler`` the handler of a function.

        Args:
            name: what clients call the function.
            handler: ``async def handler(job: WorkerJob) -> bytes``.
            timeout: seconds after which the handler is cancelled and the server gives the job to
                somebody else. Servers count less than one as one.

        Raises:
            TypeError: the handler is not a coroutine function.
            ValueError: the function has a handler already, or the timeout is not positive.
        """
        function = as_name(name)
        if not (
            inspect.iscoroutinefunction(handler)
            or inspect.iscoroutinefunction(getattr(handler, "__call__", None))  # noqa: B004
        ):
            raise TypeError(f"the handler of {_text(function)} must be an `async def` function")
        if function in self._functions:
            raise ValueError(f"{_text(function)} has a handler already")
        if timeout is not None and not 0 < timeout < math.inf:
            raise ValueError(f"timeout={timeout} of {_text(function)}: not a positive number")
        self._functions[function] = _Function(handler, timeout)

    async def run(
        self,
        address: str | Address,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Connect to a server and do jobs until cancelled.

        Args:
            address: `HOST[:PORT]`, `[IPV6]:PORT`, `gearman://HOST[:PORT]` or `unix:PATH`.
            task_status: for ``nursery.start``, which returns when the functions are announced.

        Raises:
            ConnectionLost: nobody answers there, or the connection broke. Its handlers were
                cancelled.
            Refused: the server hands out no jobs to this worker.
            ConfigError: this is no address.

        Cancellation: handlers are cancelled, and their jobs go to others.
        """
        where = parse_address(address) if isinstance(address, str) else address
        stream = await open_stream(where)
        await self.run_over(stream, name=str(where), task_status=task_status)

    async def run_over(
        self,
        stream: trio.abc.Stream,
        *,
        name: str = "the server",
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """As :meth:`run`, over a stream that leads to the server already; closes it.

        ``name`` is what the server is called in errors.
        """
        shift = _Shift(self._functions, self.max_jobs)
        async with (
            open_link(
                stream, WorkerConnection(), name, deliver=shift.deliver, ended=shift.end
            ) as link,
            hidden_nursery() as jobs,
        ):
            try:
                shift.begin(link, jobs, as_name(self.client_id))
                task_status.started()
                await shift.over.wait()
                jobs.cancel_scope.cancel()
            finally:
                shift.leave()
        assert shift.failure is not None
        raise shift.failure


class _Shift:
    """What a worker does on one connection, from the first word to the last."""

    def __init__(self, functions: dict[bytes, _Function], max_jobs: int) -> None:
        self.over = trio.Event()
        self.failure: TrigearError | None = None
        self._functions = functions
        self._max_jobs = max_jobs
        self._running = 0
        self._leaving = False
        self._link: Link[WorkerConnection]
        self._jobs: trio.Nursery

    def begin(self, link: Link[WorkerConnection], jobs: trio.Nursery, client_id: bytes) -> None:
        """Announce the functions and ask for work."""
        self._link, self._jobs = link, jobs
        machine = link.machine
        machine.set_client_id(client_id)
        for name, function in self._functions.items():
            if function.timeout is None:
                machine.can_do(name)
            else:
                timeout_ms = math.ceil(function.timeout * 1000)
                machine.can_do_timeout(name, max(timeout_ms, LEAST_TIMEOUT_MS))
        self._grab()
        link.kick()

    def end(self, failure: TrigearError) -> None:
        """Hear that this was all."""
        if self.failure is None:
            self.failure = again(failure) if isinstance(failure, ConnectionLost) else failure
            self.over.set()

    def leave(self) -> None:
        """Begin nothing any more: what is assigned now goes to others when the link is closed."""
        self._leaving = True

    def deliver(self, event: events.Event) -> None:
        if self._leaving:
            return
        match event:
            case events.Assigned():
                self._running += 1
                self._jobs.start_soon(self._do, event)
                self._grab()
            case events.NoJob():
                self._link.machine.sleep()
            case events.Woken():
                self._grab()
            case events.Disowned():
                log.warning(
                    "the server did not take an answer, its job went to somebody else: %s",
                    event.text,
                )
            case events.Refused():
                self.end(Refused(event.code, event.text))
            case _:
                raise AssertionError(f"a worker asked for nothing that {event!r} answers")

    def _grab(self) -> None:
        """Ask for another job if there is room for one, and nothing else is under way."""
        machine = self._link.machine
        room = self._running < self._max_jobs and not self._leaving
        if room and machine.state is State.AWAKE:
            machine.grab()

    async def _do(self, assigned: events.Assigned) -> None:
        """Do one job. Raises nothing but cancellation from outside."""
        machine = self._link.machine
        job = WorkerJob(self._link, assigned)
        function = self._functions.get(assigned.function)
        if function is None:
            log.error("%r was assigned, but was not offered", job)
            machine.work_fail(job.handle)
        else:
            await self._call(function, job)
        self._running -= 1
        if self._link.failure is None:
            self._grab()
            self._link.kick()

    async def _call(self, function: _Function, job: WorkerJob) -> None:
        """Run a handler and queue what comes of it, without a moment in between in which finished
        work could be cancelled."""
        machine = self._link.machine
        timeout = math.inf if function.timeout is None else function.timeout
        with trio.move_on_after(timeout):
            try:
                result = await function.handler(job)
                answer = b"" if result is None else as_data(result)
            except Exception as error:
                log.warning("%r raised", job, exc_info=error)
                if self._link.failure is None:
                    says = f"{type(error).__name__}: {error}"
                    machine.work_exception(job.handle, says.encode("utf-8", "backslashreplace"))
            else:
                if self._link.failure is None:
                    machine.work_complete(job.handle, answer)
            return
        log.warning("%r took longer than %g s and was cancelled", job, timeout)
        machine.forget(job.handle)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
