"""One job, as its handler sees it: on Trio, in a thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVarTuple

import trio

from trigear.errors import LocalProtocolError
from trigear.model import printable, public
from trigear.runtime.values import as_data

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trigear.protocol.events import Assigned

Args = TypeVarTuple("Args")


class Outlet(Protocol):
    """Where the updates of a job go."""

    def work_status(self, handle: bytes, numerator: int, denominator: int) -> None: ...

    def work_data(self, handle: bytes, data: bytes) -> None: ...

    def work_warning(self, handle: bytes, data: bytes) -> None: ...

    async def sent(self) -> None:
        """Wait until what was said is on its way."""


@public
class WorkerJob:
    """One job, for a handler that runs on Trio.

    ``workload`` is what was submitted; ``function``, ``handle`` and ``unique`` are its names, as
    bytes. ``over`` says that nothing is wanted from the handler any more: it has ended, or the
    job's deadline has passed, or the job was cancelled.
    """

    __slots__ = ("_outlet", "function", "handle", "left_behind", "over", "unique", "workload")

    def __init__(self, assigned: Assigned, outlet: Outlet) -> None:
        self._outlet = outlet
        self.function = assigned.function
        self.handle = assigned.handle
        self.unique = assigned.unique
        self.workload = assigned.workload
        self.over = False
        # Set by a thread that works on the job, when it has ended, be it long after the job's end.
        self.left_behind: trio.Event | None = None

    def __repr__(self) -> str:
        return f"<job {text(self.handle)} of function {text(self.function)}>"

    async def status(self, numerator: int, denominator: int) -> None:
        """Say how far the job has got.

        Raises:
            ConnectionLost: the connection broke. The handler will be cancelled.
            LocalProtocolError: the job is over, or a number is negative.

        Cancellation: it is said nevertheless.
        """
        self._check()
        self._outlet.work_status(self.handle, numerator, denominator)
        await self._outlet.sent()

    async def data(self, data: bytes) -> None:
        """Send a part of the result to those who wait for the job.

        Raises:
            ConnectionLost: the connection broke. The handler will be cancelled.
            LocalProtocolError: the job is over.

        Cancellation: it is sent nevertheless.
        """
        self._check()
        self._outlet.work_data(self.handle, as_data(data))
        await self._outlet.sent()

    async def warning(self, data: bytes) -> None:
        """Send a warning to those who wait for the job.

        Raises:
            ConnectionLost: the connection broke. The handler will be cancelled.
            LocalProtocolError: the job is over.

        Cancellation: it is sent nevertheless.
        """
        self._check()
        self._outlet.work_warning(self.handle, as_data(data))
        await self._outlet.sent()

    def _check(self) -> None:
        # The machine's own check is not enough: the same job may have come back to this worker,
        # and what is left of its first run shall not speak for the second.
        if self.over:
            raise over(self)


class JobFace:
    """What a handler sees of its job where the calls are not those of Trio."""

    __slots__ = ("_job",)

    def __init__(self, job: WorkerJob) -> None:
        self._job = job

    def __repr__(self) -> str:
        return repr(self._job)

    @property
    def function(self) -> bytes:
        return self._job.function

    @property
    def handle(self) -> bytes:
        return self._job.handle

    @property
    def unique(self) -> bytes:
        return self._job.unique

    @property
    def workload(self) -> bytes:
        return self._job.workload

    @property
    def over(self) -> bool:
        return self._job.over


@public
class ThreadJob(JobFace):
    """One job, for a handler that is a plain function and runs in a thread.

    The same as :class:`WorkerJob`, with calls that block. A thread cannot be stopped from outside:
    ``over`` tells a handler that it works for nothing, and so does the LocalProtocolError that
    :meth:`status`, :meth:`data` and :meth:`warning` raise then.
    """

    __slots__ = ()

    def status(self, numerator: int, denominator: int) -> None:
        """As :meth:`WorkerJob.status`."""
        self._say(self._job.status, numerator, denominator)

    def data(self, data: bytes) -> None:
        """As :meth:`WorkerJob.data`."""
        self._say(self._job.data, data)

    def warning(self, data: bytes) -> None:
        """As :meth:`WorkerJob.warning`."""
        self._say(self._job.warning, data)

    def _say(self, call: Callable[[*Args], Awaitable[None]], *args: *Args) -> None:
        try:
            trio.from_thread.run(call, *args)
        except trio.RunFinishedError:
            # The program has left Trio, and its thread behind.
            raise over(self._job) from None


def over(job: WorkerJob) -> LocalProtocolError:
    """What is raised when something is said of a job that is over."""
    return LocalProtocolError(f"{job!r} is over: nothing can be said about it any more")


def text(name: bytes) -> str:
    """A name for people."""
    return printable(name)
