"""What people do with a store's SQLite file beside a server: look into it, copy it, renew its
tables."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING, Final

from trigear.errors import StoreUnusable
from trigear.stores.lock import LockFile, holder_of
from trigear.stores.sqlite_file import (
    RECORD_TABLE,
    SCHEMA,
    is_ours,
    jobs_in,
    make_file,
    open_file,
    reason_of,
    records_in,
    sync_folder,
    writer_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trigear.stores.base import Owner, Record, Row, SpoiltRecord

BUSY_SECONDS: Final = 5.0
"""How long another program may hold the file."""

PAGES: Final = 1024
"""Pages of the file that are copied between two reports of progress."""

BACKUP_TERMS: Final = 1 << 16
"""How many terms a copy is ahead of its original: whoever starts from the copy must not give
handles that the original gave after the copy was made."""

UPGRADES: Final = {
    1: ("ALTER TABLE job ADD COLUMN submitted REAL NOT NULL DEFAULT 0.0", RECORD_TABLE),
}
"""What makes tables of one version into tables of the next."""


@contextlib.contextmanager
def _told(path: str) -> Iterator[None]:
    """Errors name the store and say what to do."""
    try:
        yield
    except StoreUnusable as error:
        raise StoreUnusable(f"store {path}: {error}") from error
    except (OSError, sqlite3.Error) as error:
        raise StoreUnusable(f"store {path}: {reason_of(error)}") from error


class SqliteSnapshot:
    """What the file holds at this moment; see :class:`trigear.stores.snapshot.Snapshot`.

    Raises:
        StoreUnusable: the file is not there, cannot be read, or is no store.
    """

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        with _told(self.path):
            # SQLite would say of a missing file only that it cannot be opened.
            os.stat(self.path)
            self.connection = open_file(self.path, "ro", BUSY_SECONDS)
            with contextlib.ExitStack() as stack:
                stack.callback(self.connection.close)
                if not is_ours(self.connection, schemas=range(1, SCHEMA + 1)):
                    raise StoreUnusable("is no store of trigear: it is empty")
                # From the first look on everything is seen as it is now.
                self.connection.execute("BEGIN")
                (self.schema,) = self.connection.execute("PRAGMA user_version").fetchone()
                self.writer = writer_of(self.connection)
                stack.pop_all()

    @property
    def name(self) -> str:
        return f"sqlite {self.path}"

    @property
    def owner(self) -> str | None:
        with _told(self.path):
            return holder_of(f"{self.path}.lock")

    def _need_tables(self) -> None:
        if self.schema != SCHEMA:
            raise StoreUnusable(
                f"has tables of version {self.schema}; run 'trigear store migrate' first"
            )

    def total(self) -> int:
        with _told(self.path):
            self._need_tables()
            (jobs,) = self.connection.execute("SELECT count(*) FROM job").fetchone()
            (records,) = self.connection.execute("SELECT count(*) FROM record").fetchone()
        return int(jobs) + int(records)

    def kinds(self) -> Sequence[str]:
        with _told(self.path):
            found = self.connection.execute("SELECT DISTINCT kind FROM record ORDER BY kind")
            return [str(kind) for (kind,) in found]

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Row]:
        with _told(self.path):
            return jobs_in(self.connection, after, limit)

    def records(
        self, kind: str, after: tuple[str, bytes, int] | None, limit: int, *, data: bool = True
    ) -> Sequence[Record | SpoiltRecord]:
        with _told(self.path):
            return records_in(self.connection, kind, after, limit, data=data)

    def damage(self) -> Sequence[str]:
        try:
            found = [str(text) for (text,) in self.connection.execute("PRAGMA integrity_check")]
        except sqlite3.Error as error:
            # Damage of some kinds keeps it from looking any further.
            return [str(error)]
        return [] if found == ["ok"] else found

    def close(self) -> None:
        self.connection.close()


def backup(
    path: str, target: str, progress: Callable[[int, int], None], *, replace: bool = False
) -> None:
    """Copy a store, also while a server uses it.

    The copy is a store of its own, as the first was at the moment of the call, and is synced to
    the disk before it gets its name.

    Args:
        path: the store's file.
        target: the copy.
        progress: is told how much was copied, of how much, in pages.
        replace: whether a file of this name may be replaced.

    Raises:
        StoreUnusable: it does not work; there is no copy then.
    """
    with contextlib.closing(SqliteSnapshot(path)) as snapshot, _told(target):
        if os.path.exists(target) and not replace:
            raise StoreUnusable("is there already; name another file, or say --force")
        _copy(snapshot.connection, target, progress)


def _copy(source: sqlite3.Connection, target: str, progress: Callable[[int, int], None]) -> None:
    part = f"{target}.part"
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        stack.callback(_remove, part)
        make_file(part)
        with contextlib.closing(sqlite3.connect(part, isolation_level=None)) as copy:
            source.backup(
                copy, pages=PAGES, progress=lambda _, left, all_: progress(all_ - left, all_)
            )
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("PRAGMA synchronous = EXTRA")
            copy.execute("UPDATE store SET term = term + ?, batch = 0", (BACKUP_TERMS,))
            found = [str(text) for (text,) in copy.execute("PRAGMA integrity_check(1)")]
            if found != ["ok"]:
                raise StoreUnusable(f"the copy is damaged, as its original may be: {found[0]}")
        os.replace(part, target)
        stack.pop_all()
    sync_folder(os.path.abspath(target))


def _remove(path: str) -> None:
    for end in ("", "-journal", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path + end)


def upgrade(path: str, owner: Owner, progress: Callable[[int, int], None]) -> tuple[int, str]:
    """Bring the tables of a store that nobody uses to the version of this trigear.

    A backup is made first, beside the file.

    Returns:
        The version that the tables had, and the file of the backup; if they were new already,
        there is none and its name is empty.

    Raises:
        StoreUnusable: it does not work; the store is as it was.
    """
    path = os.path.realpath(path)
    with contextlib.closing(SqliteSnapshot(path)) as snapshot:
        schema = int(snapshot.schema)
    if schema == SCHEMA:
        return schema, ""
    saved = f"{path}.version-{schema}"
    with _told(path):
        lock = LockFile(f"{path}.lock", owner)
    with contextlib.ExitStack() as stack:
        stack.callback(lock.release)
        backup(path, saved, progress, replace=True)
        with _told(path), contextlib.closing(open_file(path, "rw", BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA synchronous = EXTRA")
            connection.execute("BEGIN IMMEDIATE")
            for version in range(schema, SCHEMA):
                for statement in UPGRADES[version]:
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {SCHEMA}")
            connection.execute("COMMIT")
    return schema, saved
