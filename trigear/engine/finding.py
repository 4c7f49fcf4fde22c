"""What is told to those who ask what became of a job."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from trigear.broker.jobs import DELAYED, PARKED, QUEUED, RUNNING
from trigear.model import JobEnd

STATE_WORDS: Final = {
    JobEnd.COMPLETED: "done",
    JobEnd.FAILED: "failed",
    JobEnd.RAISED: "exception",
    JobEnd.EXHAUSTED: "dead",
    JobEnd.TIMED_OUT: "timeout",
    JobEnd.EXPIRED: "expired",
    JobEnd.CANCELLED: "cancelled",
    JobEnd.ABANDONED: "abandoned",
    JobEnd.DROPPED: "dropped",
    JobEnd.NOT_STORED: "refused",
}
"""The word for each way a job can end."""

UNKNOWN: Final = "unknown"
SCHEDULED: Final = "scheduled"
"""The word for the handle of a schedule, whose runs are jobs with handles of their own."""

LIVE_WORDS: Final = {
    DELAYED: "delayed",
    QUEUED: "queued",
    PARKED: "queued",
    RUNNING: "running",
}
"""The word for the state of a job that is there."""


class Finding(NamedTuple):
    """What is known of a job.

    ``state`` is a word. ``ended`` is in seconds since 1970, 0 if it is not over or unknown.
    ``size`` is that of its data, None if none are kept; ``data`` is None as well if they were not
    asked for.
    """

    state: str
    attempts: int = 0
    ended: float = 0.0
    function: bytes = b""
    unique: bytes = b""
    handle: bytes = b""
    size: int | None = None
    data: bytes | None = None


Told = Callable[[Finding | None, str], None]
"""Hears what was found, or None; and why that could not be read, or nothing."""
