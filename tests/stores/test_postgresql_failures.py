"""What a PostgreSQL store says and does when sessions break, stand still and hang. The database is
real, and so is what happens to it."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.postgres import new_schema
from tests.stores.cutting import TO_CLIENT, TO_SERVER, Cutter
from tests.stores.places import OWNER, content, impatience, job, record, sequences, write
from trigear.errors import StoreError, StoreUnavailable, StoreUnknown, StoreUnusable
from trigear.stores import postgresql_link
from trigear.stores.base import Batch, Forget, Losses
from trigear.stores.postgresql import PostgresqlStore
from trigear.stores.postgresql_place import place_of_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.postgres import Cluster

PATIENCE = 30.0


class Desk:
    """A store in a schema of its own, and what else happens there."""

    def __init__(self, cluster: Cluster, host: Path | None = None) -> None:
        self.cluster = cluster
        # What is left of an earlier test's sessions is not to be taken for ours.
        cluster.run(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity"
            " WHERE usename = 'trigear'"
        )
        self.schema = new_schema()
        self.url = cluster.url(schema=self.schema)
        if host is not None:
            self.url += f"&host={host}"
        self.store = PostgresqlStore(place_of_url(self.url))
        self.store.open(OWNER)

    def run(self, *statements: str) -> list[tuple[object, ...]]:
        return self.cluster.run(f"SET search_path = {self.schema}", *statements)

    def sessions(self, waiting_for: str) -> list[int]:
        """The process ids of trigear's sessions that wait for this."""
        found = self.run(
            "SELECT pid FROM pg_stat_activity WHERE usename = 'trigear'"
            f" AND wait_event = '{waiting_for}'"
        )
        return [int(str(pid)) for (pid,) in found]

    def session(self, waiting_for: str) -> int:
        """The only one, once there is one."""
        give_up = time.monotonic() + PATIENCE
        while not (found := self.sessions(waiting_for)):
            assert time.monotonic() < give_up
        (pid,) = found
        return pid


@pytest.fixture
def desk(own_cluster: Cluster) -> Iterator[Desk]:
    found = Desk(own_cluster)
    yield found
    found.store.close()
    found.run(f"DROP SCHEMA {found.schema} CASCADE")


class Attempt:
    """A call in a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self._call = call
        self._result: object = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._call()
        except StoreError as error:
            self._result = error

    def result(self) -> object:
        """What the call has returned or raised."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self._result


@contextlib.contextmanager
def awaited_standby(cluster: Cluster) -> Iterator[None]:
    """Within, the server waits at each COMMIT for a standby that does not exist."""
    try:
        cluster.run("ALTER SYSTEM SET synchronous_standby_names = 'absent'")
        cluster.run("SELECT pg_reload_conf()")
        _see_it_wait(cluster)
        yield
    finally:
        reset = "ALTER SYSTEM RESET synchronous_standby_names"
        cluster.run("SET synchronous_commit = local", reset)
        cluster.run("SELECT pg_reload_conf()")


def _see_it_wait(cluster: Cluster) -> None:
    """Settings take effect when each of the server's processes has read them."""
    seen = threading.Event()

    def write_on() -> None:
        while not seen.is_set():
            cluster.run("SELECT pg_logical_emit_message(true, 'a', 'b')")

    writer = Attempt(write_on)
    give_up = time.monotonic() + PATIENCE
    waiting = "FROM pg_stat_activity WHERE usename = 'admin' AND wait_event = 'SyncRep'"
    while not cluster.run(f"SELECT 1 {waiting}"):
        assert time.monotonic() < give_up
    seen.set()
    cluster.run(f"SELECT pg_cancel_backend(pid) {waiting}")
    writer.result()


def refuse_until_said(words: str, call: Callable[[], object]) -> None:
    """Have the call refused again and again until it is with these words: on a busy machine the
    session in which they would be said does not always come about in time."""
    give_up = time.monotonic() + PATIENCE
    while True:
        with pytest.raises(StoreUnavailable) as caught:
            call()
        if words in str(caught.value):
            return
        assert time.monotonic() < give_up, str(caught.value)


# Cuts


def test_a_connection_that_is_cut_anywhere_in_a_batch_leaves_no_doubt_in_the_end(
    own_cluster, tmp_path
):
    cutter = Cutter(tmp_path, own_cluster.folder)
    desk = Desk(own_cluster, tmp_path)
    numbers = itertools.count(1)
    outcomes = set()
    try:
        for direction, step in ((TO_SERVER, 59), (TO_CLIENT, 23)):
            cut = 1
            while True:
                write(desk.store, next(numbers), Forget(0, 2), Forget(0, 3), job(1))
                cutter.arm(direction, cut)
                outcome = one_cut(desk.store, next(numbers), cutter)
                if cutter.passed[direction] < cut and outcome == "written":
                    break
                outcomes.add(outcome)
                cut += step
    finally:
        desk.store.close()
        cutter.close()
    desk.run(f"DROP SCHEMA {desk.schema} CASCADE")
    assert outcomes == {"written", "found", "not found"}


def one_cut(store: PostgresqlStore, number: int, cutter: Cutter) -> str:
    """Write a batch that needs every kind of statement; the store then has what it says it has."""
    lines = (job(2), job(3, b"x" * 300), Losses(0, 1, 7, 0.5), record(b"k", b"y" * 300))
    batch = Batch(number, lines)
    try:
        store.commit(batch)
        outcome = "written"
    except StoreUnknown:
        cutter.disarm()
        outcome = "found" if store.holds(batch) else "not found"
    cutter.disarm()
    left = [1] if outcome == "not found" else [1, 2, 3]
    assert sequences(content(store)) == left
    assert store.holds(batch) == (left != [1])
    store.commit(batch)
    assert sequences(content(store)) == [1, 2, 3]
    return outcome


# Endings


def test_a_session_that_ends_before_the_batch_is_there_costs_nothing(desk):
    write(desk.store, 1, job(1))
    with contextlib.closing(desk.cluster.admin()) as other:
        other.execute(f"BEGIN; LOCK TABLE {desk.schema}.trigear_job".encode())
        attempt = Attempt(lambda: write(desk.store, 2, job(2)))
        desk.run(f"SELECT pg_terminate_backend({desk.session('relation')}, 30000)")
        other.execute("COMMIT")
        attempt.result()
    assert sequences(content(desk.store)) == [1, 2]


def test_a_table_that_another_program_holds_refuses_batches_until_it_lets_go(desk):
    with contextlib.closing(desk.cluster.admin()) as other:
        other.execute(f"BEGIN; LOCK TABLE {desk.schema}.trigear_job".encode())
        with impatience():
            # How long a session waits is settled when it begins.
            assert not desk.store.holds(Batch(1, ()))
            with pytest.raises(StoreUnavailable, match="another program holds the tables; end"):
                write(desk.store, 1, job(1))
        other.execute("ROLLBACK")
    write(desk.store, 2, job(2))
    assert sequences(content(desk.store)) == [2]


def hold_up_commits(desk: Desk, doing: str) -> None:
    """Have every COMMIT of a batch with jobs do this first."""
    desk.run(
        f"CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN {doing}; RETURN NULL;"
        " END'",
        "CREATE CONSTRAINT TRIGGER late AFTER INSERT ON trigear_job DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION late()",
    )


def test_what_the_server_merely_remarks_changes_nothing(desk):
    hold_up_commits(desk, "RAISE NOTICE ''by the way''")
    write(desk.store, 1, job(1))
    assert sequences(content(desk.store)) == [1]


def test_an_error_in_answer_to_commit_means_that_nothing_was_written(desk):
    hold_up_commits(desk, "RAISE ''not today''")
    with pytest.raises(StoreUnavailable, match="not today"):
        write(desk.store, 1, job(1))
    desk.run("DROP TRIGGER late ON trigear_job")
    assert not desk.store.holds(Batch(1, ()))
    write(desk.store, 2, job(2))
    assert sequences(content(desk.store)) == [2]


def test_a_session_that_ends_in_the_middle_of_commit_leaves_it_open(desk):
    hold_up_commits(desk, "PERFORM pg_sleep(300)")
    batch = Batch(1, (job(1),))
    attempt = Attempt(lambda: desk.store.commit(batch))
    desk.run(f"SELECT pg_terminate_backend({desk.session('PgSleep')}, 30000)")
    assert isinstance(attempt.result(), StoreUnknown)
    assert not desk.store.holds(batch)
    assert content(desk.store) == []


def test_nothing_is_said_of_a_commit_while_its_session_lives_on(desk):
    hold_up_commits(desk, "PERFORM pg_sleep(300)")
    batch = Batch(1, (job(1),))
    attempt = Attempt(lambda: desk.store.commit(batch))
    pid = desk.session("PgSleep")
    os.kill(pid, signal.SIGSTOP)
    try:
        with impatience(answers=True):
            assert isinstance(attempt.result(), StoreUnknown)
            for _ in range(2):
                for call in (lambda: desk.store.holds(batch), lambda: write(desk.store, 2, job(2))):
                    refuse_until_said("another session has its lock", call)
    finally:
        os.kill(pid, signal.SIGCONT)
    held = desk.store.holds(batch)
    assert sequences(content(desk.store)) == [1] * held


def test_a_commit_that_takes_too_long_is_ended_and_then_not_there(desk):
    hold_up_commits(desk, "PERFORM pg_sleep(300)")
    batch = Batch(1, (job(1),))
    attempt = Attempt(lambda: desk.store.commit(batch))
    desk.session("PgSleep")
    with impatience(answers=True):
        error = attempt.result()
    assert isinstance(error, StoreUnknown)
    assert "no answer for 0.8 s" in str(error)
    assert not desk.store.holds(batch)
    assert desk.sessions("PgSleep") == []


# Standbys


def test_a_commit_whose_wait_for_a_standby_was_ended_is_no_commit_yet(desk):
    with awaited_standby(desk.cluster):
        batch = Batch(1, (job(1),))
        attempt = Attempt(lambda: desk.store.commit(batch))
        # The server then says that COMMIT has worked, with a warning.
        desk.run(f"SELECT pg_cancel_backend({desk.session('SyncRep')})")
        error = attempt.result()
        assert isinstance(error, StoreUnknown)
        assert "canceling wait for synchronous replication" in str(error)
        question = Attempt(lambda: desk.store.holds(batch))
        desk.session("SyncRep")
    # It is answered when a standby has it, or none is waited for.
    assert question.result() is True
    assert sequences(content(desk.store)) == [1]


def test_a_standby_that_stays_away_leaves_everything_open(desk):
    batch = Batch(1, (job(1),))
    with awaited_standby(desk.cluster):
        attempt = Attempt(lambda: desk.store.commit(batch))
        desk.session("SyncRep")
        with impatience(answers=True):
            error = attempt.result()
            assert isinstance(error, StoreUnknown)
            assert "no answer for" in str(error)
            for _ in range(2):
                refuse_until_said("no answer for", lambda: desk.store.holds(batch))
    assert desk.store.holds(batch)


def test_a_start_whose_wait_for_a_standby_was_ended_is_none(desk):
    desk.store.close()
    store = PostgresqlStore(place_of_url(desk.url))
    with awaited_standby(desk.cluster):
        attempt = Attempt(lambda: store.open(OWNER))
        desk.run(f"SELECT pg_cancel_backend({desk.session('SyncRep')})")
        error = attempt.result()
    assert isinstance(error, StoreUnusable)
    assert "canceling wait for synchronous replication" in str(error)
    with contextlib.closing(store):
        assert store.open(OWNER).term == 3


# The server


def test_a_server_that_stands_still_holds_nobody_up_for_long(desk):
    batch = Batch(1, (job(1), record(b"a")))
    desk.store.commit(batch)
    desk.store.fetch("dead", "default", [b"a"])
    desk.cluster.pause()
    try:
        with impatience(answers=True):
            other = Attempt(lambda: desk.store.fetch("dead", "default", [b"a"]))
            with pytest.raises(StoreUnavailable, match="timeout expired"):
                write(desk.store, 2, job(2))
            assert isinstance(other.result(), StoreUnavailable)
    finally:
        desk.cluster.resume()
    write(desk.store, 3, job(3))
    assert len(desk.store.fetch("dead", "default", [b"a"])) == 1
    assert sequences(content(desk.store)) == [1, 3]


def test_a_server_that_is_started_anew_between_two_batches_is_not_noticed(desk):
    write(desk.store, 1, job(1), record(b"a"))
    desk.store.fetch("dead", "default", [b"a"])
    desk.cluster.stop()
    desk.cluster.start()
    write(desk.store, 2, job(2))
    assert len(desk.store.fetch("dead", "default", [b"a"])) == 1
    desk.cluster.stop()
    desk.cluster.start()
    assert sequences(content(desk.store)) == [1, 2]


def test_a_server_that_is_away_is_said_to_be(desk):
    write(desk.store, 1, job(1))
    desk.cluster.stop()
    try:
        for attempt in (
            lambda: write(desk.store, 2, job(2)),
            lambda: desk.store.holds(Batch(2, ())),
            lambda: desk.store.fetch("dead", "default", [b"a"]),
            lambda: content(desk.store),
        ):
            with pytest.raises(StoreUnavailable, match="No such file or directory"):
                attempt()
        with pytest.raises(StoreUnusable, match="No such file or directory"):
            PostgresqlStore(place_of_url(desk.url)).check()
    finally:
        desk.cluster.start()
    write(desk.store, 3, job(3))
    assert sequences(content(desk.store)) == [1, 3]


def test_tables_that_vanish_are_said_to_be_gone(desk):
    desk.run("DROP TABLE trigear_job")
    with pytest.raises(StoreUnavailable, match="does not exist"):
        write(desk.store, 1, job(1))
    with pytest.raises(StoreUnusable, match="does not exist"):
        content(desk.store)


def test_a_session_that_ends_while_it_is_rolled_back_is_given_up(desk):
    desk.run("DROP TABLE trigear_record")
    pid = desk.session("ClientRead")
    store = desk.store
    work = store._owned.do

    def fail(link):
        desk.run(f"SELECT pg_terminate_backend({pid}, 30000)")
        raise postgresql_link.psycopg.DataError("made up")

    with pytest.raises(StoreUnavailable, match="made up"):
        work(fail)
    write(store, 1, job(1))
