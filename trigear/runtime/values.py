"""What the calls of clients and workers take and give, with Trio and without it."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

from trigear.errors import ConnectionLost


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


def as_name(name: str | bytes) -> bytes:
    """A name as it goes over the wire."""
    return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name


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


def again(failure: ConnectionLost) -> ConnectionLost:
    """The same error once more: raised twice, one object would collect tracebacks."""
    copy = ConnectionLost(*failure.args)
    copy.__cause__ = failure.__cause__
    return copy
