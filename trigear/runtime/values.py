"""What the calls of clients and workers take and give, with Trio and without it."""

from __future__ import annotations

import math
import os
import socket
import time
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from trigear.errors import (
    WANTS_TLS,
    ConnectionLost,
    LocalProtocolError,
    LoginFailed,
    LoginRefused,
    RemoteProtocolError,
)
from trigear.model import Priority, printable, public
from trigear.protocol import events

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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


_DISMISSED: Final = {
    "AUTHENTICATION_REQUIRED": "; it serves nobody without a login",
    "TLS_REQUIRED": f"; {WANTS_TLS}",
}


def dismissal(name: str, event: events.Dismissed) -> str:
    """What is said of a server that hangs up on who is not logged in."""
    says = printable(f"{event.text} ({event.code})".encode("utf-8", "backslashreplace"))
    return f"{name} ended the connection: {says}{_DISMISSED.get(event.code, '')}"


Failure = TypeVar("Failure", bound=ConnectionLost | LoginFailed)


def is_final(failure: ConnectionLost | LoginFailed | None) -> bool:
    """Whether there is no point in waiting for the server to take us."""
    refused = isinstance(failure, LoginFailed)
    return refused and not (isinstance(failure, LoginRefused) and failure.temporary)


def nobody(failures: Sequence[ConnectionLost | LoginFailed]) -> ConnectionLost | LoginFailed:
    """The error for a client that none of its servers takes."""
    refusals = [failure for failure in failures if isinstance(failure, LoginFailed)]
    if len(failures) == 1 or len(refusals) == len(failures):
        return again(failures[0])
    lost = ConnectionLost(
        f"none of {len(failures)} servers can be reached: {'; '.join(map(str, failures))}"
    )
    lost.__cause__ = failures[0].__cause__
    return lost


def again(failure: Failure) -> Failure:
    """The same error once more: raised twice, one object would collect tracebacks."""
    same = copy(failure)
    same.__cause__ = failure.__cause__
    same.__traceback__ = None
    return same


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
