"""The load of `trigear bench`: jobs that do nothing, from and to as many connections as wanted.

Theory of operation. One thread turns a crank: whatever can be read is read and decoded, and every
connection answers all that came with one write. So the work per packet is small, and what remains
of it is measured beside the server: a generator that is busy all the time is itself the limit.

What is counted lies inside of *windows*. A window ends when everything that was asked inside it has
been answered, so that the jobs counted and the time taken belong together. Every answer is checked.
"""

from __future__ import annotations

import selectors
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final, TypeVar

from trigear.cli.report import Failure, Status
from trigear.errors import ConnectionLost
from trigear.model import printable
from trigear.protocol.connection import MAX_PACKET
from trigear.runtime.blocking_wire import Wire, open_socket, why_not
from trigear.wire.codec import RES, Decoder, request, rows_for
from trigear.wire.commands import LINE_LIMIT
from trigear.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    NO_JOB,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
    WORK_FAIL,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trigear.runtime.address import Address
    from trigear.wire.codec import Row

AnyLine = TypeVar("AnyLine", bound="Line")

CHUNK: Final = 1 << 18
"""Bytes read at a time."""

PATIENCE: Final = 10.0
"""Seconds without any answer after which the server is given up."""

_EVERYTHING: Final = 1 << 62


@dataclass
class Window:
    """What happened in a window: jobs, seconds, and how long each job took, with how many took so
    long."""

    jobs: int = 0
    seconds: float = 0.0
    own_cpu: float = 0.0
    latencies: list[tuple[float, int]] = field(default_factory=list)


class Line:
    """One connection of the generator.

    Subclasses name the packets they hear in ``rows`` and say in :meth:`react` what they do once all
    that came was decoded. What they append to ``out`` leaves in one piece.
    """

    rows: ClassVar[tuple[Row, ...]]

    def __init__(self, load: Load) -> None:
        self.load = load
        self.out: list[bytes] = []
        self.unsent = b""
        self.stopped = False  # the decoder asks for it
        self.decoder = Decoder(RES, self.rows, max_packet=MAX_PACKET, max_line=LINE_LIMIT)
        self.wire = load.dial()
        self.socket = self.wire.socket

    def react(self, now: float) -> None:
        raise NotImplementedError

    def receive(self, now: float) -> None:
        """Read and decode what has come, and react."""
        try:
            data = self.wire.receive(CHUNK)
        except BlockingIOError:
            return
        if not data:
            raise ConnectionLost(f"{self.load.address} closed a connection")
        self.decoder.feed(data)
        self.decoder.run(self, _EVERYTHING)
        self.react(now)

    def send(self) -> bool:
        """Send what there is to send; whether all of it went."""
        if self.out:
            self.unsent += self.wire.seal(self.out)
            self.out.clear()
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return False
        return True

    # What nobody expects

    def on_error(self, code: bytes, text: bytes) -> None:
        raise Failure(
            f"{self.load.address} refused to go on: {printable(text)} ({printable(code)})"
        )

    def _strange(self, what: str) -> None:
        raise Failure(f"{self.load.address} sent {what}: is it a Gearman server?", Status.NO_SERVER)

    def on_text(self, line: bytes) -> None:
        self._strange("text")

    def on_wrong_magic(self, number: int) -> None:
        self._strange(f"packet {number} as a request")

    def on_unknown_type(self, number: int) -> None:
        self._strange(f"packet {number}, which nobody asked for")

    def on_malformed(self, number: int) -> None:
        self._strange(f"packet {number} with too few arguments")

    def on_bad_magic(self, start: bytes) -> None:
        self._strange("bytes that are no packet")

    def on_too_large(self, number: int, size: int) -> None:
        self._strange(f"packet {number} of {size} bytes")

    def on_large_submission(self, number: int) -> None:
        self._strange(f"packet {number}")

    def on_line_too_long(self) -> None:
        self._strange("a line without an end")


class Submitter(Line):
    """Keeps so many submissions under way; waits for results, or in the background for handles."""

    def __init__(self, load: Load, outstanding: int, *, background: bool) -> None:
        super().__init__(load)
        self.outstanding = outstanding
        self.background = background
        self.packet = request(
            SUBMIT_JOB_BG if background else SUBMIT_JOB, load.function, b"", load.workload
        )
        self.under_way = 0
        self._unnamed: deque[tuple[float, int]] = deque()  # when how many were sent
        self._named: dict[bytes, float] = {}
        self._handles: list[bytes] = []
        self._over: list[bytes] = []

    def on_created(self, handle: bytes) -> None:
        self._handles.append(handle)

    def on_complete(self, handle: bytes, data: bytes) -> None:
        if data != self.load.workload:
            raise Failure(f"{self.load.address} returned another result than the worker sent")
        self._over.append(handle)

    def on_fail(self, handle: bytes) -> None:
        raise Failure(f"{self.load.address} let job {printable(handle)} fail, which no worker did")

    def react(self, now: float) -> None:
        latencies = self.load.window.latencies
        created = len(self._handles)
        if self.background:
            ended = created
            latencies += [(now - sent, count) for sent, count in self._taken(created)]
        else:
            ended = len(self._over)
            handles = iter(self._handles)
            for sent, count in self._taken(created):
                self._named.update((next(handles), sent) for _ in range(count))
            for handle in self._over:
                began = self._named.pop(handle, None)
                if began is None:
                    raise Failure(f"{self.load.address} ended a job that is not there")
                latencies.append((now - began, 1))
            self._over.clear()
        self._handles.clear()
        self.under_way -= ended
        self.load.window.jobs += ended
        self.submit(now)

    def _taken(self, count: int) -> Iterator[tuple[float, int]]:
        """When the oldest submissions without a handle were sent."""
        while count:
            if not self._unnamed:
                raise Failure(f"{self.load.address} took a job that was not submitted")
            sent, there = self._unnamed.popleft()
            if there > count:
                self._unnamed.appendleft((sent, there - count))
            count -= (taken := min(there, count))
            yield sent, taken

    def submit(self, now: float) -> None:
        """Submit as many as may be under way."""
        count = self.load.allow(self.outstanding - self.under_way)
        if count > 0:
            self.out.append(self.packet * count)
            self._unnamed.append((now, count))
            self.under_way += count

    rows = rows_for(
        {
            JOB_CREATED: on_created,
            WORK_COMPLETE: on_complete,
            WORK_FAIL: on_fail,
            ERROR: Line.on_error,
        }
    )


class Doer(Line):
    """A worker that returns each workload; it answers and asks for the next job in one write."""

    def __init__(self, load: Load, *, timed: bool) -> None:
        super().__init__(load)
        self.timed = timed
        self.asleep = False
        self.registered = False
        self._asked = 0.0
        self._grab = request(GRAB_JOB)
        self._did = 0
        self.out.append(request(CAN_DO, load.function) + request(ECHO_REQ, b""))

    def grab(self, now: float) -> None:
        """Ask for the first job."""
        self.out.append(self._grab)
        self.asleep = False
        self._asked = now

    def on_echo(self, _data: bytes) -> None:
        self.registered = True

    def on_assign(self, handle: bytes, function: bytes, workload: bytes) -> None:
        if function != self.load.function or workload != self.load.workload:
            raise Failure(f"{self.load.address} handed out another job than was submitted")
        self.out.append(request(WORK_COMPLETE, handle, workload))
        self.out.append(self._grab)
        self._did += 1

    def on_no_job(self) -> None:
        self.out.append(request(PRE_SLEEP))
        self.asleep = True

    def on_noop(self) -> None:
        if self.asleep:
            self.out.append(self._grab)
            self.asleep = False

    def react(self, now: float) -> None:
        if self._did:
            if self.timed:
                self.load.window.latencies.append(((now - self._asked) / self._did, self._did))
                self.load.window.jobs += self._did
            self._asked = now
            self._did = 0

    rows = rows_for(
        {
            ECHO_RES: on_echo,
            JOB_ASSIGN: on_assign,
            NO_JOB: on_no_job,
            NOOP: on_noop,
            ERROR: Line.on_error,
        }
    )


class Load:
    """The generator: its connections, its crank, its window.

    Args:
        address: the server.
        function: the name of the function, of which nobody else knows.
        workload: what every job is given, and returns.
        connect: makes a connection, and raises OSError; None: a plain one, without a login.
    """

    def __init__(
        self,
        address: Address,
        function: bytes,
        workload: bytes,
        connect: Callable[[], Wire] | None = None,
    ) -> None:
        self.address = address
        self._connect = connect or (lambda: Wire(open_socket(address, PATIENCE)))
        self.function = function
        self.workload = workload
        self.window = Window()
        self._left = 0  # how many may still be submitted
        self._until = 0.0
        self._lines: dict[Line, bool] = {}  # with whether it waits for the socket to take more
        self._selector = selectors.DefaultSelector()

    def dial(self) -> Wire:
        """A connection."""
        try:
            return self._connect()
        except OSError as error:
            lost = ConnectionLost(f"no connection to {self.address}: {why_not(error)}")
            raise lost from error

    def close(self) -> None:
        """Hang up everywhere."""
        for line in self._lines:
            self._selector.unregister(line.socket)
            line.wire.close()
        self._lines.clear()

    # Who takes part

    def submitters(self, count: int, outstanding: int, *, background: bool) -> list[Submitter]:
        return [
            self._joined(Submitter(self, outstanding, background=background)) for _ in range(count)
        ]

    def doers(self, count: int, *, timed: bool) -> list[Doer]:
        """Workers whose function the server knows."""
        doers = [self._joined(Doer(self, timed=timed)) for _ in range(count)]
        self.turn_until(lambda: all(doer.registered for doer in doers))
        return doers

    def _joined(self, line: AnyLine) -> AnyLine:
        self._selector.register(line.socket, selectors.EVENT_READ, line)
        self._lines[line] = False
        return line

    # Windows

    def allow(self, wanted: int) -> int:
        """How many of them may be submitted now."""
        if time.perf_counter() >= self._until:
            return 0
        allowed = min(wanted, self._left)
        self._left -= allowed
        return allowed

    @contextmanager
    def measured(self) -> Iterator[Window]:
        """A window around the block."""
        window = self.window = Window()
        began, cpu = time.perf_counter(), time.process_time()
        yield window
        window.seconds = time.perf_counter() - began
        window.own_cpu = time.process_time() - cpu

    def submit(self, submitters: list[Submitter], *, most: int, seconds: float) -> Window:
        """Submit for so long, or so many, and wait for what was asked."""
        with self.measured() as window:
            now = time.perf_counter()
            self._left, self._until = most, now + seconds
            for submitter in submitters:
                submitter.submit(now)
            self.turn_until(lambda: not any(submitter.under_way for submitter in submitters))
        return window

    def drain(self, doers: list[Doer]) -> Window:
        """Do jobs until there is none."""
        with self.measured() as window:
            now = time.perf_counter()
            for doer in doers:
                doer.grab(now)
            self.turn_until(lambda: all(doer.asleep for doer in doers))
        return window

    def turn_until(self, over: Callable[[], bool]) -> None:
        """Turn the crank until it is over.

        Raises:
            Failure: the server says nothing any more, or something wrong.
            ConnectionLost: a connection broke.
        """
        try:
            while True:
                for line, waiting in self._lines.items():
                    if line.out and not waiting:
                        self._send(line)
                if over():
                    return
                self._turn()
        except OSError as error:
            why = why_not(error)
            raise ConnectionLost(f"the connection to {self.address} broke: {why}") from error

    def _turn(self) -> None:
        ready = self._selector.select(PATIENCE)
        if not ready:
            late = f"{self.address} has not answered for {PATIENCE:g} s"
            raise Failure(late, Status.NO_SERVER)
        now = time.perf_counter()
        for key, mask in ready:
            if mask & selectors.EVENT_READ:
                key.data.receive(now)
            if mask & selectors.EVENT_WRITE:
                self._send(key.data)

    def _send(self, line: Line) -> None:
        waiting = not line.send()
        if waiting is not self._lines[line]:
            self._lines[line] = waiting
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if waiting else 0)
            self._selector.modify(line.socket, events, line)
