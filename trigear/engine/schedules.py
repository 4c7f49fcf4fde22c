"""What peers ask for about schedules, by packet and by text command."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import quote_from_bytes, unquote_to_bytes

from trigear.broker.broker import OverQuota
from trigear.broker.schedules import Missed, Schedule
from trigear.broker.timing import timing_of
from trigear.engine.refusals import STALLED, STOPPING, over
from trigear.engine.scheduler import Order, Refusal
from trigear.model import FUNCTION_LIMIT, NEVER, UNIQUE_LIMIT, Priority, printable
from trigear.wire.codec import response
from trigear.wire.commands import OK, err, ok, shown, table
from trigear.wire.cron import cron_of_packet
from trigear.wire.packets import ERROR

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from trigear.engine.engine import Engine
    from trigear.engine.scheduler import Asker
    from trigear.engine.session import Session
    from trigear.protocol.server import Slot

Value = TypeVar("Value")

NEXT: Final = 5
"""How many of the times to come are shown."""

SHOWN_WORKLOAD: Final = 4096
"""Bytes of a workload that are shown."""

_MISSED: Final = {policy.value: policy for policy in Missed}
_PRIORITIES: Final = {priority.name.lower(): priority for priority in Priority}

_OPTIONS: Final = ("unique", "workload", "timezone", "missed", "priority")


class _Later:
    """A reply that comes when a step is done, in its place among the session's replies."""

    __slots__ = ("_done", "_refused", "_session", "_slot")

    def __init__(
        self,
        session: Session,
        size: int,
        done: Callable[[Schedule], bytes],
        refused: Callable[[Refusal], bytes],
    ) -> None:
        self._session = session
        self._slot: Slot = session.reserve(size)
        self._done = done
        self._refused = refused

    def done(self, schedule: Schedule) -> None:
        self._say(self._done(schedule))

    def refused(self, refusal: Refusal) -> None:
        self._say(self._refused(refusal))

    def _say(self, reply: bytes) -> None:
        if not self._session.stopped:
            self._session.fill(self._slot, reply)


def _check(engine: Engine, session: Session, order: Order) -> None:
    """Whether such a schedule may be made.

    Raises:
        Refusal: it may not.
    """
    if len(order.unique) > UNIQUE_LIMIT:
        raise Refusal("ARGUMENT_TOO_LARGE", "Unique value too large")
    if len(order.function) > FUNCTION_LIMIT:
        raise Refusal("ARGUMENT_TOO_LARGE", "Function name too large")
    if (allowance := session.peer.tenant.allowance) is not None:
        size = len(order.function) + len(order.unique) + len(order.workload)
        try:
            allowance.admit_schedule(*engine.scheduler.beside(order), size)
        except OverQuota as error:
            engine.over_quota(session, error.quota, "a schedule is refused")
            raise Refusal(*over(error.quota)) from None
    _check_state(engine)


def _check_state(engine: Engine) -> None:
    """Whether anything may be changed now.

    Raises:
        Refusal: it may not.
    """
    if engine.hands_out_nothing:
        raise Refusal(*STOPPING)
    if engine.refuses_durable:
        raise Refusal(*STALLED)


# The packet


def submit(
    engine: Engine, session: Session, function: bytes, unique: bytes, rest: Sequence[bytes]
) -> None:
    """Serve SUBMIT_JOB_SCHED. ``rest`` is its fields of cron and its workload."""
    *fields, workload = rest
    try:
        timing = timing_of(cron_of_packet(fields))
        order = Order(session.peer.tenant.name, function, unique, workload, timing)
        _check(engine, session, order)
    except Refusal as refusal:
        session.send(_error(refusal))
        return
    except ValueError as error:
        session.send_error("INVALID_ARGUMENT", _why(error))
        return

    def created(schedule: Schedule) -> bytes:
        return engine.created_head(schedule.handle) + schedule.handle

    engine.scheduler.add(order, _Later(session, len(workload), created, _error))


def _why(error: ValueError) -> str:
    return printable(str(error).encode("utf-8", "surrogateescape"))


def _error(refusal: Refusal) -> bytes:
    return response(ERROR, refusal.code.encode(), refusal.text.encode())


# Text commands


def _err(refusal: Refusal) -> bytes:
    return err(refusal.code, refusal.text)


def _ok_handle(schedule: Schedule) -> bytes:
    return ok(schedule.handle)


def _ok_run(schedule: Schedule) -> bytes:
    return ok(schedule.run)


def _ok(_schedule: Schedule) -> bytes:
    return OK


def add(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Make a schedule or change it."""
    try:
        order = _order(session.peer.tenant.name, args)
        _check(engine, session, order)
    except Refusal as refusal:
        return _err(refusal)
    except ValueError as error:
        return err("INVALID_ARGUMENT", _why(error))
    engine.scheduler.add(order, _Later(session, len(order.workload), _ok_handle, _err))
    return None


def _order(tenant: str, args: Sequence[bytes]) -> Order:
    """What the words of a command ask for.

    Raises:
        ValueError: they make no sense.
    """
    if not args:
        raise ValueError("a function is needed, and when it is to be done")
    function, *words = args
    options: dict[str, bytes] = {}
    while words and b"=" in words[-1]:
        name, _, value = words.pop().partition(b"=")
        if _text(name) not in _OPTIONS:
            raise ValueError(f"there are the options {', '.join(_OPTIONS)}")
        options[_text(name)] = value
    unique = unquote_to_bytes(options.get("unique", b""))
    if b"\0" in unique:
        raise ValueError("a unique has no NUL in it")
    return Order(
        tenant=tenant,
        function=function,
        unique=unique,
        workload=unquote_to_bytes(options.get("workload", b"")),
        timing=timing_of(_text(b" ".join(words)), _text(options.get("timezone", b"UTC"))),
        missed=_one_of(_MISSED, options, "missed", Missed.ONCE),
        priority=_one_of(_PRIORITIES, options, "priority", Priority.NORMAL),
    )


def _one_of(
    values: Mapping[str, Value], options: Mapping[str, bytes], name: str, default: Value
) -> Value:
    if name not in options:
        return default
    value = values.get(_text(options[name]).lower())
    if value is None:
        raise ValueError(f"{name} is one of {', '.join(values)}")
    return value


def _text(word: bytes) -> str:
    return word.decode("utf-8", "backslashreplace")


def list_all(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """List the schedules."""
    return table(
        (
            schedule.handle,
            shown(schedule.function, blanks=True),
            shown(schedule.unique, blanks=True),
            schedule.timing.text.encode(),
            schedule.timing.zone.encode(),
            _state(schedule),
            _time(schedule.due),
            _time(schedule.ran),
            schedule.runs,
        )
        for schedule in engine.scheduler.of(session.peer.tenant.name)
    )


def show(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """Show one schedule."""
    try:
        schedule = engine.scheduler.named(session.peer.tenant.name, args[0])
    except Refusal as refusal:
        return _err(refusal)
    rows: list[tuple[bytes, bytes | int]] = [
        (b"handle", schedule.handle),
        (b"function", shown(schedule.function, blanks=True)),
        (b"unique", shown(schedule.unique, blanks=True)),
        (b"when", schedule.timing.text.encode()),
        (b"timezone", schedule.timing.zone.encode()),
        (b"missed", schedule.missed.value.encode()),
        (b"priority", Priority(schedule.priority).name.lower().encode()),
        (b"state", _state(schedule)),
        (b"since", _time(schedule.since)),
        (b"runs", schedule.runs),
        (b"ran", _time(schedule.ran)),
        (b"run", schedule.run or b"-"),
        (b"size", len(schedule.workload)),
    ]
    if len(schedule.workload) <= SHOWN_WORKLOAD:
        rows.append((b"workload", quote_from_bytes(schedule.workload).encode()))
    due = schedule.due
    while due < NEVER and sum(name == b"next" for name, _ in rows) < NEXT:
        rows.append((b"next", _time(due)))
        due = schedule.timing.next_after(due, schedule.since)
    return table(rows)


def _state(schedule: Schedule) -> bytes:
    return b"paused" if schedule.paused else b"active"


def _time(moment: float) -> bytes:
    return b"%d" % math.floor(moment) if 0 < moment < NEVER else b"-"


def pause(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Pause a schedule."""
    return _steer(engine, session, args, lambda s, later: engine.scheduler.pause(s, True, later))


def resume(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Resume a schedule."""
    return _steer(engine, session, args, lambda s, later: engine.scheduler.pause(s, False, later))


def run(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Run a schedule now."""
    return _steer(engine, session, args, engine.scheduler.run, _ok_run)


def remove(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Remove a schedule."""
    return _steer(engine, session, args, engine.scheduler.remove)


def _steer(
    engine: Engine,
    session: Session,
    args: Sequence[bytes],
    step: Callable[[Schedule, Asker], None],
    done: Callable[[Schedule], bytes] = _ok,
) -> bytes | None:
    """Have something done to the schedule that is named."""
    try:
        schedule = engine.scheduler.named(session.peer.tenant.name, args[0])
        _check_state(engine)
    except Refusal as refusal:
        return _err(refusal)
    step(schedule, _Later(session, 0, done, _err))
    return None
