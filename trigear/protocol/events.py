"""What the columns of client and worker report about what they heard.

The server's column calls handlers instead: on its hot path the objects would cost more than the
packets. Tokens are what the asking methods returned, compared by identity. Bytes stay bytes, as
they stood on the wire; texts of refusals are decoded because people read them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from trigear.model import public

if TYPE_CHECKING:
    from trigear.errors import RemoteProtocolError
    from trigear.protocol.asking import Request

_NUMBER: Final = re.compile(rb"\s*([+-]?[0-9]{1,18})(\.[0-9]{0,18})?")


def number_in(raw: bytes) -> int | float:
    """The decimal number that ``raw`` begins with; 0 where there is none.

    Workers in use send fractions and leave the denominator out.
    """
    found = _NUMBER.match(raw)
    if found is None:
        return 0
    return int(found[1]) if found[2] is None else float(found[0])


@dataclass(slots=True)
class OfRequest:
    """An event that belongs to a request; ``token`` is what the asking method returned."""

    token: Request


# Answers to requests of either side


@dataclass(slots=True)
class Refused(OfRequest):
    """ERROR, or the `ERR` line of a text command: the request was refused."""

    code: str
    text: str


@dataclass(slots=True)
class Echoed(OfRequest):
    """ECHO_RES."""

    data: bytes


@dataclass(slots=True)
class OptionSet(OfRequest):
    """OPTION_RES."""

    option: bytes


@dataclass(slots=True)
class Answer(OfRequest):
    """The answer to a text command: its lines, without the dot that closes a list."""

    lines: list[bytes]


# A login's


@dataclass(slots=True)
class Offered:
    """SASL_MECHANISMS: how one may log in here, and as whom one is logged in already, if so."""

    mechanisms: tuple[str, ...]
    bindings: tuple[str, ...]
    identity: str


@dataclass(slots=True)
class Challenged(OfRequest):
    """SASL_CHALLENGE."""

    data: bytes = field(repr=False)


@dataclass(slots=True)
class LoggedIn(OfRequest):
    """SASL_OK: the server says that the login is done. ``lifetime`` is in seconds, None for no end.

    Whether that may be believed is up to the mechanism, which has to see the data.
    """

    identity: str
    tenant: str
    roles: tuple[str, ...]
    lifetime: float | None
    data: bytes = field(repr=False)


@dataclass(slots=True)
class Expiring:
    """SASL_EXPIRING: the login ends in so many seconds."""

    left: float


@dataclass(slots=True)
class Dismissed:
    """ERROR that answers nothing: the server's last word to one who is not logged in, or not any
    more."""

    code: str
    text: str


# A client's


@dataclass(slots=True)
class Created(OfRequest):
    """JOB_CREATED: the server has the job."""

    handle: bytes


@public
@dataclass(slots=True)
class Status(OfRequest):
    """WORK_STATUS: how far the job has got, in the worker's own numbers."""

    handle: bytes
    numerator: int | float
    denominator: int | float


@public
@dataclass(slots=True)
class Data(OfRequest):
    """WORK_DATA: a part of the result."""

    handle: bytes
    data: bytes


@public
@dataclass(slots=True)
class Warning(OfRequest):
    """WORK_WARNING."""

    handle: bytes
    data: bytes


@dataclass(slots=True)
class Completed(OfRequest):
    """WORK_COMPLETE: the end of this submission."""

    handle: bytes
    data: bytes


@dataclass(slots=True)
class Failed(OfRequest):
    """WORK_FAIL: the end of this submission."""

    handle: bytes


@dataclass(slots=True)
class Raised(OfRequest):
    """WORK_EXCEPTION: the end of this submission."""

    handle: bytes
    data: bytes


@dataclass(slots=True)
class StatusResult(OfRequest):
    """STATUS_RES: what the server knows of a job. Nothing, once the job is over."""

    handle: bytes
    known: bool
    running: bool
    numerator: int | float
    denominator: int | float


@dataclass(slots=True)
class UniqueStatusResult(OfRequest):
    """STATUS_RES_UNIQUE: as :class:`StatusResult`, and how many submissions wait for the job."""

    unique: bytes
    known: bool
    running: bool
    numerator: int | float
    denominator: int | float
    clients: int


@dataclass(slots=True)
class ResultTold(OfRequest):
    """RESULT: what became of a job. ``ended`` is in seconds since 1970, 0 if it is not over;
    ``data`` is None where the server keeps none."""

    handle: bytes
    state: str
    attempts: int
    ended: float
    data: bytes | None


# A worker's


@dataclass(slots=True)
class Assigned:
    """JOB_ASSIGN, JOB_ASSIGN_UNIQ or JOB_ASSIGN_ALL: a job to do.

    What the packet does not carry is empty.
    """

    handle: bytes
    function: bytes
    unique: bytes
    reducer: bytes
    workload: bytes


@dataclass(slots=True)
class NoJob:
    """NO_JOB: there is nothing to do now. Go to sleep."""


@dataclass(slots=True)
class Woken:
    """NOOP to a sleeping worker: there may be something to do. Grab."""


@dataclass(slots=True)
class Disowned:
    """ERROR because of a job that the server does not count as this worker's any more.

    It does not say which. The answer that was given for the job is lost; it runs elsewhere, or is
    over.
    """

    text: str


@dataclass(slots=True)
class Denied:
    """ERROR because of something that has no reply: this user may not offer that function."""

    code: str
    text: str


@dataclass(slots=True)
class Cancelled:
    """JOB_CANCELLED: a job that this worker holds is not wanted from it any more.

    The reason is `cancelled`, or `timeout` if it took too long and goes to somebody else. Only a
    server in extended mode says so.
    """

    handle: bytes
    reason: str


# The end


@dataclass(slots=True)
class Broken:
    """The peer broke the protocol. Nothing that it says from now on makes sense; hang up."""

    error: RemoteProtocolError


Update = Status | Data | Warning
"""What may come any number of times between Created and the end of a foreground submission."""

End = Completed | Failed | Raised
"""What ends a foreground submission, once."""

Event = (
    Refused
    | Echoed
    | OptionSet
    | Answer
    | Offered
    | Challenged
    | LoggedIn
    | Expiring
    | Dismissed
    | Created
    | Update
    | End
    | StatusResult
    | UniqueStatusResult
    | ResultTold
    | Assigned
    | NoJob
    | Woken
    | Disowned
    | Denied
    | Cancelled
    | Broken
)
