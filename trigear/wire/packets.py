"""The packet table: every binary packet of the Gearman protocol, each fact about it once.

The decoder, the legality check of the connection machine, the protocol reference in the
documentation and the seeds of the fuzzer all read :data:`PACKETS` and :data:`EXTENSIONS`.

A packet is ``magic (4) · type (4, big endian) · size (4, big endian) · payload``. The payload is
the arguments joined by NUL bytes: every argument but the last ends in one NUL, the last is raw and
runs to the end of the packet. Source: the PROTOCOL document of gearmand, corrected where gearmand
and libgearman agree with each other and not with it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final


class Side(enum.Flag):
    """Who speaks to a server."""

    NONE = 0
    CLIENT = enum.auto()
    WORKER = enum.auto()
    ANY = 3


CAN_DO: Final = 1
CANT_DO: Final = 2
RESET_ABILITIES: Final = 3
PRE_SLEEP: Final = 4
NOOP: Final = 6
SUBMIT_JOB: Final = 7
JOB_CREATED: Final = 8
GRAB_JOB: Final = 9
NO_JOB: Final = 10
JOB_ASSIGN: Final = 11
WORK_STATUS: Final = 12
WORK_COMPLETE: Final = 13
WORK_FAIL: Final = 14
GET_STATUS: Final = 15
ECHO_REQ: Final = 16
ECHO_RES: Final = 17
SUBMIT_JOB_BG: Final = 18
ERROR: Final = 19
STATUS_RES: Final = 20
SUBMIT_JOB_HIGH: Final = 21
SET_CLIENT_ID: Final = 22
CAN_DO_TIMEOUT: Final = 23
ALL_YOURS: Final = 24
WORK_EXCEPTION: Final = 25
OPTION_REQ: Final = 26
OPTION_RES: Final = 27
WORK_DATA: Final = 28
WORK_WARNING: Final = 29
GRAB_JOB_UNIQ: Final = 30
JOB_ASSIGN_UNIQ: Final = 31
SUBMIT_JOB_HIGH_BG: Final = 32
SUBMIT_JOB_LOW: Final = 33
SUBMIT_JOB_LOW_BG: Final = 34
SUBMIT_JOB_SCHED: Final = 35
SUBMIT_JOB_EPOCH: Final = 36
SUBMIT_REDUCE_JOB: Final = 37
SUBMIT_REDUCE_JOB_BACKGROUND: Final = 38
GRAB_JOB_ALL: Final = 39
JOB_ASSIGN_ALL: Final = 40
GET_STATUS_UNIQUE: Final = 41
STATUS_RES_UNIQUE: Final = 42
SASL_MECHANISMS: Final = 101
SASL_START: Final = 102
SASL_CHALLENGE: Final = 103
SASL_RESPONSE: Final = 104
SASL_OK: Final = 105
SASL_ABORT: Final = 106
SASL_EXPIRING: Final = 107
JOB_RELEASE: Final = 108
JOB_DETACH: Final = 109
GET_RESULT: Final = 110
RESULT: Final = 111
HEARTBEAT: Final = 112
JOB_CANCELLED: Final = 113


@dataclass(frozen=True, slots=True)
class Packet:
    """One row of the table.

    ``args`` names the arguments, the last one raw. ``least`` is the fewest arguments a receiver
    accepts, because programs in use leave the last ones out; missing arguments read as empty.
    ``asked_by`` are the sides that send the packet to a server (magic ``\\0REQ``), ``sent_to``
    those to which a server sends it (magic ``\\0RES``). ``replies`` lists what may answer it
    beside ERROR; a packet without any gets no reply. ``strip_nul`` drops one NUL after the last
    argument, which some programs add. ``served`` is false where no server implements the request.
    """

    number: int
    name: str
    args: tuple[str, ...]
    asked_by: Side
    sent_to: Side
    about: str
    replies: tuple[int, ...] = ()
    least: int = -1
    strip_nul: bool = False
    served: bool = True

    def __post_init__(self) -> None:
        if self.least < 0:
            object.__setattr__(self, "least", len(self.args))


_N, _C, _W, _A = Side.NONE, Side.CLIENT, Side.WORKER, Side.ANY
_JOB = ("function", "unique", "workload")
_REDUCE = ("function", "unique", "reducer", "aggregator", "workload")
_CREATED = (JOB_CREATED,)

_ROWS: Final = (
    Packet(CAN_DO, "CAN_DO", ("function",), _W, _N, "The worker can do jobs of this function."),
    Packet(
        CANT_DO,
        "CANT_DO",
        ("function",),
        _W,
        _N,
        "The worker no longer does this function; jobs it holds stay with it.",
    ),
    Packet(
        RESET_ABILITIES,
        "RESET_ABILITIES",
        (),
        _W,
        _N,
        "The worker does no function any more; jobs it holds stay with it.",
    ),
    Packet(
        PRE_SLEEP,
        "PRE_SLEEP",
        (),
        _W,
        _N,
        "The worker goes to sleep: NOOP follows as soon as there is a job for it.",
    ),
    Packet(NOOP, "NOOP", (), _N, _W, "Wakes a sleeping worker. Advice, not a promise."),
    Packet(
        SUBMIT_JOB,
        "SUBMIT_JOB",
        _JOB,
        _C,
        _N,
        "Submit a foreground job of normal priority.",
        _CREATED,
    ),
    Packet(
        JOB_CREATED,
        "JOB_CREATED",
        ("handle",),
        _N,
        _C,
        "The job was accepted under this handle; answers submissions in their order.",
    ),
    Packet(GRAB_JOB, "GRAB_JOB", (), _W, _N, "Ask for a job.", (JOB_ASSIGN, NO_JOB)),
    Packet(NO_JOB, "NO_JOB", (), _N, _W, "There is no job for this worker now."),
    Packet(
        JOB_ASSIGN,
        "JOB_ASSIGN",
        ("handle", "function", "workload"),
        _N,
        _W,
        "The job this worker is to do.",
    ),
    Packet(
        WORK_STATUS,
        "WORK_STATUS",
        ("handle", "numerator", "denominator"),
        _W,
        _C,
        "How far the job has got.",
        least=2,
    ),
    Packet(
        WORK_COMPLETE,
        "WORK_COMPLETE",
        ("handle", "result"),
        _W,
        _C,
        "The job is done; ends it.",
        least=1,
    ),
    Packet(WORK_FAIL, "WORK_FAIL", ("handle",), _W, _C, "The job failed; ends it.", strip_nul=True),
    Packet(
        GET_STATUS,
        "GET_STATUS",
        ("handle",),
        _C,
        _N,
        "Ask about a job by its handle.",
        (STATUS_RES,),
        strip_nul=True,
    ),
    Packet(ECHO_REQ, "ECHO_REQ", ("data",), _A, _N, "Ask for the same bytes back.", (ECHO_RES,)),
    Packet(ECHO_RES, "ECHO_RES", ("data",), _N, _A, "The bytes of the ECHO_REQ."),
    Packet(
        SUBMIT_JOB_BG,
        "SUBMIT_JOB_BG",
        _JOB,
        _C,
        _N,
        "Submit a background job of normal priority.",
        _CREATED,
    ),
    Packet(ERROR, "ERROR", ("code", "text"), _N, _A, "The request was refused.", least=1),
    Packet(
        STATUS_RES,
        "STATUS_RES",
        ("handle", "known", "running", "numerator", "denominator"),
        _N,
        _C,
        "What the server knows of the job.",
    ),
    Packet(
        SUBMIT_JOB_HIGH,
        "SUBMIT_JOB_HIGH",
        _JOB,
        _C,
        _N,
        "Submit a foreground job of high priority.",
        _CREATED,
    ),
    Packet(
        SET_CLIENT_ID,
        "SET_CLIENT_ID",
        ("id",),
        _A,
        _N,
        "Name this connection; the `workers` command shows the name.",
        strip_nul=True,
    ),
    Packet(
        CAN_DO_TIMEOUT,
        "CAN_DO_TIMEOUT",
        ("function", "timeout"),
        _W,
        _N,
        "As CAN_DO; a job that takes longer than the timeout (decimal milliseconds, 1 to 999 "
        "count as 1000, 0 is none) is given to another worker.",
    ),
    Packet(
        ALL_YOURS, "ALL_YOURS", (), _W, _N, "Reserved; no server ever implemented it.", served=False
    ),
    Packet(
        WORK_EXCEPTION,
        "WORK_EXCEPTION",
        ("handle", "exception"),
        _W,
        _C,
        "The job raised an exception; ends it. Clients that did not ask for exceptions get "
        "WORK_FAIL.",
        least=1,
    ),
    Packet(
        OPTION_REQ,
        "OPTION_REQ",
        ("option",),
        _A,
        _N,
        "Set an option of this connection: `exceptions`, or `trigear` for extended mode.",
        (OPTION_RES,),
        strip_nul=True,
    ),
    Packet(OPTION_RES, "OPTION_RES", ("option",), _N, _A, "The option is set."),
    Packet(WORK_DATA, "WORK_DATA", ("handle", "data"), _W, _C, "A part of the result.", least=1),
    Packet(
        WORK_WARNING,
        "WORK_WARNING",
        ("handle", "warning"),
        _W,
        _C,
        "A warning while the job runs.",
        least=1,
    ),
    Packet(
        GRAB_JOB_UNIQ,
        "GRAB_JOB_UNIQ",
        (),
        _W,
        _N,
        "Ask for a job and its unique.",
        (JOB_ASSIGN_UNIQ, NO_JOB),
    ),
    Packet(
        JOB_ASSIGN_UNIQ,
        "JOB_ASSIGN_UNIQ",
        ("handle", "function", "unique", "workload"),
        _N,
        _W,
        "The job this worker is to do, with its unique.",
    ),
    Packet(
        SUBMIT_JOB_HIGH_BG,
        "SUBMIT_JOB_HIGH_BG",
        _JOB,
        _C,
        _N,
        "Submit a background job of high priority.",
        _CREATED,
    ),
    Packet(
        SUBMIT_JOB_LOW,
        "SUBMIT_JOB_LOW",
        _JOB,
        _C,
        _N,
        "Submit a foreground job of low priority.",
        _CREATED,
    ),
    Packet(
        SUBMIT_JOB_LOW_BG,
        "SUBMIT_JOB_LOW_BG",
        _JOB,
        _C,
        _N,
        "Submit a background job of low priority.",
        _CREATED,
    ),
    Packet(
        SUBMIT_JOB_SCHED,
        "SUBMIT_JOB_SCHED",
        (
            "function",
            "unique",
            "minute",
            "hour",
            "day_of_month",
            "month",
            "day_of_week",
            "workload",
        ),
        _C,
        _N,
        "Make a schedule, which submits background jobs of normal priority by the calendar: five "
        "fields of cron, but with 0 for Monday as the day of the week, in UTC. The handle is that "
        "of the schedule. gearmand never implemented it.",
        _CREATED,
    ),
    Packet(
        SUBMIT_JOB_EPOCH,
        "SUBMIT_JOB_EPOCH",
        ("function", "unique", "epoch", "workload"),
        _C,
        _N,
        "Submit a background job of normal priority that waits until the given time "
        "(decimal seconds since 1970).",
        _CREATED,
    ),
    Packet(
        SUBMIT_REDUCE_JOB,
        "SUBMIT_REDUCE_JOB",
        _REDUCE,
        _C,
        _N,
        "Submit a foreground job whose parts a reducer function brings together. The fourth "
        "argument is unused but present.",
        _CREATED,
    ),
    Packet(
        SUBMIT_REDUCE_JOB_BACKGROUND,
        "SUBMIT_REDUCE_JOB_BACKGROUND",
        _REDUCE,
        _C,
        _N,
        "As SUBMIT_REDUCE_JOB, in the background.",
        _CREATED,
    ),
    Packet(
        GRAB_JOB_ALL,
        "GRAB_JOB_ALL",
        (),
        _W,
        _N,
        "Ask for a job, its unique and its reducer.",
        (JOB_ASSIGN_ALL, JOB_ASSIGN_UNIQ, NO_JOB),
    ),
    Packet(
        JOB_ASSIGN_ALL,
        "JOB_ASSIGN_ALL",
        ("handle", "function", "unique", "reducer", "workload"),
        _N,
        _W,
        "The job this worker is to do, with its unique and reducer.",
    ),
    Packet(
        GET_STATUS_UNIQUE,
        "GET_STATUS_UNIQUE",
        ("unique",),
        _C,
        _N,
        "Ask about a job by its unique.",
        (STATUS_RES_UNIQUE,),
        strip_nul=True,
    ),
    Packet(
        STATUS_RES_UNIQUE,
        "STATUS_RES_UNIQUE",
        ("unique", "known", "running", "numerator", "denominator", "client_count"),
        _N,
        _C,
        "What the server knows of the job with this unique.",
    ),
)

_EXTENSIONS: Final = (
    Packet(
        JOB_RELEASE,
        "JOB_RELEASE",
        ("handle", "reason"),
        _W,
        _N,
        "The worker gives a job back unharmed. The reason `deadline` counts as a timeout; any "
        "other (`drain`, `refused`) ends no attempt.",
    ),
    Packet(
        JOB_DETACH,
        "JOB_DETACH",
        ("handle",),
        _C,
        _N,
        "The client stops waiting for one of its submissions. A foreground job that has not "
        "started and that nobody else waits for is dropped.",
    ),
    Packet(
        GET_RESULT,
        "GET_RESULT",
        ("handle",),
        _C,
        _N,
        "Ask what became of a job, and for its result.",
        (RESULT,),
    ),
    Packet(
        RESULT,
        "RESULT",
        ("handle", "state", "attempts", "ended", "kept", "data"),
        _N,
        _C,
        "What the server knows of the job. The state is a word; `attempts` is decimal, `ended` are "
        "decimal milliseconds since 1970, 0 if the job is not over. `kept` is `1` if the server "
        "keeps the job's result, which is the data, and `0` if not.",
    ),
    Packet(
        HEARTBEAT,
        "HEARTBEAT",
        ("interval",),
        _W,
        _N,
        "The worker lives, and will say so again within the interval (decimal milliseconds, 0 for "
        "no more). After three intervals of silence its jobs are given to others.",
    ),
    Packet(
        JOB_CANCELLED,
        "JOB_CANCELLED",
        ("handle", "reason"),
        _N,
        _W,
        "The job is not the worker's any more: it was `cancelled`, or it took too long "
        "(`timeout`). What the worker still answers for it is dropped.",
    ),
)

_LOGINS: Final = (
    Packet(
        SASL_MECHANISMS,
        "SASL_MECHANISMS",
        ("mechanisms", "bindings", "required", "identity"),
        _N,
        _A,
        "Follows the OPTION_RES to OPTION_REQ `sasl`: what may be used here, best first, and what "
        "a login can be bound to, both separated by blanks; `1` if nothing is served without a "
        "login; who the connection is already, or nothing.",
    ),
    Packet(
        SASL_START,
        "SASL_START",
        ("start",),
        _A,
        _N,
        "Begin a login: the name of a mechanism, then, if it begins with a message of the peer, "
        "NUL and that message.",
        (SASL_CHALLENGE, SASL_OK),
    ),
    Packet(
        SASL_CHALLENGE,
        "SASL_CHALLENGE",
        ("data",),
        _N,
        _A,
        "The next message of the mechanism.",
    ),
    Packet(
        SASL_RESPONSE,
        "SASL_RESPONSE",
        ("data",),
        _A,
        _N,
        "The next message of the mechanism.",
        (SASL_CHALLENGE, SASL_OK),
    ),
    Packet(
        SASL_OK,
        "SASL_OK",
        ("identity", "tenant", "roles", "lifetime", "data"),
        _N,
        _A,
        "The login succeeded: as whom (`tenant/name`), the roles separated by commas, for how many "
        "milliseconds (`0`: no end), and the last message of the mechanism, by which the server "
        "proves that it knows the password too.",
    ),
    Packet(
        SASL_ABORT,
        "SASL_ABORT",
        (),
        _A,
        _N,
        "Give the login up; answered by ERROR `SASL_ABORTED`.",
    ),
    Packet(
        SASL_EXPIRING,
        "SASL_EXPIRING",
        ("left",),
        _N,
        _A,
        "In so many milliseconds the login ends; log in again on the same connection.",
    ),
)

PACKETS: Final[dict[int, Packet]] = {row.number: row for row in _ROWS}
"""Every packet type of Gearman by its number. 0 (text) and 5 (unused) are not packets."""

EXTENSIONS: Final[dict[int, Packet]] = {row.number: row for row in _EXTENSIONS}
"""trigear's own packet types, legal on a connection once OPTION_REQ ``trigear`` was answered with
OPTION_RES (extended mode). Any other server answers it with ERROR and stays as it is."""

LOGINS: Final[dict[int, Packet]] = {row.number: row for row in _LOGINS}
"""The packet types of logins, legal once OPTION_REQ ``sasl`` was answered with OPTION_RES, which
also opens extended mode. SASL data is raw bytes."""

LOGIN_OPTION: Final = b"sasl"

EXTENDED_OPTION: Final = b"trigear"

TENANT_OPTION: Final = b"tenant="
"""Begins the option by which an operator acts for a tenant."""

REPLIES: Final = frozenset(
    {ERROR, *(number for row in (*_ROWS, *_EXTENSIONS, *_LOGINS) for number in row.replies)}
)
"""The types that answer a request, in the order of the requests."""


def name_of(number: int) -> str:
    """The packet type's name, or its number in words if it has none."""
    row = PACKETS.get(number) or EXTENSIONS.get(number) or LOGINS.get(number)
    return row.name if row else f"type {number}"
