"""How jobs get into a table of PostgreSQL: one message with COPY in its middle. The database is
real."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.stores.places import (
    PostgresqlPlace,
    content,
    job,
    record,
    records,
    sequences,
    write,
)
from trigear.errors import StoreUnavailable, StoreUnknown
from trigear.stores import postgresql
from trigear.stores.base import Batch, Forget, Losses
from trigear.stores.postgresql_copy import (
    CHUNK_BYTES,
    JOB_COLUMNS,
    PIECE_BYTES,
    begun,
    copied,
    ended,
)
from trigear.stores.postgresql_link import Link, connect
from trigear.stores.postgresql_place import place_of_url

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from trigear.stores.base import Keep

COPY = f"COPY trigear_job ({JOB_COLUMNS}) FROM STDIN (FORMAT BINARY)"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[PostgresqlPlace]:
    found = PostgresqlPlace(tmp_path)
    yield found
    found.clear()


@pytest.fixture
def link(place: PostgresqlPlace) -> Iterator[Link]:
    """One more session, beside that of a store."""
    place.opened()
    with connect(place_of_url(place.url)) as found:
        found.execute(f"SET search_path = {place.called}".encode())
        yield found


class Watched:
    """libpq, and what it was given."""

    def __init__(self, link: Link) -> None:
        self._pgconn = link.pgconn
        self.pieces: list[bytes] = []
        self.full = False
        """Whether it says that it has no room."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pgconn, name)

    def put_copy_data(self, piece: memoryview) -> int:
        self.pieces.append(bytes(piece))
        return 0 if self.full else self._pgconn.put_copy_data(piece)

    def put_copy_end(self) -> int:
        return 0 if self.full else self._pgconn.put_copy_end()


ODD = [
    job(1, b"", tenant="é ü 漢字", unique=bytes(range(256)), function=b"\0"),
    job(2, b"w" * CHUNK_BYTES, handle=b"", reducer=b"\xff" * 300),
    job(3, b"w" * (CHUNK_BYTES + 1), priority=-(1 << 63), losses=(1 << 63) - 1),
    job(4, b"w" * (3 * PIECE_BYTES + 5), due=-0.0, submitted=float("inf")),
    job(5, partition=(1 << 63) - 1, due=1e-300, version=7),
    *(job(number, b"%d" % number, function=b"g%d" % (number % 3)) for number in range(6, 900)),
]


def test_every_job_of_many_chunks_comes_back_as_it_was(place):
    store = place.opened()
    write(store, 1, *ODD)
    found = place.run(
        "SELECT partition, sequence, tenant, function, uniq, handle, priority, due, submitted,"
        " losses, reducer, workload, version FROM trigear_job ORDER BY partition, sequence"
    )
    assert found == sorted(tuple(each) for each in ODD)


def test_chunks_are_as_long_as_is_said_and_large_workloads_are_not_copied():
    chunks = list(copied(ODD, 1, 1))
    large = [each.workload for each in ODD if len(each.workload) > CHUNK_BYTES]
    assert [chunk for chunk in chunks if len(chunk) > CHUNK_BYTES * 2] == large[1:]
    assert all(any(chunk is workload for chunk in chunks) for workload in large)


def test_libpq_gets_no_more_at_a_time_than_it_can_send_on(place, link):
    watched = Watched(link)
    chunks = copied(ODD, 1, 1)
    link.wait(begun(watched, f"BEGIN; {COPY}; COMMIT".encode(), chunks))
    assert max(map(len, watched.pieces)) == PIECE_BYTES
    said = []
    results = link.wait(ended(watched, lambda: said.append("sent")))
    assert [result.command_tuples for result in results] == [len(ODD), None]
    assert said == ["sent"]
    assert b"".join(watched.pieces) == b"".join(copied(ODD, 1, 1))


@pytest.mark.parametrize("at_the_end", [False, True])
def test_without_memory_nothing_is_written_and_nobody_waits(place, link, at_the_end):
    watched = Watched(link)

    def copy() -> None:
        link.wait(begun(watched, f"BEGIN; {COPY}; COMMIT".encode(), copied([job(1)], 1, 1)))
        watched.full = True
        link.wait(ended(watched, lambda: None))

    watched.full = not at_the_end
    with pytest.raises(psycopg.OperationalError, match="no memory for what is to be sent"):
        copy()
    link.close()
    assert place.run("SELECT sequence FROM trigear_job") == []


def trouble(monkeypatch: pytest.MonkeyPatch, place: PostgresqlPlace, *, at: int | None) -> None:
    """End the writer's session once, when so many chunks are sent; None for all."""
    left = [True]

    def with_trouble(jobs: Iterable[Keep], batch: int, term: int) -> Iterator[bytes]:
        chunks = list(copied(jobs, batch, term))
        for number, chunk in enumerate([*chunks, b""]):
            if left and number == (len(chunks) if at is None else at):
                left.clear()
                place.run(
                    "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
                    " WHERE pid = (SELECT backend FROM trigear_store)"
                )
            yield chunk

    monkeypatch.setattr(postgresql, "copied", with_trouble)


MANY = [job(number, b"w" * 20_000) for number in range(3, 50)]


@pytest.mark.parametrize("at", [0, 1, 10])
def test_a_session_that_ends_before_all_jobs_are_sent_costs_nothing(place, monkeypatch, at):
    store = place.opened()
    write(store, 1, job(1), job(2))
    trouble(monkeypatch, place, at=at)
    write(store, 2, *MANY, Forget(0, 1))
    assert sequences(content(store)) == [2, *range(3, 50)]


def test_a_session_that_ends_before_the_end_is_sent_leaves_it_open(place, monkeypatch):
    store = place.opened()
    write(store, 1, job(1))
    trouble(monkeypatch, place, at=None)
    batch = Batch(2, (*MANY, Losses(0, 1, 1, 0.0)))
    with pytest.raises(StoreUnknown):
        store.commit(batch)
    assert not store.holds(batch)
    write(store, 3, job(2))
    assert sequences(content(store)) == [1, 2]


def test_an_error_in_the_middle_of_many_chunks_takes_all_back_and_the_session_goes_on(place):
    store = place.opened()
    write(store, 1, job(1))
    before = place.run("SELECT backend FROM trigear_store")
    with pytest.raises(StoreUnavailable, match="invalid byte sequence"):
        write(store, 2, *MANY[:20], job(2, tenant="a\0b"), *MANY[20:], Forget(0, 1))
    write(store, 3, job(2))
    assert sequences(content(store)) == [1, 2]
    assert place.run("SELECT backend FROM trigear_store") == before


@pytest.mark.parametrize(
    ("wrong", "error"),
    [({"priority": 1 << 70}, struct.error), ({"tenant": "\ud800"}, UnicodeEncodeError)],
)
def test_a_job_that_cannot_be_sent_leaves_nothing_for_the_next_batch(place, wrong, error):
    store = place.opened()
    with pytest.raises(error):
        write(store, 1, *MANY, job(1, **wrong))
    write(store, 2, job(1))
    assert sequences(content(store)) == [1]


def test_who_fails_when_a_batch_is_sent_leaves_nothing_for_the_next_batch(place):
    def fail() -> None:
        raise ZeroDivisionError

    store = place.opened()
    with pytest.raises(ZeroDivisionError):
        store.commit(Batch(1, (job(1),)), fail)
    assert store.holds(Batch(1, ())) == (content(store) == [job(1)])
    write(store, 2, job(2))
    assert 2 in sequences(content(store))


@pytest.mark.parametrize("event", ["INSERT", "DELETE", "UPDATE"])
def test_what_triggers_warn_of_changes_nothing(place, event):
    store = place.opened()
    write(store, 1, job(1), job(2))
    place.run(
        "CREATE FUNCTION warn() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RAISE WARNING ''hm''; RETURN NULL; END'",
        f"CREATE TRIGGER warn AFTER {event} ON trigear_job EXECUTE FUNCTION warn()",
    )
    write(store, 2, job(3), Forget(0, 1), Losses(0, 2, 1, 0.0))
    write(store, 3, Forget(0, 3), Losses(0, 2, 2, 0.0), record(b"k"))
    assert content(store) == [job(2, losses=2)]
    assert records(store) == [record(b"k")]
