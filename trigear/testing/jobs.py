"""Jobs without a server, to call handlers with: they keep what a handler says."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from trigear.errors import LocalProtocolError
from trigear.protocol.events import Assigned
from trigear.protocol.worker import WorkerConnection
from trigear.runtime.job import ThreadJob, WorkerJob, text
from trigear.runtime.link import reraise
from trigear.runtime.telling import as_result
from trigear.runtime.values import as_data, as_name

if TYPE_CHECKING:
    from trigear.runtime.crew import Function
    from trigear.runtime.worker import Worker

HANDLE: Final = b"H:fake:1"


class Notes:
    """Where the updates of a fake job go: past the checks of a real connection, into lists."""

    __slots__ = ("data", "machine", "statuses", "warnings")

    def __init__(self, handle: bytes) -> None:
        self.machine = WorkerConnection()
        self.machine.held[handle] += 1
        self.statuses: list[tuple[int, int]] = []
        self.data: list[bytes] = []
        self.warnings: list[bytes] = []

    def work_status(self, handle: bytes, numerator: int, denominator: int) -> None:
        self.machine.work_status(handle, numerator, denominator)
        self.statuses.append((numerator, denominator))

    def work_data(self, handle: bytes, data: bytes) -> None:
        self.machine.work_data(handle, data)
        self.data.append(data)

    def work_warning(self, handle: bytes, data: bytes) -> None:
        self.machine.work_warning(handle, data)
        self.warnings.append(data)

    async def sent(self) -> None:
        await trio.lowlevel.checkpoint()
        self.machine.take()


class Record:
    """What a fake job has kept; the same for every kind of handler."""

    __slots__ = ()

    def _kept(self) -> Notes:
        raise NotImplementedError

    @property
    def statuses(self) -> list[tuple[int, int]]:
        """What the handler said of its progress, each as numerator and denominator."""
        return self._kept().statuses

    @property
    def sent(self) -> list[bytes]:
        """The data that the handler sent before its end."""
        return self._kept().data

    @property
    def warnings(self) -> list[bytes]:
        """The warnings that the handler sent."""
        return self._kept().warnings


class FakeJob(WorkerJob, Record):
    """A job for a handler on Trio that was submitted by nobody.

    It is a :class:`trigear.WorkerJob`, with the same checks, and keeps what it is told: in
    ``statuses``, ``sent`` and ``warnings``. :func:`call` puts what the handler returned into
    ``result``. To see what a handler does once nothing is wanted from it any more, set ``over``.

    Args:
        workload: what was submitted.
        function: what the function is called.
        unique: the unique, nothing for none.
        handle: the job's name at the server.

    Raises:
        TypeError: the workload is not bytes.
    """

    __slots__ = ("_notes", "result")

    def __init__(
        self,
        workload: bytes = b"",
        *,
        function: str | bytes = b"fake",
        unique: str | bytes = b"",
        handle: str | bytes = HANDLE,
    ) -> None:
        name = as_name(handle)
        self._notes = Notes(name)
        self.result: bytes | None = None
        assigned = Assigned(name, as_name(function), as_name(unique), b"", as_data(workload))
        super().__init__(assigned, self._notes)

    def _kept(self) -> Notes:
        return self._notes

    @property
    def answer(self) -> bytes:
        """What a client that waited for the job would have got: the data, and then the result."""
        return b"".join([*self.sent, self.result or b""])

    # Without Trio, for jobs that stand around this one.

    def note_status(self, numerator: int, denominator: int) -> None:
        self._check()
        self._notes.work_status(self.handle, numerator, denominator)

    def note_data(self, data: bytes) -> None:
        self._check()
        self._notes.work_data(self.handle, as_data(data))

    def note_warning(self, data: bytes) -> None:
        self._check()
        self._notes.work_warning(self.handle, as_data(data))


class FakeThreadJob(ThreadJob, Record):
    """A job for a handler that is a plain function; else as :class:`FakeJob`.

    It is a :class:`trigear.ThreadJob` that needs neither Trio nor a thread.
    """

    __slots__ = ("_fake",)

    def __init__(
        self,
        workload: bytes = b"",
        *,
        function: str | bytes = b"fake",
        unique: str | bytes = b"",
        handle: str | bytes = HANDLE,
    ) -> None:
        self._fake = FakeJob(workload, function=function, unique=unique, handle=handle)
        super().__init__(self._fake)

    def _kept(self) -> Notes:
        return self._fake._kept()

    @property
    def over(self) -> bool:
        return self._fake.over

    @over.setter
    def over(self, over: bool) -> None:
        self._fake.over = over

    def status(self, numerator: int, denominator: int) -> None:
        self._fake.note_status(numerator, denominator)

    def data(self, data: bytes) -> None:
        self._fake.note_data(data)

    def warning(self, data: bytes) -> None:
        self._fake.note_warning(data)


async def call(worker: Worker, function: str | bytes, job: FakeJob | bytes = b"") -> FakeJob:
    """Have a worker do one job, without a server: as it would, whatever kind the handler is.

    Args:
        worker: whose handler is called. It need not run.
        function: the name of the function.
        job: the workload, or a job that was made for this. A job is done once.

    Returns:
        The job, with what the handler said and, in ``result``, returned.

    Raises:
        ValueError: the worker has no such function.
        LocalProtocolError: the job was done before.
        trio.TooSlowError: the handler was cancelled at its timeout; others would do the job.
        TypeError: the handler returned neither bytes nor None; the client would get an exception.

    What the handler raises leaves as it is: a client would get a failure for
    :class:`trigear.JobFailed`, an exception for anything else.

    Cancellation: the handler is cancelled. A thread is left to itself.
    """
    name = as_name(function)
    if name not in worker.functions:
        known = ", ".join(map(text, worker.functions)) or "none"
        raise ValueError(f"{worker!r} has no function {text(name)}: there is {known}")
    fake = job if isinstance(job, FakeJob) else FakeJob(job)
    if fake.over:
        raise LocalProtocolError(f"{fake!r} is over: make another one")
    fake.function = name
    failure: BaseException | None = None
    async with worker.handlers() as functions:
        try:
            fake.result = await _done(functions[name], fake)
        except BaseException as error:
            # Held back, cancellation too: a loop that ends with it would pack it into a group.
            failure = error
        finally:
            fake.over = True
    if failure is not None:
        reraise(failure)
    return fake


async def _done(function: Function, job: FakeJob) -> bytes:
    """Run a handler within its timeout."""
    timeout = math.inf if function.timeout is None else function.timeout
    with trio.CancelScope(deadline=trio.current_time() + timeout) as scope:
        try:
            result = await function.call(job)
        except Exception as error:
            if not scope.cancel_called:
                raise
            # It stopped, in its own way.
            raise _too_slow(job, timeout) from error
        return as_result(result)
    raise _too_slow(job, timeout)


def _too_slow(job: FakeJob, timeout: float) -> trio.TooSlowError:
    return trio.TooSlowError(f"{job!r} was cancelled at its timeout of {timeout:g} s")


def call_blocking(worker: Worker, function: str | bytes, job: FakeJob | bytes = b"") -> FakeJob:
    """As :func:`call`, for tests without Trio."""
    return trio.run(call, worker, function, job)
