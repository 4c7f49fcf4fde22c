"""What a durable store is given, and what it promises.

A store has one owner and gets one batch at a time, in order. A batch is a list of lines; each is
keyed by (partition, sequence), so that writing a batch twice leaves what writing it once leaves.
The rows carry everything a later reader needs to know them by: tenant, function, unique, handle,
the version of their layout, and the number of the batch that wrote them.

Whoever opens a store gets a *term*, a number that grows with every opening. The order of jobs and
their handles are made from it, so that neither is ever given twice, whatever the last owner had no
time to write down. It is the fence, too: a batch is written only while its writer's term is the
one in the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

RECORD_VERSION: Final = 1

KEY_BYTES: Final = 16
"""Length of a store's handle key."""


class Keep(NamedTuple):
    """Write this job down, or replace what was written under the same (partition, sequence).

    A tuple, in the order of a row: one is made for every background job. ``due`` is in seconds
    since 1970, 0 for at once.
    """

    partition: int
    sequence: int
    tenant: str
    function: bytes
    unique: bytes
    handle: bytes
    priority: int
    due: float
    losses: int
    reducer: bytes
    workload: bytes
    version: int = RECORD_VERSION


class Losses(NamedTuple):
    """The job under this key has lost so many attempts by now; nothing happens if there is none."""

    partition: int
    sequence: int
    losses: int


class Forget(NamedTuple):
    """Erase the job under this key; nothing happens if there is none."""

    partition: int
    sequence: int


Line = Keep | Losses | Forget


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that are written all or not at all, in order. ``number`` grows by one per batch."""

    number: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A row that cannot be read as a job, and why. It stays in the store as it is."""

    partition: int
    sequence: int
    why: str


Row = Keep | Spoilt


@dataclass(frozen=True, slots=True)
class Owner:
    """Who opens a store.

    Args:
        pid: its process id.
        address: where it serves, for people.
        version: the version of trigear.
        seed: ``KEY_BYTES`` random bytes; a store that is new keeps them as its handle key.
    """

    pid: int
    address: str
    version: str
    seed: bytes


@dataclass(frozen=True, slots=True)
class Tenure:
    """What an owner gets: its term, which nobody had before, and the store's handle key."""

    term: int
    key: bytes


class Store(Protocol):
    """A durable store as the server uses it; called from one thread at a time, not always the
    same."""

    @property
    def name(self) -> str:
        """What to call it, and where it is, in one line for people."""

    def open(self, owner: Owner) -> Tenure:
        """Take the store over, making it if it is not there.

        Raises:
            StoreUnusable: it cannot be had; the text says why and what to do. Nothing was changed.
        """

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Row]:
        """The next jobs behind this (partition, sequence), in that order; None for the first.

        Args:
            after: the key of the last row of the page before.
            limit: most rows to return. Less than that means that these are the last ones.

        Raises:
            StoreUnusable: they cannot be read.
        """

    def commit(self, batch: Batch) -> None:
        """Write the batch so that it survives a loss of power.

        Raises:
            StoreUnavailable: nothing was written.
            StoreUnknown: whether it was written cannot be told; ask :meth:`holds`.
            StoreFenced: another owner has taken over.
        """

    def holds(self, batch: Batch) -> bool:
        """After an unknown outcome: whether the batch was written, as surely as :meth:`commit`
        would have said it.

        Raises:
            StoreUnavailable: cannot be told yet.
            StoreFenced: another owner has taken over.
        """

    def close(self) -> None:
        """Let go of the store. Closing it again changes nothing."""
