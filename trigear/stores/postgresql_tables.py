"""Our tables in a PostgreSQL database: their names, making them, whose they are, and their rows."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from trigear.errors import StoreUnusable
from trigear.model import counted
from trigear.stores.base import KEY_BYTES, Marker, Record, Tenure
from trigear.stores.rows import COLUMNS, RECORD_COLUMNS, read_record, read_row

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trigear.stores.base import Owner, Row, SpoiltRecord
    from trigear.stores.postgresql_link import Link
    from trigear.stores.postgresql_place import Place

SCHEMA: Final = 1
"""Version of the tables; stands in the table of the owner, too."""

_GEARMANDS_COLUMNS: Final = frozenset({"unique_key", "function_name", "priority", "data"})

_OWNER_COLUMNS: Final = frozenset({"schema", "term", "batch", "handle_key", "writer"})
"""Without these the owner's table is none of ours, whatever its version."""


@dataclass(frozen=True, slots=True)
class Tables:
    """The names of our tables, quoted, and the number of their advisory lock."""

    schema: str
    prefix: str

    @property
    def store(self) -> str:
        return self._quoted("store")

    @property
    def job(self) -> str:
        return self._quoted("job")

    @property
    def record(self) -> str:
        return self._quoted("record")

    def _quoted(self, name: str) -> str:
        return f"{quoted(self.schema)}.{quoted(self.prefix + name)}"

    @property
    def lock(self) -> int:
        """Of its own for every schema and prefix of a database; other programs are unlikely to
        have the same."""
        text = f"trigear {self.schema}.{self.prefix}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], signed=True)


def quoted(name: str) -> str:
    """The name as an SQL identifier."""
    return '"{}"'.format(name.replace('"', '""'))


def tables_of(link: Link, place: Place) -> Tables:
    """Where our tables are, or will be.

    Raises:
        StoreUnusable: there is no schema for them.
        psycopg.Error: the database does not answer.
    """
    schema = place.schema
    if schema is None:
        ((schema,),) = link.rows("SELECT current_schema()::text")
    if schema is None:
        raise StoreUnusable("no schema of the role's search path exists; name one with schema=")
    return Tables(schema, place.prefix)


def gearmands_table(link: Link, table: str) -> str | None:
    """The name of this table, quoted where that is needed, if it is there and one of gearmand's.

    Raises:
        psycopg.Error: the database does not answer.
    """
    found = link.rows(
        "SELECT c.oid::regclass::text, array_agg(a.attname::text)"
        " FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid"
        " WHERE c.oid = to_regclass(%s) AND a.attnum > 0 GROUP BY c.oid",
        (table,),
    )
    for name, columns in found:
        if _GEARMANDS_COLUMNS.issubset(columns):
            return str(name)
    return None


def refuse_gearmands(link: Link, table: str) -> None:
    """See that gearmand has left no jobs in this table, if it is one of gearmand's.

    Raises:
        StoreUnusable: it has.
        psycopg.Error: the database does not answer, or does not let us look.
    """
    name = gearmands_table(link, table)
    if name is not None:
        ((jobs,),) = link.rows(f"SELECT count(*) FROM {name}")  # noqa: S608
        if jobs:
            raise StoreUnusable(
                f"gearmand's table '{name}' is in it, with {counted(jobs, 'job')}; take them over"
                " with 'trigear store import' and empty the table, let gearmand work them off, or"
                " name another table"
            )


def are_there(link: Link, tables: Tables) -> bool:
    """Whether the tables are there, and of our version; False if there is room to make them.

    Raises:
        StoreUnusable: they are somebody else's, from the future, or not as they should be.
        psycopg.Error: the database does not answer, or does not let us look.
    """
    names = {name: tables.prefix + name for name in ("store", "job", "record")}
    found = {
        name: (persistence, frozenset(columns))
        for name, persistence, columns in link.rows(
            "SELECT c.relname::text, c.relpersistence::text, array_agg(a.attname::text)"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " JOIN pg_attribute a ON a.attrelid = c.oid"
            " WHERE n.nspname = %s AND c.relname = ANY(%s) AND a.attnum > 0"
            " GROUP BY c.oid",
            (tables.schema, list(names.values())),
        )
    }
    if not found:
        return False
    _, columns = found.get(names["store"], ("", frozenset()))
    if not columns >= _OWNER_COLUMNS:
        raise StoreUnusable(
            f"there are tables '{tables.prefix}*' in schema '{tables.schema}' that are none of"
            " trigear's; name another schema with schema=, or other tables with table_prefix="
        )
    owners = link.rows(f"SELECT schema, writer FROM {tables.store}")  # noqa: S608
    if len(owners) != 1:
        raise StoreUnusable("is damaged: who owns it cannot be read; restore a backup")
    ((schema, writer),) = owners
    if schema > SCHEMA:
        raise StoreUnusable(
            f"trigear {writer} has written it with tables of version {schema};"
            f" this trigear knows version {SCHEMA}: start that one, or restore a backup"
        )
    if len(found) < len(names):
        raise StoreUnusable("is damaged: one of its tables is missing; restore a backup")
    if {persistence for persistence, _ in found.values()} != {"p"}:
        raise StoreUnusable(
            "its tables are not logged, and are emptied when the database crashes; use ALTER TABLE"
            " ... SET LOGGED"
        )
    return True


def make(link: Link, tables: Tables, owner: Owner) -> None:
    """Make the tables, and the schema if it is not there.

    Raises:
        psycopg.Error: that does not work; nothing was made.
    """
    link.run("BEGIN")
    if not link.rows("SELECT 1 FROM pg_namespace WHERE nspname = %s", (tables.schema,)):
        link.run(f"CREATE SCHEMA {quoted(tables.schema)}")
    link.run(*_statements(tables))
    link.execute(
        f"INSERT INTO {tables.store} VALUES (1, %s, 0, 0, %s, %s, 0, '', '', 0)".encode(),  # noqa: S608
        (SCHEMA, owner.seed, owner.version),
    )
    link.finish()


def _statements(tables: Tables) -> list[str]:
    # Bytes that are looked at by nobody are not worth compressing, and names are compared byte by
    # byte, as anywhere else.
    return [
        f"""CREATE TABLE {tables.store} (
            one integer PRIMARY KEY CHECK (one = 1),
            schema integer NOT NULL,
            term bigint NOT NULL,
            batch bigint NOT NULL,
            handle_key bytea NOT NULL,
            writer text NOT NULL,
            pid integer NOT NULL,
            address text NOT NULL,
            host text NOT NULL,
            backend integer NOT NULL
        ) WITH (fillfactor = 50)""",
        f"""CREATE TABLE {tables.job} (
            partition bigint NOT NULL,
            sequence bigint NOT NULL,
            tenant text COLLATE "C" NOT NULL,
            function bytea NOT NULL,
            uniq bytea NOT NULL,
            handle bytea NOT NULL,
            priority bigint NOT NULL,
            due double precision NOT NULL,
            submitted double precision NOT NULL,
            losses bigint NOT NULL,
            reducer bytea NOT NULL,
            workload bytea NOT NULL,
            version bigint NOT NULL,
            batch bigint NOT NULL,
            term bigint NOT NULL,
            PRIMARY KEY (partition, sequence)
        )""",
        f"ALTER TABLE {tables.job} ALTER workload SET STORAGE EXTERNAL",
        f"""CREATE TABLE {tables.record} (
            kind text COLLATE "C" NOT NULL,
            tenant text COLLATE "C" NOT NULL,
            key bytea NOT NULL,
            partition bigint NOT NULL,
            function bytea NOT NULL,
            about text NOT NULL,
            data bytea NOT NULL,
            expires double precision NOT NULL,
            version bigint NOT NULL,
            batch bigint NOT NULL,
            term bigint NOT NULL,
            place bytea NOT NULL,
            PRIMARY KEY (kind, tenant, place, partition)
        )""",
        f"ALTER TABLE {tables.record} ALTER data SET STORAGE EXTERNAL",
    ]


def place_of_key(key: bytes) -> bytes:
    """What stands for a record's key in the index, which takes no more than 2,700 bytes."""
    return key if len(key) <= 1024 else key[:1024] + hashlib.sha256(key).digest()


def take(link: Link, tables: Tables, owner: Owner) -> Tenure:
    """Become the owner.

    Raises:
        StoreUnusable: the store is damaged.
        psycopg.Error: that does not work.
    """
    link.run("BEGIN")
    ((term, key),) = link.rows(
        f"UPDATE {tables.store} SET term = term + 1, batch = 0, writer = %s, pid = %s,"  # noqa: S608
        " address = %s, host = %s, backend = pg_backend_pid() RETURNING term, handle_key",
        (owner.version, owner.pid, owner.address, platform.node()),
    )
    if len(key) != KEY_BYTES:
        raise StoreUnusable("is damaged: its handle key cannot be one; restore a backup")
    link.finish()
    return Tenure(term, key)


def holders_of(link: Link, tables: Tables) -> list[tuple[str, str]]:
    """Who has the lock: process and address, and the machine. Empty if that is nobody, or somebody
    who has only just started and has not written that down yet.

    Raises:
        psycopg.Error: the database does not answer, or its tables are not there yet.
    """
    high, low = divmod(tables.lock, 1 << 32)
    found = link.rows(
        f"SELECT s.pid, address, host FROM {tables.store} s JOIN pg_locks l ON l.pid = backend"  # noqa: S608
        " WHERE locktype = 'advisory' AND granted AND objsubid = 1"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND classid = %s AND objid = %s",
        (high % (1 << 32), low),
    )
    return [(f"pid {pid} at {address}", host) for pid, address, host in found]


# Rows


def jobs_in(link: Link, tables: Tables, after: tuple[int, int] | None, limit: int) -> Sequence[Row]:
    """A page of jobs, as :meth:`trigear.stores.base.Store.scan` says."""
    behind = "" if after is None else " WHERE (partition, sequence) > (%s, %s)"
    found = link.rows(
        f"SELECT {COLUMNS} FROM {tables.job}{behind} ORDER BY partition, sequence LIMIT %s",  # noqa: S608
        (*(after or ()), limit),
    )
    return [read_row(row) for row in found]


def markers_in(
    link: Link, tables: Tables, after: tuple[int, int] | None, limit: int
) -> Sequence[Marker]:
    """A page of markers, as :meth:`trigear.stores.base.Store.markers` says."""
    behind = "" if after is None else " AND (partition, sequence) > (%s, %s)"
    found = link.rows(
        "SELECT partition, sequence, tenant, function, uniq,"  # noqa: S608
        " CASE WHEN uniq = '-' THEN workload ELSE '' END"
        f" FROM {tables.job} WHERE uniq <> ''{behind} ORDER BY partition, sequence LIMIT %s",
        (*(after or ()), limit),
    )
    return [Marker(*row) for row in found]


def records_in(
    link: Link,
    tables: Tables,
    kind: str,
    after: tuple[str, bytes, int] | None,
    limit: int,
    *,
    data: bool,
) -> Sequence[Record | SpoiltRecord]:
    """A page of records, as :meth:`trigear.stores.base.Store.records` says, but for keys that
    begin with the same kilobyte: their order is not that of their bytes."""
    behind = ""
    values: list[object] = [kind]
    if after is not None:
        tenant, key, partition = after
        behind = " AND (tenant, place, partition) > (%s, %s, %s)"
        values += [tenant, place_of_key(key), partition]
    columns = RECORD_COLUMNS if data else RECORD_COLUMNS.replace("data", "''::bytea")
    found = link.rows(
        f"SELECT {columns} FROM {tables.record} WHERE kind = %s{behind}"  # noqa: S608
        " ORDER BY tenant, place, partition LIMIT %s",
        (*values, limit),
    )
    return [read_record(row) for row in found]


def records_of_keys(
    link: Link, tables: Tables, kind: str, tenant: str, keys: Sequence[bytes]
) -> Sequence[Record]:
    """As :meth:`trigear.stores.base.Store.fetch` says."""
    found = link.rows(
        f"SELECT {RECORD_COLUMNS} FROM {tables.record}"  # noqa: S608
        " WHERE kind = %s AND tenant = %s AND place = ANY(%s)",
        (kind, tenant, list(map(place_of_key, keys))),
    )
    read = map(read_record, found)
    return [record for record in read if isinstance(record, Record)]
