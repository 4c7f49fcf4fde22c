"""A connection as the broker sees it: what it can do, holds, waits for, and how to reach it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from trigear.broker.functions import Function, Tenant
    from trigear.broker.jobs import Job

GHOST_LIMIT: Final = 1024
"""Late answers a connection may owe before the oldest are forgotten (and answered with ERROR)."""


class Sink(Protocol):
    """How the broker, and connections among themselves, speak to a connection."""

    address: str
    """Where it is, for people."""

    exceptions: bool
    """Whether this client wants to hear of exceptions as such."""

    def send(self, data: bytes) -> None:
        """Pass on what another connection had to say; the broker never looks at it."""

    def wake(self) -> None:
        """There is a job for this sleeping worker."""

    def failed(self, handle: bytes) -> None:
        """A job this client waits for ended without a result."""

    def cancelled(self, handle: bytes, reason: str) -> None:
        """A job this worker holds is not its any more."""

    def created(self, token: object, handle: bytes) -> None:
        """The submission that left ``token`` behind is stored."""

    def not_stored(self, token: object) -> None:
        """The submission that left ``token`` behind could not be stored."""


class Ability:
    """A function that a connection registered. ``timeout`` in seconds, 0 for none.

    The function with the smallest ``stamp`` is tried first.
    """

    __slots__ = ("stamp", "timeout")

    def __init__(self, stamp: int, timeout: float) -> None:
        self.stamp = stamp
        self.timeout = timeout


class Peer:
    """One connection; client, worker or both."""

    __slots__ = (
        "abilities",
        "choked",
        "excepted",
        "ghosts",
        "jobs",
        "sink",
        "sleeping",
        "tenant",
        "waiting",
        "wake_number",
        "woken_for",
    )

    def __init__(self, tenant: Tenant, sink: Sink) -> None:
        self.tenant = tenant
        self.sink = sink
        self.abilities: dict[Function, Ability] = {}
        self.jobs: dict[bytes, Job] = {}
        """Jobs assigned to this connection, by handle."""
        self.ghosts: dict[bytes, Job | None] = {}
        """Jobs taken away from this connection, which still owes an answer; None: they ended."""
        self.waiting: dict[Job, None] = {}
        """Jobs with foreground submissions of this connection."""
        self.sleeping = False
        self.choked = False
        self.woken_for: Function | None = None
        self.wake_number = 0
        self.excepted = b""
        """The job whose WORK_EXCEPTION came last: a WORK_FAIL may follow it."""

    def owe(self, handle: bytes, job: Job | None) -> Job | None:
        """Remember that this connection still owes an answer for a job it lost.

        Returns:
            A job that was forgotten in its place, and may be offered to this connection again.
        """
        self.ghosts[handle] = job
        if len(self.ghosts) <= GHOST_LIMIT:
            return None
        forgotten = self.ghosts.pop(next(iter(self.ghosts)))
        if forgotten is not None:
            forgotten.function.unghost(forgotten, self)
        return forgotten
