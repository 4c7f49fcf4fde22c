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
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from trigear.errors import (
    StoreError,
    StoreFenced,
    StoreUnavailable,
    StoreUnknown,
    StoreUnusable,
)
from trigear.stores.base import (
    KEY_BYTES,
    Record,
    Row,
    SpoiltRecord,
    Tenure,
    effect_of,
    nothing,
)
from trigear.stores.lock import LockFile
from trigear.stores.rows import COLUMNS, RECORD_COLUMNS, read_record, types_of
from trigear.stores.sqlite_file import (
    DAMAGE,
    PAGE,
    ROW,
    TABLES,
    code_of,
    is_ours,
    jobs_in,
    make_file,
    markers_in,
    open_file,
    reason_of,
    records_in,
    sync_folder,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trigear.stores.base import Batch, Marker, Owner

_CACHE_KIB: Final = 16 * 1024

SYNCHRONOUS: Final = "FULL"
"""When SQLite syncs. With anything less JOB_CREATED would not mean that the job is on the disk."""

BUSY_SECONDS: Final = 2.0
"""How long another program may hold the file before a batch is refused."""

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
            make_file(self.path)
            self._connection = self._connect()
            self._note_place()
            return self._take_over(self._connection, owner)
        except StoreUnusable as error:
            self.close()
            raise StoreUnusable(f"store {self.path}: {error}") from error
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise StoreUnusable(f"store {self.path}: {reason_of(error)}") from error

    def _connect(self) -> sqlite3.Connection:
        connection = open_file(self.path, "rw", BUSY_SECONDS, extra=self._extra)
        connection.execute(f"PRAGMA synchronous = {SYNCHRONOUS}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA secure_delete = FAST")
        return connection

    def _note_place(self) -> None:
        """The connection of the owner was made just now: remember to which file."""
        status = os.stat(self.path)
        self._inode = status.st_dev, status.st_ino

    _extra = ""
    """More of SQLite's parameters for opening a file."""

    def _take_over(self, connection: sqlite3.Connection, owner: Owner) -> Tenure:
        ours = is_ours(connection)
        if not ours:
            connection.execute(f"PRAGMA page_size = {PAGE}")
        # Each time: a copy made by SQLite's own tools has another mode.
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreUnusable(
                "its file system does not bear SQLite's write-ahead log; use a local disk"
            )
        if not ours:
            connection.executescript(f"BEGIN IMMEDIATE;{TABLES}")
            connection.execute(
                "INSERT INTO store VALUES (1, 0, 0, ?, ?)", (owner.seed, owner.version)
            )
            connection.execute("COMMIT")
            sync_folder(self.path)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            "UPDATE store SET term = term + 1, batch = 0, writer = ?", (owner.version,)
        )
        found = connection.execute("SELECT term, handle_key FROM store").fetchall()
        if list(map(types_of, found)) != [(int, bytes)] or len(found[0][1]) != KEY_BYTES:
            raise StoreUnusable("is damaged: who owns it cannot be read; restore a backup")
        connection.execute("COMMIT")
        ((self._term, key),) = found
        return Tenure(self._term, key)

    # Loading

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Row]:
        connection = self._connection
        assert connection is not None, "scan comes after open"
        try:
            return jobs_in(connection, after, limit)
        except sqlite3.Error as error:
            raise StoreUnusable(f"store {self.path}: {reason_of(error)}") from error

    def markers(self, after: tuple[int, int] | None, limit: int) -> Sequence[Marker]:
        connection = self._connection
        assert connection is not None, "markers comes after open"
        try:
            return markers_in(connection, after, limit)
        except sqlite3.Error as error:
            raise StoreUnusable(f"store {self.path}: {reason_of(error)}") from error

    def records(
        self, kind: str, after: tuple[str, bytes, int] | None, limit: int, *, data: bool = True
    ) -> Sequence[Record | SpoiltRecord]:
        connection = self._connection
        assert connection is not None, "records comes after open"
        try:
            return records_in(connection, kind, after, limit, data=data)
        except sqlite3.Error as error:
            raise StoreUnusable(f"store {self.path}: {reason_of(error)}") from error

    def fetch(self, kind: str, tenant: str, keys: Sequence[bytes]) -> Sequence[Record]:
        # A connection of its own: the other one may be in the middle of a batch.
        try:
            self._check_place()
            with contextlib.closing(self._connect()) as connection:
                found = [
                    row
                    for portion in _portions(keys)
                    for row in connection.execute(
                        f"SELECT {RECORD_COLUMNS} FROM record WHERE kind = ? AND tenant = ?"  # noqa: S608
                        f" AND key IN ({', '.join('?' * len(portion))})",
                        (kind, tenant, *portion),
                    )
                ]
        except sqlite3.Error as error:
            raise StoreUnavailable(f"store {self.path}: {reason_of(error)}") from error
        read = map(read_record, found)
        return [record for record in read if isinstance(record, Record)]

    # Writing

    def commit(self, batch: Batch, sent: Callable[[], None] = nothing) -> None:
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
                sent()
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
            raise StoreUnavailable(f"store {self.path}: {reason_of(error)}") from error
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
                f"INSERT OR REPLACE INTO job (batch, term, {COLUMNS})"  # noqa: S608
                f" VALUES {', '.join([ROW] * len(rows))}",
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
                f"INSERT OR REPLACE INTO record (batch, term, {RECORD_COLUMNS})"  # noqa: S608
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
        text = f"store {self.path}: {reason_of(error)}"
        code = code_of(error)
        if code not in _NOT_DONE | DAMAGE:
            self._drop()
            return StoreUnknown(text)
        if connection.in_transaction:
            try:
                connection.execute("ROLLBACK")
            except sqlite3.Error:
                self._drop()
                return StoreUnknown(text)
        if code in DAMAGE:
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
            raise StoreUnavailable(f"store {self.path}: {reason_of(error)}") from error
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


def _portions(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """The items in slices that have the length of one of ``_SIZES``."""
    start = 0
    for size in _SIZES:
        while len(items) - start >= size:
            yield items[start : start + size]
            start += size
