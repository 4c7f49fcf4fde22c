"""What is said about dead letters by text command: see :mod:`trigear.protocol.talks`."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trigear.errors import Refused
from trigear.model import Priority, public
from trigear.protocol.talks import known, misunderstood, number, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.protocol.talks import Talk


@public
@dataclass(frozen=True, slots=True)
class DeadLetterStatus:
    """A dead letter: what is left of a background job that was given up.

    ``reason`` is `attempts` (they are used up), `timeout`, `expired`, `failed` or `exception`;
    ``died`` is a time in UTC, ``size`` the length of its workload in bytes.
    """

    handle: str
    function: str
    unique: str | None
    reason: str
    attempts: int
    died: datetime
    size: int


@public
@dataclass(frozen=True, slots=True)
class DeadLetterDetails:
    """All of one dead letter.

    ``submitted`` and ``worker`` (the address of the last one that had it) are None where they are
    not known; ``text`` is what a worker said last, an exception or a warning, as far as it is kept;
    ``reducer`` is the function that the parts of a reduce job were for.
    """

    handle: str
    function: str
    unique: str | None
    priority: Priority
    reducer: str | None
    reason: str
    attempts: int
    submitted: datetime | None
    died: datetime
    worker: str | None
    text: str
    workload: bytes


def listed(function: str | bytes | None = None) -> Talk[list[DeadLetterStatus]]:
    """The dead letters, of one function or of all."""
    lines = yield "dead list" + _function(function)
    return [_status(line) for line in lines]


def _status(line: str) -> DeadLetterStatus:
    fields = line.split("\t")
    if len(fields) != 7:
        raise misunderstood(line)
    handle, function, reason, attempts, died, size, unique = fields
    return DeadLetterStatus(
        handle, function, unique or None, reason, number(attempts), _time(died), number(size)
    )


def details(handle: str | bytes) -> Talk[DeadLetterDetails | None]:
    """One dead letter; None if there is none."""
    try:
        lines = yield f"dead show {word(handle, 'handle')}"
    except Refused as error:
        if error.code != "UNKNOWN_JOB":
            raise
        return None
    pairs = [line.partition("\t")[::2] for line in lines]
    found = dict(pairs)
    try:
        letter = DeadLetterDetails(
            handle=found["handle"],
            function=found["function"],
            unique=found["unique"] or None,
            priority=Priority[found["priority"].upper()],
            reducer=found["reducer"] or None,
            reason=found["reason"],
            attempts=number(found["attempts"]),
            submitted=None if found["submitted"] == "-" else _time(found["submitted"]),
            died=_time(found["died"]),
            worker=None if found["worker"] == "-" else found["worker"],
            text=found["text"],
            workload=b"".join(b64decode(value) for name, value in pairs if name == "workload"),
        )
        if len(letter.workload) != number(found["size"]):
            raise ValueError
    except (KeyError, ValueError):
        raise misunderstood("; ".join(lines)[:200]) from None
    return letter


def _time(field: str) -> datetime:
    try:
        return datetime.fromtimestamp(float(field), UTC)
    except (ValueError, OverflowError, OSError):
        raise misunderstood(field) from None


def retry(handle: str | bytes) -> Talk[bool]:
    """Make one a job again. Returns whether there was one."""
    return known(f"dead retry {word(handle, 'handle')}")


def delete(handle: str | bytes) -> Talk[bool]:
    """Forget one. Returns whether there was one."""
    return known(f"dead delete {word(handle, 'handle')}")


def retry_all(function: str | bytes | None = None) -> Talk[int]:
    """Make all of them jobs again, of one function or of all. Returns how many there were."""
    return _repeated(f"dead retry all{_function(function)}")


def delete_all(function: str | bytes | None = None) -> Talk[int]:
    """Forget all of them, of one function or of all. Returns how many there were."""
    return _repeated(f"dead delete all{_function(function)}")


def _repeated(line: str) -> Talk[int]:
    """Give a command until it has changed as many as there were; not until none is left, for jobs
    may die faster than one can ask."""
    changed, left = _counts((yield line))
    total = changed + left
    while left and changed < total:
        more, left = _counts((yield line))
        changed += more
    return changed


def _counts(lines: Sequence[str]) -> tuple[int, int]:
    """The numbers in an answer `OK changed left`."""
    words = lines[0].split(" ") if lines else []
    if len(words) != 3 or words[0] != "OK":
        raise misunderstood(lines[0] if lines else "")
    return number(words[1]), number(words[2])


def _function(function: str | bytes | None) -> str:
    return "" if function is None else f" {word(function, 'function')}"
