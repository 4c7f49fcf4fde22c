"""SQLite files as trigear writes them: the tables, whose file it is, and what errors mean.

The store that a server works with is in :mod:`trigear.stores.sqlite`; what people do with such
files beside a server is in :mod:`trigear.stores.sqlite_tools`.
"""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from trigear.errors import StoreUnusable
from trigear.model import counted
from trigear.stores.base import Marker
from trigear.stores.rows import COLUMNS, RECORD_COLUMNS, TYPES, read_record, read_row

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from trigear.stores.base import Record, Row, SpoiltRecord

# Bytes go in as they are, and this says so: without it Python looks for the methods of an adapter
# in every value, which took a fifth of the time of a commit.
sqlite3.register_adapter(bytes, bytes)

APPLICATION_ID: Final = 0x54524947
"""Stands in the head of the file, so that `file` and we know whose it is."""

SCHEMA: Final = 2
"""Version of the tables; in the head of the file, too (``user_version``)."""

PAGE: Final = 8192

RECORD_TABLE: Final = """
CREATE TABLE record (
    kind TEXT NOT NULL,
    tenant TEXT NOT NULL,
    key BLOB NOT NULL,
    partition INTEGER NOT NULL,
    function BLOB NOT NULL,
    about TEXT NOT NULL,
    data BLOB NOT NULL,
    expires REAL NOT NULL,
    version INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    term INTEGER NOT NULL,
    PRIMARY KEY (kind, tenant, key, partition)
) WITHOUT ROWID"""

TABLES: Final = f"""
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    term INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    handle_key BLOB NOT NULL,
    writer TEXT NOT NULL
);
CREATE TABLE job (
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    function BLOB NOT NULL,
    uniq BLOB NOT NULL,
    handle BLOB NOT NULL,
    priority INTEGER NOT NULL,
    due REAL NOT NULL,
    submitted REAL NOT NULL,
    losses INTEGER NOT NULL,
    reducer BLOB NOT NULL,
    workload BLOB NOT NULL,
    version INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    term INTEGER NOT NULL,
    PRIMARY KEY (partition, sequence)
) WITHOUT ROWID;
{RECORD_TABLE};
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
"""

ROW: Final = f"(?1, ?2, {', '.join('?' * len(TYPES))})"

DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_GEARMANDS_TABLE: Final = frozenset({"unique_key", "function_name", "priority", "data"})


def open_file(path: str, mode: str, timeout: float, *, extra: str = "") -> sqlite3.Connection:
    """A connection to the file.

    Args:
        path: the file.
        mode: ``ro`` or ``rw``; the file has to be there.
        timeout: how long to wait for other programs, in seconds.
        extra: more of SQLite's URI parameters.

    Raises:
        sqlite3.Error: the file cannot be opened or is no database.
    """
    connection = sqlite3.connect(
        f"file:{quote(os.fsencode(path))}?mode={mode}{extra}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    try:
        # A tenant's name that is no text shall spoil its row, not the page it is read with.
        connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
        # Reads the head of the file, and is the first to fail on one that is none of SQLite's.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def is_ours(connection: sqlite3.Connection, *, schemas: Container[int] = (SCHEMA,)) -> bool:
    """Whether our tables are there, of one of these versions; False if there is room to make them.

    Raises:
        StoreUnusable: the file is somebody else's, or from the future.
    """
    tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master")]
    for table in tables:
        columns = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
        if {name for (name,) in columns} >= _GEARMANDS_TABLE:
            quoted = table.replace('"', '""')
            (jobs,) = connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()  # noqa: S608
            if jobs:
                raise StoreUnusable(
                    f"gearmand's table '{table}' is in it, with {counted(jobs, 'job')}; name"
                    " another file, and take them into it with 'trigear store import'"
                )
            tables.remove(table)
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if application != APPLICATION_ID:
        tables = [name for name in tables if not name.startswith("sqlite_")]
        if application or tables:
            raise StoreUnusable("is a database of another program; name another file")
        return False
    (schema,) = connection.execute("PRAGMA user_version").fetchone()
    if schema not in schemas and schema < SCHEMA:
        raise StoreUnusable(
            f"has tables of version {schema}, from an earlier trigear; this one needs version"
            f" {SCHEMA}: run 'trigear store migrate', which makes a backup first"
        )
    if schema > SCHEMA:
        raise StoreUnusable(
            f"trigear {writer_of(connection)} has written it with tables of version {schema};"
            f" this trigear knows version {SCHEMA}: start that one, or restore a backup"
        )
    return True


def jobs_in(
    connection: sqlite3.Connection, after: tuple[int, int] | None, limit: int
) -> Sequence[Row]:
    """A page of jobs, as :meth:`trigear.stores.base.Store.scan` says."""
    behind = "" if after is None else " WHERE (partition, sequence) > (?, ?)"
    found = connection.execute(
        f"SELECT {COLUMNS} FROM job{behind} ORDER BY partition, sequence LIMIT ?",  # noqa: S608
        (*(after or ()), limit),
    ).fetchall()
    return [read_row(row) for row in found]


def markers_in(
    connection: sqlite3.Connection, after: tuple[int, int] | None, limit: int
) -> Sequence[Marker]:
    """A page of markers, as :meth:`trigear.stores.base.Store.markers` says. Rows that are no jobs
    have none."""
    behind = "" if after is None else " AND (partition, sequence) > (?, ?)"
    found = connection.execute(
        "SELECT partition, sequence, tenant, function, uniq,"  # noqa: S608
        " CASE WHEN uniq = x'2d' AND typeof(workload) = 'blob' THEN workload ELSE x'' END"
        f" FROM job WHERE uniq != x''{behind} AND typeof(uniq) = 'blob'"
        " AND typeof(function) = 'blob' AND typeof(tenant) = 'text'"
        " AND typeof(partition) = 'integer' AND typeof(sequence) = 'integer'"
        " ORDER BY partition, sequence LIMIT ?",
        (*(after or ()), limit),
    ).fetchall()
    return [Marker(*row) for row in found]


def records_in(
    connection: sqlite3.Connection,
    kind: str,
    after: tuple[str, bytes, int] | None,
    limit: int,
    *,
    data: bool,
) -> Sequence[Record | SpoiltRecord]:
    """A page of records, as :meth:`trigear.stores.base.Store.records` says."""
    behind = "" if after is None else " AND (tenant, key, partition) > (?, ?, ?)"
    columns = RECORD_COLUMNS if data else RECORD_COLUMNS.replace("data", "x''")
    found = connection.execute(
        f"SELECT {columns} FROM record WHERE kind = ?{behind}"  # noqa: S608
        " ORDER BY tenant, key, partition LIMIT ?",
        (kind, *(after or ()), limit),
    ).fetchall()
    return [read_record(row) for row in found]


def make_file(path: str) -> None:
    """Make the file, readable for its owner only: workloads may be secrets.

    One that is there already, and our own, is closed to others as well.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        status = os.stat(path)
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.chmod(path, 0o600)


def sync_folder(path: str) -> None:
    """Have the names of new files in the folder survive a loss of power."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def code_of(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 for what Python found wrong by itself."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF


def reason_of(error: Exception) -> str:
    """What went wrong and what to do, for people."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        text = str(error.strerror).lower()
        return f"{place}{text}; let this user write there, or name another place"
    match code_of(error) if isinstance(error, sqlite3.Error) else -1:
        case sqlite3.SQLITE_FULL:
            return "the disk is full; make room"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return f"{error}; let this user write to the file and its folder, or name another place"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return f"{error}: another program holds it; end that one"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return f"is damaged: {error}; nothing is written to it any more; restore a backup"
        case sqlite3.SQLITE_IOERR:
            return f"the disk does not work: {error}"
        case _:
            return str(error)


def writer_of(connection: sqlite3.Connection) -> str:
    try:
        (version,) = connection.execute("SELECT writer FROM store").fetchone()
    except (sqlite3.Error, TypeError):
        return "of a later version"
    return str(version)
