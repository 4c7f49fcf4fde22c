"""A job, from submission to its end.

States::

    PENDING ──committed──► QUEUED ──grabbed──► RUNNING ──terminal packet──► ENDED
       │                  ▲  │  ▲                 │
       │ (due later)      │  │  └──lost, timeout──┤
       │                  │  └─► PARKED (its clients do not read) ─► QUEUED
       └────► DELAYED ─due┘                       │
                 ▲                                │
                 └──lost, timeout, failed: later──┘

A job that is wanted by nobody any more, is cancelled, or whose record could not be stored goes to
ENDED from wherever it is; what is left of one that is given up may be a dead letter. Three things
are kept apart that are easily taken for one: whether the job is wanted in the background, which
submissions wait for it, and whether it is over.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.broker.functions import Function
    from trigear.broker.peers import Peer

PENDING: Final = 0
DELAYED: Final = 1
QUEUED: Final = 2
PARKED: Final = 3
RUNNING: Final = 4
ENDED: Final = 5

STATE_NAMES: Final = ("pending", "delayed", "queued", "parked", "running", "ended")

NO_NOTE: Final = ("", b"")
"""What is known of the last attempt of a job that has had none."""


NO_PROGRESS: Final = (0, 0)


class Past:
    """What has happened to a job since it came, which is nothing to most."""

    __slots__ = ("ghosts", "losses", "note", "progress")

    def __init__(self) -> None:
        self.losses = 0
        self.progress: tuple[int, int] = NO_PROGRESS
        self.note: tuple[str, bytes] = NO_NOTE
        self.ghosts: dict[Peer, list[Any]] | None = None


class Job:
    """One job. The broker alone changes it.

    ``key`` is what submissions coalesce on (None: this job attracts none). ``waiters`` has one
    entry per foreground submission, so that each gets its own terminal packet. ``seq`` orders the
    queue; a job that is queued again draws a new one. ``due`` (not before) and ``submitted`` are
    times of the wall clock, 0 for at once and for unknown. ``gate`` lists the submissions whose
    reply waits for the commit of this job's record. ``timer`` is the deadline of its assignment
    while it runs; before, when it is due or expires.

    There may be millions of them in a queue: what most have no need of takes no room.
    """

    __slots__ = (
        "background",
        "due",
        "function",
        "gate",
        "handle",
        "key",
        "past",
        "priority",
        "record",
        "reducer",
        "seq",
        "state",
        "submitted",
        "timer",
        "unique",
        "waiters",
        "worker",
        "workload",
    )

    def __init__(
        self,
        function: Function,
        handle: bytes,
        unique: bytes,
        key: bytes | None,
        workload: bytes,
        priority: int,
        background: bool,
        due: float,
        submitted: float,
        reducer: bytes,
    ) -> None:
        self.function = function
        self.handle = handle
        self.unique = unique
        self.key = key
        self.workload = workload
        self.priority = priority
        self.background = background
        self.due = due
        self.submitted = submitted
        self.reducer = reducer
        self.state = PENDING
        self.seq = 0
        self.record = 0
        self.past: Past | None = None
        self.worker: Peer | None = None
        self.waiters: Sequence[Peer] = ()
        self.timer: list[Any] | None = None
        self.gate: list[tuple[Peer, object]] | None = None

    def __repr__(self) -> str:
        return f"<Job {self.handle!r} of {self.function.name!r} {STATE_NAMES[self.state]}>"

    def _happened(self) -> Past:
        past = self.past
        if past is None:
            past = self.past = Past()
        return past

    @property
    def losses(self) -> int:
        """How many attempts have ended."""
        return 0 if self.past is None else self.past.losses

    @losses.setter
    def losses(self, count: int) -> None:
        if count or self.past is not None:
            self._happened().losses = count

    @property
    def note(self) -> tuple[str, bytes]:
        """What is known of its last attempt: the worker's address, and its last words."""
        return NO_NOTE if self.past is None else self.past.note

    @note.setter
    def note(self, note: tuple[str, bytes]) -> None:
        self._happened().note = note

    @property
    def progress(self) -> tuple[int, int]:
        """How much of it is done, of how much, as its worker says."""
        return NO_PROGRESS if self.past is None else self.past.progress

    @progress.setter
    def progress(self, progress: tuple[int, int]) -> None:
        if progress[0] or progress[1] or self.past is not None:
            self._happened().progress = progress

    @property
    def ghosts(self) -> dict[Peer, list[Any]] | None:
        """The connections to which it is not offered, with the timers that end that."""
        return None if self.past is None else self.past.ghosts

    @ghosts.setter
    def ghosts(self, ghosts: dict[Peer, list[Any]] | None) -> None:
        self._happened().ghosts = ghosts

    @property
    def since(self) -> float:
        """When it could first have begun, by the wall clock; 0 for unknown."""
        return max(self.submitted, self.due)

    @property
    def wanted(self) -> bool:
        """Whether anybody would miss this job."""
        return self.background or bool(self.waiters) or self.gate is not None


def key_of(unique: bytes, workload: bytes) -> bytes | None:
    """What a submission coalesces on within its function, or None if on nothing.

    The unique ``-`` stands for the workload itself. Its key has a NUL, which no unique on the wire
    can have, so that it never meets an explicit unique.
    """
    if not unique:
        return None
    if unique != b"-":
        return unique
    if not workload:
        return None
    return b"-\0" + blake2b(workload, digest_size=24).digest()
