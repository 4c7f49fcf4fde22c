"""What people do with a store in PostgreSQL beside a server, and with the queue that gearmand has
there."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from tests.stores.places import OWNER, PostgresqlPlace, job, record, write
from trigear.errors import StoreUnusable
from trigear.stores.gearmand_postgresql import LATEST, read_postgresql, write_postgresql
from trigear.stores.gearmand_queue import QueuedJob
from trigear.stores.postgresql_place import Place, place_of_url
from trigear.stores.postgresql_tools import PostgresqlSnapshot
from trigear.stores.snapshot import examine, jobs_of, records_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[PostgresqlPlace]:
    found = PostgresqlPlace(tmp_path)
    yield found
    found.clear()


def snapshot(place: PostgresqlPlace) -> contextlib.closing[PostgresqlSnapshot]:
    return contextlib.closing(PostgresqlSnapshot(place_of_url(place.url)))


def test_a_snapshot_is_one_moment_and_disturbs_nobody(place):
    store = place.opened()
    write(store, 1, job(1), job(2), record(b"a"), record(b"b", kind="result"))
    with snapshot(place) as found:
        write(store, 2, job(3), record(b"c"))
        assert [row.sequence for row in jobs_of(found)] == [1, 2]
        assert list(found.kinds()) == ["dead", "result"]
        assert [entry.key for entry in records_of(found, data=False)] == [b"a", b"b"]
        assert found.total() == 4
        assert (found.schema, found.writer) == (1, OWNER.version)
        assert found.name == store.name
        assert found.owner is not None
        assert found.owner.startswith("pid 4711 at 127.0.0.1:4730 on ")
        store.close()
        other = place.opened()
        other.close()
    with snapshot(place) as found:
        assert found.total() == 6


def test_a_store_that_nobody_uses_has_no_owner_and_no_faults(place):
    write(place.opened(), 1, job(1))
    place.clear_sessions()
    with snapshot(place) as found:
        while found.owner is not None:
            pass  # the session that was closed has a moment to end
        assert examine(found, lambda *_: None).faults == []


def test_a_place_without_a_store_is_said_to_have_none(place):
    with pytest.raises(StoreUnusable, match="is no store of trigear: it has no tables"):
        PostgresqlSnapshot(place_of_url(place.url))
    with pytest.raises(StoreUnusable, match="No such file or directory"):
        PostgresqlSnapshot(place_of_url("postgresql://u@%2Fno%2Fsuch/d"))


def test_rows_that_cannot_be_read_are_said_to_be_unreadable(place):
    write(place.opened(), 1, job(1))
    with snapshot(place) as found:
        place.cluster.run(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
            " WHERE usename = 'trigear'"
        )
        (fault,) = examine(found, lambda *_: None).faults
        assert fault.startswith(f"store {found.name}: ")


# gearmand's table


@pytest.fixture
def theirs(place: PostgresqlPlace) -> Place:
    """A database in whose first schema gearmand may have its table."""
    place.run(f"CREATE SCHEMA {place.called} AUTHORIZATION trigear")
    return place_of_url(place.cluster.url(options=f"-csearch_path={place.called}"))


TABLE = (
    "CREATE TABLE queue (unique_key varchar(64), function_name varchar(255), priority integer,"
    " data bytea, when_to_run integer, UNIQUE (unique_key, function_name))"
)


def test_jobs_of_gearmands_table_are_read_in_the_order_in_which_they_lie_there(place, theirs):
    place.run(
        TABLE,
        "ALTER TABLE queue OWNER TO trigear",
        "INSERT INTO queue VALUES ('b', 'f', 1, '\\x780079', 0), ('a', 'f', 0, NULL, 1700000000)",
        "INSERT INTO queue VALUES ('c', 'ö', 2, '', NULL), ('d', 'f', 7, '', 0)",
    )
    why: list[str] = []
    assert list(read_postgresql(theirs, "queue", why.append)) == [
        QueuedJob(b"b", b"f", 1, b"x\0y", 0.0),
        QueuedJob(b"a", b"f", 0, b"", 1.7e9),
        QueuedJob(b"c", "ö".encode(), 2, b"", 0.0),
    ]
    assert why == ["priority 7 does not exist"]


def test_jobs_written_for_gearmand_are_read_back_with_keys_of_their_own(theirs):
    jobs = [
        job(1, b"a"),
        job(2, b"b", unique=b"-", priority=0),
        job(3, b"", unique=b"u", due=1.5e9 + 0.5),
        job(4, b"d", unique=b"u", reducer=b"r"),
        job(5, b"e", unique=b"u", function="ö".encode(), due=1e11),
    ]
    assert write_postgresql(theirs, "queue", jobs) == (5, 1)
    assert list(read_postgresql(theirs, "queue", pytest.fail)) == [
        QueuedJob(b"H:test:1", b"f", 1, b"a", 0.0),
        QueuedJob(b"H:test:2", b"f", 0, b"b", 0.0),
        QueuedJob(b"u", b"f", 1, b"", 1.5e9),
        QueuedJob(b"H:test:4", b"f", 1, b"d", 0.0),
        QueuedJob(b"u", "ö".encode(), 1, b"e", float(LATEST)),
    ]
    with pytest.raises(StoreUnusable, match="table 'queue' is not empty; name another one"):
        write_postgresql(theirs, "queue", jobs)


def test_what_gearmands_table_does_not_take_leaves_it_as_it_was(place, theirs):
    place.run(TABLE, "ALTER TABLE queue OWNER TO trigear")
    with pytest.raises(StoreUnusable, match="invalid byte sequence"):
        write_postgresql(theirs, "queue", [job(1), job(2, function=b"\xff")])
    assert list(read_postgresql(theirs, "queue", pytest.fail)) == []


def test_a_table_that_is_none_of_gearmands_is_not_read(place, theirs):
    with pytest.raises(StoreUnusable, match="has no table 'queue' of gearmand's; name it with"):
        list(read_postgresql(theirs, "queue", pytest.fail))
    place.run("CREATE TABLE songs (title text)", "ALTER TABLE songs OWNER TO trigear")
    with pytest.raises(StoreUnusable, match="has no table 'songs' of gearmand's"):
        list(read_postgresql(theirs, "songs", pytest.fail))
    place.run(TABLE)
    with pytest.raises(StoreUnusable, match="permission denied for table queue"):
        list(read_postgresql(theirs, "queue", pytest.fail))
