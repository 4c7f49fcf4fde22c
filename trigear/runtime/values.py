"""What the calls of clients and workers take and give, with Trio and without it."""

from __future__ import annotations

import math
import os
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from trigear.errors import ConnectionLost, LocalProtocolError, RemoteProtocolError
from trigear.model import Priority, printable, public
from trigear.protocol import events

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime


AnyPriority = Priority | Literal["high", "normal", "low"]
"""A priority as callers write it."""


@public
@dataclass(frozen=True, slots=True)
class JobStatus:
    """What a server knows of a job.

    A job that is over is not ``known``. The numbers are the worker's own. ``clients`` is how many
    submissions wait for the job, None where that was not asked.
    """

    known: bool
    running: bool
    numerator: int | float
    denominator: int | float
    clients: int | None = None


def status_in(reply: events.OfRequest) -> JobStatus:
    """What a server says of a job."""
    assert isinstance(reply, events.StatusResult | events.UniqueStatusResult)
    clients = reply.clients if isinstance(reply, events.UniqueStatusResult) else None
    return JobStatus(reply.known, reply.running, reply.numerator, reply.denominator, clients)


def lines_in(reply: events.OfRequest) -> list[str]:
    """What a server says to a text command."""
    assert isinstance(reply, events.Answer)
    return [line.decode("utf-8", "surrogateescape") for line in reply.lines]


def as_name(name: str | bytes) -> bytes:
    """A name as it goes over the wire.

    Raises:
        TypeError: it is neither text nor bytes.
    """
    if isinstance(name, str):
        return name.encode("utf-8", "surrogateescape")
    if not isinstance(name, bytes | bytearray):
        raise TypeError(f"{name!r} is no name: text or bytes are needed")
    return bytes(name)


def as_priority(priority: AnyPriority) -> Priority:
    """A priority by its name.

    Raises:
        ValueError: there is none of this name.
    """
    if isinstance(priority, Priority):
        return priority
    found = Priority.__members__.get(priority.upper())
    if found is None:
        raise ValueError(f"priority={priority!r}: high, normal or low is needed")
    return found


def shown(name: bytes) -> str:
    """A name as people read it."""
    return printable(name)


def as_data(data: bytes) -> bytes:
    """Data as they go over the wire.

    Raises:
        TypeError: they are not bytes.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"bytes are needed, not {type(data).__name__}: encode it first")
    return bytes(data)


def words_for(error: OSError) -> str:
    """The system's words for what went wrong, without what libraries put around them."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error)
    return os.strerror(error.errno)


def in_doubt(failure: ConnectionLost, doubt: str) -> ConnectionLost:
    """The error of a connection for who waits for a reply over it.

    Args:
        failure: why the connection ended.
        doubt: what is unknown without the reply; nothing, if that does not matter.
    """
    if not doubt:
        return again(failure)
    # Who speaks another protocol has not understood what was asked, and that is worth saying alone.
    is_server = not isinstance(failure.__cause__, RemoteProtocolError)
    lost = ConnectionLost(f"{failure}; {doubt}" if is_server else str(failure), in_doubt=True)
    lost.__cause__ = failure.__cause__
    return lost


def breach(name: str, error: RemoteProtocolError) -> str:
    """What is said of a server that broke the protocol: mostly it is none."""
    return f"{name} broke the protocol: {error.text}; is it a Gearman server?"


def again(failure: ConnectionLost) -> ConnectionLost:
    """The same error once more: raised twice, one object would collect tracebacks."""
    copy = ConnectionLost(*failure.args, in_doubt=failure.in_doubt)
    copy.__cause__ = failure.__cause__
    return copy


def epoch_of(
    at: datetime | float | None, delay: float | None, wall: Callable[[], float] = time.time
) -> int | None:
    """A time as whole seconds since 1970, rounded up so that nothing begins early.

    Raises:
        LocalProtocolError: both are given, or this is no time that can be sent.
    """
    if at is not None and delay is not None:
        raise LocalProtocolError("at and delay both say when: leave one out")
    if at is not None and not isinstance(at, int | float):
        if at.tzinfo is None:
            raise LocalProtocolError(f"at={at!r} has no time zone: which moment is meant?")
        at = at.timestamp()
    if delay is not None:
        if not delay >= 0:
            raise LocalProtocolError(f"delay={delay!r}: a number of seconds from now is needed")
        at = wall() + delay
    if at is None:
        return None
    if not 0 <= at < 2**63:
        raise LocalProtocolError(f"at={at!r} is no time after 1970 that a server can hold")
    return math.ceil(at)
