"""Do jobs: handlers of four kinds, several jobs at once, on several servers.

::

    worker = Worker(max_jobs=16)

    @worker.function("reverse", timeout=30)
    async def reverse(job: WorkerJob) -> bytes:
        await job.status(1, 2)
        return job.workload[::-1]

    await worker.run(["a.example:4730", "b.example:4730"])

===========================  ======================================================================
a handler that is            runs
===========================  ======================================================================
an `async def` function      as a task on Trio
a plain function             in a thread; its job is a :class:`ThreadJob`
`async def`, registered      as a task on one asyncio loop, which the worker runs inside Trio; its
with ``asyncio=True``        job is an :class:`AsyncioJob`
``program([...])``           as a program, once per job
===========================  ======================================================================

What the server hears of a job's end:

===============================  ==================================================================
the handler                      the server hears
===============================  ==================================================================
returns bytes, or nothing        WORK_COMPLETE
raises JobFailed                 WORK_FAIL
raises anything else, or         WORK_EXCEPTION with the exception's name and text, and nothing
returns what is neither          after it
is cancelled at its timeout      JOB_RELEASE: others will do it. A server without extended mode: the
                                 connection closes, which says the same
is cancelled from outside        nothing: the connection closes, and the server gives the job to
                                 somebody else; a failure would lose it
===============================  ==================================================================

Being cancelled: :meth:`Worker.run` cancels its handlers, gives them two seconds to answer, sends
what is queued for at most two more and closes its connections, so that the jobs go to others; it
returns when the handlers have ended. In a handler, ``job.status``, ``job.data`` and ``job.warning``
have queued what they were given before they can be cancelled. A thread is left to itself, its
answer is dropped. A handler that goes on three seconds after it was told to stop, at its timeout
or for another reason, loses its job and its place: others are begun beside it.
"""

from __future__ import annotations

import importlib
import inspect
import math
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from trigear.model import public
from trigear.runtime.crew import Crew, Function
from trigear.runtime.greeting import check_auth, check_tls
from trigear.runtime.job import ThreadJob, WorkerJob, text
from trigear.runtime.opening import check_trio
from trigear.runtime.posts import Server, places_of, work
from trigear.runtime.program import Program, program
from trigear.runtime.threads import in_thread
from trigear.runtime.values import as_name

if TYPE_CHECKING:
    from types import ModuleType

    from trigear.runtime.crew import Call
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientContext, ClientTLS

__all__ = [
    "Program",
    "ThreadJob",
    "Worker",
    "WorkerJob",
    "WorkerStatistics",
    "program",
]

HEARTBEAT_SECONDS: Final = 20.0
"""How often a server in extended mode is told that the worker lives. It gives up after three."""

Handler = Callable[[Any], Awaitable[bytes | None] | bytes | None]
"""A handler of any kind; the argument is the job as that kind sees it."""

AnyHandler = TypeVar("AnyHandler", bound=Callable[[Any], Any])


@public
@dataclass(frozen=True, slots=True)
class WorkerStatistics:
    """What a worker is doing, and has done since :meth:`Worker.run` was called.

    ``connections`` counts those on which functions are announced; ``running`` the jobs held at the
    moment. Of the others ``released`` were given back unharmed, ``lost`` had an end of which no
    server could be told or wanted to be. ``strays`` are handlers that go on, seconds after they
    were told to stop; others do their jobs.
    """

    connections: int = 0
    running: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    raised: int = 0
    released: int = 0
    lost: int = 0
    strays: int = 0


@public
class Worker:
    """A set of functions, and the will to do their jobs.

    Args:
        max_jobs: how many jobs it does at once.
        name: what servers call it in their lists of workers, one word; by default the name of the
            machine and the number of the process.
        heartbeat: seconds between the signs of life that a server in extended mode gets; it gives
            the jobs to others when three are missing. None: none.

    Raises:
        ValueError: one of them cannot be used.
    """

    def __init__(
        self,
        *,
        max_jobs: int = 1,
        name: str | None = None,
        heartbeat: float | None = HEARTBEAT_SECONDS,
    ) -> None:
        if max_jobs < 1:
            raise ValueError(f"max_jobs={max_jobs}: a worker does at least one job at a time")
        if name is not None and (not name or any(not char.isprintable() for char in name)):
            raise ValueError(f"name={name!r}: one word is needed")
        if name is not None and " " in name:
            raise ValueError(f"name={name!r}: one word is needed, without blanks")
        if heartbeat is not None and not 0 < heartbeat < math.inf:
            raise ValueError(f"heartbeat={heartbeat}: not a positive number of seconds")
        self.max_jobs = max_jobs
        self.name = name or f"{platform.node() or 'worker'}-{os.getpid()}"
        self.heartbeat = heartbeat
        self._functions: dict[bytes, Function] = {}
        self._limiter = trio.CapacityLimiter(threads_for(max_jobs))
        self._aio: ModuleType | None = None
        self._crew: Crew | None = None

    def __repr__(self) -> str:
        names = ", ".join(map(text, self._functions)) or "no functions"
        return f"<worker {self.name}: {names}>"

    def function(
        self,
        name: str | bytes,
        *,
        timeout: float | None = None,
        concurrency: int | None = None,
        asyncio: bool = False,
    ) -> Callable[[AnyHandler], AnyHandler]:
        """Make the decorated function the handler of a function.

        It is returned unchanged. See :meth:`register`.
        """
        if callable(name):
            raise TypeError(
                'name the function that clients ask for: @worker.function("name"), in parentheses'
            )

        def decorate(handler: AnyHandler) -> AnyHandler:
            self.register(name, handler, timeout=timeout, concurrency=concurrency, asyncio=asyncio)
            return handler

        return decorate

    def register(
        self,
        name: str | bytes,
        handler: Handler,
        *,
        timeout: float | None = None,
        concurrency: int | None = None,
        asyncio: bool = False,
    ) -> None:
        """Make ``handler`` the handler of a function.

        Args:
            name: what clients call the function.
            handler: called with the job; returns bytes, or None for an empty result.
            timeout: seconds after which the handler is cancelled and the job given back, for
                others to do.
            concurrency: how many jobs of this function are done at once, within ``max_jobs``.
            asyncio: whether the handler is written for asyncio; needs the package trio-asyncio.

        Raises:
            TypeError: the handler cannot be called with a job, or is no `async def` though it is
                for asyncio; or the name is none.
            ValueError: the function has a handler already, or the name or a number is no good.
            ImportError: trio-asyncio is not installed.
        """
        function = as_name(name)
        if not function or b"\0" in function:
            raise ValueError(f"function {name!r}: a name without NUL is needed")
        if function in self._functions:
            raise ValueError(f"{text(function)} has a handler already")
        if timeout is not None and not 0 < timeout < math.inf:
            raise ValueError(f"timeout={timeout} of {text(function)}: not a positive number")
        if concurrency is not None and concurrency < 1:
            raise ValueError(
                f"concurrency={concurrency} of {text(function)}: not a positive number"
            )
        call = self._call_for(text(function), handler, asyncio)
        self._functions[function] = Function(call, timeout, concurrency)

    def _call_for(self, name: str, handler: Handler, asyncio: bool) -> Call:
        if not callable(handler):
            raise TypeError(f"the handler of {name} cannot be called: {handler!r}")
        check_takes_a_job(name, handler)
        coroutine = inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
            getattr(handler, "__call__", None)  # noqa: B004
        )
        if asyncio:
            if not coroutine:
                raise TypeError(f"the handler of {name} is for asyncio: make it `async def`")
            if self._aio is None:
                self._aio = import_aio()
            call: Call = self._aio.from_asyncio(handler)
            return call
        if coroutine:
            return handler  # type: ignore[return-value]
        return in_thread(handler, self._limiter)  # type: ignore[arg-type]

    async def run(
        self,
        servers: Server | Sequence[Server],
        *,
        total: int | None = None,
        tls: ClientTLS | ClientContext | None = None,
        auth: Auth | None = None,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Connect to servers and do jobs, until cancelled or drained.

        A connection that breaks or cannot be made is tried again, after a wait that grows with
        the number of failures and is drawn by lot; what is the matter is logged. The same holds for
        a login that is refused by a server which has let us in before.

        Args:
            servers: one or several, each `HOST[:PORT]`, `[IPV6]:PORT`, `gearman://HOST[:PORT]`,
                `gearmans://HOST[:PORT]` (TLS), `unix:PATH`, an :class:`Address`, or an async
                function that opens a stream.
            total: how many jobs it does before it drains by itself; None: any number.
            tls: whom to trust and who we are, as for :func:`trigear.connect`; or a context that is
                made already, for who cannot read the files any more.
            auth: who to log in as on every connection, likewise.
            task_status: for ``nursery.start``, which returns when the functions are announced at
                one of the servers.

        Raises:
            Refused: a server hands out no jobs to this worker.
            LoginFailed: a server that has not let us in before refuses the login
                (:class:`LoginRefused`), or it would not be safe.
            ConfigError: an address is none, or a file of TLS cannot be used.
            ValueError: there is no server, or no function, or ``total`` is less than one.
            RuntimeError: this worker runs already; or this is not a Trio program, or a module that
                `trigear worker` is importing.

        Cancellation: handlers are cancelled, and their jobs go to others.
        """
        check_trio("worker.run", "From a shell, `trigear worker module:worker` runs it")
        if _importing is not None:
            raise RuntimeError(
                f"{_importing} runs its worker while it is imported, and `trigear worker` would"
                " run it: put that line under `if __name__ == '__main__':`"
            )
        check_tls(tls)
        check_auth(auth)
        places = places_of(servers, tls)
        if not self._functions:
            raise ValueError("this worker has no functions: register one first")
        if total is not None and total < 1:
            raise ValueError(f"total={total}: a worker does at least one job")
        if self._crew is not None:
            raise RuntimeError(f"{self!r} runs already")
        crew = self._crew = Crew(
            self._functions, self.max_jobs, as_name(self.name), self.heartbeat, total
        )
        try:
            async with self.handlers():
                await work(crew, places, auth, task_status)
        finally:
            self._crew = None
        if crew.failure is not None:
            raise crew.failure

    @asynccontextmanager
    async def handlers(self) -> AsyncIterator[Mapping[bytes, Function]]:
        """Its functions, which can be called while the block runs."""
        async with AsyncExitStack() as stack:
            if self._aio is not None:
                await stack.enter_async_context(self._aio.open_loop())
            yield self._functions

    @property
    def functions(self) -> tuple[bytes, ...]:
        """The names of its functions."""
        return tuple(self._functions)

    def limit(self, max_jobs: int) -> None:
        """Do so many jobs at once from the next :meth:`run` on.

        Raises:
            ValueError: it is less than one.
        """
        if max_jobs < 1:
            raise ValueError(f"max_jobs={max_jobs}: a worker does at least one job at a time")
        self.max_jobs = max_jobs
        self._limiter.total_tokens = threads_for(max_jobs)

    def drain(self, grace: float = math.inf) -> None:
        """Begin no job any more; :meth:`run` returns when those that run have ended.

        Jobs that have not ended after ``grace`` seconds are cancelled and given back, for others to
        do. Does nothing where the worker does not run. May be called again with another grace: the
        earliest end counts.
        """
        if self._crew is not None:
            self._crew.drain(grace)

    async def wait_draining(self) -> None:
        """Wait until the running worker begins to drain, whoever asked for it.

        Raises:
            RuntimeError: it does not run.
        """
        if self._crew is None:
            raise RuntimeError(f"{self!r} does not run")
        await self._crew.draining.wait()

    def statistics(self) -> WorkerStatistics:
        """What it is doing and has done; zeros where it does not run."""
        crew = self._crew
        if crew is None:
            return WorkerStatistics()
        counts = crew.counts
        return WorkerStatistics(
            connections=len(crew.shifts),
            running=sum(shift.jobs for shift in crew.shifts),
            started=counts.started,
            completed=counts.completed,
            failed=counts.failed,
            raised=counts.raised,
            released=counts.released,
            lost=counts.lost,
            strays=crew.strays,
        )


def threads_for(max_jobs: int) -> int:
    """Threads that so many jobs may take: places limit them, but for the strays."""
    return 2 * max_jobs


_importing: str | None = None


@contextmanager
def importing(module: str) -> Iterator[None]:
    """Let nothing run a worker in the block: its module is imported to be run by somebody else."""
    global _importing
    _importing = module
    try:
        yield
    finally:
        _importing = None


def check_takes_a_job(name: str, handler: Callable[..., object]) -> None:
    """Look whether a handler can be called as it will be.

    Raises:
        TypeError: it cannot.
    """
    try:
        signature = inspect.signature(handler)
    except ValueError:
        return  # written in C, and does not tell
    try:
        signature.bind(None)
    except TypeError as error:
        called = getattr(handler, "__name__", "handler")
        raise TypeError(
            f"the handler of {name} is called with the job, {called}(job), and cannot be: {error}"
        ) from None


def import_aio() -> ModuleType:
    """The module for handlers written for asyncio.

    Raises:
        ImportError: trio-asyncio is missing.
    """
    try:
        return importlib.import_module("trigear.runtime.aio")
    except ModuleNotFoundError as error:
        if error.name != "trio_asyncio":
            raise
        raise ImportError(
            "handlers for asyncio need the package trio-asyncio: pip install 'trigear[asyncio]'"
        ) from error
