"""A queue in PostgreSQL: what the command line says of it, and servers that have one."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import TRIGEAR, Peer, connect
from tests.conftest import run_gearmand_c
from tests.postgres import new_schema, shared
from tests.stores.places import OWNER, job, record, write
from trigear.cli.gearmand import gearmand_command
from trigear.cli.gearmand import plan_of as gearmand_plan_of
from trigear.cli.report import Failure, Status
from trigear.cli.store import StorePlan, parse_store, store_plan
from trigear.stores.postgresql import PostgresqlStore
from trigear.stores.postgresql_place import place_of_conninfo, place_of_url
from trigear.stores.sqlite import SqliteStore
from trigear.wire.packets import JOB_CREATED, SUBMIT_JOB_BG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Running, Said
    from tests.conftest import PeerTools
    from trigear.cli.plan import Plan

SECRET = "postgresql://u:hush@127.0.0.1:1/d"


@pytest.fixture
def url() -> Iterator[str]:
    """A place for a queue of one test."""
    schema = new_schema()
    yield shared().url(schema=schema)
    shared().run(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


@pytest.fixture
def no_psycopg(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""
    monkeypatch.setitem(sys.modules, "trigear.stores.postgresql_place", None)


@pytest.mark.parametrize("text", ["postgresql://", "postgres://u@h:1,i:2/d?sslmode=verify-full"])
def test_urls_of_postgresql_are_stores(text: str) -> None:
    assert parse_store(text) == text
    assert store_plan(text, "/s", "/start") == StorePlan(place=place_of_url(text))


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:hu/sh@h/d",
        "postgresql://u:hush@h/d?sslmoed=x",
        "postgrseql://u:hush@h/d",
        "mysql://u:hush@h/d",
    ],
)
def test_what_cannot_be_read_is_refused_without_its_password(
    text: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("server", "--store", text)
    assert said.status == Status.USAGE
    assert "postgresql://USER@HOST/DATABASE" in said.line
    assert "hu" not in said.line.replace("--", "")


def test_files_in_a_url_are_found_from_where_the_server_was_started() -> None:
    place = store_plan("postgresql://h/d?passfile=pass", None, "/start").place
    assert place is not None
    assert place.parameters["passfile"] == "/start/pass"


@pytest.mark.usefixtures("no_psycopg")
def test_a_missing_extra_is_named(
    trigear: Callable[..., Said], gearmand: Callable[..., Said]
) -> None:
    for said in (trigear("server", "--store", "postgresql://"), gearmand("-q", "Postgres")):
        assert "needs psycopg, which is not here: pip install 'trigear[postgresql]'" in said.line


def test_a_plan_becomes_a_store() -> None:
    plan = store_plan("postgresql://u@h/d", None, "/")
    plan.prepare(None)
    store = plan.build()
    assert isinstance(store, PostgresqlStore)
    assert (str(plan), store.name) == ("postgresql u@h/d", "postgresql u@h/d")


def test_a_password_on_the_command_line_is_refused_and_elsewhere_it_is_not_shown(
    trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = trigear("server", "--store", SECRET)
    assert said.status == Status.USAGE
    assert "a password on the command line can be read by everybody" in said.line
    assert "?passfile=" in said.line
    monkeypatch.setenv("TRIGEAR_SERVER_STORE", SECRET)
    also = trigear("server", "--check", "-L", "127.0.0.1")
    assert (also.status, "store postgresql u@127.0.0.1:1/d: " in also.line) == (Status.NO, True)
    assert "hush" not in f"{said}{also}{StorePlan(place=place_of_url(SECRET))!r}"


def test_check_connects_and_says_where_the_queue_would_be(
    trigear: Callable[..., Said], url: str
) -> None:
    said = trigear("server", "--check", "-L", "127.0.0.1", "--store", url)
    assert said.status == 0
    assert f"; store: postgresql trigear@{shared().folder}/trigear, schema place" in said.out


# trigear store


def test_an_export_from_sqlite_is_imported_into_postgresql_and_looked_at(
    trigear: Callable[..., Said], url: str, tmp_path: Path
) -> None:
    with closing(SqliteStore(str(tmp_path / "jobs.db"))) as store:
        store.open(OWNER)
        write(store, 1, *(job(number) for number in range(1, 30)), record(b"a"))
    text = str(tmp_path / "jobs.jsonl")
    file = f"sqlite://{tmp_path}/jobs.db"
    assert trigear("store", "export", text, "--store", file).status == Status.DONE
    ours = ("--store", url)
    said = trigear("store", "import", text, "--yes", *ours)
    assert said.err.splitlines()[-1].endswith("imported 29 jobs and 1 record")
    said = trigear("store", "check", *ours)
    assert said.status == Status.DONE
    assert ": tables of version 1, trigear " in said.out
    assert "29 jobs of f (tenant default)" in said.out
    assert trigear("store", "export", *ours).out.count("\n") == 31
    said = trigear("store", "migrate", *ours)
    assert (said.status, "the tables are of version 1 already" in said.line) == (0, True)
    said = trigear("store", "backup", "x", *ours)
    assert said.status == Status.NO
    assert "a database is copied by its own tools, pg_dump for one" in said.line


@pytest.mark.peers
@pytest.mark.slow
def test_jobs_go_from_gearmands_queue_to_ours_and_back(
    trigear: Callable[..., Said], url: str, tmp_path: Path, peer_tools: PeerTools
) -> None:
    schema = url.rpartition("=")[2]
    shared().run(f"CREATE SCHEMA {schema} AUTHORIZATION trigear")
    path = f"-csearch_path={schema}"
    conninfo = f"host={shared().folder} user=trigear dbname=trigear options={path}"
    queue = ["-q", "Postgres", f"--libpq-conninfo={conninfo}"]
    theirs = run_gearmand_c(peer_tools, tmp_path / "log", *queue)
    with connect(theirs.address) as link:
        peer = Peer(link)
        for number in range(3):
            peer.send(SUBMIT_JOB_BG, b"f", b"u%d" % number, b"w")
            assert peer.receive()[0] == JOB_CREATED
        peer.close()
    theirs.stop()
    source = shared().url(options=path)
    said = trigear("store", "import", source, "--dry-run", "--store", url)
    assert said.out == "3 jobs and 0 records would be imported\n"
    said = trigear("store", "import", source, "--yes", "--store", url)
    assert said.err.splitlines()[-1].endswith("imported 3 jobs and 0 records")
    said = trigear("store", "export", source, "--gearmand", "--table=queue", "--store", url)
    assert "table 'queue' is not empty" in said.line
    shared().run(f"TRUNCATE {schema}.queue")
    said = trigear("store", "export", source, "--gearmand", "--store", url)
    assert "gearmand takes jobs from PostgreSQL for urgent ones that are due" in said.err
    assert "3 jobs written to table 'queue'" in said.err
    theirs = run_gearmand_c(peer_tools, tmp_path / "log", *queue)
    assert theirs.ask(b"status", b".\n") == b"f\t3\t0\t0\n.\n"
    theirs.stop()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["import", SECRET], "a password on the command line can be read by everybody"),
        (["import", "postgresql://h/d", "--table", "a b"], "'a b' is no name for a table"),
        (["import", "postgresql://h/d?x=y"], "'x' is nothing that PostgreSQL or trigear knows"),
    ],
)
def test_where_gearmands_queue_is_has_to_be_said_well(
    options: list[str], words: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("store", *options, "--yes", "--store", "postgresql://h/d")
    assert said.status == Status.USAGE
    assert words in said.line
    assert "hush" not in said.line


# gearmand's face


def plan_for(*args: str) -> Plan:
    return gearmand_plan_of(gearmand_command.make_context("gearmand", list(args)), "/start")


@pytest.mark.parametrize("name", ["Postgres", "postgres", "POSTGRES"])
def test_queue_in_postgresql_is_the_database_that_is_named(name: str) -> None:
    plan = plan_for("-q", name, "--libpq-conninfo=host=h passfile=p", "--libpq-table=Jobs")
    place = place_of_conninfo("host=h passfile=/start/p", "Jobs")
    assert (plan.store, plan.notes) == (StorePlan(place=place), ())
    assert plan_for("-q", name).store == StorePlan(place=place_of_conninfo("", "queue"))


def test_options_of_postgresql_alone_do_nothing_and_that_is_said() -> None:
    plan = plan_for("--libpq-conninfo=host=h", "--libpq-table=t")
    assert plan.store == StorePlan()
    (note,) = plan.notes
    assert note.endswith("--libpq-conninfo --libpq-table")


def test_a_password_that_others_can_read_is_taken_with_a_warning(tmp_path) -> None:
    words = "--libpq-conninfo=host=h password=hush"
    (note,) = plan_for("-q", "Postgres", words).notes
    assert "everybody on this machine can read a password on the command line" in note
    assert "hush" not in note
    (tmp_path / "conf").write_text(
        words.replace(" ", "\n").replace("=host=h\npassword", "=password")
    )
    assert plan_for("-q", "Postgres", "--config-file", str(tmp_path / "conf")).notes == ()


@pytest.mark.parametrize("option", ["--libpq-conninfo=host", "--libpq-table=a b"])
def test_what_libpq_cannot_read_is_one_line(option: str) -> None:
    with pytest.raises(Failure, match="--libpq-conninfo and --libpq-table: "):
        plan_for("-q", "Postgres", option)


# Servers


def submit(server: Running) -> None:
    with connect(server.address) as link:
        peer = Peer(link)
        peer.send(SUBMIT_JOB_BG, b"f", b"", b"w")
        assert peer.receive()[0] == JOB_CREATED
        peer.close()


@pytest.mark.slow
def test_jobs_in_postgresql_are_there_after_a_kill(start: Callable[..., Running], url: str) -> None:
    command = [*TRIGEAR, "server", "-L", "127.0.0.1", "-p", "0", "--store", url]
    first = start(*command)
    assert f"store: postgresql trigear@{shared().folder}/trigear, schema" in first.lines[-1]
    submit(first)
    with pytest.raises(pytest.fail.Exception, match=r"another server \(pid \d+ at 127\.0\.0\.1:"):
        start(*command)
    submit(first)
    first.kill()
    second = start(*command)
    assert "2 jobs in it" in second.lines[-1]


@pytest.mark.slow
def test_gearmands_face_and_ours_can_have_the_same_queue(
    start: Callable[..., Running], url: str
) -> None:
    conninfo = url.partition("?")[0]
    schema = url.rpartition("=")[2]
    shared().run(f"CREATE SCHEMA {schema} AUTHORIZATION trigear")
    face = start(
        *(*TRIGEAR, "server", "--compat", "gearmand-2", "-p", "0", "-l", "stderr", "--verbose"),
        *("INFO", "-q", "Postgres", f"--libpq-conninfo={conninfo}", f"--libpq-table={schema}.jobs"),
    )
    submit(face)
    face.kill()
    place = f"{url}&table_prefix=jobs_"
    ours = start(*TRIGEAR, "server", "-L", "127.0.0.1", "-p", "0", "--store", place)
    assert "1 job in it" in ours.lines[-1]
