"""The table in which gearmand's PostgreSQL module keeps its queue: jobs are read from it, and
written for the way back. What gearmand knows of a job is told in
:mod:`trigear.stores.gearmand_queue`."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

import psycopg

from trigear.errors import StoreUnusable
from trigear.stores.gearmand_queue import job_of, rows_for_gearmand
from trigear.stores.postgresql_link import reach, reason_of
from trigear.stores.postgresql_tables import gearmands_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trigear.stores.base import Keep
    from trigear.stores.gearmand_queue import QueuedJob
    from trigear.stores.postgresql_place import Place

LATEST: Final = (1 << 31) - 1
"""The last second since 1970 that gearmand's column for it holds."""


def read_postgresql(place: Place, table: str, spoilt: Callable[[str], None]) -> Iterator[QueuedJob]:
    """The jobs of gearmand's PostgreSQL module, in the order in which they lie there: there is no
    other one.

    Args:
        place: its database.
        table: its table, possibly with its schema.
        spoilt: is told why a row is left out.

    Raises:
        StoreUnusable: they cannot be read.
    """
    try:
        with closing(reach(place)) as link:
            name = gearmands_table(link, table)
            if name is None:
                raise StoreUnusable(f"has no table '{table}' of gearmand's; name it with --table")
            # As the bytes that they are, whatever the database takes them for.
            text = "convert_to({}::text, getdatabaseencoding())".format
            statement = (
                f"SELECT {text('unique_key')}, {text('function_name')}, priority, data,"  # noqa: S608
                f" when_to_run FROM {name} ORDER BY ctid"
            )
            with link.cursor(binary=True) as cursor:
                for row in cursor.stream(statement.encode()):
                    try:
                        yield job_of(row)
                    except ValueError as error:
                        spoilt(str(error))
    except psycopg.Error as error:
        raise StoreUnusable(f"{place.name}: {reason_of(error)}") from error
    except StoreUnusable as error:
        raise StoreUnusable(f"{place.name}: {error}") from error


def write_postgresql(place: Place, table: str, jobs: Iterable[Keep]) -> tuple[int, int]:
    """Write jobs so that gearmand takes them up at its next start.

    Args:
        place: its database.
        table: its table, possibly with its schema; made if it is not there; has to be empty.
        jobs: which.

    Returns:
        How many were written, and how many of those lost their reducer.

    Raises:
        StoreUnusable: they cannot be written; nothing was.
    """
    try:
        with closing(reach(place)) as link:
            link.run("BEGIN")
            if gearmands_table(link, table) is None:
                # As gearmand makes it.
                link.run(
                    f"CREATE TABLE {table} (unique_key varchar(64), function_name varchar(255),"
                    " priority integer, data bytea, when_to_run integer,"
                    " UNIQUE (unique_key, function_name))"
                )
            if link.rows(f"SELECT 1 FROM {table} LIMIT 1"):  # noqa: S608
                raise StoreUnusable(f"table '{table}' is not empty; name another one")
            text = "convert_from(%s::bytea, getdatabaseencoding())"
            statement = f"INSERT INTO {table} VALUES ({text}, {text}, %s, %s, %s)".encode()  # noqa: S608
            written = reducers = 0
            for row, reducer in rows_for_gearmand(jobs):
                link.execute(statement, (*row[:4], min(int(row.due), LATEST)))
                written += 1
                reducers += reducer
            link.finish()
    except psycopg.Error as error:
        raise StoreUnusable(f"{place.name}: {reason_of(error)}") from error
    except StoreUnusable as error:
        raise StoreUnusable(f"{place.name}: {error}") from error
    return written, reducers
