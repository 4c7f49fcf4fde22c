"""What goes wrong with an SQLite file, and what is said and done then. The SQLite is real, and so
are the errors: nothing here stands in for it."""

from __future__ import annotations

import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.stores.places import OWNER, SqlitePlace, content, job, record, records, sequences, write
from trigear.errors import StoreUnavailable, StoreUnknown, StoreUnusable
from trigear.stores import lock, sqlite
from trigear.stores.base import Batch, Forget, Keep, Spoilt, SpoiltRecord
from trigear.stores.sqlite import SqliteStore
from trigear.stores.sqlite_file import APPLICATION_ID

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SqlitePlace]:
    found = SqlitePlace(tmp_path)
    yield found
    found.clear()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who else holds the file is not waited for."""
    monkeypatch.setattr(sqlite, "BUSY_SECONDS", 0.0)


def connection_of(store: SqliteStore) -> sqlite3.Connection:
    assert store._connection is not None
    return store._connection


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def run_sql(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def refusal(place: SqlitePlace) -> str:
    """Why the store cannot be opened; the files are as they were before."""
    before = bytes_in(place.path.parent)
    with pytest.raises(StoreUnusable) as caught:
        place.opened()
    after = bytes_in(place.path.parent)
    assert {name: after[name] for name in before} == before
    assert str(caught.value).startswith(f"store {place.path}: ")
    return str(caught.value)


# The file


def test_file_log_and_folder_are_for_the_owner_only(place):
    mask = os.umask(0)
    try:
        write(place.opened(), 1, job(1))
    finally:
        os.umask(mask)
    files = {path.name: path.stat().st_mode & 0o777 for path in place.path.parent.iterdir()}
    assert set(files) == {place.path.name + end for end in ("", "-wal", "-shm", ".lock")}
    assert set(files.values()) == {0o600}


def test_our_own_file_that_others_could_read_is_closed_to_them(place):
    place.opened().close()
    place.path.chmod(0o644)
    place.opened()
    assert place.path.stat().st_mode & 0o777 == 0o600


def test_commits_are_synced(place):
    connection = connection_of(place.opened())
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_two_names_of_one_file_are_one_store(place, tmp_path):
    place.opened()
    other = tmp_path / "other"
    other.symlink_to(place.path)
    with pytest.raises(StoreUnusable, match="another server"):
        SqliteStore(str(other)).open(OWNER)


@pytest.mark.parametrize("name", ["100% a?b#c.db", "é.db", os.fsdecode(b"\xff.db")])
def test_a_file_may_have_any_name(tmp_path, name):
    path = tmp_path / name
    with closing(SqliteStore(str(path))) as store:
        store.open(OWNER)
        write(store, 1, job(1))
    assert path.stat().st_size > 0


def test_finding_jobs_to_erase_does_not_read_all_the_others(place):
    store = place.opened()
    seen: list[str] = []
    connection_of(store).set_trace_callback(seen.append)
    write(store, 1, *(Forget(0, number) for number in range(1, 9)))
    (erasure,) = [statement for statement in seen if statement.startswith("DELETE")]
    plan = connection_of(store).execute(f"EXPLAIN QUERY PLAN {erasure}").fetchall()
    assert [row[3] for row in plan] == ["SEARCH job USING PRIMARY KEY (partition=? AND sequence=?)"]


def test_a_copy_that_was_made_while_the_store_was_in_use_is_a_store(place, tmp_path):
    store = place.opened()
    write(store, 1, job(1), job(2))
    run_sql(place.path, f"VACUUM INTO '{tmp_path}/copy.sqlite3'")
    write(store, 2, Forget(0, 1))
    with closing(SqliteStore(f"{tmp_path}/copy.sqlite3")) as copy:
        assert copy.open(OWNER).term == 2
        assert sequences(content(copy)) == [1, 2]
        assert connection_of(copy).execute("PRAGMA journal_mode").fetchone() == ("wal",)


# Whose it is


def test_a_file_of_another_program_is_left_alone(place):
    run_sql(place.path, "CREATE TABLE songs (title TEXT)")
    assert "is a database of another program; name another file" in refusal(place)


def test_an_empty_database_of_another_program_is_left_alone(place):
    run_sql(place.path, "PRAGMA application_id = 7", "PRAGMA user_version = 1")
    assert "is a database of another program" in refusal(place)


GEARMANDS_TABLE = (
    'CREATE TABLE "gearman queue" (unique_key TEXT, function_name TEXT, priority INTEGER,'
    " data BLOB, when_to_run INTEGER, PRIMARY KEY (unique_key, function_name))"
)
GEARMANDS_JOB = "INSERT INTO \"gearman queue\" VALUES ('u', 'f', 1, x'00', 0)"


def test_jobs_that_gearmand_left_in_the_file_are_not_passed_over_in_silence(place):
    run_sql(place.path, GEARMANDS_TABLE, GEARMANDS_JOB)
    words = refusal(place)
    assert "gearmand's table 'gearman queue' is in it, with 1 job;" in words
    assert "name another file, and take them into it with 'trigear store import'" in words


def test_a_table_of_gearmands_without_jobs_is_no_hindrance_and_stays(place):
    run_sql(place.path, GEARMANDS_TABLE)
    store = place.opened()
    write(store, 1, job(1))
    store.close()
    store = place.opened()
    assert sequences(content(store)) == [1]
    store.close()
    run_sql(place.path, GEARMANDS_JOB)
    assert "with 1 job;" in refusal(place)


def test_tables_of_a_later_version_are_left_alone_and_their_writer_is_named(place):
    place.opened().close()
    run_sql(place.path, "UPDATE store SET writer = '12.3'", "PRAGMA user_version = 3")
    words = refusal(place)
    assert "trigear 12.3 has written it with tables of version 3" in words
    assert "this trigear knows version 2: start that one, or restore a backup" in words


def test_tables_of_a_later_version_may_look_different(place):
    run_sql(place.path, f"PRAGMA application_id = {APPLICATION_ID}", "PRAGMA user_version = 3")
    assert "trigear of a later version has written it" in refusal(place)


# Damage


def test_a_file_that_is_no_database_is_left_alone(place):
    place.path.write_bytes(b"Dear diary, " * 1000)
    assert "is damaged: file is not a database" in refusal(place)


def filled(place: SqlitePlace, jobs: int = 400) -> None:
    """A file of many pages, with nothing left in the log."""
    store = place.opened()
    write(store, 1, *(job(number, b"%d" % number * 100) for number in range(1, jobs + 1)))
    store.close()


def damage(path: Path, start: int, end: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(b"\xa5" * (end - start))


def test_damaged_jobs_stop_the_start(place):
    filled(place)
    damage(place.path, 3 * 8192, place.path.stat().st_size)
    store = place.opened()
    with pytest.raises(StoreUnusable, match=r"is damaged: .*restore a backup"):
        content(store)
    with pytest.raises(StoreUnusable, match=r"is damaged: .*restore a backup"):
        store.markers(None, 1000)


def test_an_owner_that_cannot_be_read_stops_the_start(place):
    place.opened().close()
    run_sql(place.path, "DELETE FROM store")
    assert "who owns it cannot be read" in refusal(place)


def test_a_handle_key_that_cannot_be_one_stops_the_start(place):
    place.opened().close()
    run_sql(place.path, "UPDATE store SET handle_key = x'00'")
    assert "who owns it cannot be read" in refusal(place)


def test_a_store_that_is_damaged_while_it_runs_is_not_written_to_any_more(place):
    filled(place)
    store = place.opened()
    damage(place.path, 3 * 8192, place.path.stat().st_size)
    with pytest.raises(StoreUnavailable, match="is damaged: "):
        write(store, 2, Forget(0, 200), Forget(0, 399))
    before = bytes_in(place.path.parent)
    for number in (3, 4):
        with pytest.raises(StoreUnavailable, match="is damaged: "):
            write(store, number, job(1000))
    assert bytes_in(place.path.parent) == before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE job SET function = 'text' WHERE sequence = 2", "function: not of the kind"),
        ("UPDATE job SET workload = 7, due = 'soon' WHERE sequence = 2", "due, workload: not of"),
        ("UPDATE job SET tenant = CAST(x'ff' AS TEXT) WHERE sequence = 2", "tenant: not a name"),
        ("UPDATE job SET version = 99 WHERE sequence = 2", "layout 99"),
    ],
)
def test_a_row_that_is_no_job_spoils_only_itself(place, change, why):
    store = place.opened()
    write(store, 1, job(1), job(2), job(3))
    store.close()
    run_sql(place.path, change)
    first, spoilt, last = content(place.opened())
    assert (first, last) == (job(1), job(3))
    assert isinstance(spoilt, Spoilt)
    assert (spoilt.partition, spoilt.sequence) == (0, 2)
    assert why in spoilt.why


@pytest.mark.parametrize("column", ["partition", "sequence", "tenant", "function", "uniq"])
def test_a_row_that_is_no_job_has_no_marker(place, column):
    store = place.opened()
    write(store, 1, *(job(number, unique=b"u%d" % number) for number in (1, 2, 3)))
    store.close()
    odd = "x'ff'" if column == "tenant" else "'text'"
    run_sql(place.path, f"UPDATE job SET {column} = {odd} WHERE sequence = 2")
    store = place.opened()
    assert [marker.unique for marker in store.markers(None, 10)] == [b"u1", b"u3"]
    assert [row for row in content(store) if isinstance(row, Keep)] == [
        job(1, unique=b"u1"),
        job(3, unique=b"u3"),
    ]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE record SET about = x'00', data = 7 WHERE key = x'62'", "about, data: not of the"),
        ("UPDATE record SET tenant = CAST(x'01' AS TEXT) WHERE key = x'62'", "tenant: not a name"),
        ("UPDATE record SET version = 99 WHERE key = x'62'", "layout 99"),
    ],
)
def test_a_record_that_is_none_spoils_only_itself_and_is_not_fetched(place, change, why):
    store = place.opened()
    write(store, 1, record(b"a"), record(b"b"), record(b"c"))
    store.close()
    run_sql(place.path, change)
    store = place.opened()
    found = {entry.key: entry for entry in records(store)}
    spoilt = found.pop(b"b")
    assert list(found.values()) == [record(b"a"), record(b"c")]
    assert isinstance(spoilt, SpoiltRecord)
    assert why in spoilt.why
    fetched = store.fetch(spoilt.kind, spoilt.tenant, [b"a", b"b", b"c"])
    assert b"b" not in {entry.key for entry in fetched}


def test_damaged_records_stop_the_start_and_cannot_be_fetched(place):
    store = place.opened()
    write(store, 1, *(record(b"%03d" % number, b"x" * 400) for number in range(200)))
    store.close()
    damage(place.path, 3 * 8192, place.path.stat().st_size)
    store = place.opened()
    with pytest.raises(StoreUnusable, match="is damaged: "):
        records(store)
    with pytest.raises(StoreUnavailable, match="is damaged: "):
        store.fetch("dead", "default", [b"%03d" % number for number in range(200)])


def test_records_are_fetched_while_a_batch_is_being_written(place):
    store = place.opened()
    write(store, 1, record(b"a"))
    connection = connection_of(store)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("DELETE FROM record")
    assert list(store.fetch("dead", "default", [b"a"])) == [record(b"a")]
    connection.execute("ROLLBACK")


def test_tables_of_an_earlier_version_stop_the_start_with_the_next_step(place):
    place.opened().close()
    run_sql(place.path, "PRAGMA user_version = 1")
    assert "has tables of version 1, from an earlier trigear" in refusal(place)
    assert "run 'trigear store migrate'" in refusal(place)


# Not written


def test_a_full_disk_leaves_what_was_there_and_room_lets_it_go_on(place):
    store = place.opened()
    write(store, 1, job(1))
    (size,) = connection_of(store).execute("PRAGMA page_count").fetchone()
    connection_of(store).execute(f"PRAGMA max_page_count = {size}")
    with pytest.raises(StoreUnavailable, match="the disk is full; make room"):
        write(store, 2, job(2), job(3, b"x" * 100_000))
    write(store, 3, job(4))
    connection_of(store).execute("PRAGMA max_page_count = 100000")
    write(store, 4, job(3, b"x" * 100_000))
    assert sequences(content(store)) == [1, 3, 4]


def test_a_roll_back_that_fails_leaves_it_open_what_was_written(place):
    store = place.opened()
    connection = connection_of(store)
    (size,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {size}")

    def deny(action: int, what: str | None, *_: object) -> int:
        forbidden = (action, what) == (sqlite3.SQLITE_TRANSACTION, "ROLLBACK")
        return sqlite3.SQLITE_DENY if forbidden else sqlite3.SQLITE_OK

    connection.set_authorizer(deny)
    # Eight rows in one statement: SQLite takes back the statement and leaves the rest to us.
    batch = Batch(1, tuple(job(number, b"x" * 100_000) for number in range(1, 9)))
    with pytest.raises(StoreUnknown, match="the disk is full"):
        store.commit(batch)
    assert not store.holds(batch)
    write(store, 2, job(9))
    assert sequences(content(store)) == [9]


def test_a_file_that_may_not_be_written_any_more_refuses_batches(place):
    store = place.opened()
    connection_of(store).execute("PRAGMA query_only = ON")
    with pytest.raises(StoreUnavailable, match="let this user write to the file and its folder"):
        write(store, 1, job(1))
    connection_of(store).execute("PRAGMA query_only = OFF")
    write(store, 2, job(2))
    assert sequences(content(store)) == [2]


@pytest.mark.usefixtures("impatient")
def test_a_file_that_another_program_holds_refuses_batches_until_it_lets_go(place):
    store = place.opened()
    with closing(sqlite3.connect(place.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable, match="another program holds it"):
            write(store, 1, job(1))
        other.execute("ROLLBACK")
    write(store, 2, job(2))
    assert sequences(content(store)) == [2]


def test_a_program_that_only_reads_disturbs_nobody(place):
    store = place.opened()
    with closing(sqlite3.connect(place.path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM job").fetchone()
        write(store, 1, job(1))
    assert sequences(content(store)) == [1]


def test_a_file_that_was_removed_or_replaced_is_not_written_to(place):
    store = place.opened()
    write(store, 1, job(1))
    place.path.unlink()
    with pytest.raises(StoreUnavailable, match="no such file"):
        write(store, 2, job(2))
    place.path.write_bytes(b"")
    with pytest.raises(StoreUnavailable, match="another file has taken its place"):
        write(store, 3, job(3))
    with pytest.raises(StoreUnavailable, match="another file has taken its place"):
        store.holds(Batch(3, ()))
    assert place.path.read_bytes() == b""


def test_a_log_that_was_removed_takes_no_more_and_is_saved_by_stopping(place):
    store = place.opened()
    write(store, 1, job(1))
    Path(f"{place.path}-wal").unlink()
    with pytest.raises(StoreUnavailable, match="its log was removed under the server"):
        write(store, 2, job(2))
    store.close()
    assert sequences(content(place.opened())) == [1]


def test_a_row_that_the_table_does_not_take_refuses_its_batch(place):
    store = place.opened()
    with pytest.raises(StoreUnavailable, match=r"NOT NULL constraint failed: job\.workload"):
        write(store, 1, job(1), job(2, workload=None))
    write(store, 2, job(3))
    assert sequences(content(store)) == [3]


def test_a_store_that_is_closed_refuses_batches(place):
    store = place.opened()
    store.close()
    with pytest.raises(StoreUnavailable, match="is not open"):
        write(store, 1, job(1))


# Unknown


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """The system refuses to write beyond this length, as a broken disk does: with an error that
    is not about being full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_an_io_error_leaves_it_open_what_was_written_until_the_disk_works(place):
    store = place.opened()
    write(store, 1, job(1))
    batch = Batch(2, (job(2), job(3, b"x" * 1_000_000)))
    with files_no_longer_than(100_000):
        with pytest.raises(StoreUnknown, match="the disk does not work"):
            store.commit(batch)
        with files_no_longer_than(10), pytest.raises(StoreUnavailable):
            store.holds(batch)
        with pytest.raises(StoreUnavailable, match="is not open"):
            store.commit(batch)
    assert not store.holds(batch)
    store.commit(batch)
    assert store.holds(batch)
    assert sequences(content(store)) == [1, 2, 3]


@pytest.mark.usefixtures("impatient")
def test_a_batch_is_not_believed_to_be_there_while_another_program_keeps_the_log_in_use(place):
    store = place.opened()
    batch = write(store, 1, job(1))
    with closing(sqlite3.connect(place.path, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT count(*) FROM job").fetchone()
        with pytest.raises(StoreUnavailable, match="another program is reading it"):
            store.holds(batch)
    assert store.holds(batch)


SYNC_THAT_FAILS = """
    import sys
    from tests.stores.places import OWNER, content, job, sequences
    from trigear.errors import StoreUnavailable, StoreUnknown
    from trigear.stores.base import Batch
    from trigear.stores.sqlite import SqliteStore

    store = SqliteStore(sys.argv[1])
    store.open(OWNER)
    store.commit(Batch(1, (job(1),)))
    for number in range(2, 9):
        batch = Batch(number, (job(number),))
        try:
            store.commit(batch)
        except StoreUnknown:
            break
    asked = 0
    while True:
        try:
            held = store.holds(batch)
            break
        except StoreUnavailable:
            asked += 1
    print(number, asked, held, sequences(content(store)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("more", [0, 3])
def test_a_failed_sync_is_never_taken_for_a_commit(place, strace, more):
    # The first call that fails is that of a commit; with more of them, making sure fails, too.
    place.opened().close()
    first = 6
    done = subprocess.run(
        [
            *(strace, "-f", "-o", "/dev/null", "-e", "trace=fdatasync,fsync"),
            *("-e", f"inject=fdatasync,fsync:error=EIO:when={first}..{first + more}"),
            *(sys.executable, "-c", textwrap.dedent(SYNC_THAT_FAILS), str(place.path)),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
    number, asked, held, rest = done.stdout.split(maxsplit=3)
    assert int(number) > 1
    assert (int(asked) > 0) == (more > 0)
    kept = list(range(1, int(number) + (held == "True")))
    assert rest.strip() == str(kept)
    assert sequences(content(place.opened())) == kept


# Opening


def test_a_folder_that_is_not_there_is_named(tmp_path):
    place = SqlitePlace(tmp_path / "absent")
    with pytest.raises(StoreUnusable, match=r"absent/jobs.sqlite3.lock: no such file"):
        place.opened()


def test_a_file_system_without_shared_memory_is_refused(place, monkeypatch):
    monkeypatch.setattr(SqliteStore, "_extra", "&vfs=unix-none")
    with pytest.raises(StoreUnusable, match="does not bear SQLite's write-ahead log"):
        place.opened()


@pytest.mark.usefixtures("impatient")
def test_a_file_that_another_program_holds_cannot_be_taken_over(place):
    place.opened().close()
    with closing(sqlite3.connect(place.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnusable, match="another program holds it; end that one"):
            place.opened()


def test_a_store_that_could_not_be_opened_can_be_opened_later(place):
    run_sql(place.path, "CREATE TABLE songs (title TEXT)")
    store = place.store()
    with pytest.raises(StoreUnusable):
        store.open(OWNER)
    run_sql(place.path, "DROP TABLE songs")
    assert store.open(OWNER).term == 1


def test_a_user_without_rights_is_told_what_to_do(place):
    place.opened().close()
    if os.geteuid() != 0:
        place.path.chmod(0o400)
        with pytest.raises(StoreUnusable, match="let this user write to the file and its folder"):
            place.opened()
        return
    # As root everything may be written. Nobody can reach pytest's folders, and other runs see to
    # it that this remains so.
    with tempfile.TemporaryDirectory(prefix="trigear-test-") as folder:
        path = Path(folder, "jobs.sqlite3")
        shutil.copy(place.path, path)
        path.chmod(0o444)
        lock_file = Path(f"{path}.lock")
        lock_file.touch()
        for each in (folder, lock_file):
            os.chown(each, 65534, 65534)
        path.parent.chmod(0o755)
        os.seteuid(65534)
        try:
            with pytest.raises(StoreUnusable, match="let this user write to the file and its fold"):
                SqliteStore(str(path)).open(OWNER)
        finally:
            os.seteuid(0)


# The lock


def test_a_lock_that_was_pulled_away_while_it_was_taken_is_taken_again(place, monkeypatch):
    real = lock.fcntl.flock
    path = Path(f"{place.path}.lock")
    others = [lambda: path.unlink(), lambda: (path.unlink(), path.write_bytes(b""))]

    def flock(descriptor: int, operation: int) -> None:
        real(descriptor, operation)
        if others:
            others.pop()()

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    place.opened()
    assert others == []
    with pytest.raises(StoreUnusable, match="pid 4711"):
        place.opened()


def test_a_holder_that_has_not_written_its_name_is_just_starting(place):
    place.opened()
    Path(f"{place.path}.lock").write_bytes(b"")
    with pytest.raises(StoreUnusable, match=r"another server \(just starting\)"):
        place.opened()


def test_a_lock_that_cannot_take_its_holder_s_name_is_let_go(place, monkeypatch):
    def full(descriptor: int, text: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(lock.os, "write", full)
        with pytest.raises(StoreUnusable, match="no space left"):
            place.opened()
    place.opened()


def test_a_lock_that_the_file_system_does_not_know_is_an_error_of_its_own(place, monkeypatch):
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(lock.fcntl, "flock", flock)
    with pytest.raises(StoreUnusable, match="operation not supported"):
        place.opened()
