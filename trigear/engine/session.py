"""One connection of the server: requests become calls of the broker, its answers become packets.

A session knows the tenant and adds it to everything it asks of the broker. Which requests are
answered by ERROR and which are let pass in silence is decided by what programs in use do with an
ERROR they do not expect: a libgearman worker falls out of step for ever, a Perl worker dies. So
requests that have a reply are refused with ERROR, and of those that have none only WORK packets
for a job the connection never held; anything else is clamped or ignored, logged and counted.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, cast

from trigear.broker.broker import Late, OverQuota, QueueFull
from trigear.broker.dead import NOTE_LIMIT
from trigear.broker.jobs import RUNNING, Job
from trigear.broker.peers import Peer
from trigear.engine import admin, results, schedules
from trigear.engine.refusals import DENIED, FULL, STALLED, STOPPING, over
from trigear.engine.views import View
from trigear.model import (
    CONN_ID_LIMIT,
    FUNCTION_LIMIT,
    UNIQUE_LIMIT,
    CloseReason,
    JobEnd,
    Priority,
)
from trigear.protocol.server import ServerConnection, Slot, server_rows
from trigear.security.policy import ANONYMOUS
from trigear.wire.codec import head, response
from trigear.wire.packets import (
    ECHO_RES,
    ERROR,
    EXTENDED_OPTION,
    EXTENSIONS,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_CANCELLED,
    NO_JOB,
    OPTION_RES,
    PACKETS,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    name_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.engine.engine import Engine

log: Final = logging.getLogger("trigear.engine")

LEAST_TIMEOUT: Final = 1.0
"""Seconds. Programs that mean seconds send small numbers where milliseconds are expected."""

MOST_TIMEOUT: Final = 10 * 365 * 86400.0
"""Seconds. Larger timeouts count as this."""

_STATUS_LIMIT: Final = (1 << 32) - 1

LONG_ANSWER: Final = 65536
"""Bytes of an answer to a text command that are work enough for one turn."""

LEAST_HEARTBEAT: Final = 0.1
"""Seconds. Workers that promise to be heard more often are held to this."""

_JOIN_LIMIT: Final = 16384
"""Workloads larger than this leave as they are instead of being copied behind their header."""

_BESIDE_JOB: Final = 256
"""Bytes that a packet may have besides its job: NULs, a time, fields of cron."""

_NO_JOB: Final = response(NO_JOB)

_NOT_MINE: Final = "Job given in work result not found"
_NOT_MINE_DATA: Final = "Job does not exist on server"
_NOT_MINE_EXCEPTION: Final = "An exception was received for a job that does not exist"


def leading_int(text: bytes) -> int:
    """The decimal number at the start of ``text``, with its sign; 0 if there is none.

    gearmand reads numbers like this, and programs rely on it ("5 s", "0.5").
    """
    text = text.lstrip()[:20]
    end = 1 if text[:1] in (b"-", b"+") else 0
    while text[end : end + 1].isdigit():
        end += 1
    try:
        return int(text[:end])
    except ValueError:
        return 0


class About(NamedTuple):
    """What is known of who is at the other end of a connection; empty text for what is not.

    ``roles`` are those in force, ``tls`` is the version that is spoken, ``expires_at`` in seconds
    since 1970.
    """

    principal: str = ""
    roles: tuple[str, ...] = ()
    method: str = ""
    tls: str = ""
    expires_at: float | None = None


ANYBODY: Final = About(ANONYMOUS.principal, ANONYMOUS.role_names, ANONYMOUS.method)


class Session(ServerConnection):
    """The engine's end of one connection.

    Args:
        engine: the server.
        number: what the connection is called in the `workers` command and in logs.
        address: the peer's address as text, `-` if it has none.
    """

    __slots__ = (
        "_broker",
        "_engine",
        "_remarked",
        "address",
        "beat",
        "exceptions",
        "name",
        "number",
        "peer",
        "seat",
        "since",
        "used",
    )

    asked: ClassVar[bool] = False
    """Whether the peer has to say who it is."""

    def __init__(self, engine: Engine, number: int, address: str) -> None:
        super().__init__(engine.touch, engine.config.max_packet)
        self._engine = engine
        self._broker = engine.broker
        self.number = number
        self.address = address
        self.name = b"-"
        self.exceptions = engine.config.exceptions
        self.peer = Peer(engine.broker.tenant(engine.tenant_of(self)), self)
        self.seat = 0
        """The number of the connection in its tenant."""
        self.since = engine.now.monotonic
        self._remarked: tuple[str, ...] = ()
        self.beat: list[Any] | None = None
        """The timer of the next heartbeat, where the worker promised one."""
        self.used = False
        """Whether something was submitted here, so that the connection is somebody's for good."""

    def __repr__(self) -> str:
        return f"connection {self.number} ({self.address})"

    @property
    def oversees(self) -> bool:
        """Whether it may look at every tenant."""
        return self._engine.logins is None

    def ended(self) -> None:
        """The connection is no more, or not heard any more."""

    @property
    def view(self) -> View:
        """What this connection sees of the server."""
        return View(self._engine, self.peer.tenant)

    def about(self) -> About:
        """What is known of the peer."""
        return ANYBODY

    def act_for(self, tenant: str | None) -> tuple[str, str] | None:
        """Act for a tenant from now on, or for none any more; returns why not."""
        return DENIED

    def dismiss(self) -> None:
        """End the connection, because an operator says so."""
        self.close(CloseReason.DISMISSED)

    def whoami(self) -> bytes:
        """Identity, tenant, roles and method, as text."""
        about = self.about()
        fields = (about.principal, self.peer.tenant.name, ",".join(about.roles), about.method)
        return " ".join(field or "-" for field in fields).encode()

    def facts(self) -> dict[str, object]:
        """What the audit log says of this connection."""
        return {
            "connection": self.number,
            "peer": self.address,
            "tenant": self.peer.tenant.name,
        }

    def note(self, event: str, **facts: object) -> None:
        """Enter something about this connection into the audit log."""
        audit = self._engine.audit
        if audit.on:
            audit.note(event, self._engine.now, self.facts(), **facts)

    def first_time(self, what: str) -> bool:
        """Whether this is worth a line in the log: it did not happen here before."""
        if what in self._remarked:
            return False
        self._remarked += (what,)
        return True

    # What the broker says

    def wake(self) -> None:
        if not self._engine.hands_out_nothing:
            self.send_noop()

    def failed(self, handle: bytes) -> None:
        self.send(response(WORK_FAIL, handle))

    def cancelled(self, handle: bytes, reason: str) -> None:
        if self.extended:
            self.send(response(JOB_CANCELLED, handle, reason.encode()))

    def created(self, token: object, handle: bytes) -> None:
        self.fill(cast("Slot", token), self._engine.created_head(handle) + handle)

    def not_stored(self, token: object) -> None:
        self.fill(
            cast("Slot", token),
            response(ERROR, b"QUEUE_ERROR", b"The job could not be stored"),
        )

    # Any peer

    def on_command(self, line: bytes) -> None:
        arriving = self._engine.arriving
        if arriving is not None and admin.needs_every_job(line):
            arriving.wait(self, partial(self.on_command, line))
            return
        answer = admin.answer(self._engine, self, line)
        if answer is None:
            return  # it comes later
        self.send(answer)
        if len(answer) > LONG_ANSWER:
            self.end_turn()

    def on_echo_req(self, data: bytes) -> None:
        self._send_large(ECHO_RES, b"", data)

    def on_option_req(self, option: bytes) -> None:
        name = option.lower()
        if name == b"exceptions":
            self.exceptions = True
            self.send(response(OPTION_RES, option))
        elif name == EXTENDED_OPTION:
            self.extend()
            # What follows at once is to be heard with that in mind.
            self.end_turn()
            self.send(response(OPTION_RES, option))
        else:
            self.send_error("UNKNOWN_OPTION", "Server does not recognize given option")

    def on_set_client_id(self, name: bytes) -> None:
        self.name = name[:CONN_ID_LIMIT] or b"-"

    # Clients

    def on_submit_job(self, function: bytes, unique: bytes, workload: bytes) -> None:
        self._submit(function, unique, workload, Priority.NORMAL, False)

    def on_submit_job_bg(self, function: bytes, unique: bytes, workload: bytes) -> None:
        self._submit(function, unique, workload, Priority.NORMAL, True)

    def on_submit_job_high(self, function: bytes, unique: bytes, workload: bytes) -> None:
        self._submit(function, unique, workload, Priority.HIGH, False)

    def on_submit_job_high_bg(self, function: bytes, unique: bytes, workload: bytes) -> None:
        self._submit(function, unique, workload, Priority.HIGH, True)

    def on_submit_job_low(self, function: bytes, unique: bytes, workload: bytes) -> None:
        self._submit(function, unique, workload, Priority.LOW, False)

    def on_submit_job_low_bg(self, function: bytes, unique: bytes, workload: bytes) -> None:
        self._submit(function, unique, workload, Priority.LOW, True)

    def on_submit_job_epoch(
        self, function: bytes, unique: bytes, epoch: bytes, workload: bytes
    ) -> None:
        due = float(max(leading_int(epoch), 0))
        self._submit(function, unique, workload, Priority.NORMAL, True, due=due)

    def on_submit_job_sched(self, function: bytes, unique: bytes, *fields: bytes) -> None:
        self.used = True
        schedules.submit(self._engine, self, function, unique, fields)

    def on_submit_reduce_job(
        self, function: bytes, unique: bytes, reducer: bytes, aggregator: bytes, workload: bytes
    ) -> None:
        self._submit(function, unique, workload, Priority.NORMAL, False, reducer=reducer)

    def on_submit_reduce_job_background(
        self, function: bytes, unique: bytes, reducer: bytes, aggregator: bytes, workload: bytes
    ) -> None:
        self._submit(function, unique, workload, Priority.NORMAL, True, reducer=reducer)

    def _submit(
        self,
        function: bytes,
        unique: bytes,
        workload: bytes,
        priority: int,
        background: bool,
        *,
        due: float = 0.0,
        reducer: bytes = b"",
    ) -> None:
        self.used = True
        engine = self._engine
        if len(unique) > UNIQUE_LIMIT:
            self.send_error("ARGUMENT_TOO_LARGE", "Unique value too large")
            return
        if len(function) > FUNCTION_LIMIT or len(reducer) > FUNCTION_LIMIT:
            self.send_error("ARGUMENT_TOO_LARGE", "Function name too large")
            return
        if engine.hands_out_nothing:
            self.send_error(*STOPPING)
            return
        if background and engine.refuses_durable:
            self.send_error(*STALLED)
            return
        if unique and engine.arriving is not None:
            again = partial(
                self._submit,
                function,
                unique,
                workload,
                priority,
                background,
                due=due,
                reducer=reducer,
            )
            if engine.arriving.holds(self, function, unique, workload, again):
                return
        try:
            if (
                unique
                and engine.results.reusing
                and not (due or reducer)
                and results.reuse(engine, self, function, unique, workload, priority, background)
            ):
                return
            job = self._broker.submit(
                self.peer,
                function,
                unique,
                workload,
                priority,
                background,
                engine.now,
                due=due,
                reducer=reducer,
            )
        except QueueFull:
            self.send_error(*FULL)
            return
        except OverQuota as error:
            self.over_quota(error.quota)
            return
        if job.gate is not None and self._broker.waits_for_store(job, background):
            self._broker.wait_for_store(job, self.peer, self.reserve(len(workload)))
        else:
            self.send(engine.created_head(job.handle) + job.handle)

    def limit_packets(self) -> None:
        """Let submissions be judged by their length that are larger than the tenant's jobs may be;
        those that are not larger by much are measured when they are there."""
        allowance = self.peer.tenant.allowance
        most = 0 if allowance is None else allowance.quotas.max_job_bytes
        self.decoder.max_submission = most + _BESIDE_JOB if most else None

    def on_large_submission(self, number: int) -> None:
        allowance = self.peer.tenant.allowance
        assert allowance is not None, "else no packet would be too large"
        self.over_quota(allowance.refuse("max-job-bytes").quota)

    def over_quota(self, quota: str) -> None:
        """Refuse a submission that is more than the tenant may have."""
        self._engine.over_quota(self, quota, "a submission is refused")
        self.send_error(*over(quota))

    @property
    def gone(self) -> bool:
        """Whether the connection is no more."""
        return not self._engine.serves(self)

    def refusal(self, background: bool) -> tuple[str, str] | None:
        """Why a submission would be refused now, whatever it is; None if it would not be."""
        if self._engine.hands_out_nothing:
            return STOPPING
        return STALLED if background and self._engine.refuses_durable else None

    def on_get_status(self, handle: bytes) -> None:
        handle = handle.partition(b"\0")[0]
        job = self._broker.status(self.peer.tenant, handle)
        if job is None and self._engine.scheduler.get(self.peer.tenant.name, handle) is not None:
            self.send(response(STATUS_RES, handle, *_KNOWN))
            return
        if job is None and (arriving := self._engine.arriving) is not None:
            arriving.wait(self, partial(self.on_get_status, handle))
            return
        self.send(response(STATUS_RES, handle, *_status_fields(job)))

    def on_get_status_unique(self, unique: bytes) -> None:
        unique = unique.partition(b"\0")[0]
        job = self._broker.status_of_unique(self.peer.tenant, unique)
        if job is None and (arriving := self._engine.arriving) is not None:
            arriving.wait(self, partial(self.on_get_status_unique, unique))
            return
        clients = b"%d" % (len(job.waiters) if job else 0)
        self.send(response(STATUS_RES_UNIQUE, unique, *_status_fields(job), clients))

    # Workers

    def on_can_do(self, function: bytes) -> None:
        self._can_do(function, 0.0)

    def on_can_do_timeout(self, function: bytes, timeout: bytes) -> None:
        seconds = leading_int(timeout) / 1000
        if seconds <= 0:
            seconds = 0.0
        elif seconds < LEAST_TIMEOUT:
            if self.first_time("timeout"):
                log.warning(
                    "%r announces a timeout of %d ms: counted as 1000 ms; does it mean seconds?",
                    self,
                    round(seconds * 1000),
                )
            seconds = LEAST_TIMEOUT
        self._can_do(function, min(seconds, MOST_TIMEOUT))

    def _can_do(self, function: bytes, seconds: float) -> None:
        if len(function) > FUNCTION_LIMIT:
            self._engine.ignored(self, "CAN_DO of a function name that is too long")
            return
        try:
            self._broker.can_do(self.peer, function, seconds, self._engine.now)
        except OverQuota as error:
            # As with other requests without a reply: an ERROR would set plain workers out of step.
            self._engine.over_quota(self, error.quota, "an ability is ignored")

    def on_cant_do(self, function: bytes) -> None:
        self._broker.cant_do(self.peer, function, self._engine.now)

    def on_reset_abilities(self) -> None:
        self._broker.reset_abilities(self.peer, self._engine.now)

    def on_pre_sleep(self) -> None:
        # A draining server has nothing to wake anybody for; asking the broker would answer with
        # NOOP, the worker would grab nothing and sleep again, in a circle.
        if not self._engine.hands_out_nothing:
            self._broker.pre_sleep(self.peer, self._engine.now)

    def on_grab_job(self) -> None:
        job = self._grab()
        if job is not None:
            args = job.handle + b"\0" + job.function.name + b"\0"
            self._send_large(JOB_ASSIGN, args, job.workload)

    def on_grab_job_uniq(self) -> None:
        job = self._grab()
        if job is not None:
            self._assign_uniq(job)

    def on_grab_job_all(self) -> None:
        job = self._grab()
        if job is None:
            return
        if not job.reducer:
            self._assign_uniq(job)
            return
        args = b"%s\0%s\0%s\0%s\0" % (job.handle, job.function.name, job.unique, job.reducer)
        self._send_large(JOB_ASSIGN_ALL, args, job.workload)

    def _assign_uniq(self, job: Job) -> None:
        args = b"%s\0%s\0%s\0" % (job.handle, job.function.name, job.unique)
        self._send_large(JOB_ASSIGN_UNIQ, args, job.workload)

    def _grab(self) -> Job | None:
        engine = self._engine
        job = None if engine.hands_out_nothing else self._broker.grab(self.peer, engine.now)
        if job is None:
            self.send(_NO_JOB)
        return job

    def on_work_complete(self, handle: bytes, result: bytes) -> None:
        waiters = self._broker.finish(self.peer, handle, JobEnd.COMPLETED, self._engine.now, result)
        if isinstance(waiters, Late):
            self._not_mine(waiters, _NOT_MINE)
        else:
            _tell(waiters, WORK_COMPLETE, handle, result)

    def on_work_fail(self, handle: bytes) -> None:
        waiters = self._broker.fail(self.peer, handle, JobEnd.FAILED, self._engine.now)
        if isinstance(waiters, Late):
            if not self._broker.excepted(self.peer, handle):
                self._not_mine(waiters, _NOT_MINE)
        elif waiters:
            packet = response(WORK_FAIL, handle)
            for waiter in waiters:
                waiter.sink.send(packet)

    def on_work_exception(self, handle: bytes, exception: bytes) -> None:
        waiters = self._broker.fail(self.peer, handle, JobEnd.RAISED, self._engine.now, exception)
        if isinstance(waiters, Late):
            if waiters is Late.GHOST:
                self.peer.excepted = handle
            self._not_mine(waiters, _NOT_MINE_EXCEPTION)
            return
        self.peer.excepted = handle
        _tell([peer for peer in waiters if peer.sink.exceptions], WORK_EXCEPTION, handle, exception)
        for peer in waiters:
            if not peer.sink.exceptions:
                peer.sink.failed(handle)

    def on_work_data(self, handle: bytes, data: bytes) -> None:
        job = self._job_held(handle, _NOT_MINE_DATA)
        if job is not None:
            _tell(job.waiters, WORK_DATA, handle, data)

    def on_work_warning(self, handle: bytes, warning: bytes) -> None:
        job = self._job_held(handle, _NOT_MINE_DATA)
        if job is not None:
            job.note = self.address, warning[:NOTE_LIMIT]
            _tell(job.waiters, WORK_WARNING, handle, warning)

    def on_work_status(self, handle: bytes, numerator: bytes, denominator: bytes) -> None:
        job = self._job_held(handle, _NOT_MINE)
        if job is not None:
            job.progress = (
                min(max(leading_int(numerator), 0), _STATUS_LIMIT),
                min(max(leading_int(denominator), 0), _STATUS_LIMIT),
            )
            _tell(job.waiters, WORK_STATUS, handle, numerator + b"\0" + denominator)

    def _job_held(self, handle: bytes, text: str) -> Job | None:
        job = self._broker.held(self.peer, handle)
        if isinstance(job, Late):
            self._not_mine(job, text)
            return None
        return job

    def _not_mine(self, late: Late, text: str) -> None:
        """A WORK packet for a job this connection does not hold."""
        if late is Late.STRANGER:
            self.send_error("JOB_NOT_FOUND", text)
        else:
            self._engine.ignored(self, "a late answer")

    # Extended mode

    def on_job_release(self, handle: bytes, reason: bytes) -> None:
        late = reason == b"deadline"
        answer = self._broker.release(self.peer, handle, late, self._engine.now)
        if answer is not None:
            self._not_mine(answer, _NOT_MINE)

    def on_job_detach(self, handle: bytes) -> None:
        if not self._broker.detach(self.peer, handle, self._engine.now):
            self._engine.ignored(self, "JOB_DETACH from a job it does not wait for")

    def on_get_result(self, handle: bytes) -> None:
        handle = handle.partition(b"\0")[0]
        engine = self._engine
        if engine.arriving is not None and not engine.results.knows(self.peer.tenant, handle):
            engine.arriving.wait(self, partial(self.on_get_result, handle))
            return
        results.answer(engine, self, handle)

    def on_heartbeat(self, interval: bytes) -> None:
        seconds = min(max(leading_int(interval), 0) / 1000, MOST_TIMEOUT)
        self._engine.expect_heartbeat(self, seconds and max(seconds, LEAST_HEARTBEAT))

    # Output

    def _send_large(self, number: int, args: bytes, data: bytes) -> None:
        """Send a packet whose last argument is not copied if it is large."""
        start = head(number, len(args) + len(data)) + args
        if len(data) < _JOIN_LIMIT:
            self.send(start + data)
        else:
            self.send(start)
            self.send(data)

    def on_unknown_type(self, number: int) -> None:
        known = number in PACKETS or number in EXTENSIONS
        name = name_of(number) if known else "nameless"
        self._engine.ignored(self, f"a {name} packet, which is no request here")
        super().on_unknown_type(number)


Session.rows = server_rows(Session)


_KNOWN: Final = (b"1", b"0", b"0", b"0")
"""What is said of the handle of a schedule."""


def _status_fields(job: Job | None) -> tuple[bytes, bytes, bytes, bytes]:
    """known, running, numerator, denominator"""
    if job is None:
        return b"0", b"0", b"0", b"0"
    running = b"1" if job.state == RUNNING else b"0"
    numerator, denominator = job.progress
    return b"1", running, b"%d" % numerator, b"%d" % denominator


def _tell(waiters: Sequence[Peer], number: int, handle: bytes, data: bytes) -> None:
    """Pass a WORK packet on to everybody who waits for the job, one copy per submission."""
    if not waiters:
        return
    start = head(number, len(handle) + 1 + len(data)) + handle + b"\0"
    if len(data) < _JOIN_LIMIT:
        packet = start + data
        for waiter in waiters:
            waiter.sink.send(packet)
    else:
        for waiter in waiters:
            waiter.sink.send(start)
            waiter.sink.send(data)
