"""The client's column of the connection machine: submit jobs, hear of them, ask about them.

Theory of operation. JOB_CREATED answers a submission by its place (see
:mod:`trigear.protocol.asking`); from then on the WORK packets name the handle. Several submissions
on one connection may get the same handle, because the server joins submissions with the same
unique; it then sends every WORK packet once for each of them, one behind the other. So the
submissions of a handle sit in a ring and the packets are dealt around it:

====================================================  =========================================
what comes for a handle                               what it does
====================================================  =========================================
JOB_CREATED for a foreground submission               the submission takes the last seat
JOB_CREATED for a background submission               nothing: it hears no more
WORK_STATUS, WORK_DATA, WORK_WARNING                  told to the first, who becomes the last
WORK_COMPLETE, WORK_FAIL, WORK_EXCEPTION              told to the first, who leaves
any of them for a handle without a ring               nothing; some servers end a job twice
====================================================  =========================================

An abandoned submission keeps its seat and its packets are absorbed.

In extended mode :meth:`ClientConnection.detach` has the server send it nothing more. JOB_DETACH has
no reply, and copies of packets may be under way, so the seat has to stay until the server has
certainly heard: an ECHO_REQ goes out behind the JOB_DETACH, and its reply, which is in order with
everything else, clears the seat. All copies of one packet leave the server together; so at that
moment the ring stands at the beginning of a round, and whoever leaves it takes no turn from others.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, ClassVar, Final

from trigear.errors import LocalProtocolError
from trigear.model import UNIQUE_LIMIT, Priority
from trigear.protocol.asking import ANSWERS, AskingConnection, Request, asking_rows
from trigear.protocol.connection import MAX_PACKET
from trigear.protocol.events import (
    Completed,
    Created,
    Data,
    Event,
    Failed,
    Raised,
    ResultTold,
    Status,
    StatusResult,
    UniqueStatusResult,
    Warning,
    number_in,
)
from trigear.wire.packets import (
    ECHO_REQ,
    ECHO_RES,
    GET_RESULT,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    JOB_CREATED,
    JOB_DETACH,
    RESULT,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_JOB_SCHED,
    SUBMIT_REDUCE_JOB,
    SUBMIT_REDUCE_JOB_BACKGROUND,
    Side,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trigear.protocol.asking import Answering
    from trigear.wire.codec import Row

_SUBMIT: Final = {
    (Priority.HIGH, False): SUBMIT_JOB_HIGH,
    (Priority.NORMAL, False): SUBMIT_JOB,
    (Priority.LOW, False): SUBMIT_JOB_LOW,
    (Priority.HIGH, True): SUBMIT_JOB_HIGH_BG,
    (Priority.NORMAL, True): SUBMIT_JOB_BG,
    (Priority.LOW, True): SUBMIT_JOB_LOW_BG,
}


class Submission(Request):
    """A submission: the token of its Created, and of everything about its job after that."""

    __slots__ = ("background", "detached", "handle")

    def __init__(self, number: int, *, background: bool) -> None:
        super().__init__(number)
        self.background = background
        self.detached = False
        self.handle: bytes | None = None


class _Fence(Request):
    """An ECHO_REQ behind a JOB_DETACH: what comes after its reply, the server sent knowingly."""

    __slots__ = ("submission",)

    def __init__(self, submission: Submission) -> None:
        super().__init__(ECHO_REQ)
        self.submission = submission
        self.abandoned = True


def _created(column: ClientConnection, asked: Submission, args: tuple[bytes, ...]) -> Event:
    (handle,) = args
    asked.handle = handle
    if not asked.background:
        column.seat(handle, asked)
        if asked.detached:
            column.send_detach(asked)
    return Created(asked, handle)


def _echoed(column: ClientConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    if isinstance(asked, _Fence):
        column.unseat(asked.submission)
    return ANSWERS[ECHO_RES](column, asked, args)


def _status(column: ClientConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    handle, known, running, numerator, denominator = args
    return StatusResult(
        asked,
        handle,
        known == b"1",
        running == b"1",
        number_in(numerator),
        number_in(denominator),
    )


def _status_unique(column: ClientConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    unique, known, running, numerator, denominator, clients = args
    return UniqueStatusResult(
        asked,
        unique,
        known == b"1",
        running == b"1",
        number_in(numerator),
        number_in(denominator),
        int(number_in(clients)),
    )


def _result(column: ClientConnection, asked: Request, args: tuple[bytes, ...]) -> Event:
    handle, state, attempts, ended, kept, data = args
    return ResultTold(
        asked,
        handle,
        state.decode("utf-8", "backslashreplace"),
        int(number_in(attempts)),
        number_in(ended) / 1000,
        data if kept == b"1" else None,
    )


class ClientConnection(AskingConnection):
    """The client's end of one connection.

    Args:
        max_packet: largest payload accepted from the server, in bytes.
    """

    __slots__ = ("_rings",)

    side = Side.CLIENT
    answers: ClassVar[Mapping[int, Answering]] = {
        **ANSWERS,
        ECHO_RES: _echoed,
        JOB_CREATED: _created,
        RESULT: _result,
        STATUS_RES: _status,
        STATUS_RES_UNIQUE: _status_unique,
    }
    rows: ClassVar[tuple[Row, ...]]

    def __init__(self, max_packet: int = MAX_PACKET) -> None:
        super().__init__(max_packet)
        self._rings: dict[bytes, deque[Submission]] = {}

    # Asking

    def submit(
        self,
        function: bytes,
        workload: bytes,
        *,
        unique: bytes = b"",
        priority: Priority = Priority.NORMAL,
        background: bool = False,
    ) -> Submission:
        """Submit a job: :class:`Created` or :class:`Refused`; updates and an end if foreground.

        Args:
            function: what the workers that can do it call it.
            workload: what the worker is given.
            unique: submissions to one function with the same unique become one job; ``-`` stands
                for the workload itself, nothing for no such joining.
            priority: jobs of higher priority are taken first.
            background: whether the job goes on without us, and tells us nothing but its handle.

        Raises:
            LocalProtocolError: a name that cannot be sent.
        """
        return self._submit(_SUBMIT[priority, background], background, function, unique, workload)

    def submit_at(
        self, function: bytes, workload: bytes, epoch: int, *, unique: bytes = b""
    ) -> Submission:
        """Submit a background job of normal priority that waits until its time.

        ``epoch`` is that time in seconds since 1970; the rest is as in :meth:`submit`.
        """
        return self._submit(SUBMIT_JOB_EPOCH, True, function, unique, b"%d" % epoch, workload)

    def submit_schedule(
        self, function: bytes, workload: bytes, fields: Sequence[bytes], *, unique: bytes = b""
    ) -> Submission:
        """Have a background job submitted again and again; the handle is that of the schedule.

        ``fields`` are the five of the packet, see :mod:`trigear.wire.cron`; the rest is as in
        :meth:`submit`.
        """
        return self._submit(SUBMIT_JOB_SCHED, True, function, unique, *fields, workload)

    def submit_reduce(
        self,
        function: bytes,
        workload: bytes,
        reducer: bytes,
        *,
        unique: bytes = b"",
        background: bool = False,
    ) -> Submission:
        """Submit a job whose worker passes its parts on to the function ``reducer``.

        The rest is as in :meth:`submit`; the priority is always normal.
        """
        number = SUBMIT_REDUCE_JOB_BACKGROUND if background else SUBMIT_REDUCE_JOB
        return self._submit(number, background, function, unique, reducer, b"", workload)

    def _submit(
        self, number: int, background: bool, function: bytes, unique: bytes, *rest: bytes
    ) -> Submission:
        if not function:
            raise LocalProtocolError("a job needs a function: its name is empty")
        if len(unique) > UNIQUE_LIMIT:
            raise LocalProtocolError(
                f"unique of {len(unique)} bytes: servers take {UNIQUE_LIMIT} at most; hash it"
            )
        submission = Submission(number, background=background)
        self.ask(number, function, unique, *rest, token=submission)
        return submission

    def detach(self, submission: Submission) -> None:
        """Wait no more for a foreground job; a server in extended mode is told so.

        The server drops the job if it has not started and nobody else waits for it. A submission
        that has no handle yet is detached as soon as it has; one whose end has come is only
        abandoned.
        """
        self.abandon(submission)
        if not submission.detached:
            submission.detached = True
            if submission.handle is not None:
                self.send_detach(submission)

    def send_detach(self, submission: Submission) -> None:
        """Tell the server that a submission with a handle waits no more, if it can be told."""
        handle = submission.handle
        assert handle is not None, "only what has a handle is detached"
        seated = submission in self._rings.get(handle, ())
        if self.extended and self.closing is None and seated:
            self.ask(JOB_DETACH, handle)
            self.ask(ECHO_REQ, b"", token=_Fence(submission))

    def get_status(self, handle: bytes) -> Request:
        """Ask about a job by its handle: :class:`StatusResult`."""
        return self.ask(GET_STATUS, handle)

    def get_status_unique(self, unique: bytes) -> Request:
        """Ask about a job by its unique: :class:`UniqueStatusResult`."""
        return self.ask(GET_STATUS_UNIQUE, unique)

    def get_result(self, handle: bytes) -> Request:
        """Ask what became of a job, and for its result: :class:`ResultTold`.

        Raises:
            LocalProtocolError: the server is not in extended mode, or not yet.
        """
        return self.ask(GET_RESULT, handle)

    # Hearing

    def seat(self, handle: bytes, submission: Submission) -> None:
        """Deal updates for this handle to this submission too."""
        ring = self._rings.get(handle)
        if ring is None:
            ring = self._rings[handle] = deque()
        ring.append(submission)

    def unseat(self, submission: Submission) -> None:
        """The server sends this submission no more updates."""
        handle = submission.handle
        assert handle is not None, "only what has a handle is detached"
        ring = self._rings.get(handle)
        if ring is not None and submission in ring:
            ring.remove(submission)
            if not ring:
                del self._rings[handle]

    def _deal(self, handle: bytes) -> Submission | None:
        """Whose update this is, or None if nobody's."""
        ring = self._rings.get(handle)
        if ring is None:
            return None
        first = ring[0]
        ring.rotate(-1)
        return None if first.abandoned else first

    def _deal_last(self, handle: bytes) -> Submission | None:
        """Whose end this is, or None if nobody's."""
        ring = self._rings.get(handle)
        if ring is None:
            return None
        first = ring.popleft()
        if not ring:
            del self._rings[handle]
        return None if first.abandoned else first

    def on_work_status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        if told := self._deal(handle):
            self._events.append(Status(told, handle, number_in(numerator), number_in(denominator)))

    def on_work_data(self, handle: bytes, data: bytes) -> None:
        if told := self._deal(handle):
            self._events.append(Data(told, handle, data))

    def on_work_warning(self, handle: bytes, data: bytes) -> None:
        if told := self._deal(handle):
            self._events.append(Warning(told, handle, data))

    def on_work_complete(self, handle: bytes, data: bytes) -> None:
        if told := self._deal_last(handle):
            self._events.append(Completed(told, handle, data))

    def on_work_fail(self, handle: bytes) -> None:
        if told := self._deal_last(handle):
            self._events.append(Failed(told, handle))

    def on_work_exception(self, handle: bytes, data: bytes) -> None:
        if told := self._deal_last(handle):
            self._events.append(Raised(told, handle, data))


ClientConnection.rows = asking_rows(ClientConnection)
