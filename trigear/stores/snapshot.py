"""A store as it is at one moment, for people who look into it beside its owner."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, Protocol

from trigear.errors import StoreUnusable
from trigear.stores.base import Record, Spoilt, SpoiltRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trigear.stores.base import Row

PAGE: Final = 1000
"""Rows that are read at a time."""

FAULTS: Final = 20
"""Faults that are named; the others are only counted."""


class Snapshot(Protocol):
    """What a store holds at one moment; nothing that is written later is in it. Owning the store
    is not needed, and its owner is not disturbed."""

    @property
    def name(self) -> str:
        """What to call it, in one line for people."""

    @property
    def writer(self) -> str:
        """The version of trigear that opened it last."""

    @property
    def schema(self) -> int:
        """The version of its tables."""

    @property
    def owner(self) -> str | None:
        """Who owns it now, for people; None for nobody."""

    def total(self) -> int:
        """How many jobs and records there are."""

    def kinds(self) -> Sequence[str]:
        """The kinds of records there are, in order."""

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Row]:
        """As :meth:`trigear.stores.base.Store.scan`."""

    def records(
        self, kind: str, after: tuple[str, bytes, int] | None, limit: int, *, data: bool = True
    ) -> Sequence[Record | SpoiltRecord]:
        """As :meth:`trigear.stores.base.Store.records`."""

    def damage(self) -> Sequence[str]:
        """What the database says is wrong with it."""

    def close(self) -> None:
        """Let go of it."""


def jobs_of(snapshot: Snapshot) -> Iterator[Row]:
    """Every job, in the order of the store."""
    after = None
    while True:
        page = snapshot.scan(after, PAGE)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].partition, page[-1].sequence


def records_of(snapshot: Snapshot, *, data: bool = True) -> Iterator[Record | SpoiltRecord]:
    """Every record, kind by kind."""
    for kind in snapshot.kinds():
        after = None
        while True:
            page = snapshot.records(kind, after, PAGE, data=data)
            yield from page
            if len(page) < PAGE:
                break
            after = page[-1].tenant, page[-1].key, page[-1].partition


@dataclass
class Findings:
    """What is in a store and what is wrong with it.

    ``jobs`` counts by (tenant, function), ``records`` by kind. ``faults`` has the first
    ``FAULTS`` as text, ``faulty`` counts all.
    """

    jobs: dict[tuple[str, bytes], int] = field(default_factory=dict)
    records: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    faulty: int = 0
    _handles: set[tuple[str, bytes]] = field(default_factory=set, repr=False)

    def see(self, row: Row | Record | SpoiltRecord) -> None:
        """Count a row, or what is wrong with it."""
        if isinstance(row, Record):
            self.records[row.kind] = self.records.get(row.kind, 0) + 1
        elif isinstance(row, SpoiltRecord):
            self.fault(f"{row.kind} {row.key!r} of tenant {row.tenant}: {row.why}")
        elif isinstance(row, Spoilt):
            self.fault(f"job ({row.partition!r}, {row.sequence!r}): {row.why}")
        else:
            handle = row.tenant, row.handle
            if handle in self._handles:
                self.fault(
                    f"job ({row.partition!r}, {row.sequence!r}): another job has the same handle"
                )
            self._handles.add(handle)
            key = row.tenant, row.function
            self.jobs[key] = self.jobs.get(key, 0) + 1

    def fault(self, text: str) -> None:
        """Count a fault, and name it if few were named."""
        self.faulty += 1
        if len(self.faults) < FAULTS:
            self.faults.append(text)


def examine(snapshot: Snapshot, progress: Callable[[int, int], None]) -> Findings:
    """Read everything. Where reading fails, that is one more fault.

    Args:
        snapshot: what to read.
        progress: is told now and then how many rows were read, of how many.
    """
    found = Findings()
    for text in snapshot.damage():
        found.fault(text)
    try:
        total = snapshot.total()
        for read, row in enumerate(chain(jobs_of(snapshot), records_of(snapshot, data=False)), 1):
            if read % PAGE == 0:
                progress(read, total)
            found.see(row)
    except StoreUnusable as error:
        found.fault(str(error))
    return found
