"""The text commands: records are collected first and formatted afterwards."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from trigear.broker.broker import FunctionBusy, OverQuota
from trigear.broker.jobs import DELAYED, PENDING, RUNNING, STATE_NAMES, Job
from trigear.engine import (
    admin_dead,
    admin_results,
    admin_sessions,
    admin_steering,
    admin_tenants,
    schedules,
)
from trigear.engine.refusals import over
from trigear.model import JobEnd, Priority
from trigear.wire import commands
from trigear.wire.commands import COMMANDS, OK, err, ok, table
from trigear.wire.commands import shown as shown  # others take it from here

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trigear.broker.functions import Function
    from trigear.engine.engine import Engine
    from trigear.engine.session import Session

_WITH_ARGUMENTS: Final = frozenset(
    {
        *(b"create", b"drop", b"maxqueue", b"schedule", b"requeue", b"priority", b"functions"),
        *(b"pause", b"resume", b"set", b"reset", b"dead", b"session"),
    }
)


def answer(engine: Engine, session: Session, line: bytes) -> bytes | None:
    """The whole answer to one command line; None if the session gets it once it is known."""
    words = commands.words_of(line)
    command = commands.find(words)
    if command is None or (command.login and not session.asked):
        return _misused(words)
    args = words[len(command.words) :]
    if command.exact:
        least = sum(not arg.startswith("[") for arg in command.args)
        if not least <= len(args) <= len(command.args):
            return _misused(words)
    found = _METHODS[command.method](engine, session, args)
    if engine.audit.enters(command):
        engine.audit.command(command, args, found, engine.now, session.facts())
    return found


def needs_every_job(line: bytes) -> bool:
    """Whether the answer may be wrong while jobs are still being loaded: it is about a handle, or
    forgets a function whose jobs may not be there yet. Lists show what is there so far."""
    command = commands.find(commands.words_of(line))
    if command is None:
        return False
    if command.method in ("drop_function", "schedule_run"):
        return True
    return any("handle" in arg for arg in command.args)


def _misused(words: Sequence[bytes]) -> bytes:
    """The answer to words that make no command. gearmand tells by the first word and, for some,
    by how many there are."""
    first = words[0].lower()
    if first == b"show" and len(words) > 1:
        return err("UNKNOWN_SHOW_ARGUMENTS")
    if first == b"cancel" and len(words) > 2:
        return err("UNKNOWN_ERROR")
    if first in _WITH_ARGUMENTS:
        return commands.invalid_arguments(words[0])
    return commands.unknown_command(shown(words[0]))


def _jobs(session: Session) -> list[Job]:
    return [job for job in session.view.jobs() if job.state != PENDING]


def _handle(session: Session, job: Job) -> bytes:
    return session.view.label(job.function.tenant, job.handle)


def _function(session: Session, function: Function) -> bytes:
    return session.view.label(function.tenant, shown(function.name, blanks=True))


def _unique(session: Session, job: Job) -> bytes:
    return session.view.label(job.function.tenant, shown(job.unique, blanks=True))


def _status(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return table(
        (_function(session, f), f.total, f.running, len(f.workers))
        for f in session.view.functions()
    )


def _priority_status(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return table(
        (_function(session, f), *f.waiting, len(f.workers)) for f in session.view.functions()
    )


def _workers(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    lines = []
    view = session.view
    for other in view.connections():
        names = b"".join(
            b" " + view.label(f.tenant, shown(f.name)) for f in reversed(other.peer.abilities)
        )
        number, address = view.number(other), other.address.encode()
        lines.append(b"%d %s %s :%s\n" % (number, address, shown(other.name), names))
    return b"".join(reversed(lines)) + commands.END


def _show_jobs(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return table(
        (_handle(session, job), job.losses, 0, int(job.background)) for job in _jobs(session)
    )


def _show_unique_jobs(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return table((_unique(session, job),) for job in _jobs(session))


def _create_function(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    try:
        engine.broker.wanted_function(session.peer.tenant, args[0])
    except OverQuota as error:
        engine.over_quota(session, error.quota, "no function is created")
        return err(*over(error.quota))
    return OK


def _drop_function(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    try:
        found = engine.broker.drop_function(session.peer.tenant, args[0], engine.now)
    except FunctionBusy:
        return b"ERR there are still connected workers or executing clients\r\n"
    return OK if found else b"ERR function not found\r\n"


def _cancel_job(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes | None:
    if engine.broker.cancel(session.peer.tenant, args[0], engine.now):
        return OK
    schedule = engine.scheduler.get(session.peer.tenant.name, args[0])
    if schedule is None:
        return err("UNKNOWN_JOB")
    return schedules.remove(engine, session, (schedule.handle,))


def _getpid(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return ok(b"%d" % engine.config.pid)


def _verbose(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return ok(engine.config.verbosity.encode())


def _version(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return ok(engine.config.version.encode())


def _address_of(engine: Engine, job: Job) -> bytes:
    if job.worker is None:
        return b"-"
    return engine.session_of(job.worker).address.encode()


def _list_jobs(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return table(
        (
            _handle(session, job),
            shown(job.unique, blanks=True),
            _address_of(engine, job),
            len(job.waiters),
        )
        for job in _jobs(session)
    )


def _clients(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    lines = []
    for other in session.view.connections():
        lines.append(other.address.encode() + b"\n")
        for job in other.peer.waiting:
            handle, unique = _handle(session, job), shown(job.unique, blanks=True)
            lines.append(b"\t%s\t%s\t%s\n" % (handle, unique, _address_of(engine, job)))
    return b"".join(lines) + commands.END


def _age(engine: Engine, since: float) -> int:
    # The wall clock may have been set back meanwhile.
    return max(0, int(engine.now.wall - since))


def _show_job(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    job = session.view.job(args[0])
    if job is None:
        return err("UNKNOWN_JOB")
    rows: list[tuple[bytes, bytes | int]] = [
        (b"handle", _handle(session, job)),
        (b"function", _function(session, job.function)),
        (b"unique", shown(job.unique, blanks=True)),
        (b"state", STATE_NAMES[job.state].encode()),
        (b"priority", Priority(job.priority).name.lower().encode()),
        (b"background", int(job.background)),
        (b"size", len(job.workload)),
        (b"attempts", job.losses + (job.state == RUNNING)),
        (b"losses", job.losses),
        (b"numerator", job.progress[0]),
        (b"denominator", job.progress[1]),
    ]
    now = engine.now
    if job.state == DELAYED:
        rows.append((b"due", math.ceil(job.due)))
    elif job.since:
        rows.append((b"age", _age(engine, job.since)))
    if job.worker is not None:
        rows.append((b"worker", _address_of(engine, job)))
        rows.append((b"worker-id", shown(engine.session_of(job.worker).name, blanks=True)))
        if job.timer is not None:
            rows.append((b"left", max(0, math.ceil(job.timer[0] - now.monotonic))))
    rows += [(b"waiter", engine.session_of(peer).address.encode()) for peer in job.waiters]
    return table(rows)


def _loading(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return b"OK no\r\n" if engine.arriving is None else b"OK yes\r\n"


def _show_functions(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return table(
        (
            _function(session, f),
            f.total,
            f.running,
            len(f.workers),
            *(sum(f.ended[end] for end in ends) for ends in _ENDS),
            b"-" if (since := f.queued_since()) is None else _age(engine, since),
            b"yes" if f.paused else b"no",
        )
        for f in session.view.functions()
    )


_ENDS: Final = (
    (JobEnd.COMPLETED,),
    (JobEnd.FAILED, JobEnd.RAISED, JobEnd.EXHAUSTED, JobEnd.TIMED_OUT),
    (JobEnd.CANCELLED, JobEnd.ABANDONED, JobEnd.EXPIRED, JobEnd.DROPPED, JobEnd.NOT_STORED),
)
"""The ends that count as completed, failed and dropped."""


def _whoami(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    return b"OK %s\r\n" % session.whoami()


def _auth(engine: Engine, session: Session, args: Sequence[bytes]) -> bytes:
    # What comes here was not said where one can log in; see guarded.
    return commands.unknown_command(b"auth")


_METHODS: Final[dict[str, Callable[[Engine, Session, Sequence[bytes]], bytes | None]]] = {
    "status": _status,
    "priority_status": _priority_status,
    "workers": _workers,
    "show_jobs": _show_jobs,
    "show_unique_jobs": _show_unique_jobs,
    "create_function": _create_function,
    "drop_function": _drop_function,
    "cancel_job": _cancel_job,
    "max_queue": admin_steering.max_queue,
    "getpid": _getpid,
    "verbose": _verbose,
    "version": _version,
    "jobs": _list_jobs,
    "clients": _clients,
    "show_job": _show_job,
    "loading": _loading,
    "show_functions": _show_functions,
    "result": admin_results.result,
    "drop_result": admin_results.drop_result,
    "schedule_add": schedules.add,
    "schedule_list": schedules.list_all,
    "schedule_show": schedules.show,
    "schedule_pause": schedules.pause,
    "schedule_resume": schedules.resume,
    "schedule_run": schedules.run,
    "schedule_remove": schedules.remove,
    "requeue": admin_steering.requeue,
    "priority": admin_steering.set_priority,
    "functions": admin_steering.functions,
    "pause": admin_steering.pause,
    "resume": admin_steering.resume,
    "set": admin_steering.set_value,
    "reset": admin_steering.reset,
    "tenants": admin_tenants.tenants,
    "dead_list": admin_dead.list_all,
    "dead_show": admin_dead.show,
    "dead_retry": admin_dead.retry,
    "dead_delete": admin_dead.delete,
    "sessions": admin_sessions.sessions,
    "session_end": admin_sessions.end,
    "whoami": _whoami,
    "auth": _auth,
    "tenant": admin_sessions.tenant,
    "shutdown": admin_sessions.shutdown,
    "drain": admin_sessions.drain,
    "reload": admin_sessions.reload,
}
assert _METHODS.keys() == {command.method for command in COMMANDS}
