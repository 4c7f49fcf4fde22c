"""Dead letters: what is left of background jobs that were given up.

A dead letter has all that is needed to make it a job again, under the same handle. It matches no
unique, counts for no limit, and stays until an operator decides about it, or its time is up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from trigear.model import JobEnd

NOTE_LIMIT: Final = 1024
"""Bytes that are kept of an exception or a warning."""


@dataclass(slots=True, eq=False)
class DeadLetter:
    """A background job that was given up.

    Args:
        tenant: whose job it was.
        partition: the partition of its function.
        function: its function's name.
        handle: its handle.
        unique: its unique.
        priority: its priority.
        reducer: the function that its parts were for, if it was a reduce job.
        workload: what the worker was given.
        reason: why it was given up.
        attempts: how often it was handed out and came to nothing.
        submitted: when it was submitted, by the wall clock; 0 for unknown.
        died: when it was given up, by the wall clock.
        worker: the address of the worker that had it last, if that is known.
        text: the last words of a worker about it, an exception or a warning.
    """

    tenant: str
    partition: int
    function: bytes
    handle: bytes
    unique: bytes
    priority: int
    reducer: bytes
    workload: bytes
    reason: JobEnd
    attempts: int
    submitted: float
    died: float
    worker: str = ""
    text: bytes = b""
    timer: list[Any] | None = field(default=None, repr=False)
    """When it is to be forgotten."""
