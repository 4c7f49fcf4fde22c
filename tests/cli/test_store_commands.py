"""`trigear store`: what people do with the durable jobs beside a server, with real servers."""

from __future__ import annotations

import json
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.stores.places import OWNER, content, job, record, records, write
from tests.stores.test_tools import gearmand_table, write_version_1
from trigear.cli.report import Status
from trigear.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trigear.stores.base import Line


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "state" / "trigear").mkdir(parents=True)
    return tmp_path / "state" / "trigear" / "jobs.sqlite3"


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(file.parent))


def fill(path: Path, *lines: Line) -> None:
    with closing(SqliteStore(str(path))) as store:
        store.open(OWNER)
        write(store, 1, *lines)


def opened(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(str(path))
    store.open(OWNER)
    return closing(store)


def test_a_check_says_what_is_there_and_that_nothing_is_wrong(trigear, file) -> None:
    fill(file, job(1), job(2), job(3, function=b"g\x1b"), record(b"a"))
    said = trigear("store", "check")
    assert said.status == Status.DONE
    assert said.out.splitlines() == [
        f"sqlite {file}: tables of version 2, trigear 9.8.7",
        "no server uses it",
        "3 jobs",
        "  2 jobs of f (tenant default)",
        "  1 job of g\\x1b (tenant default)",
        "1 record of kind dead",
        "nothing is wrong",
    ]
    document = json.loads(trigear("store", "check", "--json").out)
    assert (document["jobs"], document["records"], document["faults"]) == (3, {"dead": 1}, 0)


def test_a_check_that_finds_faults_names_them_and_says_no(trigear, file) -> None:
    fill(file, *(job(number, version=9) for number in range(1, 25)))
    said = trigear("store", "check")
    assert said.status == Status.NO
    assert "FAULT job (0, 1): layout 9" in said.out
    assert "and 4 faults more" in said.out
    assert "24 faults: a server passes over such rows and leaves them in place" in said.out


def test_a_check_names_the_server_that_uses_the_store(trigear, file) -> None:
    with opened(file):
        assert "in use by pid 4711 at 127.0.0.1:4730" in trigear("store", "check").out


def test_what_is_no_store_is_said_in_one_line(trigear, file) -> None:
    said = trigear("store", "check")
    assert said.status == Status.NO
    assert f"store {file}: {file}: no such file or directory" in said.line
    said = trigear("store", "check", "--store", "memory")
    assert said.status == Status.NO
    assert "the store is memory" in said.line
    assert "name another one with --store" in said.line


def test_the_configuration_file_names_the_store(trigear, tmp_path) -> None:
    fill(tmp_path / "other.db", job(1))
    (tmp_path / "t.toml").write_text(f'[server]\nstore = "sqlite://{tmp_path}/other.db"\n')
    said = trigear("store", "check", "--config", str(tmp_path / "t.toml"))
    assert said.out.startswith(f"sqlite {tmp_path}/other.db: ")


def test_a_backup_is_made_beside_a_server_and_can_be_used(trigear, file, tmp_path) -> None:
    target = tmp_path / "copy"
    with opened(file) as store:
        write(store, 1, job(1))
        said = trigear("store", "backup", str(target))
    assert said.status == Status.DONE
    assert f"{target}: {target.stat().st_size:,} bytes" in said.line
    assert trigear("store", "check", "--store", f"sqlite://{target}").status == Status.DONE
    said = trigear("store", "backup", str(target))
    assert said.status == Status.NO
    assert "is there already; name another file, or say --force" in said.line
    assert trigear("store", "backup", str(target), "--force").status == Status.DONE


def test_tables_are_renewed_once(trigear, file) -> None:
    write_version_1(file)
    said = trigear("store", "migrate")
    assert said.status == Status.DONE
    assert "tables of version 1 are of version 2 now; as it was: " in said.line
    assert trigear("store", "check").status == Status.DONE
    assert "the tables are of version 2 already" in trigear("store", "migrate").line


def test_an_export_is_imported_elsewhere_and_a_second_time_changes_nothing(
    trigear, file, tmp_path
) -> None:
    fill(file, *(job(number, b"%d" % number) for number in range(1, 30)), record(b"a"))
    text = tmp_path / "jobs.jsonl"
    said = trigear("store", "export", str(text))
    assert said.status == Status.DONE
    assert "30 jobs and records written" in said.line
    assert text.stat().st_mode & 0o777 == 0o600
    other = ("--state-dir", str(tmp_path / "new"))
    said = trigear("store", "import", str(text), "--dry-run", *other)
    assert said.out == "29 jobs and 1 record would be imported\n"
    assert not (tmp_path / "new").exists()
    said = trigear("store", "import", str(text), "--yes", *other)
    assert (said.status, said.err) == (0, "trigear: imported 29 jobs and 1 record\n")
    said = trigear("store", "import", str(text), "--yes", *other)
    assert "imported 0 jobs and 1 record; 29 jobs were there already" in said.line
    with opened(tmp_path / "new" / "jobs.sqlite3") as store:
        assert [row.workload for row in content(store)] == [b"%d" % n for n in range(1, 30)]
        assert records(store) == [record(b"a")]


def test_an_export_goes_through_a_pipe(trigear, file, tmp_path, monkeypatch) -> None:
    fill(file, job(1))
    said = trigear("store", "export", "--quiet")
    assert said.err == ""
    text = tmp_path / "text"
    text.write_text(said.out)
    with open(text, encoding="utf-8") as lines:
        monkeypatch.setattr("sys.stdin", lines)
        said = trigear("store", "import", "-", "--state-dir", str(tmp_path / "new"))
    assert (said.status, said.err) == (0, "trigear: imported 1 job and 0 records\n")


def test_an_export_replaces_no_file_unless_told_so(trigear, file, tmp_path) -> None:
    fill(file, job(1), job(2, version=9))
    target = tmp_path / "there"
    target.write_text("precious")
    said = trigear("store", "export", str(target))
    assert (said.status, target.read_text()) == (Status.NO, "precious")
    assert "is there already; name another file, or say --force" in said.line
    said = trigear("store", "export", str(target), "--force")
    assert said.status == Status.DONE
    assert "a row is left out: layout 9" in said.err


def test_an_import_that_breaks_off_says_where_and_what_it_did(trigear, file, tmp_path) -> None:
    fill(file, job(1), job(2))
    text = tmp_path / "jobs.jsonl"
    trigear("store", "export", str(text))
    lines = text.read_text().splitlines()
    text.write_text("\n".join([*lines[:2], "moths"]))
    other = ("--yes", "--state-dir", str(tmp_path / "new"))
    said = trigear("store", "import", str(text), *other)
    assert said.status == Status.NO
    assert "the source is no whole export: line 3: Expecting value" in said.line
    assert said.line.endswith("; 1 job before that were imported")
    text.write_bytes(b"\xff\xfe")
    said = trigear("store", "import", str(text), "--dry-run")
    assert "the source is no whole export: 'utf-8' codec can't decode" in said.line


def test_an_import_into_a_store_in_use_is_refused(trigear, file, tmp_path) -> None:
    gearmand_table(tmp_path / "g.db", ("a", "f", 1, b"x", 0))
    with opened(file) as store:
        said = trigear("store", "import", str(tmp_path / "g.db"), "--yes")
        assert said.status == Status.NO
        assert "belongs to another server (pid 4711 at 127.0.0.1:4730)" in said.line
        assert content(store) == []


def test_an_import_asks_first(trigear, file, tmp_path) -> None:
    gearmand_table(tmp_path / "g.db", ("a", "f", 1, b"x", 0))
    said = trigear("store", "import", str(tmp_path / "g.db"))
    assert said.status == Status.USAGE
    assert "There is no terminal to ask on: say --yes" in said.line


def test_many_rows_that_make_no_sense_are_counted(trigear, file, tmp_path) -> None:
    rows = [(f"u{number}", "f", 9, b"x", 0) for number in range(30)]
    gearmand_table(tmp_path / "g.db", *rows)
    said = trigear("store", "import", str(tmp_path / "g.db"), "--yes")
    assert said.err.count("a row is passed over: priority 9 does not exist") == 20
    assert "30 rows were passed over" in said.err


def test_gearmand_s_database_has_to_be_named(trigear, file) -> None:
    fill(file, job(1))
    said = trigear("store", "export", "--gearmand")
    assert said.status == Status.USAGE
    assert "--gearmand writes a database: name its file" in said.line


def test_what_gearmand_cannot_keep_is_said(trigear, file, tmp_path) -> None:
    fill(file, job(1, reducer=b"r"), job(2), job(3, version=9), record(b"a"))
    said = trigear("store", "export", "--gearmand", str(tmp_path / "g.db"))
    assert said.err.splitlines() == [
        "trigear: a row is left out: layout 9, of which this version knows nothing",
        "trigear: 2 jobs written to table 'gearman_queue'",
        "trigear: 1 job lost the reducer, which gearmand does not keep",
        "trigear: left out, because gearmand has no place for them: dead",
    ]
