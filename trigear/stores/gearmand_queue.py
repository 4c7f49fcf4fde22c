"""The tables in which gearmand keeps its queue: jobs are read from them, and written for the way
back.

gearmand knows less of a job than we do: unique, function, priority, workload, and when it is due.
Unique and function together are its key; a job without unique gets its handle for one there, and a
unique that came from there stays, because programs may coalesce on it.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from trigear.errors import StoreUnusable
from trigear.model import Priority
from trigear.stores.sqlite_file import open_file, reason_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from trigear.stores.base import Keep

SQLITE_TABLE: Final = "gearman_queue"
"""The table that gearmand's SQLite module uses if nobody names one."""

BUSY_SECONDS: Final = 6.0

_COLUMNS: Final = ("unique_key", "function_name", "priority", "data", "when_to_run")


class QueuedJob(NamedTuple):
    """A job as gearmand keeps it. ``due`` in seconds since 1970, 0 for at once."""

    unique: bytes
    function: bytes
    priority: int
    workload: bytes
    due: float


def job_of(row: tuple[object, ...]) -> QueuedJob:
    """What a row of gearmand's means. It writes an empty workload as NULL.

    Raises:
        ValueError: nothing; the text says why.
    """
    unique, function, priority, workload, due = row
    if workload is None:
        workload = b""
    if not isinstance(unique, bytes) or not isinstance(function, bytes) or not function:
        raise ValueError("it names no function")
    if not isinstance(workload, bytes):
        raise ValueError("its data is of the wrong kind")
    if not isinstance(priority, int) or priority not in tuple(Priority):
        raise ValueError(f"priority {priority!r} does not exist")
    if due is not None and not isinstance(due, int | float):
        raise ValueError(f"due at {due!r}")
    return QueuedJob(unique, function, priority, workload, float(due or 0))


def read_sqlite(path: str, table: str | None, spoilt: Callable[[str], None]) -> Iterator[QueuedJob]:
    """The jobs of gearmand's SQLite module, in the order in which it wrote them.

    Args:
        path: its database.
        table: its table; None for the only one that looks like it.
        spoilt: is told why a row is left out.

    Raises:
        StoreUnusable: they cannot be read.
    """
    try:
        with closing(open_file(path, "ro", BUSY_SECONDS)) as connection:
            connection.text_factory = bytes
            name = _table_in(connection, table)
            quoted = _quoted(name)
            names = _columns_of(connection, name)
            # Tables of an old gearmand know of no time.
            due = "when_to_run" if "when_to_run" in names else "0"
            for row in connection.execute(
                f"SELECT unique_key, function_name, priority, data, {due} FROM {quoted}"  # noqa: S608
                " ORDER BY rowid"
            ):
                try:
                    yield job_of(row)
                except ValueError as error:
                    spoilt(str(error))
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path}: {reason_of(error)}") from error
    except StoreUnusable as error:
        raise StoreUnusable(f"{path}: {error}") from error


def _columns_of(connection: sqlite3.Connection, table: str) -> set[str]:
    columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return {column.decode() for (column,) in columns}


def _table_in(connection: sqlite3.Connection, table: str | None) -> str:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    names: list[str] = [name.decode() for (name,) in tables]
    found = [name for name in names if _columns_of(connection, name) >= {*_COLUMNS[:4]}]
    if table is not None:
        if table not in found:
            raise StoreUnusable(
                f"has no table '{table}' of gearmand's; there"
                + (f" are: {', '.join(found)}" if found else " is none at all")
            )
        return table
    if len(found) != 1:
        raise StoreUnusable(
            f"has {len(found)} tables of gearmand's"
            + (f": {', '.join(found)}; name one with --table" if found else "")
        )
    return found[0]


def rows_for_gearmand(jobs: Iterable[Keep]) -> Iterator[tuple[QueuedJob, bool]]:
    """Each job as gearmand would keep it, with a key of its own, and whether it loses a reducer."""
    keys: set[tuple[bytes, bytes]] = set()
    for job in jobs:
        unique = job.unique
        if not unique or unique == b"-" or (unique, job.function) in keys:
            unique = job.handle
        keys.add((unique, job.function))
        priority = int(job.priority)
        row = QueuedJob(unique, job.function, priority, job.workload, job.due)
        yield row, bool(job.reducer)


def write_sqlite(path: str, table: str, jobs: Iterable[Keep]) -> tuple[int, int]:
    """Write jobs so that gearmand takes them up at its next start.

    Jobs whose reducer or attempts gearmand cannot keep lose them.

    Args:
        path: its database, made if it is not there.
        table: its table, made if it is not there; has to be empty.
        jobs: which.

    Returns:
        How many were written, and how many of those lost their reducer.

    Raises:
        StoreUnusable: they cannot be written; nothing was.
    """
    quoted = _quoted(table)
    written = reducers = 0
    try:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            # As gearmand makes it, to the types and the key.
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {quoted} (unique_key TEXT, function_name TEXT,"
                " priority INTEGER, data BLOB, when_to_run INTEGER,"
                " PRIMARY KEY (unique_key, function_name))"
            )
            (there,) = connection.execute(f"SELECT count(*) FROM {quoted}").fetchone()  # noqa: S608
            if there:
                raise StoreUnusable(f"{path}: table '{table}' is not empty; name another one")
            for row, reducer in rows_for_gearmand(jobs):
                connection.execute(
                    f"INSERT INTO {quoted} VALUES (CAST(? AS TEXT), CAST(? AS TEXT), ?, ?, ?)",  # noqa: S608
                    (*row[:4], int(row.due)),
                )
                written += 1
                reducers += reducer
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreUnusable(f"{path}: {reason_of(error)}") from error
    return written, reducers


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
