"""Places where a store can be, one kind for each database, for the tests that hold for all."""

from __future__ import annotations

import contextlib
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.postgres import new_schema, shared
from trigear.stores import postgresql_link
from trigear.stores.base import Batch, Keep, Owner, Record
from trigear.stores.postgresql import PostgresqlStore
from trigear.stores.postgresql_place import place_of_url
from trigear.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from trigear.stores.base import Line, Row, SpoiltRecord, Store

OWNER = Owner(pid=4711, address="127.0.0.1:4730", version="9.8.7", seed=b"0123456789abcdef")


class SqlitePlace:
    """A folder for one database file."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "jobs.sqlite3"
        self.called = self.path.name
        self._stores: list[Store] = []

    def store(self) -> Store:
        """One more store at this place, not yet opened."""
        store = SqliteStore(str(self.path))
        self._stores.append(store)
        return store

    def opened(self) -> Store:
        store = self.store()
        store.open(OWNER)
        return store

    def usurp(self) -> None:
        """Do what an owner on another machine would do who got past the lock."""
        with sqlite3.connect(self.path) as other:
            other.execute("UPDATE store SET term = term + 1, batch = 0")
        other.close()

    def clear(self) -> None:
        for store in self._stores:
            store.close()


class PostgresqlPlace:
    """A schema of its own in the database that all tests share."""

    def __init__(self, _folder: Path) -> None:
        self.cluster = shared()
        self.called = new_schema()
        self.url = self.cluster.url(schema=self.called)
        self._stores: list[PostgresqlStore] = []

    def store(self) -> PostgresqlStore:
        """One more store at this place, not yet opened."""
        store = PostgresqlStore(place_of_url(self.url))
        self._stores.append(store)
        return store

    def opened(self) -> PostgresqlStore:
        store = self.store()
        store.open(OWNER)
        return store

    def run(self, *statements: str) -> list[tuple[Any, ...]]:
        """Do these as superuser, with our schema before all others; the rows of the last one."""
        return self.cluster.run(f"SET search_path = {self.called}", *statements)

    def usurp(self) -> None:
        """Do what an owner would do who got past the lock."""
        self.run("UPDATE trigear_store SET term = term + 1, batch = 0")

    def clear_sessions(self) -> None:
        for store in self._stores:
            store.close()

    def clear(self) -> None:
        self.clear_sessions()
        self.cluster.run(f"DROP SCHEMA IF EXISTS {self.called} CASCADE")


PLACES = {"sqlite": SqlitePlace, "postgresql": PostgresqlPlace}


@contextlib.contextmanager
def impatience(*, answers: bool = False) -> Iterator[None]:
    """Within, PostgreSQL's sessions wait for a lock for a moment only; with ``answers`` for
    answers and connections, too. Only around what is to be given up: on a busy machine all else
    takes longer as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgresql_link, "LOCK_SECONDS", 0.5)
        if answers:
            patch.setattr(postgresql_link, "ANSWER_SECONDS", 0.8)
            patch.setenv("PGCONNECT_TIMEOUT", "2")
        yield


def job(sequence: int, workload: bytes = b"work", *, partition: int = 0, **other: object) -> Keep:
    """A line that keeps a job."""
    line = Keep(
        partition=partition,
        sequence=sequence,
        tenant="default",
        function=b"f",
        unique=b"",
        handle=b"H:test:%d" % sequence,
        priority=1,
        due=0.0,
        submitted=0.0,
        losses=0,
        reducer=b"",
        workload=workload,
    )
    return line._replace(**other)


def record(key: bytes, data: bytes = b"data", **other: object) -> Record:
    """A line that keeps a record."""
    line = Record(
        kind="dead",
        tenant="default",
        key=key,
        partition=0,
        function=b"f",
        about='{"reason": "lost"}',
        data=data,
        expires=0.0,
    )
    return line._replace(**other)


def records(
    store: Store, kind: str = "dead", *, limit: int = 100, data: bool = True
) -> list[Record | SpoiltRecord]:
    """Every record of a kind, in the store's order."""
    found: list[Record | SpoiltRecord] = []
    after = None
    while True:
        page = store.records(kind, after, limit, data=data)
        assert len(page) <= limit
        found += page
        if len(page) < limit:
            return found
        after = page[-1].tenant, page[-1].key, page[-1].partition


def write(store: Store, number: int, *lines: Line) -> Batch:
    """Commit the lines as the batch of this number."""
    batch = Batch(number, lines)
    store.commit(batch)
    return batch


def pages(store: Store, limit: int = 100) -> Iterator[list[Row]]:
    after = None
    while True:
        rows = list(store.scan(after, limit))
        yield rows
        if len(rows) < limit:
            return
        after = rows[-1].partition, rows[-1].sequence


def content(store: Store) -> list[Row]:
    """Everything that is in the store, in its order."""
    return [row for page in pages(store) for row in page]


def sequences(rows: Iterable[Row]) -> list[int]:
    return [row.sequence for row in rows]
