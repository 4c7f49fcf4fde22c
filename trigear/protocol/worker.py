"""The worker's column of the connection machine: offer functions, grab jobs, answer for them.

Theory of operation. A worker goes round this cycle; :data:`CYCLE` is the same as a table:

::

                    grab                     JOB_ASSIGN*
        ┌─────────────────────── AWAKE ◄──────────────────────┐
        │                       │     ▲                        │
        │                 sleep │     │ NOOP: Woken            │
        ▼                       ▼     │                        │
     GRABBING ◄─────────────── SLEEPING          NO_JOB, ERROR │
        │          grab                                        │
        └──────────────────────────────────────────────────────┘

NOOP may come in any state: the server may have sent it before it heard our GRAB_JOB. Only a
sleeper is told; for the others the answer to the grab says more than the NOOP did. One grab at a
time is enough, because its answer comes at once, job or no job; the jobs themselves overlap.

What the worker holds is apart from that cycle: a job is held from its assignment until it is
answered for or forgotten, and only then may WORK packets be sent for it. A server that gave the
job away in the meantime (it took too long) answers with ERROR `JOB_NOT_FOUND`; none of our
requests can be answered so, hence that ERROR answers none of them and is reported as
:class:`Disowned`. The same holds for `PERMISSION_DENIED`, which is about a function that was
offered: :class:`Denied`.
"""

from __future__ import annotations

import enum
from collections import Counter
from typing import TYPE_CHECKING, ClassVar, Final

from trigear.errors import LocalProtocolError
from trigear.model import printable
from trigear.protocol.asking import ANSWERS, AskingConnection, Request, asking_rows
from trigear.protocol.connection import MAX_PACKET
from trigear.protocol.events import Assigned, Cancelled, Denied, Disowned, Event, NoJob, Woken
from trigear.wire.packets import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ERROR,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    HEARTBEAT,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_RELEASE,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    RESET_ABILITIES,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    Side,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trigear.protocol.asking import Answering
    from trigear.wire.codec import Row

GRABS: Final = (GRAB_JOB, GRAB_JOB_UNIQ, GRAB_JOB_ALL)


class State(enum.Enum):
    """Where in its cycle a worker is."""

    AWAKE = "awake"
    GRABBING = "waiting for the answer to its grab"
    SLEEPING = "asleep"


CYCLE: Final[dict[tuple[State, int], State]] = {
    **{(state, grab): State.GRABBING for state in (State.AWAKE, State.SLEEPING) for grab in GRABS},
    (State.AWAKE, PRE_SLEEP): State.SLEEPING,
    (State.GRABBING, JOB_ASSIGN): State.AWAKE,
    (State.GRABBING, JOB_ASSIGN_UNIQ): State.AWAKE,
    (State.GRABBING, JOB_ASSIGN_ALL): State.AWAKE,
    (State.GRABBING, NO_JOB): State.AWAKE,
    (State.GRABBING, ERROR): State.AWAKE,
    (State.GRABBING, NOOP): State.GRABBING,
    (State.SLEEPING, NOOP): State.AWAKE,
    (State.AWAKE, NOOP): State.AWAKE,
}
"""What may be sent or heard in which state, and the state after that."""


def _assigned(column: WorkerConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    handle, function, unique, reducer, workload = args
    column.held[handle] += 1
    return Assigned(handle, function, unique, reducer, workload)


def _assign(column: WorkerConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    column.step(JOB_ASSIGN)
    handle, function, workload = args
    return _assigned(column, asked, (handle, function, b"", b"", workload))


def _assign_uniq(column: WorkerConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    column.step(JOB_ASSIGN_UNIQ)
    handle, function, unique, workload = args
    return _assigned(column, asked, (handle, function, unique, b"", workload))


def _assign_all(column: WorkerConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    column.step(JOB_ASSIGN_ALL)
    return _assigned(column, asked, args)


def _no_job(column: WorkerConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    column.step(NO_JOB)
    return NoJob()


def _error(column: WorkerConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    if asked.number in GRABS:
        column.step(ERROR)
    return ANSWERS[ERROR](column, asked, args)


class WorkerConnection(AskingConnection):
    """The worker's end of one connection.

    Args:
        max_packet: largest payload accepted from the server, in bytes.
    """

    __slots__ = ("abilities", "held", "state")

    side = Side.WORKER
    answers: ClassVar[Mapping[int, Answering]] = {
        **ANSWERS,
        ERROR: _error,
        JOB_ASSIGN: _assign,
        JOB_ASSIGN_UNIQ: _assign_uniq,
        JOB_ASSIGN_ALL: _assign_all,
        NO_JOB: _no_job,
    }
    rows: ClassVar[tuple[Row, ...]]

    def __init__(self, max_packet: int = MAX_PACKET) -> None:
        super().__init__(max_packet)
        self.state = State.AWAKE
        self.abilities: dict[bytes, int | None] = {}
        """The functions offered, each with its timeout in milliseconds or None."""
        self.held: Counter[bytes] = Counter()
        """How often each handle was assigned and not answered for. More than once only if the
        server took the job away and gave it back."""

    def step(self, number: int) -> None:
        """Go round the cycle by one packet, sent or heard."""
        after = CYCLE.get((self.state, number))
        if after is None:
            raise LocalProtocolError(f"{name_of(number)} while the worker is {self.state.value}")
        self.state = after

    # Functions

    def can_do(self, function: bytes) -> None:
        """Offer a function.

        Raises:
            LocalProtocolError: it is offered already, or it is no name.
        """
        self._offer(function, None)
        self.ask(CAN_DO, function)
        self.abilities[function] = None

    def can_do_timeout(self, function: bytes, timeout_ms: int) -> None:
        """Offer a function, and let the server give a job to somebody else after ``timeout_ms``.

        Servers count 1 to 999 ms as 1000.

        Raises:
            LocalProtocolError: it is offered already, or its name or the time is no good.
        """
        self._offer(function, timeout_ms)
        self.ask(CAN_DO_TIMEOUT, function, b"%d" % timeout_ms)
        self.abilities[function] = timeout_ms

    def cant_do(self, function: bytes) -> None:
        """Take a function back. Jobs held stay held.

        Raises:
            LocalProtocolError: it is not offered.
        """
        if function not in self.abilities:
            raise LocalProtocolError(f"CANT_DO for {function!r}, which is not offered")
        self.ask(CANT_DO, function)
        del self.abilities[function]

    def reset(self) -> None:
        """Take all functions back. Jobs held stay held."""
        self.ask(RESET_ABILITIES)
        self.abilities.clear()

    def _offer(self, function: bytes, timeout_ms: int | None) -> None:
        if not function or b"\0" in function:
            raise LocalProtocolError(f"function {function!r}: a name without NUL is needed")
        if function in self.abilities:
            # Servers would count the worker twice and keep the first timeout.
            raise LocalProtocolError(
                f"function {function!r} is offered already; take it back first"
            )
        if timeout_ms is not None and timeout_ms <= 0:
            raise LocalProtocolError(f"timeout of {timeout_ms} ms for {function!r}: not positive")

    # The cycle

    def grab(self, number: int = GRAB_JOB_UNIQ) -> None:
        """Ask for a job: :class:`Assigned`, :class:`NoJob` or (never seen) :class:`Refused`.

        ``number`` is GRAB_JOB, GRAB_JOB_UNIQ (for the unique too) or GRAB_JOB_ALL (and the
        reducer).

        Raises:
            LocalProtocolError: the last grab is not answered yet.
        """
        self._go(number)

    def sleep(self) -> None:
        """Tell the server to wake us: :class:`Woken` as soon as there is a job.

        Raises:
            LocalProtocolError: asleep already, or a grab is not answered yet.
        """
        self._go(PRE_SLEEP)

    def _go(self, number: int) -> None:
        before = self.state
        self.step(number)
        try:
            self.ask(number)
        except LocalProtocolError:
            self.state = before
            raise

    # Jobs

    def work_status(self, handle: bytes, numerator: int, denominator: int) -> None:
        """Say how far the job has got.

        Raises:
            LocalProtocolError: the job is not held, or a number is negative.
        """
        if numerator < 0 or denominator < 0:
            raise LocalProtocolError(f"status {numerator}/{denominator}: negative")
        self._work(WORK_STATUS, handle, b"%d" % numerator, b"%d" % denominator)

    def work_data(self, handle: bytes, data: bytes) -> None:
        """Send a part of the result. Raises LocalProtocolError if the job is not held."""
        self._work(WORK_DATA, handle, data)

    def work_warning(self, handle: bytes, data: bytes) -> None:
        """Send a warning. Raises LocalProtocolError if the job is not held."""
        self._work(WORK_WARNING, handle, data)

    def work_complete(self, handle: bytes, data: bytes) -> None:
        """Answer for the job. Raises LocalProtocolError if it is not held."""
        self._work(WORK_COMPLETE, handle, data)
        self.forget(handle)

    def work_fail(self, handle: bytes) -> None:
        """Say that the job failed. Raises LocalProtocolError if it is not held."""
        self._work(WORK_FAIL, handle)
        self.forget(handle)

    def work_exception(self, handle: bytes, data: bytes) -> None:
        """Say that the job raised an exception; nothing may follow it, in particular no failure.

        Raises LocalProtocolError if the job is not held.
        """
        self._work(WORK_EXCEPTION, handle, data)
        self.forget(handle)

    def release(self, handle: bytes, reason: bytes) -> None:
        """Give the job back unharmed; in extended mode only.

        The reason is `deadline`, which counts as a timeout, or `drain` or `refused`, which do not.

        Raises LocalProtocolError if the job is not held, or the server may not understand it.
        """
        self._work(JOB_RELEASE, handle, reason)
        self.forget(handle)

    def forget(self, handle: bytes) -> None:
        """Hold this job no more, without a word to the server.

        It will give the job to somebody else when its time is over or this connection ends.
        """
        self.held[handle] -= 1
        if self.held[handle] <= 0:
            del self.held[handle]

    def _work(self, number: int, handle: bytes, *args: bytes) -> None:
        if handle not in self.held:
            raise LocalProtocolError(f"{name_of(number)} for {handle!r}, which is not held")
        self.ask(number, handle, *args)

    # Extended mode

    def heartbeat(self, interval_ms: int) -> None:
        """Say that this worker lives, and will say so again within the interval; 0: no more.

        Raises:
            LocalProtocolError: the server may not understand it, or the interval is negative.
        """
        if interval_ms < 0:
            raise LocalProtocolError(f"heartbeat every {interval_ms} ms: negative")
        self.ask(HEARTBEAT, b"%d" % interval_ms)

    # Hearing

    def on_job_cancelled(self, handle: bytes, reason: bytes) -> None:
        # It may cross our answer: then there is nothing left to stop.
        if handle in self.held:
            self._events.append(Cancelled(handle, printable(reason)))

    def on_reply(self, number: int, args: tuple[bytes, ...]) -> None:
        if number == ERROR and args[0].upper() == b"JOB_NOT_FOUND":
            self._events.append(Disowned(printable(args[1])))
        elif number == ERROR and args[0] == b"PERMISSION_DENIED":
            self._events.append(Denied(printable(args[0]), printable(args[1])))
        else:
            super().on_reply(number, args)

    def on_noop(self) -> None:
        slept = self.state is State.SLEEPING
        self.step(NOOP)
        if slept:
            self._events.append(Woken())


WorkerConnection.rows = asking_rows(WorkerConnection)
