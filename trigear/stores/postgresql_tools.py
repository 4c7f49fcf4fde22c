"""What people do with a store in PostgreSQL beside a server: look into it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg

from trigear.errors import StoreUnusable
from trigear.stores.postgresql_link import connect, reason_of
from trigear.stores.postgresql_tables import (
    SCHEMA,
    are_there,
    holders_of,
    jobs_in,
    records_in,
    tables_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from trigear.stores.base import Record, Row, SpoiltRecord
    from trigear.stores.postgresql_place import Place


class PostgresqlSnapshot:
    """What the database holds at this moment; see :class:`trigear.stores.snapshot.Snapshot`.

    Raises:
        StoreUnusable: it cannot be read, or there is no store.
    """

    schema = SCHEMA

    def __init__(self, place: Place) -> None:
        self.name = place.name
        with self._told(), contextlib.ExitStack() as stack:
            self._link = connect(place)
            stack.callback(self._link.close)
            self._tables = tables_of(self._link, place)
            if not are_there(self._link, self._tables):
                raise StoreUnusable("is no store of trigear: it has no tables")
            # Whoever reads what comes from here may take their time.
            self._link.rows("SELECT set_config('idle_in_transaction_session_timeout', '0', false)")
            self._link.run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            # From the first look on everything is seen as it is now.
            ((self.writer,),) = self._link.rows(f"SELECT writer FROM {self._tables.store}")  # noqa: S608
            stack.pop_all()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Errors name the store and say what to do."""
        try:
            yield
        except StoreUnusable as error:
            raise StoreUnusable(f"store {self.name}: {error}") from error
        except psycopg.Error as error:
            raise StoreUnusable(f"store {self.name}: {reason_of(error)}") from error

    @property
    def owner(self) -> str | None:
        with self._told():
            found = holders_of(self._link, self._tables)
        return "; ".join(f"{process} on {host}" for process, host in found) or None

    def total(self) -> int:
        count = "(SELECT count(*) FROM {})".format
        with self._told():
            ((total,),) = self._link.rows(
                f"SELECT {count(self._tables.job)} + {count(self._tables.record)}"
            )
        return int(total)

    def kinds(self) -> Sequence[str]:
        statement = f"SELECT DISTINCT kind FROM {self._tables.record} ORDER BY kind"  # noqa: S608
        with self._told():
            return [str(kind) for (kind,) in self._link.rows(statement)]

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Row]:
        with self._told():
            return jobs_in(self._link, self._tables, after, limit)

    def records(
        self, kind: str, after: tuple[str, bytes, int] | None, limit: int, *, data: bool = True
    ) -> Sequence[Record | SpoiltRecord]:
        with self._told():
            return records_in(self._link, self._tables, kind, after, limit, data=data)

    def damage(self) -> Sequence[str]:
        # The database itself knows when a page is damaged, and says so to who reads it.
        return []

    def close(self) -> None:
        self._link.close()
