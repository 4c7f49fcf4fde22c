"""What a durable store is given, and what it promises.

A store has one owner and gets one batch at a time, in order. A batch is a list of lines; each is
keyed by (partition, sequence), so that writing a batch twice leaves what writing it once leaves.
The rows carry everything a later reader needs to know them by: tenant, function, unique, handle,
the version of their layout, and the number of the batch that wrote them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

RECORD_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Keep:
    """Write this job down, or replace what was written under the same (partition, sequence).

    ``due`` is in seconds since 1970, 0 for at once.
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


@dataclass(frozen=True, slots=True)
class Forget:
    """Erase the job under this key; nothing happens if there is none."""

    partition: int
    sequence: int


Line = Keep | Forget


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that are written all or not at all, in order. ``number`` grows by one per batch."""

    number: int
    lines: tuple[Line, ...]


class Store(Protocol):
    """A durable store as the server's committer uses it; called from one thread."""

    def commit(self, batch: Batch) -> None:
        """Write the batch so that it survives a loss of power.

        Raises:
            StoreUnavailable: nothing was written.
            StoreUnknown: whether it was written cannot be told; ask :meth:`holds`.
            StoreFenced: another owner has taken over.
        """

    def holds(self, batch: Batch) -> bool:
        """After an unknown outcome: whether the batch was written.

        Raises:
            StoreUnavailable: cannot be told yet.
            StoreFenced: another owner has taken over.
        """
