"""What a worker does on one connection, and the limits that all its connections share.

Theory of operation. The functions of a worker are sorted into *lanes*: one for all that have no
limit of their own, one for each that has. A lane has a connection of its own to every server, so
that it can stop grabbing while others go on: taking a function back instead would take its running
jobs away on gearmand. A grab takes a place (see :mod:`trigear.runtime.crew`), NO_JOB gives it back,
and a connection that finds no place stands in line until one is free.

How a job that does not end by itself is handed back depends on the server:

============================  ======================================  ============================
                              server in extended mode                 any other
============================  ======================================  ============================
its deadline passes           JOB_RELEASE `deadline`                  the connection is closed
the worker drains too long    JOB_RELEASE `drain`                     the connection is closed
the server says it timed out  JOB_RELEASE `deadline`, the answer owed (does not happen)
the server says it was        nothing                                 (does not happen)
cancelled
the worker is cancelled       the connection is closed                the connection is closed
============================  ======================================  ============================

A handler that goes on all the same hands nothing back until it ends or, three seconds later, is
taken for a stray: then this happens without it.

Closing takes all jobs of a connection along. So where a server is not in extended mode and a
function of the lane has a timeout, a connection carries one job at a time, and the lane opens
another connection whenever all are busy. Such servers are not told of the timeout either:
gearmand's timer outlives the job it was set for, and does harm when it fires.
"""

from __future__ import annotations

import logging
import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from trigear.errors import ConnectionLost, JobFailed, LoginRefused, Refused
from trigear.protocol import events
from trigear.protocol.worker import State, WorkerConnection
from trigear.runtime.crew import Held
from trigear.runtime.job import text
from trigear.runtime.telling import as_result, for_log, in_words
from trigear.runtime.values import again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trigear.runtime.crew import Call, Crew, Function, Lane
    from trigear.runtime.link import Link

log: Final = logging.getLogger("trigear.worker")

SLACK: Final = 1.0
"""Seconds by which the server's timeout is longer than the worker's: it is there for workers that
hang, and shall not race with the release of those that do not."""

LEAST_TIMEOUT_MS: Final = 1000
"""Servers raise shorter timeouts to this."""


class Shift:
    """What a worker does on one connection, from the first word to the last.

    ``greeted`` is set when the server has said who it is, ``heard`` when it has heard which
    functions are announced, where that is asked. ``over`` is set when the connection shall be left:
    because it broke, because everything is done, or because closing it is the only way to hand a
    job back.
    """

    link: Link[WorkerConnection]

    def __init__(self, crew: Crew, lane: Lane, need_another: Callable[[], object]) -> None:
        self.lane = lane
        self.crew = crew
        self.need_another = need_another
        self.greeted = trio.Event()
        self.heard = trio.Event()
        self.over = trio.Event()
        self.idle = trio.Event()
        self.alone = False
        """Whether the connection carries one job at a time."""
        self._held: set[Held] = set()
        self._leaving = False
        self._working = False  # between the greeting and the end

    # Beginning and end

    @property
    def jobs(self) -> int:
        """How many jobs it holds."""
        return len(self._held)

    @property
    def functions(self) -> set[bytes]:
        """The functions of the jobs that it holds."""
        return {job.function for job in self._held}

    @property
    def busy(self) -> bool:
        """Whether it holds jobs."""
        return bool(self._held)

    def greet(self, link: Link[WorkerConnection]) -> None:
        """Say who this is, and ask who the server is; ``greeted`` tells when it has answered."""
        self.link = link
        self.link.machine.set_client_id(self.crew.name)
        self.link.machine.extend()
        self.link.kick()

    def begin(self, *, asks: bool) -> None:
        """Announce the functions and ask for work.

        Args:
            asks: whether the server shall say that it has heard them: this user may not be allowed
                to do them, of which it says nothing else.
        """
        machine = self.link.machine
        self.alone = self.lane.timed and not machine.extended
        for name, function in self.lane.functions.items():
            if function.timeout is None or not machine.extended:
                machine.can_do(name)
            else:
                timeout_ms = math.ceil((function.timeout + SLACK) * 1000)
                machine.can_do_timeout(name, max(timeout_ms, LEAST_TIMEOUT_MS))
        self._working = True
        self.crew.shifts.append(self)
        if asks:
            machine.echo(b"")
        else:
            self.heard.set()
        self.grab()
        self.link.kick()

    def drain(self) -> None:
        """Begin nothing any more, and leave when nothing is left."""
        if self.link.machine.extended:
            # A server that keeps running jobs where they are shall not go on waking this worker.
            self._unregister()
        for job in self._held:
            job.stop_by(self.crew.drained_by)
        self._see_whether_done()

    def end(self, failure: ConnectionLost) -> None:
        """Hear that the connection broke."""
        self.greeted.set()
        self.heard.set()
        self.over.set()

    def leave(self) -> None:
        """Begin nothing any more, and stop what runs: it goes to others when the link is closed.

        ``idle`` tells when it has stopped.
        """
        self._leaving = True
        if self in self.crew.shifts:
            self.crew.shifts.remove(self)
        if self._working and self.link.machine.state is State.GRABBING:
            self.crew.give(self.lane, unused=True)
        self._working = False
        for job in self._held:
            job.stop()
        if not self._held:
            self.idle.set()

    async def beat(self) -> None:
        """Tell the server again and again that this worker lives."""
        interval = self.crew.heartbeat
        if interval is None or not self.link.machine.extended:
            return
        while self.link.failure is None:
            if self.link.expired:
                await trio.sleep(interval)
                continue
            self.link.machine.heartbeat(math.ceil(interval * 1000))
            self.link.kick()
            await trio.sleep(interval)

    def _unregister(self) -> None:
        machine = self.link.machine
        if machine.abilities and self.link.failure is None:
            machine.reset()
            self.link.kick()

    def _see_whether_done(self) -> None:
        idle = not self._held and self.link.machine.state is not State.GRABBING
        if self.crew.draining.is_set() and self._working and idle and not self.over.is_set():
            self._unregister()
            self.over.set()

    # The cycle

    def grab(self) -> None:
        """Ask for another job if there is a place for one, and nothing else is under way."""
        machine = self.link.machine
        usable = self._working and not self.over.is_set() and machine.state is State.AWAKE
        if self.link.expired:
            # The server would hang up, and give the jobs that are held to others.
            if not self._held:
                self.over.set()
            return
        if usable and not (self.alone and self._held) and self.crew.take(self):
            machine.grab()
            self.link.kick()

    def deliver(self, event: events.Event) -> None:
        if self._leaving:
            return
        match event:
            case events.Refused(code="AUTHENTICATION_REQUIRED"):
                self.crew.fail(LoginRefused(self.link.name, event.code, event.text))
            case events.OptionSet() | events.Refused() if not self._working:
                self.greeted.set()
            case events.Echoed():
                self.heard.set()
            case events.Assigned():
                self._begin(event)
            case events.NoJob():
                self.crew.give(self.lane, unused=True)
                if self.crew.draining.is_set():
                    self._see_whether_done()
                elif not self.link.expired:
                    self.link.machine.sleep()
            case events.Woken():
                self.grab()
            case events.Cancelled():
                for job in self._held:
                    if job.handle == event.handle:
                        job.notice = event.reason
                        job.stop()
            case events.Disowned():
                log.warning(
                    "the server did not take an answer, its job went to somebody else: %s",
                    event.text,
                )
            case events.Denied():
                names = ", ".join(sorted(map(text, self.lane.functions)))
                self.crew.fail(Refused(event.code, f"{event.text}: doing jobs of {names}"))
            case events.Refused():
                self.crew.give(self.lane, unused=True)
                self.crew.fail(Refused(event.code, event.text))
            case _:
                raise AssertionError(f"a worker asked for nothing that {event!r} answers")

    def _begin(self, assigned: events.Assigned) -> None:
        machine = self.link.machine
        function = self.lane.functions.get(assigned.function)
        job = Held(assigned, self, None if function is None else function.timeout)
        if function is None:
            log.error("%r was assigned, but was not offered", job)
            machine.work_fail(job.handle)
            self.crew.give(self.lane, unused=True)
            self.grab()
        elif self.crew.draining.is_set() and machine.extended:
            # It was on its way when the draining began.
            machine.release(job.handle, b"drain")
            self.crew.counts.released += 1
            self.crew.give(self.lane, unused=True)
            self._see_whether_done()
        else:
            self._held.add(job)
            self.crew.doing.add(job)
            self.crew.began()
            job.stop_by(min(job.deadline, self.crew.drained_by))
            self.crew.jobs.start_soon(self._do, job, function)
            if self.alone:
                self.need_another()
            else:
                self.grab()

    # Jobs

    async def _do(self, job: Held, function: Function) -> None:
        """Do one job. Raises nothing but what ends the program."""
        try:
            try:
                await self._call(job, function.call)
            finally:
                self.crew.busy.add(job.function)
                self._is_done_with(job)
            self._see_whether_done()
            if job.left_behind is not None:
                await self.crew.wait_for_thread(job, job.left_behind)
        except BaseException:
            # The whole worker is cancelled, or the program ends: no time to begin anything.
            self.crew.ending = True
            raise
        finally:
            self.crew.ended(job)
        self.grab()

    def _is_done_with(self, job: Held) -> None:
        """Nothing is said of the job any more."""
        job.over = True
        self._held.discard(job)
        self.link.kick()
        if self._leaving and not self._held:
            self.idle.set()

    def give_up_stray(self, job: Held) -> None:
        """The job's handler goes on although it was told to stop: do without it."""
        self._give_up(job)
        self._is_done_with(job)
        self.crew.stray(job)
        self._see_whether_done()
        self.grab()

    async def _call(self, job: Held, call: Call) -> None:
        """Run a handler and queue what comes of it, without a moment in between in which finished
        work could be cancelled."""
        with job.scope:
            try:
                result = await call(job)
            except Exception as error:
                if job.stray_since is not None:
                    log.debug("%r raised when nobody listened any more", job, exc_info=error)
                elif trio.current_effective_deadline() == -math.inf:
                    # It stopped, in its own way.
                    log.debug("%r raised when it was cancelled", job, exc_info=error)
                    self._give_up(job)
                else:
                    self._raised(job, error)
            else:
                if job.stray_since is None:
                    self._returned(job, result)
            return
        if job.stray_since is None:
            self._give_up(job)

    def _returned(self, job: Held, result: object) -> None:
        try:
            answer = as_result(result)
        except TypeError as error:
            # Where this was found says nothing about where it is wrong.
            self._raised(job, error.with_traceback(None))
            return
        if self._answerable(job):
            if job.scope.cancel_called:
                log.warning(
                    "%r was cancelled, and its handler returned a result all the same: it counts;"
                    " a handler that was interrupted lets Cancelled pass",
                    job,
                )
            self.link.machine.work_complete(job.handle, answer)
            self.crew.counts.completed += 1

    def _answerable(self, job: Held) -> bool:
        if self.link.open and job.notice is None:
            return True
        self.crew.counts.lost += 1
        if job.notice is not None:
            self._forget(job)
        return False

    def _raised(self, job: Held, error: Exception) -> None:
        failed = isinstance(error, JobFailed) and error.handle in {b"", job.handle}
        if failed:
            log.info("%r failed", job)
        else:
            log.warning("%r raised", job, exc_info=for_log(error))
        if not self._answerable(job):
            return
        if failed:
            self.link.machine.work_fail(job.handle)
            self.crew.counts.failed += 1
        else:
            says = in_words(error).encode("utf-8", "backslashreplace")
            self.link.machine.work_exception(job.handle, says)
            self.crew.counts.raised += 1

    def _give_up(self, job: Held) -> None:
        """Hand back a job whose handler was cancelled."""
        if job.notice is not None:
            log.warning("%r was cancelled: the server says %s", job, job.notice)
            self.crew.counts.lost += 1
            self._forget(job)
        elif self._leaving or self.link.failure is not None:
            self.crew.counts.lost += 1
        else:
            late = job.deadline <= trio.current_time()
            why = (
                f"took longer than its timeout of {job.timeout:g} s"
                if late
                else "did not end in time for the end of the worker"
            )
            log.warning("%r %s and was cancelled; others will do it", job, why)
            self.crew.counts.released += 1
            self._release(job, b"deadline" if late else b"drain")

    def _forget(self, job: Held) -> None:
        """Take leave of a job that the server has taken away."""
        if self._leaving or self.link.failure is not None:
            return
        if job.notice == "timeout":
            # The server waits for a sign that this worker is done with it.
            self._release(job, b"deadline")
        else:
            self.link.machine.forget(job.handle)

    def _release(self, job: Held, reason: bytes) -> None:
        machine = self.link.machine
        if machine.extended:
            machine.release(job.handle, reason)
        else:
            machine.forget(job.handle)
            self.over.set()

    # What jobs say; see `trigear.runtime.job.Outlet`

    def work_status(self, handle: bytes, numerator: int, denominator: int) -> None:
        with self._saying():
            self.link.check()
        self.link.machine.work_status(handle, numerator, denominator)

    def work_data(self, handle: bytes, data: bytes) -> None:
        with self._saying():
            self.link.check()
        self.link.machine.work_data(handle, data)

    def work_warning(self, handle: bytes, data: bytes) -> None:
        with self._saying():
            self.link.check()
        self.link.machine.work_warning(handle, data)

    async def sent(self) -> None:
        self.link.kick()
        with self._saying():
            await self.link.taken()

    @contextmanager
    def _saying(self) -> Iterator[None]:
        """To a handler a connection that this side has left is as lost as any other."""
        try:
            yield
        except trio.ClosedResourceError as error:
            raise again(self.link.failure or ConnectionLost(*error.args)) from None
