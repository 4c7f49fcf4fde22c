"""Dead letters as records of the store."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.dead import DeadLetter
from trigear.engine.records import Kind
from trigear.model import JobEnd, Priority
from trigear.stores.base import Erase, Record

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trigear.broker.broker import Broker
    from trigear.model import Now

KIND: Final = "dead"

REASONS: Final = {
    JobEnd.EXHAUSTED: "attempts",
    JobEnd.TIMED_OUT: "timeout",
    JobEnd.EXPIRED: "expired",
    JobEnd.FAILED: "failed",
    JobEnd.RAISED: "exception",
}
"""Why a job is dead, in the one word of records, commands and listings."""

_ENDS: Final = {word: end for end, word in REASONS.items()}


def record_of(letter: DeadLetter) -> Record:
    """What is written down of a dead letter."""
    about = {
        "unique": _text(letter.unique),
        "priority": letter.priority,
        "reducer": _text(letter.reducer),
        "reason": REASONS[letter.reason],
        "attempts": letter.attempts,
        "submitted": letter.submitted,
        "died": letter.died,
        "worker": letter.worker,
        "text": _text(letter.text),
    }
    return Record(
        kind=KIND,
        tenant=letter.tenant,
        key=letter.handle,
        partition=letter.partition,
        function=letter.function,
        about=json.dumps(about, separators=(",", ":")),
        data=letter.workload,
        expires=0.0,
    )


def place_of(letter: DeadLetter) -> Erase:
    """The place of a dead letter's record."""
    return Erase(KIND, letter.tenant, letter.handle, letter.partition)


def kind_of(broker: Broker) -> Kind:
    """The kind of these records."""

    def restore(record: Record, about: Mapping[str, Any], now: Now) -> None:
        if not broker.dead.restore(letter_of(record, about), now):
            raise ValueError("the function does not belong to this partition")

    return Kind(KIND, restore)


def letter_of(record: Record, about: Mapping[str, Any]) -> DeadLetter:
    """The dead letter that a record is about.

    Raises:
        KeyError, TypeError, ValueError: it would be none, or could not be a job again.
    """
    letter = DeadLetter(
        tenant=record.tenant,
        partition=record.partition,
        function=record.function,
        handle=record.key,
        unique=_bytes(about, "unique"),
        priority=Priority(about["priority"]),
        reducer=_bytes(about, "reducer"),
        workload=record.data,
        reason=_ENDS[about["reason"]],
        attempts=int(about["attempts"]),
        submitted=float(about["submitted"]),
        died=float(about["died"]),
        worker=str(about["worker"]),
        text=_bytes(about, "text"),
    )
    if not letter.handle:
        raise ValueError("it has no handle")
    if b"\0" in letter.handle + letter.function + letter.unique + letter.reducer:
        raise ValueError("a name with a NUL in it")
    if not math.isfinite(letter.submitted) or not math.isfinite(letter.died):
        raise ValueError("a time that is none")
    return letter


def _text(data: bytes) -> str:
    """Any bytes as a text for JSON."""
    return data.decode("utf-8", "surrogateescape")


def _bytes(about: Mapping[str, Any], key: str) -> bytes:
    text = about[key]
    if not isinstance(text, str):
        raise TypeError(f"{key}: is no text")
    return text.encode("utf-8", "surrogateescape")
