"""What a durable store is given, and what it promises.

A store has one owner and gets one batch at a time, in order. A batch is a list of lines; each is
keyed by (partition, sequence), so that writing a batch twice leaves what writing it once leaves.
The rows carry everything a later reader needs to know them by: tenant, function, unique, handle,
the version of their layout, and the number of the batch that wrote them.

Jobs have a table made for them. Everything else that is to be remembered, and of which there is
less (dead letters, schedules, settings made by command, results), is a *record*: a kind, a key,
some JSON about it, and data that nobody looks into.

Whoever opens a store gets a *term*, a number that grows with every opening. The order of jobs and
their handles are made from it, so that neither is ever given twice, whatever the last owner had no
time to write down. It is the fence, too: a batch is written only while its writer's term is the
one in the store.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RECORD_VERSION: Final = 1

KEY_BYTES: Final = 16
"""Length of a store's handle key."""


class Keep(NamedTuple):
    """Write this job down, or replace what was written under the same (partition, sequence).

    A tuple, in the order of a row: one is made for every background job. ``due`` is in seconds
    since 1970, 0 for at once; ``submitted`` as well, 0 for unknown.
    """

    partition: int
    sequence: int
    tenant: str
    function: bytes
    unique: bytes
    handle: bytes
    priority: int
    due: float
    submitted: float
    losses: int
    reducer: bytes
    workload: bytes
    version: int = RECORD_VERSION


class Losses(NamedTuple):
    """The job under this key has lost so many attempts by now, and is not to run before ``due``;
    nothing happens if there is none."""

    partition: int
    sequence: int
    losses: int
    due: float


class Forget(NamedTuple):
    """Erase the job under this key; nothing happens if there is none."""

    partition: int
    sequence: int


class Record(NamedTuple):
    """Write this record down, or replace what was written under the same key.

    The key is (kind, tenant, key, partition). ``about`` is a JSON object, ``data`` is anything.
    ``expires`` says (in seconds since 1970, 0 for never) when nobody needs it any more; whoever
    wrote it erases it.
    """

    kind: str
    tenant: str
    key: bytes
    partition: int
    function: bytes
    about: str
    data: bytes
    expires: float
    version: int = RECORD_VERSION


class Erase(NamedTuple):
    """Erase the record under this key; nothing happens if there is none."""

    kind: str
    tenant: str
    key: bytes
    partition: int


Line = Keep | Losses | Forget | Record | Erase


@dataclass(frozen=True, slots=True)
class Batch:
    """Lines that are written all or not at all, in order. ``number`` grows by one per batch."""

    number: int
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Spoilt:
    """A row that cannot be read as a job, and why. It stays in the store as it is.

    ``partition`` and ``sequence`` are what stands there, which need not be numbers.
    """

    partition: Any
    sequence: Any
    why: str


Row = Keep | Spoilt


class Marker(NamedTuple):
    """A job that attracts submissions, without the rest. ``workload`` is there only where the
    unique stands for it."""

    partition: int
    sequence: int
    tenant: str
    function: bytes
    unique: bytes
    workload: bytes


@dataclass(frozen=True, slots=True)
class SpoiltRecord:
    """As :class:`Spoilt`, for a record. Neither need ``tenant``, ``key`` and ``partition`` be of
    their types."""

    kind: str
    tenant: Any
    key: Any
    partition: Any
    why: str


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


class Effect(NamedTuple):
    """What is left to do of a batch if each line takes back what earlier ones did."""

    kept: Sequence[Keep]
    losses: Sequence[Losses]
    gone: Sequence[tuple[int, int]]
    records: Sequence[Record]
    erased: Sequence[Erase]


def effect_of(batch: Batch) -> Effect:
    """What a store has to do for a batch. Of jobs kept twice in a row both are there, the later
    one last."""
    if {*map(type, batch.lines)} == {Keep}:
        return Effect(cast("Sequence[Keep]", batch.lines), (), (), (), ())
    kept: dict[tuple[int, int], Keep] = {}
    losses: dict[tuple[int, int], Losses] = {}
    gone: dict[tuple[int, int], None] = {}
    records: dict[Erase, Record] = {}
    erased: dict[Erase, None] = {}
    for line in batch.lines:
        if isinstance(line, Record):
            place = Erase(line.kind, line.tenant, line.key, line.partition)
            records[place] = line
            erased.pop(place, None)
            continue
        if isinstance(line, Erase):
            records.pop(line, None)
            erased[line] = None
            continue
        key = line.partition, line.sequence
        if isinstance(line, Keep):
            kept[key] = line
            losses.pop(key, None)
            gone.pop(key, None)
        elif isinstance(line, Forget):
            kept.pop(key, None)
            losses.pop(key, None)
            gone[key] = None
        else:
            losses[key] = line
    return Effect(
        list(kept.values()), list(losses.values()), list(gone), list(records.values()), list(erased)
    )


def nothing() -> None:
    """Do nothing: nobody wants to be told."""


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
            StoreUnavailable: they cannot be read now.
        """

    def markers(self, after: tuple[int, int] | None, limit: int) -> Sequence[Marker]:
        """The next jobs with a unique behind this (partition, sequence), in that order, much
        faster than :meth:`scan`. A row that is no job may have values of other kinds.

        Args:
            after: the key of the last marker of the page before; None for the first page.
            limit: most markers to return; none at all means that there are no more.

        Raises:
            StoreUnusable: they cannot be read.
            StoreUnavailable: they cannot be read now.
        """

    def records(
        self, kind: str, after: tuple[str, bytes, int] | None, limit: int, *, data: bool = True
    ) -> Sequence[Record | SpoiltRecord]:
        """The next records of a kind behind this (tenant, key, partition), in that order.

        Args:
            kind: which.
            after: the key of the last record of the page before; None for the first page.
            limit: most records to return. Less than that means that these are the last ones.
            data: whether their data is wanted; without, it is empty.

        Raises:
            StoreUnusable: they cannot be read.
            StoreUnavailable: they cannot be read now.
        """

    def fetch(self, kind: str, tenant: str, keys: Sequence[bytes]) -> Sequence[Record]:
        """The records of these keys, as far as there are any, in no order; spoilt ones are left
        out. May be called from a second thread while another one is at :meth:`commit`, and sees
        what was committed before the call.

        Raises:
            StoreUnavailable: they cannot be read now.
        """

    def commit(self, batch: Batch, sent: Callable[[], None] = nothing) -> None:
        """Write the batch so that it survives a loss of power.

        Args:
            batch: what to write.
            sent: to be called as soon as what is left is waiting for others, above all for the
                disk. Until then a server may hold still, so that the interpreter is all the
                store's.

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
