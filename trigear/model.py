"""The words that every floor shares: identifiers, priorities, ends, and the pair of clocks."""

from __future__ import annotations

import enum
import math
import re
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

COMPILED: Final = not __file__.endswith((".py", ".pyc"))
"""Whether this is trigear as a C compiler made it; hatch_build.py says of which modules."""

NEVER: Final = math.inf
"""A time that does not come."""

Thing = TypeVar("Thing")


def public(thing: Thing) -> Thing:
    """Show a class or function under the name by which programs import it."""
    thing.__module__ = "trigear"
    return thing


def printable(name: bytes) -> str:
    """A name or words from a peer, fit for people: nothing in it ends a line or speaks to a
    terminal."""
    return _harmless(name.decode("utf-8", "backslashreplace"))


SAID = 300
"""Characters shown of what a peer says about an error."""


def said(data: bytes, limit: int | None = SAID) -> str:
    """What a peer says about an error, as one line for people: text, or how much there is that is
    none. At most ``limit`` characters of it."""
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError:
        return f"{counted(len(data), 'byte that is', 'bytes that are')} no text"
    text = _harmless(" · ".join(filter(None, map(str.strip, lines))))
    return text if limit is None or len(text) <= limit else f"{text[:limit]} …"


def _harmless(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() else f"\\x{ord(c):02x}" if c < "\x80" else f"\\u{ord(c):04x}"
        for c in text
    )


def counted(number: object, one: str, many: str | None = None) -> str:
    """A number with what it counts, as in `1 job` and `2 jobs`.

    Args:
        number: how many there are.
        one: the words behind the number 1.
        many: the words behind any other number; ``one`` and an s where nothing is given.
    """
    return f"{number} {one if number == 1 else many or one + 's'}"


_NUMBER_AND_UNIT: Final = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?) ?(?P<unit>[A-Za-z]*)")

SECONDS: Final[Mapping[str, float]] = {
    "": 1.0,
    "ms": 0.001,
    "s": 1.0,
    "m": 60.0,
    "h": 3600.0,
    "d": 86400.0,
}
"""How long a unit of time is."""


def parse_duration(value: object) -> float:
    """Seconds of `500ms`, `30s`, `5m`, `24h`, `7d` or a plain number of seconds.

    Raises:
        ValueError: it is none of these.
    """
    found = _NUMBER_AND_UNIT.fullmatch(str(value).strip())
    if found is None or found["unit"] not in SECONDS:
        raise ValueError(f"'{value}' is not a duration: write 500ms, 30s, 5m or 24h")
    return float(found["number"]) * SECONDS[found["unit"]]


def show_duration(seconds: float) -> str:
    """A duration as :func:`parse_duration` takes it, in the largest unit that gives a whole
    number."""
    for unit in ("d", "h", "m", "s"):
        if seconds >= SECONDS[unit] and not seconds % SECONDS[unit]:
            return f"{seconds / SECONDS[unit]:.0f}{unit}"
    return f"{seconds * 1000:.0f}ms" if 0 < seconds < 1 else f"{seconds:g}s"


BYTES: Final[Mapping[str, int]] = {
    "": 1,
    "b": 1,
    "kb": 1000,
    "mb": 1000**2,
    "gb": 1000**3,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
}
"""How much a unit of size is."""


def parse_size(value: object) -> int:
    """Bytes of `64KiB`, `1MiB`, `2GB` or a plain number of bytes.

    Raises:
        ValueError: it is none of these.
    """
    found = _NUMBER_AND_UNIT.fullmatch(str(value).strip())
    factor = BYTES.get(found["unit"].lower()) if found is not None else None
    if found is None or factor is None:
        raise ValueError(f"'{value}' is not a size: write 64KiB, 16MiB, 1GiB or a number of bytes")
    size = float(found["number"]) * factor
    if not size.is_integer():
        raise ValueError(f"'{value}' is not a whole number of bytes")
    return int(size)


def show_size(size: int) -> str:
    """A size as :func:`parse_size` takes it, in the largest unit that gives a whole number."""
    for unit in ("GiB", "MiB", "KiB"):
        if size and not size % BYTES[unit.lower()]:
            return f"{size // BYTES[unit.lower()]}{unit}"
    return str(size)


DEFAULT_TENANT = "default"
"""The tenant of every connection on a server that authenticates nobody."""

CONN_ID_LIMIT = 127
"""Bytes of a client id that a server keeps, as gearmand does."""

UNIQUE_LIMIT = 64
"""Longest unique a server accepts, in bytes."""

FUNCTION_LIMIT = 4096
"""Longest function name a server accepts, in bytes; libgearman allows 512."""

DEFAULT_PORT = 4730
"""The port that IANA gave to Gearman."""


TERM_SHIFT = 36
"""Where in a number the term of the queue's owner begins: below it one owner counts, in the upper
bits every owner has numbers of its own."""


@public
class Priority(enum.IntEnum):
    """A job's priority, smaller is sooner; the numbers are those of gearmand's queue tables."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Now(NamedTuple):
    """One moment on two clocks, given to the core from outside.

    ``monotonic`` (seconds from anywhere) measures durations: deadlines, wake-ups. ``wall``
    (seconds since 1970) is compared with what people and other machines wrote down: the due time
    of SUBMIT_JOB_EPOCH. The two are never mixed.
    """

    monotonic: float
    wall: float


class JobEnd(enum.Enum):
    """Why a job is no more. Each end is counted under this name."""

    COMPLETED = "completed"
    FAILED = "failed"
    RAISED = "raised"
    EXHAUSTED = "attempts used up"
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    ABANDONED = "abandoned by its clients"
    EXPIRED = "expired in the queue"
    DROPPED = "dropped with its function"
    NOT_STORED = "not stored"

    # By identity: Enum's own is a method in Python, and each job that ends is counted twice.
    __hash__ = object.__hash__


class CloseReason(enum.Enum):
    """Why a connection ended. Logged and counted under this name."""

    PEER_CLOSED = "peer closed"
    PEER_RESET = "peer reset the connection"
    PEER_SILENT = "peer did not acknowledge in time"
    MID_PACKET = "peer closed in the middle of a packet"
    BAD_MAGIC = "bytes that are neither a packet nor text"
    UNKNOWN_TYPE = "packet type that does not exist"
    TOO_LARGE = "packet larger than allowed"
    LINE_TOO_LONG = "text line longer than allowed"
    MALFORMED = "malformed packet"
    SPEAKS_HTTP = "peer speaks HTTP"
    SPEAKS_TLS = "peer speaks TLS to a plain port"
    SLOW_CONSUMER = "peer does not read what it is sent"
    IDLE_DRAIN = "idle while the server drains"
    SHUTDOWN = "server stopped"
    TLS_BROKEN = "peer broke the TLS protocol"
    NOT_ALLOWED = "address not allowed"
    FAULT = "fault in the server"
    NOT_LOGGED_IN = "not logged in, or not any more"
    LOGIN_LATE = "no login in time"
    DISMISSED = "ended by an operator"
