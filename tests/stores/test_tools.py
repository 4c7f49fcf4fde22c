"""Looking into stores, copying them, renewing their tables, and moving them as text."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.stores.places import OWNER, SqlitePlace, content, job, record, records, write
from tests.stores.test_sqlite import damage, filled, run_sql
from trigear.errors import StoreUnusable
from trigear.stores import snapshot as snapshots
from trigear.stores import sqlite_tools
from trigear.stores.base import Forget, Keep, Record
from trigear.stores.gearmand_queue import QueuedJob, job_of, read_sqlite, write_sqlite
from trigear.stores.lock import LockFile, holder_of
from trigear.stores.snapshot import FAULTS, examine, jobs_of, records_of
from trigear.stores.sqlite_file import SCHEMA
from trigear.stores.sqlite_tools import BACKUP_TERMS, SqliteSnapshot, backup, upgrade
from trigear.stores.transfer import Importer, Unreadable, export_lines, read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SqlitePlace]:
    found = SqlitePlace(tmp_path)
    yield found
    found.clear()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "PAGE", 2)


def ignored(done: int, of: int) -> None:
    """Progress that nobody looks at."""


def snapshot(place: SqlitePlace) -> SqliteSnapshot:
    return SqliteSnapshot(str(place.path))


def texts(place: SqlitePlace) -> list[str]:
    with closing(snapshot(place)) as seen:
        return list(export_lines(seen, "1", pytest.fail))


# A moment


@pytest.mark.usefixtures("small_pages")
def test_a_snapshot_is_one_moment_and_disturbs_nobody(place):
    store = place.opened()
    kept = [job(number) for number in range(1, 6)]
    noted = [record(b"%d" % number, kind=kind) for kind in ("dead", "x") for number in range(4)]
    write(store, 1, *kept, *noted)
    with closing(snapshot(place)) as seen:
        write(store, 2, Forget(0, 1), job(9))
        assert list(jobs_of(seen)) == kept
        assert list(records_of(seen)) == noted
        assert list(records_of(seen, data=False)) == [r._replace(data=b"") for r in noted]
        assert (seen.total(), seen.kinds(), seen.schema) == (13, ["dead", "x"], SCHEMA)
        assert (seen.writer, seen.owner) == (OWNER.version, "pid 4711 at 127.0.0.1:4730")
        assert str(place.path) in seen.name
    store.close()
    with closing(snapshot(place)) as seen:
        assert seen.owner is None
        assert [row.sequence for row in jobs_of(seen)] == [2, 3, 4, 5, 9]


def test_a_file_that_is_not_there_or_no_store_is_said_to_be_so(place, tmp_path):
    with pytest.raises(StoreUnusable, match="no such file"):
        snapshot(place)
    sqlite3.connect(tmp_path / "empty").execute("CREATE TABLE x (y)").connection.close()
    with pytest.raises(StoreUnusable, match="database of another program"):
        SqliteSnapshot(str(tmp_path / "empty"))
    (tmp_path / "void").write_bytes(b"")
    with pytest.raises(StoreUnusable, match="is no store of trigear: it is empty"):
        SqliteSnapshot(str(tmp_path / "void"))


def test_an_unreadable_file_is_named_wherever_reading_it_fails(place):
    filled(place)
    damage(place.path, 3 * 8192, place.path.stat().st_size)
    with closing(snapshot(place)) as seen:
        assert seen.damage()
        with pytest.raises(StoreUnusable, match=f"store {place.path}: is damaged"):
            list(jobs_of(seen))
        assert any("is damaged" in fault for fault in examine(seen, ignored).faults)


# Who owns it


def test_a_lock_is_asked_after_without_taking_it(tmp_path):
    path = str(tmp_path / "x.lock")
    assert holder_of(path) is None
    lock = LockFile(path, OWNER)
    assert holder_of(path) == "pid 4711 at 127.0.0.1:4730"
    os.truncate(path, 0)
    assert holder_of(path) == "just starting"
    lock.release()
    assert holder_of(path) is None


def test_a_lock_that_is_only_being_asked_after_is_had_a_moment_later(tmp_path, monkeypatch):
    import fcntl
    import time

    path = str(tmp_path / "x.lock")
    LockFile(path, OWNER).release()
    asking = os.open(path, os.O_RDONLY)
    fcntl.flock(asking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: os.close(asking))
    LockFile(path, OWNER).release()


# Examining


@pytest.mark.usefixtures("small_pages")
def test_an_examination_counts_what_is_there_and_names_what_is_wrong(place):
    store = place.opened()
    write(store, 1, job(1), job(2, function=b"g"), job(3), record(b"a"), record(b"b"), record(b"c"))
    store.close()
    said: list[tuple[int, int]] = []
    with closing(snapshot(place)) as seen:
        found = examine(seen, lambda done, of: said.append((done, of)))
    assert found.jobs == {("default", b"f"): 2, ("default", b"g"): 1}
    assert (found.records, found.faults, found.faulty) == ({"dead": 3}, [], 0)
    assert said == [(2, 6), (4, 6), (6, 6)]
    run_sql(
        place.path,
        "UPDATE job SET version = 9 WHERE sequence = 1",
        "UPDATE job SET handle = x'483A746573743A32' WHERE sequence = 3",
        "UPDATE record SET version = 9 WHERE key = x'61'",
    )
    with closing(snapshot(place)) as seen:
        found = examine(seen, ignored)
    assert found.faulty == 3
    assert found.faults[0] == "job (0, 1): layout 9, of which this version knows nothing"
    assert found.faults[1] == "job (0, 3): another job has the same handle"
    assert found.faults[2].startswith("dead b'a' of tenant default: layout 9")


def test_many_faults_are_counted_and_the_first_are_named(place):
    store = place.opened()
    write(store, 1, *(job(number, version=9) for number in range(1, 2 * FAULTS)))
    with closing(snapshot(place)) as seen:
        found = examine(seen, ignored)
    assert (found.faulty, len(found.faults)) == (2 * FAULTS - 1, FAULTS)


def test_damage_of_the_file_is_a_fault(place):
    store = place.opened()
    write(store, 1, job(1))
    store.close()
    # An entry of the list of free pages that leads nowhere.
    with open(place.path, "r+b") as file:
        file.seek(36)
        file.write((7).to_bytes(4, "big"))
    with closing(snapshot(place)) as seen:
        assert examine(seen, ignored).faulty == 1


# Backup


def test_a_backup_is_a_store_of_its_own_whose_handles_never_meet_its_original_s(place, tmp_path):
    store = place.opened()
    write(store, 1, job(1), record(b"a"))
    said: list[tuple[int, int]] = []
    target = tmp_path / "copy"
    backup(str(place.path), str(target), lambda done, of: said.append((done, of)))
    assert said[-1][0] == said[-1][1] > 0
    assert target.stat().st_mode & 0o777 == 0o600
    write(store, 2, job(2))
    place.path = target
    copy = place.store()
    assert copy.open(OWNER).term == 1 + BACKUP_TERMS + 1
    assert (content(copy), records(copy)) == ([job(1)], [record(b"a")])
    assert {path.name for path in tmp_path.iterdir() if "part" in path.name} == set()


def test_a_backup_replaces_nothing_unless_told_so(place, tmp_path):
    write(place.opened(), 1, job(1))
    target = tmp_path / "copy"
    target.write_text("precious")
    with pytest.raises(StoreUnusable, match="is there already; name another file, or say --force"):
        backup(str(place.path), str(target), ignored)
    assert target.read_text() == "precious"
    (tmp_path / "copy.part").write_text("left behind")
    backup(str(place.path), str(target), ignored, replace=True)
    assert target.read_bytes().startswith(b"SQLite format 3")


def test_a_backup_of_a_damaged_store_is_no_backup(place, tmp_path):
    filled(place)
    damage(place.path, 3 * 8192, place.path.stat().st_size)
    target = tmp_path / "copy"
    with pytest.raises(StoreUnusable, match="the copy is damaged, as its original may be"):
        backup(str(place.path), str(target), ignored)
    assert not target.exists()
    assert not target.with_suffix(".part").exists()


def test_a_backup_whose_place_cannot_be_written_says_so(place, tmp_path):
    write(place.opened(), 1, job(1))
    with pytest.raises(StoreUnusable, match="no such file or directory"):
        backup(str(place.path), str(tmp_path / "nowhere" / "copy"), ignored)


# Tables of the first version

VERSION_1 = """
CREATE TABLE store (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    term INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    handle_key BLOB NOT NULL,
    writer TEXT NOT NULL
);
CREATE TABLE job (
    partition INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    tenant TEXT NOT NULL,
    function BLOB NOT NULL,
    uniq BLOB NOT NULL,
    handle BLOB NOT NULL,
    priority INTEGER NOT NULL,
    due REAL NOT NULL,
    losses INTEGER NOT NULL,
    reducer BLOB NOT NULL,
    workload BLOB NOT NULL,
    version INTEGER NOT NULL,
    batch INTEGER NOT NULL,
    term INTEGER NOT NULL,
    PRIMARY KEY (partition, sequence)
) WITHOUT ROWID;
PRAGMA application_id = 0x54524947;
PRAGMA user_version = 1;
PRAGMA journal_mode = WAL;
INSERT INTO store VALUES (1, 4, 17, x'30313233343536373839616263646566', '0.1.0');
INSERT INTO job VALUES (
    0, 7, 'default', x'66', x'', x'483A746573743A37', 1, 2.5, 3, x'', x'776F726B', 1, 17, 4
);
"""


def write_version_1(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(VERSION_1)


def test_tables_of_the_first_version_become_tables_of_this_one(place):
    write_version_1(place.path)
    with pytest.raises(StoreUnusable, match="run 'trigear store migrate'"):
        place.opened()
    with (
        closing(snapshot(place)) as seen,
        pytest.raises(StoreUnusable, match="has tables of version 1; run 'trigear store migrate'"),
    ):
        seen.total()
    schema, saved = upgrade(str(place.path), OWNER, ignored)
    assert (schema, saved) == (1, f"{place.path}.version-1")
    store = place.opened()
    assert content(store) == [job(7, due=2.5, losses=3)]
    write(store, 1, job(8, submitted=1.5), record(b"a"))
    assert (len(content(store)), len(records(store))) == (2, 1)
    assert upgrade(str(place.path), OWNER, ignored) == (SCHEMA, "")
    with closing(SqliteSnapshot(saved)) as old:
        assert (old.schema, old.writer) == (1, "0.1.0")


def test_tables_of_a_store_in_use_stay_as_they_are(place):
    write_version_1(place.path)
    lock = LockFile(f"{place.path}.lock", OWNER)
    with pytest.raises(StoreUnusable, match="belongs to another server"):
        upgrade(str(place.path), OWNER, ignored)
    lock.release()
    with closing(snapshot(place)) as seen:
        assert seen.schema == 1


def test_an_upgrade_that_fails_leaves_the_store_as_it_was(place, monkeypatch):
    write_version_1(place.path)
    steps = ("ALTER TABLE job ADD COLUMN submitted REAL NOT NULL DEFAULT 0.0", "MAKE IT SO")
    monkeypatch.setattr(sqlite_tools, "UPGRADES", {1: steps})
    with pytest.raises(StoreUnusable, match="syntax error"):
        upgrade(str(place.path), OWNER, ignored)
    monkeypatch.undo()
    assert upgrade(str(place.path), OWNER, ignored)[0] == 1
    assert content(place.opened()) == [job(7, due=2.5, losses=3)]


# As text

_names = st.binary(max_size=6)


@given(
    st.lists(
        st.builds(
            job,
            st.just(0),
            st.binary(max_size=8),
            function=_names,
            unique=_names,
            handle=_names,
            tenant=st.text(max_size=3),
            priority=st.integers(0, 2),
            due=st.floats(allow_nan=False),
            submitted=st.floats(0, 1e10),
            losses=st.integers(0, 9),
        )
        | st.builds(record, _names, st.binary(max_size=8), function=_names, about=st.text())
    )
)
def test_whatever_is_exported_is_read_back(entries):
    class Everything:
        def kinds(self):
            return ["dead"]

        def records(self, kind, after, limit, *, data=True):
            return [entry for entry in entries if isinstance(entry, Record)]

        def scan(self, after, limit):
            return [entry for entry in entries if isinstance(entry, Keep)]

    lines = list(export_lines(Everything(), "1", pytest.fail))
    assert all("\n" not in line for line in lines)
    found = list(read_lines(lines))
    jobs = [entry for entry in entries if isinstance(entry, Keep)]
    assert [entry for entry in found if isinstance(entry, Keep)] == [
        entry._replace(sequence=number) for number, entry in enumerate(jobs, 1)
    ]
    assert [entry for entry in found if isinstance(entry, Record)] == [
        entry for entry in entries if isinstance(entry, Record)
    ]


def test_rows_that_make_no_sense_are_left_out_of_an_export(place):
    store = place.opened()
    write(store, 1, job(1), job(2, version=9), record(b"a", version=9))
    why: list[str] = []
    with closing(snapshot(place)) as seen:
        lines = list(export_lines(seen, "1", why.append))
    assert (len(lines), len(why)) == (2, 2)


def test_an_export_is_taken_in_by_another_store_in_its_order_and_only_once(place, tmp_path):
    store = place.opened()
    write(store, 1, *(job(number, b"%d" % number) for number in (1, 2, 3)), record(b"\xff"))
    lines = texts(place)
    store.close()
    other = SqlitePlace(tmp_path / "other")
    (tmp_path / "other").mkdir()
    target = other.opened()
    write(target, 1, job(5, b"there", handle=b"H:test:2"))
    held = {("default", b"H:test:2")}
    importer = Importer(target, 100, held)
    importer._number = 1
    for line in read_lines(lines):
        importer.add(line)
    importer.flush()
    importer.flush()
    assert (importer.jobs, importer.records, importer.known) == (2, 1, 1)
    assert [(row.sequence, row.workload) for row in content(target)] == [
        (5, b"there"),
        (101, b"1"),
        (102, b"3"),
    ]
    assert records(target) == [record(b"\xff")]
    other.clear()


def test_an_import_is_written_in_portions(place, monkeypatch):
    monkeypatch.setattr("trigear.stores.transfer.BATCH", 2)
    store = place.opened()
    importer = Importer(store, 0, set())
    for number in (1, 2, 3):
        importer.add(job(0, handle=b"H:%d" % number))
    assert len(content(store)) == 2
    importer.flush()
    assert len(content(store)) == 3


HEAD = '{"trigear export": 1, "by": "1", "layout": 1}'


def job_text(**changes: object) -> str:
    fields = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in job(0)._asdict().items()
        if name not in {"sequence", "version"}
    }
    return json.dumps({"job": {**fields, **changes}})


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "line 1: the file is empty"),
        (["moths"], "line 1: Expecting value"),
        (["[]"], "line 1: no JSON object"),
        (["{}"], "line 1: no export of trigear's begins like this"),
        (
            ['{"trigear export": 2, "by": "7", "layout": 1}'],
            "line 1: written by trigear 7 in a way this one cannot read",
        ),
        ([HEAD, "{}"], "line 2: neither a job nor a record"),
        ([HEAD, '{"job": 1}'], "line 2: no JSON object"),
        ([HEAD, '{"record": {}}'], "line 2: about, data, expires, function, key, kind, part"),
        ([HEAD, job_text(), job_text(more=1)], "line 3: more: missing or unknown"),
        ([HEAD, job_text(due="soon")], "line 2: due: 'soon' does not belong there"),
        ([HEAD, job_text(losses=True)], "line 2: losses: True does not belong there"),
        ([HEAD, job_text(losses=1.5)], "line 2: losses: 1.5 does not belong there"),
        ([HEAD, job_text(due=True)], "line 2: due: True does not belong there"),
        ([HEAD, job_text(workload=3)], "line 2: workload: 3 does not belong there"),
        ([HEAD, job_text(workload={"base64": "?"})], "line 2: workload: "),
        ([HEAD, job_text(workload={"base64": 7})], "line 2: workload: "),
        ([HEAD, job_text(workload={"hex": "00"})], "line 2: workload: {'hex': '00'} does not"),
    ],
)
def test_a_line_that_is_none_of_an_export_is_named(lines, why):
    with pytest.raises(Unreadable) as caught:
        list(read_lines(lines))
    assert str(caught.value).startswith(why)


# gearmand's tables


def gearmand_table(path: Path, *rows: tuple, name: str = "gearman_queue", time: bool = True):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        when = ", when_to_run INTEGER" if time else ""
        connection.execute(
            f'CREATE TABLE "{name}" (unique_key TEXT, function_name TEXT, priority INTEGER,'
            f" data BLOB{when}, PRIMARY KEY (unique_key, function_name))"
        )
        for row in rows:
            connection.execute(
                f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(row))})',
                row,
            )


def test_jobs_of_gearmands_table_are_read_in_the_order_in_which_they_came(tmp_path):
    path = tmp_path / "gearmand.db"
    gearmand_table(
        path, ("b", "f", 1, b"x\0y", 0), ("a", "f", 0, None, 1700000000), ("c", "ö", 2, b"", None)
    )
    assert list(read_sqlite(str(path), None, pytest.fail)) == [
        QueuedJob(b"b", b"f", 1, b"x\0y", 0.0),
        QueuedJob(b"a", b"f", 0, b"", 1.7e9),
        QueuedJob(b"c", "ö".encode(), 2, b"", 0.0),
    ]


def test_tables_of_an_old_gearmand_know_no_time(tmp_path):
    path = tmp_path / "gearmand.db"
    gearmand_table(path, ("b", "f", 1, b"x"), time=False, name="odd name")
    assert list(read_sqlite(str(path), "odd name", pytest.fail)) == [
        QueuedJob(b"b", b"f", 1, b"x", 0.0)
    ]


def test_rows_of_gearmands_that_make_no_sense_are_passed_over(tmp_path):
    path = tmp_path / "gearmand.db"
    gearmand_table(path, ("a", "f", 7, b"x", 0), ("b", "f", 1, b"x", 0))
    why: list[str] = []
    assert [found.unique for found in read_sqlite(str(path), None, why.append)] == [b"b"]
    assert why == ["priority 7 does not exist"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ((None, b"f", 1, b"x", 0), "it names no function"),
        ((b"a", b"", 1, b"x", 0), "it names no function"),
        ((b"a", b"f", 1, 5, 0), "its data is of the wrong kind"),
        ((b"a", b"f", "high", b"x", 0), "priority 'high' does not exist"),
        ((b"a", b"f", 1, b"x", b"soon"), "due at b'soon'"),
    ],
)
def test_a_row_that_is_no_job_says_why(row, why):
    with pytest.raises(ValueError, match=why):
        job_of(row)


def test_which_of_several_tables_is_meant_has_to_be_said(tmp_path):
    path = tmp_path / "gearmand.db"
    run_sql(path, "CREATE TABLE songs (title TEXT)")
    with pytest.raises(StoreUnusable, match=f"{path}: has 0 tables of gearmand's$"):
        list(read_sqlite(str(path), None, pytest.fail))
    with pytest.raises(StoreUnusable, match="has no table 'q' of gearmand's; there is none at all"):
        list(read_sqlite(str(path), "q", pytest.fail))
    gearmand_table(path, name="one")
    gearmand_table(path, name="two")
    with pytest.raises(StoreUnusable, match="has 2 tables of gearmand's: one, two; name one with"):
        list(read_sqlite(str(path), None, pytest.fail))
    with pytest.raises(StoreUnusable, match="has no table 'q' of gearmand's; there are: one, two"):
        list(read_sqlite(str(path), "q", pytest.fail))


def test_a_database_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "gearmand.db"
    with pytest.raises(StoreUnusable, match=f"{path}: unable to open database file"):
        list(read_sqlite(str(path), None, pytest.fail))
    path.write_bytes(b"SQLite format 3\0" + b"moths" * 1000)
    with pytest.raises(StoreUnusable, match=f"{path}: "):
        write_sqlite(str(path), "q", [job(1)])


def test_jobs_written_for_gearmand_are_read_back_with_keys_of_their_own(tmp_path):
    path = str(tmp_path / "gearmand.db")
    jobs = [
        job(1, b"a"),
        job(2, b"b", unique=b"-", priority=0),
        job(3, b"", unique=b"u", due=1.5e9 + 0.5),
        job(4, b"d", unique=b"u", reducer=b"r"),
        job(5, b"e", unique=b"u", function=b"\xff"),
    ]
    assert write_sqlite(path, "q", jobs) == (5, 1)
    assert list(read_sqlite(path, "q", pytest.fail)) == [
        QueuedJob(b"H:test:1", b"f", 1, b"a", 0.0),
        QueuedJob(b"H:test:2", b"f", 0, b"b", 0.0),
        QueuedJob(b"u", b"f", 1, b"", 1.5e9),
        QueuedJob(b"H:test:4", b"f", 1, b"d", 0.0),
        QueuedJob(b"u", b"\xff", 1, b"e", 0.0),
    ]
    with pytest.raises(StoreUnusable, match="table 'q' is not empty; name another one"):
        write_sqlite(path, "q", jobs)
