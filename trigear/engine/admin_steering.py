"""The text commands that steer functions and jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from trigear.broker.broker import OverQuota
from trigear.engine.refusals import NOT_YET_STORED, over
from trigear.engine.results import Later
from trigear.engine.settings import BY_NAME
from trigear.model import Priority, printable
from trigear.wire.commands import OK, err, invalid_arguments, shown, table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.engine.engine import Engine
    from trigear.engine.session import Session
    from trigear.model import Now

_UNKNOWN_JOB: Final = err("UNKNOWN_JOB")

_PRIORITIES: Final = {priority.name.lower().encode(): priority for priority in Priority}


# Jobs


def requeue(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """Put a job at the end of its queue."""
    found = engine.broker.requeue(session.peer.tenant, args[0], engine.now)
    return OK if found else _UNKNOWN_JOB


def set_priority(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """Give a job another priority."""
    priority = _PRIORITIES.get(args[1].lower())
    if priority is None:
        return err("INVALID_ARGUMENT", "a priority is high, normal or low")
    found = engine.broker.set_priority(session.peer.tenant, args[0], priority)
    return OK if found else _UNKNOWN_JOB


# Functions


def functions(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    """The settings of every function, or of one, and where each comes from."""
    view = session.view
    if args:
        # Not one that is not there: its settings are asked for before it is.
        wanted = list(view.named(args[0]))
    else:
        wanted = [
            (tenant, name)
            for tenant in view.tenants
            for name in dict.fromkeys([*tenant.functions, *engine.rules.functions(tenant.name)])
        ]
    return table(
        (
            view.label(tenant, shown(name, blanks=True)),
            setting.name.encode(),
            setting.show(value).encode(),
            where.encode(),
        )
        for tenant, name in wanted
        for setting, value, where in engine.rules.explain(tenant.name, name)
    )


def pause(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Hand out no more jobs of a function."""
    return _set(engine, session, args[0], "paused", True)


def resume(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Hand out jobs of a function again."""
    return _set(engine, session, args[0], "paused", False)


def set_value(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Set anything of a function."""
    if len(args) < 3:
        return invalid_arguments(b"set")
    function, name, *words = args
    setting = BY_NAME.get(name.decode("utf-8", "replace").lower())
    if setting is None:
        return err("INVALID_ARGUMENT", f"no such setting: there are {', '.join(BY_NAME)}")
    try:
        value = setting.parse(printable(b" ".join(words)))
    except ValueError as error:
        return err("INVALID_ARGUMENT", str(error))
    return _set(engine, session, function, setting.name, value)


def max_queue(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Limit the queue of a function. As in gearmand, one that is not there cannot be limited."""
    if args[0] not in session.peer.tenant.functions:
        return OK
    # More digits than these mean no limit that is ever reached.
    numbers = [int(arg[:18]) if arg.isdigit() else 0 for arg in args[1:]]
    if len(numbers) == 1:
        numbers *= len(Priority)
    limits = tuple([*numbers, 0, 0, 0][: len(Priority)])
    return _set(engine, session, args[0], "maxqueue", limits)


def reset(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    """Take back what was set by command."""
    function, *names = args
    name = names[0].decode("utf-8", "replace").lower() if names else None
    if name is not None and name not in BY_NAME:
        return err("INVALID_ARGUMENT", f"no such setting: there are {', '.join(BY_NAME)}")
    if not engine.rules.reset(session.peer.tenant.name, function, name):
        return OK
    return _Change(engine, session, function).answer()


def _set(
    engine: Engine, session: Session, function: bytes, name: str, value: object
) -> bytes | None:
    tenant = session.peer.tenant
    if tenant.allowance is not None:
        # What is set is remembered, and so counts as a function.
        try:
            engine.broker.wanted_function(tenant, function)
        except OverQuota as error:
            engine.over_quota(session, error.quota, "nothing is set")
            return err(*over(error.quota))
    engine.rules.set(tenant.name, function, name, value)
    return _Change(engine, session, function).answer()


class _Change:
    """A change of a function's settings. It holds at once; the answer comes when it is on record.
    A change that cannot be recorded holds as well, and is recorded as soon as that is possible."""

    def __init__(self, engine: Engine, session: Session, function: bytes) -> None:
        self._engine = engine
        self._tenant = session.peer.tenant.name
        self._function = function
        self._later = Later(session)
        found = session.peer.tenant.functions.get(function)
        if found is not None:
            rules = engine.rules.rules(self._tenant, function)
            engine.broker.take_rules(found, rules, engine.now)

    def answer(self) -> bytes | None:
        """What is to be answered now; None: it will be."""
        if self._engine.refuses_durable:
            self._write(None)
            return err(*NOT_YET_STORED)
        self._write(self)
        self._later.hold(0)
        return None

    def _write(self, who: _Change | None) -> None:
        engine = self._engine
        partition = engine.broker.partition(self._tenant, self._function).number
        line = engine.rules.line(self._tenant, self._function, partition)
        engine.record(self._tenant, line, who)

    def stored(self, now: Now) -> None:
        self._later.say(OK)

    def not_stored(self, now: Now) -> None:
        self._write(None)
        self._later.say(err(*NOT_YET_STORED))
