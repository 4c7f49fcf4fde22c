"""Text commands as questions whose answers programs can use, for any way of asking them.

A *talk* is a generator: it yields command lines, is sent the lines of each answer, and returns what
they mean. Where the server answers ERR, :class:`~trigear.errors.Refused` is thrown into it. So what
is said and how it is understood stands in one place, and whoever can ask a server one line can hold
any talk: the library with Trio and without, and the command line.

The answers of gearmand and of Perl's server are understood as well, as far as they know the
command.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from trigear.errors import LocalProtocolError, Refused, RemoteProtocolError
from trigear.model import printable, public

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trigear.model import Priority

Value = TypeVar("Value")

Talk = Generator[str, list[str], Value]
"""Yields command lines, is sent the answers' lines, returns what they mean."""

_WORKER: Final = re.compile(r"(\S+) (\S+) (.*?) ?:(?: (.*))?")


@public
@dataclass(frozen=True, slots=True)
class FunctionStatus:
    """A function at a server: all its jobs, those of them that run, and its workers."""

    function: str
    total: int
    running: int
    workers: int


@public
@dataclass(frozen=True, slots=True)
class PriorityStatus:
    """A function's queued jobs by priority, and the workers that serve it."""

    function: str
    high: int
    normal: int
    low: int
    workers: int


@public
@dataclass(frozen=True, slots=True)
class ConnectionStatus:
    """A connection to a server.

    ``fd`` is the server's number for it, None where it has none; ``id`` what it calls itself;
    ``functions`` what it serves, nothing unless it is a worker.
    """

    fd: int | None
    address: str
    id: str | None
    functions: tuple[str, ...]


@public
@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job at a server; None is what the server does not say.

    ``background``: goes on without its client; ``losses``: attempts that came to nothing;
    ``worker``: the address of the one that has it; ``clients``: submissions that wait for it.
    """

    handle: str
    background: bool | None
    losses: int | None
    unique: str | None
    worker: str | None
    clients: int | None


@public
@dataclass(frozen=True, slots=True)
class FunctionSetting:
    """A setting of a function.

    ``value`` is written as in a configuration file; ``origin`` is `command`, `file` or `default`.
    """

    function: str
    setting: str
    value: str
    origin: str


def word(name: str | bytes, what: str) -> str:
    """A name as one word of a command.

    Args:
        name: the name.
        what: what it is, for the error.

    Raises:
        LocalProtocolError: it cannot be one.
    """
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else name
    if not text or any(char in " \r\n\0" for char in text):
        raise LocalProtocolError(
            f"{what} {text!r} cannot stand in a text command: a name without blanks is needed"
        )
    return text


def fields(line: str, count: int) -> list[str]:
    """The fields of a line; a TAB in the first one does not separate.

    Raises:
        RemoteProtocolError: there are fewer.
    """
    found = line.rsplit("\t", count - 1)
    if len(found) < count:
        raise misunderstood(line)
    return found


def number(field: str) -> int:
    """A field that is a number.

    Raises:
        RemoteProtocolError: it is none.
    """
    if not (field.isascii() and field.isdigit()):
        raise misunderstood(field)
    return int(field)


def misunderstood(said: str) -> RemoteProtocolError:
    """What is raised where a server's words make no sense."""
    shown = printable(said.encode("utf-8", "surrogateescape"))
    return RemoteProtocolError("UNEXPECTED_ANSWER", f"the server said '{shown}'")


def given(line: str) -> Talk[None]:
    """Give a command that is answered by OK."""
    yield line


# What every server knows


def status() -> Talk[list[FunctionStatus]]:
    """Every function with its jobs and workers."""
    lines = yield "status"
    return [
        FunctionStatus(name, *map(number, counts))
        for name, *counts in (fields(line, 4) for line in lines)
    ]


def priority_status() -> Talk[list[PriorityStatus]]:
    """Every function with its queued jobs by priority."""
    lines = yield "prioritystatus"
    return [
        PriorityStatus(name, *map(number, counts))
        for name, *counts in (fields(line, 5) for line in lines)
    ]


def workers() -> Talk[list[ConnectionStatus]]:
    """Every connection with the functions it serves."""
    lines = yield "workers"
    return [_connection(line) for line in lines]


def _connection(line: str) -> ConnectionStatus:
    found = _WORKER.fullmatch(line)
    if found is None:
        raise misunderstood(line)
    descriptor, address, name, functions = found.groups()
    return ConnectionStatus(
        int(descriptor) if descriptor.isascii() and descriptor.isdigit() else None,
        address,
        None if name == "-" else name,
        tuple((functions or "").split()),
    )


def jobs() -> Talk[list[ListedJob]]:
    """Every job, with what the second list of jobs adds where the server has one."""
    kinds = {}
    for line in (yield "show jobs"):
        handle, losses, _, background = fields(line, 4)
        kinds[handle] = background != "0", number(losses)
    people = {}
    try:
        lines = yield "jobs"
    except Refused:  # gearmand has no second list
        lines = []
    for line in lines:
        handle, unique, worker, clients = fields(line, 4)
        people[handle] = unique or None, None if worker == "-" else worker, number(clients)
    # What began or ended between the two answers stands in one of them.
    return [
        ListedJob(
            handle,
            *kinds.get(handle, (None, None)),
            *people.get(handle, (None, None, None)),
        )
        for handle in dict.fromkeys([*kinds, *people])
    ]


def loading() -> Talk[bool]:
    """Whether lists do not show all jobs yet."""
    (line,) = yield "loading"
    if line not in ("OK yes", "OK no"):
        raise misunderstood(line)
    return line == "OK yes"


def cancel(handle: str | bytes) -> Talk[bool]:
    """End a job. Returns whether there was one."""
    return known(f"cancel job {word(handle, 'handle')}")


def create_function(function: str | bytes) -> Talk[None]:
    """Make a function known."""
    return given(f"create function {word(function, 'function')}")


def drop_function(function: str | bytes) -> Talk[None]:
    """Forget a function and its queued jobs."""
    return given(f"drop function {word(function, 'function')}")


def max_queue(function: str | bytes, limits: Iterable[int]) -> Talk[None]:
    """Limit the jobs of a function."""
    return given(" ".join(["maxqueue", word(function, "function"), *map(str, limits)]))


def requeue(handle: str | bytes) -> Talk[bool]:
    """Put a job at the end of its queue. Returns whether there was one."""
    return known(f"requeue {word(handle, 'handle')}")


def set_priority(handle: str | bytes, priority: Priority) -> Talk[bool]:
    """Give a job another priority. Returns whether there was one."""
    return known(f"priority {word(handle, 'handle')} {priority.name.lower()}")


def functions(function: str | bytes | None = None) -> Talk[list[FunctionSetting]]:
    """The settings of every function, or of one."""
    name = "" if function is None else f" {word(function, 'function')}"
    lines = yield f"functions{name}"
    return [FunctionSetting(*fields(line, 4)) for line in lines]


def pause(function: str | bytes) -> Talk[None]:
    """Hand out no jobs of a function."""
    return given(f"pause {word(function, 'function')}")


def resume(function: str | bytes) -> Talk[None]:
    """Hand out jobs of a function again."""
    return given(f"resume {word(function, 'function')}")


def set_value(
    function: str | bytes, setting: str, value: str | float | bool | Sequence[int]
) -> Talk[None]:
    """Set something of a function."""
    if isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, str | int | float):
        text = str(value)
    else:
        text = " ".join(map(str, value))
    return given(f"set {word(function, 'function')} {word(setting, 'setting')} {text}")


def reset(function: str | bytes, setting: str | None = None) -> Talk[None]:
    """Take back what was set, one setting or all."""
    name = "" if setting is None else f" {word(setting, 'setting')}"
    return given(f"reset {word(function, 'function')}{name}")


def known(line: str, code: str = "UNKNOWN_JOB") -> Talk[bool]:
    """Give a command about a thing; returns whether there is that thing.

    Args:
        line: the command.
        code: what the server's error is called if there is none.
    """
    try:
        yield line
    except Refused as error:
        if error.code != code:
            raise
        return False
    return True
