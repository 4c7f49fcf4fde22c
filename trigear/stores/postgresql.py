"""A store in a PostgreSQL database.

Theory of operation. The owner holds an advisory lock in the session it writes with. It gets a term
when it opens the store, and every batch is one transaction, the last statement of which moves the
number of the last batch forward where the term is still ours: that is the fence, and the answer to
whether a batch was written. A row that is not to be so breaks a NOT NULL, which takes back the
rest. So COMMIT can be sent along with it, and a session that stands still in the middle of a batch
has locked nothing that another owner would need. Both are sent even before the jobs, in one message
with their COPY, for the server does not come to them before it is told that the jobs have ended.

What an error means:

* before COMMIT was sent, or the end of the jobs behind it, whatever happens: nothing was written;
* an error that the server answers to it: the transaction was rolled back, nothing was written;
* the session ends while the answer is due: unknown.

A session that has ended may live on in the server for a while, with our COMMIT still on its way to
the disk. A new one therefore counts only when it has the lock, which the server lets go of after
the old session's last transaction, and when a transaction of its own has passed: on a server that
waits for a standby, that one has been waited for as well then. Until both are there nothing is
written and no question about a batch is answered.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import psycopg
from psycopg.errors import NotNullViolation, UniqueViolation

from trigear.errors import StoreFenced, StoreUnavailable, StoreUnknown, StoreUnusable
from trigear.stores.base import effect_of, nothing
from trigear.stores.postgresql_copy import JOB_COLUMNS, copied
from trigear.stores.postgresql_link import Backend, Keeper, Link, connect
from trigear.stores.postgresql_tables import (
    Tables,
    are_there,
    holders_of,
    jobs_in,
    make,
    markers_in,
    place_of_key,
    records_in,
    records_of_keys,
    refuse_gearmands,
    tables_of,
    take,
)
from trigear.stores.rows import RECORD_COLUMNS, RECORD_TYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from trigear.stores.base import (
        Batch,
        Effect,
        Marker,
        Owner,
        Record,
        Row,
        SpoiltRecord,
        Tenure,
    )
    from trigear.stores.postgresql_place import Place

Page = TypeVar("Page")

log: Final = logging.getLogger("trigear.store")

_NAMES: Final = {int: "int8", str: "text", bytes: "bytea", float: "float8"}
_RECORD_TYPES: Final = [*(_NAMES[kind] for kind in RECORD_TYPES), "int8", "int8", "bytea"]


class Finish(Protocol):
    """Ends a transaction; how many rows its last statement changed."""

    def __call__(self, *, sent: Callable[[], None]) -> int: ...


class PostgresqlStore:
    """A store in three tables of the database at ``place``."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._tables: Tables | None = None
        self._term = 0
        self._number = 0
        self._owned = Keeper(self._resume, place.name)
        self._reader = Keeper(self._another, place.name)
        self._reading = threading.Lock()

    @property
    def name(self) -> str:
        return self.place.name

    # Opening

    def open(self, owner: Owner) -> Tenure:
        try:
            link = connect(self.place)
            try:
                return self._take_over(link, owner)
            except BaseException:
                link.close()
                raise
        except (StoreUnusable, psycopg.Error) as error:
            raise StoreUnusable(self._owned.text(error)) from error

    def check(self) -> None:
        """See whether it could be opened, and change nothing.

        Raises:
            StoreUnusable: it could not; the text says why and what to do.
        """
        try:
            with contextlib.closing(connect(self.place)) as link:
                self._look(link, tables_of(link, self.place))
        except (StoreUnusable, psycopg.Error) as error:
            raise StoreUnusable(self._owned.text(error)) from error

    def _look(self, link: Link, tables: Tables) -> bool:
        """Whether our tables are there; False if there is room to make them."""
        if self.place.gearmands is not None:
            refuse_gearmands(link, self.place.gearmands)
        return are_there(link, tables)

    def _take_over(self, link: Link, owner: Owner) -> Tenure:
        tables = tables_of(link, self.place)
        if not link.seize(tables.lock):
            who = "(just starting)"
            with contextlib.suppress(psycopg.Error):
                for process, host in holders_of(link, tables):
                    who = f"({process}) on {host}"
            raise StoreUnusable(
                f"it belongs to another server {who}; stop that one, or give this one a place of"
                " its own"
            )
        if not self._look(link, tables):
            make(link, tables, owner)
        tenure = take(link, tables, owner)
        if link.risks:
            log.warning(
                "%s: jobs that were acknowledged can be lost when the database's machine fails",
                self._owned.text(" and ".join(link.risks)),
            )
        self._tables, self._term, self._number = tables, tenure.term, 0
        self._owned.hold(link)
        return tenure

    # Sessions

    def _resume(self) -> Link:
        """A new session that may write.

        Raises:
            StoreUnavailable: it cannot be had now.
            StoreFenced: another owner has taken over.
        """
        tables = self._tables
        if tables is None:
            raise StoreUnavailable("the store is not open")
        try:
            link = connect(self.place)
            try:
                number = self._regain(link, tables)
            except BaseException:
                self._owned.end(link)
                raise
        except (StoreUnusable, psycopg.Error) as error:
            raise StoreUnavailable(self._owned.text(error)) from error
        if number < self._number:
            log.error(
                "%s: jobs of these are in memory alone; was a standby promoted that was behind?",
                self._owned.text(
                    f"the database has lost batches {number + 1} to {self._number}, which it had"
                    " confirmed"
                ),
            )
        self._number = number
        return link

    def _regain(self, link: Link, tables: Tables) -> int:
        """Own the store again in a new session; the number of the last batch that is written."""
        # What is left of our last sessions would otherwise keep the lock for as long as it stands
        # still or waits. Another server's process of the same number began at another time.
        ended = self._owned.ended
        self._owned.ended = [
            Backend(pid, started)
            for pid, started, _ in link.rows(
                "SELECT a.pid, backend_start, pg_terminate_backend(a.pid) FROM pg_stat_activity a"
                " JOIN unnest(%s::integer[], %s::timestamptz[]) AS ended(pid, started)"
                " ON a.pid = ended.pid AND backend_start = started",
                ([each.pid for each in ended], [each.started for each in ended]),
            )
        ]
        if not link.seize(tables.lock):
            if link.rows(f"SELECT 1 FROM {tables.store} WHERE term = %s", (self._term,)):  # noqa: S608
                raise StoreUnavailable(self._owned.text("another session has its lock"))
            raise self._fenced()
        link.run("BEGIN")
        found = link.rows(
            f"UPDATE {tables.store} SET backend = pg_backend_pid() WHERE term = %s RETURNING batch",  # noqa: S608
            (self._term,),
        )
        if not found:
            raise self._fenced()
        link.finish()
        return int(found[0][0])

    def _fenced(self) -> StoreFenced:
        """What to raise because the term is not ours."""
        return StoreFenced(
            self._owned.text(
                "another server owns it now, or the database was put back to an earlier state; our"
                f" term was {self._term}"
            )
        )

    def _another(self) -> Link:
        """A session for reading beside the other one."""
        try:
            return connect(self.place)
        except (StoreUnusable, psycopg.Error) as error:
            raise StoreUnavailable(self._owned.text(error)) from error

    # Reading

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Row]:
        return self._read(lambda link, tables: jobs_in(link, tables, after, limit))

    def markers(self, after: tuple[int, int] | None, limit: int) -> Sequence[Marker]:
        return self._read(lambda link, tables: markers_in(link, tables, after, limit))

    def records(
        self, kind: str, after: tuple[str, bytes, int] | None, limit: int, *, data: bool = True
    ) -> Sequence[Record | SpoiltRecord]:
        return self._read(
            lambda link, tables: records_in(link, tables, kind, after, limit, data=data)
        )

    def _read(self, page: Callable[[Link, Tables], Page]) -> Page:
        tables = self._tables
        assert tables is not None, "reading comes after open"
        try:
            return self._owned.do(lambda link: page(link, tables), StoreUnusable)
        except StoreFenced as error:
            raise StoreUnusable(str(error)) from error

    def fetch(self, kind: str, tenant: str, keys: Sequence[bytes]) -> Sequence[Record]:
        tables = self._tables
        if tables is None:
            raise StoreUnavailable("the store is not open")
        # In a session of its own: the other one may be in the middle of a batch.
        with self._reading:
            return self._reader.do(lambda link: records_of_keys(link, tables, kind, tenant, keys))

    # Writing

    def commit(self, batch: Batch, sent: Callable[[], None] = nothing) -> None:
        tables = self._tables
        if tables is None:
            raise StoreUnavailable("the store is not open")
        self._write(tables, batch, effect_of(batch), sent)

    def _write(
        self,
        tables: Tables,
        batch: Batch,
        effect: Effect,
        sent: Callable[[], None],
        *,
        again: bool = False,
    ) -> None:
        """Do what the batch asks for in one transaction.

        Raises:
            StoreError: as :meth:`trigear.stores.base.Store.commit` says.
        """
        finish = self._owned.do(partial(self._send, tables, batch, effect))
        try:
            owners = finish(sent=sent)
        except psycopg.Error as error:
            if not self._owned.survives(error):
                raise StoreUnknown(self._owned.text(error)) from error
            if isinstance(error, UniqueViolation) and not again:
                # A job is kept that was kept before. That is rare, and dear to find out beforehand.
                kept = {(line.partition, line.sequence): line for line in effect.kept}
                gone = [*effect.gone, *kept]
                effect = effect._replace(kept=list(kept.values()), gone=gone)
                self._write(tables, batch, effect, nothing, again=True)
                return
            match isinstance(error, NotNullViolation) and error.diag.column_name:
                case "term":
                    raise self._fenced() from error
                case "batch":
                    return  # It comes again, and was written the first time.
                case _:
                    raise StoreUnavailable(self._owned.text(error)) from error
        except BaseException:
            self._owned.drop()
            raise
        if not owners:
            raise self._fenced()
        self._number = batch.number

    def _fence(self, tables: Tables, batch: Batch) -> str:
        """Moves the number of the last batch forward, or fails: with ``term`` if that is not ours,
        else with ``batch`` if this one is written already."""
        return (
            f"UPDATE {tables.store} SET"  # noqa: S608
            f" term = CASE WHEN term = {self._term} THEN term END,"
            f" batch = CASE WHEN batch < {batch.number} THEN {batch.number} END"
        )

    def _send(self, tables: Tables, batch: Batch, effect: Effect, link: Link) -> Finish:
        """Begin a transaction and do what the batch asks for; returns what ends it, until when
        nothing is written, and how many rows it then changed last."""
        first = ["BEGIN", *_erasures(tables, effect.gone)]
        last = [*_losses(tables, effect), self._fence(tables, batch)]
        if effect.records or effect.erased:
            link.run(*first)
            first = []
            _write_records(link, tables, effect, (batch.number, self._term))
        elif not effect.kept:
            # Not with COMMIT: if the session has ended unnoticed, this shows it, and harms nothing.
            link.run(*first)
        if not effect.kept:
            return partial(link.finish, *last)
        copy = f"COPY {tables.job} ({JOB_COLUMNS}) FROM STDIN (FORMAT BINARY)"
        link.copy([*first, copy, *last], copied(effect.kept, batch.number, self._term))
        return link.finish_copy

    def holds(self, batch: Batch) -> bool:
        self._owned.renew()
        return self._number >= batch.number

    # The end

    def close(self) -> None:
        self._tables = None
        self._owned.drop()
        with self._reading:
            self._reader.drop()


def _write_records(link: Link, tables: Tables, effect: Effect, mark: tuple[int, int]) -> None:
    places = [
        *((line.kind, line.tenant, line.key, line.partition) for line in effect.records),
        *effect.erased,
    ]
    kinds, tenants, keys, partitions = zip(*places, strict=True)
    link.execute(
        f"DELETE FROM {tables.record} AS r USING"  # noqa: S608
        " unnest(%s::text[], %s::text[], %s::bytea[], %s::bigint[])"
        " AS gone(kind, tenant, place, partition)"
        " WHERE r.kind = gone.kind AND r.tenant = gone.tenant AND r.place = gone.place"
        " AND r.partition = gone.partition".encode(),
        (list(kinds), list(tenants), list(map(place_of_key, keys)), list(partitions)),
    )
    if effect.records:
        columns = f"{RECORD_COLUMNS}, batch, term, place"
        statement = f"COPY {tables.record} ({columns}) FROM STDIN (FORMAT BINARY)"
        with link.cursor() as cursor, cursor.copy(statement.encode()) as copy:
            copy.set_types(_RECORD_TYPES)
            for record in effect.records:
                copy.write_row((*record, *mark, place_of_key(record.key)))


def _erasures(tables: Tables, gone: Iterable[tuple[int, int]]) -> list[str]:
    partitions: dict[int, list[int]] = {}
    for partition, sequence in gone:
        partitions.setdefault(partition, []).append(sequence)
    return [
        f"DELETE FROM {tables.job} WHERE partition = {partition}"  # noqa: S608
        f" AND sequence = ANY('{_numbers(sequences)}'::bigint[])"
        for partition, sequences in partitions.items()
    ]


def _losses(tables: Tables, effect: Effect) -> list[str]:
    if not effect.losses:
        return []
    columns = zip(*effect.losses, strict=True)
    kinds = ("bigint", "bigint", "bigint", "float8")
    arrays = (f"'{_numbers(c)}'::{kind}[]" for c, kind in zip(columns, kinds, strict=True))
    return [
        f"UPDATE {tables.job} AS j SET losses = l.losses, due = l.due"  # noqa: S608
        f" FROM unnest({', '.join(arrays)}) AS l(partition, sequence, losses, due)"
        " WHERE j.partition = l.partition AND j.sequence = l.sequence"
    ]


def _numbers(values: Iterable[float]) -> str:
    """An array of numbers, as PostgreSQL writes it."""
    return f"{{{','.join(map(repr, values))}}}"
