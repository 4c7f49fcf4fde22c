"""Rows of the tables in which databases keep jobs and records, and what is wrong with some."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from trigear.stores.base import RECORD_VERSION, Keep, Record, Row, Spoilt, SpoiltRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

COLUMNS: Final = (
    "partition, sequence, tenant, function, uniq, handle, priority, due, submitted, losses,"
    " reducer, workload, version"
)
"""Of a job, in the order of :class:`trigear.stores.base.Keep`."""

TYPES: Final = (int, int, str, bytes, bytes, bytes, int, float, float, int, bytes, bytes, int)

RECORD_COLUMNS: Final = "kind, tenant, key, partition, function, about, data, expires, version"
"""Of a record, in the order of :class:`trigear.stores.base.Record`."""

RECORD_TYPES: Final = (str, str, bytes, int, bytes, str, bytes, float, int)


def read_row(row: tuple[Any, ...]) -> Row:
    """The job in a row with these columns, or what is wrong with it."""
    found = types_of(row)
    if found != TYPES:
        names = COLUMNS.split(", ")
        wrong = [name for name, a, b in zip(names, found, TYPES, strict=True) if a is not b]
        return Spoilt(row[0], row[1], f"{', '.join(wrong)}: not of the kind that belongs there")
    if not row[2].isprintable():
        return Spoilt(row[0], row[1], "tenant: not a name")
    if row[-1] != RECORD_VERSION:
        return Spoilt(row[0], row[1], f"layout {row[-1]}, of which this version knows nothing")
    return Keep(*row)


def read_record(row: tuple[Any, ...]) -> Record | SpoiltRecord:
    """The record in a row with these columns, or what is wrong with it."""
    found = types_of(row)
    kind, tenant, key, partition = row[:4]
    spoilt = partial(SpoiltRecord, kind, tenant, key, partition)
    if found != RECORD_TYPES:
        names = RECORD_COLUMNS.split(", ")
        wrong = [name for name, a, b in zip(names, found, RECORD_TYPES, strict=True) if a is not b]
        return spoilt(f"{', '.join(wrong)}: not of the kind that belongs there")
    if not row[1].isprintable():
        return spoilt("tenant: not a name")
    if row[-1] != RECORD_VERSION:
        return spoilt(f"layout {row[-1]}, of which this version knows nothing")
    return Record(*row)


def types_of(row: Iterable[object]) -> tuple[type, ...]:
    return tuple(map(type, row))
