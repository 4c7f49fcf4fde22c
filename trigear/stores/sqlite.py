"""The store that is there by default: one SQLite file.

Theory of operation. Every batch is one transaction in the write-ahead log, which SQLite syncs to
the disk before the commit returns (``synchronous=FULL``). The transaction moves the number of the
last batch forward where the term is still ours: that is the fence, what makes a batch written
twice the same as once, and the answer to whether a batch was written.

What an error means:

* the disk is full, the file may not be written, another program holds it: the transaction is
  rolled back, nothing was written;
* an I/O error, above all a failed sync: what is on the disk is unknown, and asking again does not
  help, because the system may say yes the second time without having written. The connection is
  given up. :meth:`SqliteStore.holds` opens another and first has everything from the log written
  to the main file and synced anew; only then it believes what it reads;
* damage: nothing is written to this file any more.

Statements with many rows each, because the interpreter is locked by every single one: while the
rows are written the server's other thread works.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from trigear.errors import (
    StoreError,
    StoreFenced,
    StoreUnavailable,
    StoreUnknown,
    StoreUnusable,
)
from trigear.model import counted
from trigear.stores.base import (
    KEY_BYTES,
    RECORD_VERSION,
    Keep,
    Record,
    Row,
    Spoilt,
    SpoiltRecord,
    Tenure,
    effect_of,
)
from trigear.stores.lock import LockFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from trigear.stores.base import Batch, Owner

APPLICATION_ID: Final = 0x54524947
"""Stands in the head of the file, so that `file` and we know whose it is."""

SCHEMA: Final = 2
"""Version of the tables; in the head of the file, too (``user_version``)."""

SYNCHRONOUS: Final = "FULL"
"""When SQLite syncs. With anything less JOB_CREATED would not mean that the job is on the disk."""

BUSY_SECONDS: Final = 2.0
"""How long another program may hold the file before a batch is refused."""

_PAGE: Final = 8192
_CACHE_KIB: Final = 16 * 1024

_TABLES: Final = f"""
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
) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA};
"""

_COLUMNS: Final = (
    "partition, sequence, tenant, function, uniq, handle, priority, due, submitted, losses,"
    " reducer, workload, version"
)
_TYPES: Final = (int, int, str, bytes, bytes, bytes, int, float, float, int, bytes, bytes, int)
_ROW: Final = f"(?1, ?2, {', '.join('?' * len(_TYPES))})"

_RECORD_COLUMNS: Final = "kind, tenant, key, partition, function, about, data, expires, version"
_RECORD_TYPES: Final = (str, str, bytes, int, bytes, str, bytes, float, int)

_SIZES: Final = (512, 64, 8, 1)
"""How many rows a statement may have; few sizes, so that SQLite keeps them compiled."""

_NOT_DONE: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_CONSTRAINT,
    }
)
"""Errors after which a rolled back transaction has left nothing."""

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})

_GEARMANDS_TABLE: Final = frozenset({"unique_key", "function_name", "priority", "data"})


class SqliteStore:
    """A store in the file ``path``, with its lock and SQLite's own files beside it."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self._lock: LockFile | None = None
        self._connection: sqlite3.Connection | None = None
        self._inode = (0, 0)
        self._term = 0
        self._damage: str | None = None

    @property
    def name(self) -> str:
        return f"sqlite {self.path}"

    # Opening

    def open(self, owner: Owner) -> Tenure:
        try:
            # Two names of one file must lead to one lock.
            self.path = os.path.realpath(self.path)
            self._lock = LockFile(f"{self.path}.lock", owner)
            _make(self.path)
            self._connection = self._connect()
            self._note_place()
            return self._take_over(self._connection, owner)
        except StoreUnusable as error:
            self.close()
            raise StoreUnusable(f"store {self.path}: {error}") from error
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise StoreUnusable(f"store {self.path}: {_reason(error)}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(self.path))}?mode=rw{self._extra}",
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=4 * len(_SIZES) + 16,
        )
        try:
            # A tenant's name that is no text shall spoil its row, not the page it is read with.
            connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
            # Reads the head of the file, and is the first to fail on one that is none of SQLite's.
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
            connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            connection.execute("PRAGMA secure_delete = FAST")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def _note_place(self) -> None:
        """The connection of the owner was made just now: remember to which file."""
        status = os.stat(self.path)
        self._inode = status.st_dev, status.st_ino

    _extra = ""
    """More of SQLite's parameters for opening a file."""

    def _take_over(self, connection: sqlite3.Connection, owner: Owner) -> Tenure:
        ours = self._is_ours(connection)
        if not ours:
            connection.execute(f"PRAGMA page_size = {_PAGE}")
        # Each time: a copy made by SQLite's own tools has another mode.
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnusable(
                "its file system does not bear SQLite's write-ahead log; use a local disk"
            )
        if not ours:
            connection.executescript(f"BEGIN IMMEDIATE;{_TABLES}")
            connection.execute(
                "INSERT INTO store VALUES (1, 0, 0, ?, ?)", (owner.seed, owner.version)
            )
            connection.execute("COMMIT")
            _sync_folder(self.path)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE store SET term = term + 1, batch = 0, writer = ?", (owner.version,)
        )
        found = connection.execute("SELECT term, handle_key FROM store").fetchall()
        if list(map(_types, found)) != [(int, bytes)] or len(found[0][1]) != KEY_BYTES:
            raise StoreUnusable("is damaged: who owns it cannot be read; restore a backup")
        connection.execute("COMMIT")
        ((self._term, key),) = found
        return Tenure(self._term, key)

    def _is_ours(self, connection: sqlite3.Connection) -> bool:
        """Whether the tables are there; False if there is room to make them.

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
                        f"gearmand's table '{table}' is in it, with {counted(jobs, 'job')}, which"
                        " trigear does not read; let gearmand work them off, or name another file"
                    )
                tables.remove(table)
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if application != APPLICATION_ID:
            tables = [name for name in tables if not name.startswith("sqlite_")]
            if application or tables:
                raise StoreUnusable("is a database of another program; name another file")
            return False
        (schema,) = connection.execute("PRAGMA user_version").fetchone()
        if schema < SCHEMA:
            raise StoreUnusable(
                f"has tables of version {schema}, from an earlier trigear; this one needs version"
                f" {SCHEMA}: run 'trigear store migrate', which makes a backup first"
            )
        if schema > SCHEMA:
            raise StoreUnusable(
                f"trigear {_writer(connection)} has written it with tables of version {schema};"
                f" this trigear knows version {SCHEMA}: start that one, or restore a backup"
            )
        return True

    # Loading

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Row]:
        connection = self._connection
        assert connection is not None, "scan comes after open"
        behind = "" if after is None else " WHERE (partition, sequence) > (?, ?)"
        try:
            found = connection.execute(
                f"SELECT {_COLUMNS} FROM job{behind} ORDER BY partition, sequence LIMIT ?",  # noqa: S608
                (*(after or ()), limit),
            ).fetchall()
        except sqlite3.Error as error:
            raise StoreUnusable(f"store {self.path}: {_reason(error)}") from error
        return [_read(row) for row in found]

    def records(
        self, kind: str, after: tuple[str, bytes, int] | None, limit: int, *, data: bool = True
    ) -> Sequence[Record | SpoiltRecord]:
        connection = self._connection
        assert connection is not None, "records comes after open"
        behind = "" if after is None else " AND (tenant, key, partition) > (?, ?, ?)"
        columns = _RECORD_COLUMNS if data else _RECORD_COLUMNS.replace("data", "x''")
        try:
            found = connection.execute(
                f"SELECT {columns} FROM record WHERE kind = ?{behind}"  # noqa: S608
                " ORDER BY tenant, key, partition LIMIT ?",
                (kind, *(after or ()), limit),
            ).fetchall()
        except sqlite3.Error as error:
            raise StoreUnusable(f"store {self.path}: {_reason(error)}") from error
        return [_read_record(row) for row in found]

    def fetch(self, kind: str, tenant: str, keys: Sequence[bytes]) -> Sequence[Record]:
        # A connection of its own: the other one may be in the middle of a batch.
        try:
            self._check_place()
            with contextlib.closing(self._connect()) as connection:
                found = [
                    row
                    for portion in _portions(keys)
                    for row in connection.execute(
                        f"SELECT {_RECORD_COLUMNS} FROM record WHERE kind = ? AND tenant = ?"  # noqa: S608
                        f" AND key IN ({', '.join('?' * len(portion))})",
                        (kind, tenant, *portion),
                    )
                ]
        except sqlite3.Error as error:
            raise StoreUnavailable(f"store {self.path}: {_reason(error)}") from error
        read = map(_read_record, found)
        return [record for record in read if isinstance(record, Record)]

    # Writing

    def commit(self, batch: Batch) -> None:
        connection = self._connection
        if self._damage is not None:
            raise StoreUnavailable(self._damage)
        if connection is None:
            raise StoreUnavailable("the store is not open")
        self._check_place()
        if not os.path.exists(f"{self.path}-wal"):
            raise StoreUnavailable(
                f"store {self.path}: its log was removed under the server; stop the server, which"
                " saves what is in it"
            )
        try:
            if self._begin(connection, batch):
                self._write(connection, batch)
                connection.execute("COMMIT")
            else:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise self._failed(connection, error) from error

    def _check_place(self) -> None:
        """SQLite would go on writing to a file that has no name any more."""
        try:
            status = os.stat(self.path)
        except OSError as error:
            raise StoreUnavailable(f"store {self.path}: {_reason(error)}") from error
        if (status.st_dev, status.st_ino) != self._inode:
            raise StoreUnavailable(f"store {self.path}: another file has taken its place")

    def _begin(self, connection: sqlite3.Connection, batch: Batch) -> bool:
        """Start the transaction; whether the batch is still to be written."""
        connection.execute("BEGIN IMMEDIATE")
        moved = connection.execute(
            "UPDATE store SET batch = ?1 WHERE term = ?2 AND batch < ?1", (batch.number, self._term)
        )
        if moved.rowcount:
            return True
        (term,) = connection.execute("SELECT term FROM store").fetchone()
        if term != self._term:
            connection.execute("ROLLBACK")
            raise self._fenced(term)
        return False

    def _write(self, connection: sqlite3.Connection, batch: Batch) -> None:
        kept, losses, gone, records, erased = effect_of(batch)
        mark = (batch.number, self._term)
        for rows in _portions(kept):
            connection.execute(
                f"INSERT OR REPLACE INTO job (batch, term, {_COLUMNS})"  # noqa: S608
                f" VALUES {', '.join([_ROW] * len(rows))}",
                (*mark, *chain.from_iterable(rows)),
            )
        for line in losses:
            connection.execute(
                "UPDATE job SET losses = ?, due = ? WHERE partition = ? AND sequence = ?",
                (line.losses, line.due, line.partition, line.sequence),
            )
        partitions: dict[int, list[int]] = {}
        for partition, sequence in gone:
            partitions.setdefault(partition, []).append(sequence)
        for partition, sequences in partitions.items():
            for portion in _portions(sequences):
                connection.execute(
                    # By partition, because SQLite finds pairs in a list only by reading all jobs.
                    "DELETE FROM job WHERE partition = ? AND sequence IN"  # noqa: S608
                    f" ({', '.join('?' * len(portion))})",
                    (partition, *portion),
                )
        for record in records:
            connection.execute(
                f"INSERT OR REPLACE INTO record (batch, term, {_RECORD_COLUMNS})"  # noqa: S608
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*mark, *record),
            )
        for key in erased:
            connection.execute(
                "DELETE FROM record WHERE kind = ? AND tenant = ? AND key = ? AND partition = ?",
                key,
            )

    def _failed(self, connection: sqlite3.Connection, error: sqlite3.Error) -> StoreError:
        """What a commit raises that met this error."""
        text = f"store {self.path}: {_reason(error)}"
        code = _code(error)
        if code not in _NOT_DONE | _DAMAGE:
            self._drop()
            return StoreUnknown(text)
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop()
                return StoreUnknown(text)
        if code in _DAMAGE:
            self._damage = text
        return StoreUnavailable(text)

    def _fenced(self, term: int) -> StoreFenced:
        return StoreFenced(
            f"store {self.path}: another server owns it now (term {term}, ours is {self._term})"
        )

    def holds(self, batch: Batch) -> bool:
        # Never the old connection: what it believes is what is in doubt.
        self._drop()
        try:
            self._check_place()
            self._connection = connection = self._connect()
            self._note_place()
            # A sync that failed once may succeed the next time without having written. So all of
            # the log is written once more, to the main file, and that is synced.
            (busy, _, _) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if busy:
                raise StoreUnavailable(f"store {self.path}: another program is reading it")
            term, number = connection.execute("SELECT term, batch FROM store").fetchone()
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"store {self.path}: {_reason(error)}") from error
        if term != self._term:
            raise self._fenced(term)
        return bool(number >= batch.number)

    # The end

    def close(self) -> None:
        self._drop()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _make(path: str) -> None:
    """Make the file, readable for its owner only: workloads may be secrets.

    One that is there already, and our own, is closed to others as well.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        status = os.stat(path)
        if status.st_mode & 0o077 and status.st_uid == os.geteuid():
            os.chmod(path, 0o600)


def _sync_folder(path: str) -> None:
    """Have the names of new files in the folder survive a loss of power."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _portions(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The items in slices that have the length of one of ``_SIZES``."""
    start = 0
    for size in _SIZES:
        while len(items) - start >= size:
            yield items[start : start + size]
            start += size


def _read(row: tuple[Any, ...]) -> Row:
    found = _types(row)
    if found != _TYPES:
        names = _COLUMNS.split(", ")
        wrong = [name for name, a, b in zip(names, found, _TYPES, strict=True) if a is not b]
        return Spoilt(row[0], row[1], f"{', '.join(wrong)}: not of the kind that belongs there")
    if not row[2].isprintable():
        return Spoilt(row[0], row[1], "tenant: not a name")
    if row[-1] != RECORD_VERSION:
        return Spoilt(row[0], row[1], f"layout {row[-1]}, of which this version knows nothing")
    return Keep(*row)


def _read_record(row: tuple[Any, ...]) -> Record | SpoiltRecord:
    found = _types(row)
    kind, tenant, key, partition = row[:4]
    spoilt = partial(SpoiltRecord, kind, tenant, key, partition)
    if found != _RECORD_TYPES:
        names = _RECORD_COLUMNS.split(", ")
        wrong = [name for name, a, b in zip(names, found, _RECORD_TYPES, strict=True) if a is not b]
        return spoilt(f"{', '.join(wrong)}: not of the kind that belongs there")
    if not row[1].isprintable():
        return spoilt("tenant: not a name")
    if row[-1] != RECORD_VERSION:
        return spoilt(f"layout {row[-1]}, of which this version knows nothing")
    return Record(*row)


def _types(row: Iterable[object]) -> tuple[type, ...]:
    return tuple(map(type, row))


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; -1 for what Python found wrong by itself."""
    return getattr(error, "sqlite_errorcode", -1) & 0xFF


def _reason(error: Exception) -> str:
    """What went wrong and what to do, for people."""
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        text = str(error.strerror).lower()
        return f"{place}{text}; let this user write there, or name another place"
    match _code(error) if isinstance(error, sqlite3.Error) else -1:
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


def _writer(connection: sqlite3.Connection) -> str:
    try:
        (version,) = connection.execute("SELECT writer FROM store").fetchone()
    except (sqlite3.Error, TypeError):
        return "of a later version"
    return str(version)
