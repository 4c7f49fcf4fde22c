"""Talks about schedules: what is said to a server, and what it says of them. See
:mod:`trigear.protocol.talks`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trigear.errors import LocalProtocolError, Refused
from trigear.model import Priority, public
from trigear.protocol.talks import given, misunderstood, number, word
from trigear.wire.commands import LINE_LIMIT
from trigear.wire.cron import packet_of_cron

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.protocol.talks import Talk

DEFAULT_ZONE = "UTC"
DEFAULT_MISSED = "once"


@public
@dataclass(frozen=True, slots=True)
class ScheduleStatus:
    """A schedule at a server.

    ``when`` is its cron expression or interval; ``next`` when it is due next, None while it is
    paused; ``ran`` when it ran last, None if never. Both are in UTC.
    """

    handle: str
    function: str
    unique: str | None
    when: str
    timezone: str
    paused: bool
    next: datetime | None
    ran: datetime | None
    runs: int


@public
@dataclass(frozen=True, slots=True)
class ScheduleDetails:
    """All that a server knows of one schedule.

    Beside what :class:`ScheduleStatus` has: ``missed`` is the policy for missed runs, ``since``
    when it began to be like this, ``run`` the handle of the last job, None if there was none;
    ``workload`` is None where it is too large to be told, ``size`` its length in bytes; ``times``
    are the next moments at which it is due.
    """

    handle: str
    function: str
    unique: str | None
    when: str
    timezone: str
    missed: str
    priority: Priority
    paused: bool
    since: datetime
    runs: int
    ran: datetime | None
    run: str | None
    size: int
    workload: bytes | None
    times: tuple[datetime, ...]

    @property
    def next(self) -> datetime | None:
        """When it is due next, None while it is paused."""
        return self.times[0] if self.times else None


@dataclass(frozen=True, slots=True)
class ScheduleOrder:
    """A schedule to be added, checked as far as it can be without a server."""

    function: bytes
    when: str
    workload: bytes
    unique: bytes
    timezone: str
    missed: str
    priority: Priority

    def __post_init__(self) -> None:
        if not self.when.strip() or any(char in self.when for char in "\0\r\n="):
            raise LocalProtocolError(
                f"when={self.when!r}: five fields of cron, @daily or @every 5m are needed"
            )
        if self.missed not in ("once", "skip"):
            raise ValueError(f"missed={self.missed!r}: once or skip is needed")

    def fields(self) -> tuple[bytes, ...] | None:
        """The five fields of SUBMIT_JOB_SCHED; None if the packet does not suffice.

        Raises:
            LocalProtocolError: the days of the week make no sense.
        """
        if (self.timezone, self.missed) != (DEFAULT_ZONE, DEFAULT_MISSED):
            return None
        if self.priority is not Priority.NORMAL:
            return None
        try:
            return packet_of_cron(self.when)
        except ValueError as error:
            raise LocalProtocolError(str(error)) from None

    def line(self) -> str:
        """The text command.

        Raises:
            LocalProtocolError: it is too long for a server.
        """
        # Not for those who never add a schedule.
        from urllib.parse import quote_from_bytes

        words = ["schedule add", word(self.function, "function"), *self.when.split()]
        if self.unique:
            words.append(f"unique={quote_from_bytes(self.unique)}")
        if self.timezone != DEFAULT_ZONE:
            words.append(f"timezone={word(self.timezone, 'time zone')}")
        if self.missed != DEFAULT_MISSED:
            words.append(f"missed={self.missed}")
        if self.priority is not Priority.NORMAL:
            words.append(f"priority={self.priority.name.lower()}")
        if self.workload:
            words.append(f"workload={quote_from_bytes(self.workload)}")
        line = " ".join(words)
        if len(line.encode("utf-8", "surrogateescape")) + 2 > LINE_LIMIT:
            raise LocalProtocolError(
                f"workload of {len(self.workload)} bytes: it does not fit into a text command, and"
                " an interval, a time zone, a policy and a priority need one; keep the workload"
                " somewhere and submit its name"
            )
        return line


def add(order: ScheduleOrder) -> Talk[bytes]:
    """Add a schedule by text command. Returns its handle."""
    line = order.line()
    try:
        yield "schedule"
    except Refused as error:
        # gearmand does not know it, and would hang up on so many words.
        if error.code != "INVALID_ARGUMENTS":
            raise
    return handle_in((yield line))


def handle_in(lines: Sequence[str]) -> bytes:
    """The handle in an answer `OK handle`."""
    said, _, handle = lines[0].partition(" ") if lines else ("", "", "")
    if said != "OK" or not handle:
        raise misunderstood(lines[0] if lines else "")
    return handle.encode("utf-8", "surrogateescape")


def schedules() -> Talk[list[ScheduleStatus]]:
    """Every schedule."""
    lines = yield "schedule list"
    return [_status(line) for line in lines]


def _status(line: str) -> ScheduleStatus:
    fields = line.split("\t")
    if len(fields) != 9:
        raise misunderstood(line)
    handle, function, unique, when, timezone, state, due, ran, runs = fields
    return ScheduleStatus(
        handle,
        function,
        unique or None,
        when,
        timezone,
        state == "paused",
        _moment(due),
        _moment(ran),
        number(runs),
    )


def _moment(field: str) -> datetime | None:
    """A time in an answer; None for a dash."""
    return None if field == "-" else _time(field)


def _time(field: str) -> datetime:
    try:
        return datetime.fromtimestamp(number(field), UTC)
    except (ValueError, OverflowError, OSError):
        raise misunderstood(field) from None


def details(name: str | bytes) -> Talk[ScheduleDetails | None]:
    """One schedule, by its handle or unique; None if there is none."""
    try:
        lines = yield f"schedule show {word(name, 'schedule')}"
    except Refused as error:
        if error.code != "UNKNOWN_SCHEDULE":
            raise
        return None
    from urllib.parse import unquote_to_bytes

    found = dict(line.partition("\t")[::2] for line in lines)
    times = [line.removeprefix("next\t") for line in lines if line.startswith("next\t")]
    try:
        return ScheduleDetails(
            handle=found["handle"],
            function=found["function"],
            unique=found["unique"] or None,
            when=found["when"],
            timezone=found["timezone"],
            missed=found["missed"],
            priority=Priority[found["priority"].upper()],
            paused=found["state"] == "paused",
            since=_time(found["since"]),
            runs=number(found["runs"]),
            ran=_moment(found["ran"]),
            run=None if found["run"] == "-" else found["run"],
            size=number(found["size"]),
            workload=unquote_to_bytes(found["workload"]) if "workload" in found else None,
            times=tuple(map(_time, times)),
        )
    except KeyError:
        raise misunderstood("; ".join(lines)) from None


def pause(name: str | bytes) -> Talk[None]:
    """Have a schedule make no runs."""
    return given(f"schedule pause {word(name, 'schedule')}")


def resume(name: str | bytes) -> Talk[None]:
    """Have it make runs again."""
    return given(f"schedule resume {word(name, 'schedule')}")


def run(name: str | bytes) -> Talk[bytes]:
    """Make a run now. Returns the handle of its job."""
    return handle_in((yield f"schedule run {word(name, 'schedule')}"))


def remove(name: str | bytes) -> Talk[None]:
    """Have it no more."""
    return given(f"schedule remove {word(name, 'schedule')}")
