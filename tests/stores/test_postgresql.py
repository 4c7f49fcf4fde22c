"""What there is about the PostgreSQL store that others do not have: whose the tables are, and how a
session has to be. The database is real, and so are the errors."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import time
from typing import TYPE_CHECKING

import psycopg
import pytest

from tests.conftest import free_port
from tests.postgres import FAST, Cluster, new_schema
from tests.security.certificates import Authority
from tests.stores.places import (
    OWNER,
    PostgresqlPlace,
    content,
    impatience,
    job,
    pages,
    record,
    records,
    sequences,
    write,
)
from trigear.errors import StoreFenced, StoreUnavailable, StoreUnusable
from trigear.stores import postgresql_link
from trigear.stores.base import Batch, Erase, Forget, Losses, Spoilt, SpoiltRecord
from trigear.stores.postgresql import PostgresqlStore
from trigear.stores.postgresql_place import place_of_conninfo, place_of_url

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[PostgresqlPlace]:
    found = PostgresqlPlace(tmp_path)
    yield found
    found.clear()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A server with settings that the one for everybody has not."""
    found = Cluster(FAST, hba="local all guarded scram-sha-256")
    found.start()
    yield found
    found.remove()


def refusal(url: str) -> str:
    """Why a store cannot be opened."""
    store = PostgresqlStore(place_of_url(url))
    with impatience(), pytest.raises(StoreUnusable) as caught:
        store.open(OWNER)
    words = str(caught.value)
    assert words.startswith(f"store {store.name}: ")
    assert "\n" not in words
    store.close()
    return words


def tables_in(place: PostgresqlPlace) -> list[str]:
    found = place.run(f"SELECT tablename FROM pg_tables WHERE schemaname = '{place.called}'")
    return sorted(name for (name,) in found)


# Tables


def test_tables_stand_in_their_schema_under_their_prefix(place):
    place.opened()
    assert tables_in(place) == ["trigear_job", "trigear_record", "trigear_store"]
    other = PostgresqlStore(place_of_url(f"{place.url}&table_prefix=other_"))
    with contextlib.closing(other):
        assert other.open(OWNER).term == 1
        write(other, 1, job(1))
    assert len(tables_in(place)) == 6


def test_without_a_schema_the_first_of_the_search_path_is_taken(place):
    place.run(f"CREATE SCHEMA {place.called} AUTHORIZATION trigear")
    path = f"-csearch_path={place.called}"
    with contextlib.closing(PostgresqlStore(place_of_url(place.cluster.url(options=path)))) as one:
        one.open(OWNER)
        assert "trigear_job" in tables_in(place)
        # The same tables by another name are the same store.
        assert "another server" in refusal(place.url)


def test_a_search_path_that_leads_nowhere_is_one_line(place):
    words = refusal(place.cluster.url(options="-csearch_path=nowhere"))
    assert "no schema of the role's search path exists; name one with schema=" in words


def test_checking_changes_nothing_and_says_what_opening_would_say(place):
    place.store().check()
    assert tables_in(place) == []
    owner = place.opened()
    place.store().check()
    write(owner, 1, job(1))
    place.run("UPDATE trigear_store SET schema = 99")
    with pytest.raises(StoreUnusable, match="tables of version 99"):
        place.store().check()


def test_tables_of_another_program_are_left_alone(place):
    place.run(f"CREATE SCHEMA {place.called}", f"GRANT ALL ON SCHEMA {place.called} TO trigear")
    place.run("CREATE TABLE trigear_store (title text)", "GRANT ALL ON trigear_store TO trigear")
    assert "that are none of trigear's; name another schema with schema=" in refusal(place.url)
    place.run("DROP TABLE trigear_store", "CREATE TABLE trigear_job (title text)")
    assert "that are none of trigear's" in refusal(place.url)
    assert tables_in(place) == ["trigear_job"]


def test_tables_of_a_later_version_are_left_alone_and_their_writer_is_named(place):
    place.opened().close()
    place.run("UPDATE trigear_store SET schema = 2, writer = '12.3'")
    words = refusal(place.url)
    assert "trigear 12.3 has written it with tables of version 2" in words
    assert "this trigear knows version 1: start that one, or restore a backup" in words


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM trigear_store", "who owns it cannot be read; restore a backup"),
        ("UPDATE trigear_store SET handle_key = 'x'", "its handle key cannot be one"),
        ("DROP TABLE trigear_job", "one of its tables is missing; restore a backup"),
        ("ALTER TABLE trigear_job SET UNLOGGED", "are emptied when the database crashes"),
    ],
)
def test_damage_stops_the_start(place, damage, words):
    place.opened().close()
    before = place.run(damage, "SELECT count(*) FROM trigear_record")
    assert words in refusal(place.url)
    assert before == [(0,)]


def test_a_role_without_rights_is_told_what_to_do(place):
    place.cluster.run(f"CREATE SCHEMA {place.called}")
    words = refusal(place.url)
    assert "permission denied for schema" in words
    assert "grant it to this role, or name another database or schema" in words


GEARMANDS_TABLE = (
    "CREATE TABLE queue (unique_key varchar(64), function_name varchar(255), priority integer,"
    " data bytea, when_to_run integer, UNIQUE (unique_key, function_name))"
)
GEARMANDS_JOB = "INSERT INTO queue VALUES ('u', 'f', 1, 'x', 0)"


def test_jobs_that_gearmand_left_in_the_table_are_not_passed_over_in_silence(place):
    place.run(f"CREATE SCHEMA {place.called} AUTHORIZATION trigear")
    path = f"options='-csearch_path={place.called}' host={place.cluster.folder} user=trigear"
    named = place_of_conninfo(f"{path} dbname=trigear", "Queue")
    place.run(GEARMANDS_TABLE, "ALTER TABLE queue OWNER TO trigear", GEARMANDS_JOB)
    with pytest.raises(StoreUnusable) as caught:
        PostgresqlStore(named).open(OWNER)
    assert "gearmand's table 'queue' is in it, with 1 job; " in str(caught.value)
    assert "take them over with 'trigear store import' and empty the table" in str(caught.value)
    assert tables_in(place) == ["queue"]
    # An empty one is no hindrance, and stays; so is one of another kind.
    for change in ("DELETE FROM queue", "ALTER TABLE queue DROP COLUMN data"):
        place.run(change)
        with contextlib.closing(PostgresqlStore(named)) as store:
            store.open(OWNER)
            write(store, 1, job(1))
    assert tables_in(place) == ["queue", "queue_job", "queue_record", "queue_store"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE trigear_job SET tenant = E'a\\nb' WHERE sequence = 2", "tenant: not a name"),
        ("UPDATE trigear_job SET version = 99 WHERE sequence = 2", "layout 99"),
    ],
)
def test_a_row_that_is_no_job_spoils_only_itself(place, change, why):
    write(place.opened(), 1, job(1), job(2), job(3))
    place.run(change)
    place.clear_sessions()
    first, spoilt, last = content(place.opened())
    assert (first, last) == (job(1), job(3))
    assert isinstance(spoilt, Spoilt)
    assert (spoilt.sequence, why in spoilt.why) == (2, True)


def test_a_record_that_is_none_spoils_only_itself_and_is_not_fetched(place):
    store = place.opened()
    write(store, 1, record(b"a"), record(b"b"), record(b"c"))
    place.run("UPDATE trigear_record SET version = 99 WHERE key = 'b'")
    found = {entry.key: entry for entry in records(store)}
    assert isinstance(found.pop(b"b"), SpoiltRecord)
    assert list(found.values()) == [record(b"a"), record(b"c")]
    assert len(store.fetch("dead", "default", [b"a", b"b", b"c"])) == 2


def test_keys_of_records_may_be_longer_than_an_index_takes(place):
    keys = [b"k" * 1024 + bytes([n]) * 4000 for n in range(5)] + [b"k" * 1024, b"k"]
    store = place.opened()
    write(store, 1, *map(record, keys))
    for limit in (1, 2, 10):
        assert {entry.key for entry in records(store, limit=limit)} == set(keys)
    assert [entry.key for entry in store.fetch("dead", "default", keys[2:3])] == keys[2:3]
    write(store, 2, record(keys[0], b"new"), Erase("dead", "default", keys[1], 0))
    assert len(records(store)) == 6


def test_a_job_that_is_kept_twice_in_one_batch_is_there_once(place):
    store = place.opened()
    write(store, 1, job(1, b"a"), job(2), job(1, b"b"))
    assert content(store) == [job(1, b"b"), job(2)]


def test_a_row_that_the_table_does_not_take_refuses_its_batch(place):
    store = place.opened()
    with pytest.raises(StoreUnavailable, match="invalid byte sequence"):
        write(store, 1, job(1), job(2, tenant="a\0b"))
    write(store, 2, job(3, losses=1 << 40))
    assert content(store) == [job(3, losses=1 << 40)]


def test_what_cannot_even_be_sent_leaves_nothing_for_the_next_batch(place):
    store = place.opened()
    with pytest.raises(UnicodeEncodeError):
        write(store, 1, job(1), record(b"a", tenant="\ud800"))
    write(store, 2, job(2))
    assert (sequences(content(store)), records(store)) == ([2], [])


def test_no_statement_reads_a_whole_table(place):
    store = place.opened()
    write(store, 1, *(job(number) for number in range(1, 50)), record(b"a"), record(b"b"))
    before = whole_reads(place)
    place.run("ANALYZE trigear_job", "ANALYZE trigear_record")
    store.open(OWNER)
    write(store, 1, Forget(0, 1), Losses(0, 2, 1, 0.5), Forget(1, 2), record(b"a"))
    write(store, 2, Erase("dead", "default", b"b", 0))
    list(pages(store, 7))
    records(store, limit=1)
    store.fetch("dead", "default", [b"a"])
    assert whole_reads(place) == before


def whole_reads(place: PostgresqlPlace) -> list[tuple[object, ...]]:
    """How often each table was read as a whole so far. Ends the sessions, which then tell."""
    place.clear_sessions()
    end_sessions(place)
    return place.run(
        "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE schemaname = current_schema()"
        " AND relname <> 'trigear_store' ORDER BY relname"
    )


# Whose it is


def test_an_owner_that_has_not_written_its_name_is_just_starting(place):
    place.opened()
    place.run("UPDATE trigear_store SET backend = 0")
    assert "it belongs to another server (just starting); stop that one" in refusal(place.url)
    place.run("ALTER TABLE trigear_store RENAME pid TO nobody")
    assert "(just starting)" in refusal(place.url)


def test_the_first_owner_is_named_with_its_machine(place):
    place.opened()
    assert f"(pid 4711 at 127.0.0.1:4730) on {os.uname().nodename}; stop that one" in refusal(
        place.url
    )


def test_an_owner_that_is_dead_is_followed_at_once(place):
    write(place.opened(), 1, job(1))
    # As if its process had been killed: its session ends.
    end_sessions(place)
    store = place.opened()
    assert sequences(content(store)) == [1]


def end_sessions(place: PostgresqlPlace) -> None:
    place.run(
        "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE usename = 'trigear'"
    )


def test_a_server_whose_session_was_ended_goes_on_in_a_new_one(place):
    store = place.opened()
    write(store, 1, job(1), record(b"a"))
    for number in (2, 3):
        end_sessions(place)
        write(store, number, job(number))
    end_sessions(place)
    assert sequences(content(store)) == [1, 2, 3]
    store.fetch("dead", "default", [b"a"])
    end_sessions(place)
    assert len(store.fetch("dead", "default", [b"a"])) == 1
    # It still owns it.
    write(store, 4, job(4))
    assert "another server" in refusal(place.url)


def test_a_server_whose_place_was_taken_meanwhile_writes_no_more(place):
    store = place.opened()
    write(store, 1, job(1))
    end_sessions(place)
    other = place.opened()
    with impatience():
        for attempt in (lambda: write(store, 2, job(2)), lambda: store.holds(Batch(1, ()))):
            with pytest.raises(StoreFenced, match=r"another server owns it now, .* term was 1"):
                attempt()
        with pytest.raises(StoreUnusable, match="another server owns it now"):
            content(store)
    assert sequences(content(other)) == [1]
    other.close()
    # Nor when nobody has it any more.
    with pytest.raises(StoreFenced, match="another server owns it now"):
        write(store, 3, job(3))


def test_a_lock_that_somebody_holds_without_a_term_is_waited_for(place):
    store = place.opened()
    end_sessions(place)
    assert store._tables is not None
    with contextlib.closing(place.cluster.admin()) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (store._tables.lock,))
        with impatience(), pytest.raises(StoreUnavailable, match="another session has its lock"):
            write(store, 1, job(1))
    write(store, 2, job(2))
    assert sequences(content(store)) == [2]


def test_an_owner_that_is_not_known_any_more_is_fenced(place):
    store = place.opened()
    place.run("DELETE FROM trigear_store")
    for attempt in (lambda: write(store, 1, job(1)), lambda: store.holds(Batch(1, ()))):
        with pytest.raises(StoreFenced, match="another server owns it now"):
            attempt()


def test_a_database_that_was_put_back_to_before_the_start_is_not_written_to(place):
    store = place.opened()
    place.run("UPDATE trigear_store SET term = 0")
    with pytest.raises(StoreFenced, match="was put back to an earlier state"):
        write(store, 1, job(1))
    assert content(store) == []


def test_batches_that_the_database_has_lost_are_shouted_about(place, caplog):
    store = place.opened()
    for number in (1, 2, 3):
        write(store, number, job(number))
    place.run("UPDATE trigear_store SET batch = 1")
    end_sessions(place)
    write(store, 4, job(4))
    (line,) = [entry for entry in caplog.records if entry.levelno == logging.ERROR]
    assert "has lost batches 2 to 3, which it had confirmed" in line.getMessage()
    assert "was a standby promoted that was behind?" in line.getMessage()


def test_a_store_that_is_closed_does_nothing(place):
    store = place.opened()
    store.close()
    for attempt in (
        lambda: write(store, 1, job(1)),
        lambda: store.holds(Batch(1, ())),
        lambda: store.fetch("dead", "default", [b"a"]),
    ):
        with pytest.raises(StoreUnavailable, match="the store is not open"):
            attempt()


# What kind of database it is


def test_a_place_that_is_not_there_is_one_line(cluster):
    assert "No such file or directory" in refusal("postgresql://u@%2Fno%2Fsuch/d")
    assert 'database "nothing" does not exist' in refusal(cluster.url(database="nothing"))
    both = cluster.url().replace("@", "@%2Fno%2Fsuch,")
    with contextlib.closing(PostgresqlStore(place_of_url(both))) as store:
        store.open(OWNER)


def test_an_old_version_is_refused(place, monkeypatch):
    monkeypatch.setattr(postgresql_link, "OLDEST", 990000)
    words = refusal(place.url)
    assert "the database is PostgreSQL " in words
    assert "version 99 is the oldest that will do" in words


def test_another_encoding_is_refused(cluster):
    cluster.run("CREATE DATABASE plain ENCODING 'LATIN1' TEMPLATE template0 OWNER trigear")
    words = refusal(cluster.url(database="plain"))
    assert "has the encoding LATIN1; create one WITH ENCODING 'UTF8' TEMPLATE template0" in words


def test_commit_means_that_it_is_on_the_disk(place):
    store = place.opened()

    def setting() -> str:
        return str(store._owned.do(lambda link: link.rows("SHOW synchronous_commit"))[0][0])

    assert setting() == "on"
    for asked, got in (("off", "on"), ("local", "on"), ("remote_apply", "remote_apply")):
        place.run(f"ALTER ROLE trigear SET synchronous_commit = {asked}")
        try:
            end_sessions(place)
            write(store, ord(asked[0]), job(ord(asked[0])))
            assert setting() == got
        finally:
            place.run("ALTER ROLE trigear RESET synchronous_commit")


def test_who_asks_for_less_in_the_url_is_heard_up_to_a_point(place):
    words = refusal(f"{place.url}&options=-csynchronous_commit%3Doff")
    assert "with which a job that was acknowledged can be lost; leave it out" in words
    url = f"{place.url}&options=-csynchronous_commit%3Dlocal"
    with contextlib.closing(PostgresqlStore(place_of_url(url))) as store:
        store.open(OWNER)
        assert store._owned.do(lambda link: link.rows("SHOW synchronous_commit")) == [("local",)]


def test_a_database_that_risks_its_files_is_used_with_a_warning(place, caplog):
    place.opened()
    (line,) = [entry.getMessage() for entry in caplog.records]
    assert "fsync is off and full_page_writes is off: jobs that were acknowledged can be" in line


def test_a_database_that_risks_nothing_is_used_without_a_word(caplog):
    cluster = Cluster()
    try:
        cluster.start()
        with contextlib.closing(PostgresqlStore(place_of_url(cluster.url()))) as store:
            store.open(OWNER)
            write(store, 1, job(1))
        assert caplog.records == []
    finally:
        cluster.remove()


@pytest.mark.slow
def test_a_standby_is_refused_and_passed_over(cluster):
    standby = Cluster(FAST, standby_of=cluster)
    try:
        standby.start()
        assert "session is read-only" in refusal(standby.url())
        words = refusal(standby.url(target_session_attrs="any"))
        assert "is a standby, which takes no writes; name the primary, or several hosts" in words
    finally:
        standby.remove()


def test_a_pooler_in_between_is_refused(place, pgbouncer, tmp_path):
    port = free_port()
    settings = tmp_path / "pgbouncer.ini"
    settings.write_text(
        "[databases]\n"
        f"trigear = host={place.cluster.folder} dbname=trigear user=trigear\n"
        "[pgbouncer]\nauth_type = any\npool_mode = transaction\nunix_socket_dir =\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\n"
    )
    who = {"user": "postgres", "group": "postgres"} if os.geteuid() == 0 else {}
    with (
        settings.open() as readable,
        subprocess.Popen(
            [pgbouncer, "/dev/stdin"], stdin=readable, stderr=subprocess.DEVNULL, cwd="/", **who
        ) as process,
    ):
        try:
            give_up = time.monotonic() + 30
            while "Connection refused" in (
                words := refusal(f"postgresql://u@127.0.0.1:{port}/trigear")
            ):
                assert time.monotonic() < give_up
            assert "there is a connection pooler in between" in words
            assert "name the database itself" in words
        finally:
            process.terminate()


# TLS and passwords


def test_tls_is_libpq_s_and_holds_what_the_url_asks_for(tmp_path):
    authority, stranger = Authority("ours"), Authority("others")
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    (tmp_path / "other.pem").write_bytes(stranger.pem)
    port = free_port()
    server = authority.server("localhost")
    own = authority.client("certified").write(tmp_path, "own")
    cluster = Cluster(
        {**FAST, "ssl": "on", "ssl_cert_file": "../cert", "ssl_key_file": "../key"}
        | {"ssl_ca_file": "../ca"},
        port=port,
        hba="hostssl all certified all cert\nhostssl all all all trust",
    )
    try:
        cluster.keep("cert", server.pem)
        cluster.keep("key", server.key_pem())
        cluster.keep("ca", authority.pem)
        cluster.start()
        url = f"postgresql://trigear@localhost:{port}/trigear?sslmode=verify-full&sslrootcert="
        with contextlib.closing(PostgresqlStore(place_of_url(f"{url}{tmp_path}/ca.pem"))) as store:
            store.open(OWNER)
            write(store, 1, job(1))
            (found,) = cluster.run(
                "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)"
                " WHERE usename = 'trigear'"
            )
            assert found == (True,)
        assert "certificate verify failed" in refusal(f"{url}{tmp_path}/other.pem")
        assert "does not match host name" in refusal(
            f"{url}{tmp_path}/ca.pem".replace("@localhost", "@127.0.0.1")
        )
        cluster.run("CREATE ROLE certified LOGIN", "GRANT ALL ON DATABASE trigear TO certified")
        mine = f"{url}{tmp_path}/ca.pem&schema=mine".replace("trigear@", "certified@")
        assert "requires a valid client certificate" in refusal(mine)
        open_and_close(f"{mine}&sslcert={own[0]}&sslkey={own[1]}")
    finally:
        cluster.remove()


def test_a_password_comes_from_where_libpq_looks_and_is_shown_nowhere(
    cluster, tmp_path, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    schema = new_schema()
    cluster.run(
        "CREATE ROLE guarded LOGIN PASSWORD 'hush'", "GRANT ALL ON DATABASE trigear TO guarded"
    )
    url = cluster.url("guarded", schema=schema)
    monkeypatch.setenv("PGPASSFILE", "/nowhere")
    words = refusal(url)
    assert "no password supplied; put it into ~/.pgpass, or into a file named with" in words
    monkeypatch.setenv("PGPASSWORD", "wrong")
    assert "password authentication failed" in refusal(url)
    monkeypatch.setenv("PGPASSWORD", "hush")
    open_and_close(url)
    monkeypatch.delenv("PGPASSWORD")
    (tmp_path / "pass").write_text("*:*:*:guarded:hush\n")
    (tmp_path / "pass").chmod(0o600)
    open_and_close(f"{url}&passfile={tmp_path}/pass")
    open_and_close(url.replace("guarded@", "guarded:hush@"))
    assert "password authentication failed" in refusal(url.replace("guarded@", "guarded:hushed@"))
    assert "hush" not in caplog.text


def open_and_close(url: str) -> None:
    with contextlib.closing(PostgresqlStore(place_of_url(url))) as store:
        store.open(OWNER)
        assert "hush" not in f"{store!r} {store.name}"


def test_an_error_that_says_nothing_has_its_kind_for_a_name():
    assert postgresql_link.reason_of(psycopg.OperationalError()) == "OperationalError"
