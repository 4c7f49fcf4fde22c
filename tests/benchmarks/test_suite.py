from __future__ import annotations

import json
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import figures, machine, suite, suite_report
from benchmarks.generator import GeneratorError, Load, find_compiler
from benchmarks.record import Record, RecordError
from benchmarks.rows import ROUNDS, Case, Row, rows
from benchmarks.servers import PEERS, Peer

if TYPE_CHECKING:
    from pathlib import Path

MACHINE: dict[str, Any] = {
    **{"cpu": "Fast 9000", "usable_cores": 2, "memory_bytes": 2**33, "kernel": "Linux 6"},
    **{
        "syncs_per_second": 1234,
        "python": "CPython 3.11.2",
        "optimised": True,
        "openssl": "OpenSSL 3.0.1",
    },
    **{"trigear": "0.1.0", "compiled": False, "digest": "abc", "load_at_start": 0.1},
}


def a_case(name: str = "trigear", rounds: int = 2, **more: Any) -> Case:
    load = Load("echo", seconds=0.02, warmup=0.01)
    return Case(name, **{"peer": "trigear", "load": load, "rounds": rounds, "cost": 1.0, **more})


def a_row(*cases: Case) -> Row:
    return Row("echo", "one echo after the other", cases or (a_case(),))


@pytest.fixture
def compiler() -> None:
    try:
        find_compiler()
    except GeneratorError as missing:
        pytest.skip(str(missing))


@pytest.fixture
def record(tmp_path: Path) -> Record:
    made = Record.new(tmp_path / "record.json", quick=False)
    made.begin("2030-01-02T03:04:05+00:00", MACHINE)
    return made


def test_cases_take_turns_in_being_measured_first_and_may_have_fewer_rounds() -> None:
    row = a_row(a_case("a", 2), a_case("b", 3), a_case("c", 1))
    planned = [(number, case.name) for number, case in suite.schedule(row)]
    assert planned == [(0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "a"), (2, "b")]


def test_the_basic_rows_have_fifteen_rounds_of_three_seconds() -> None:
    for name in ("drain", "foreground", "background", "oneatatime"):
        row = rows()[name]
        for peer in ("trigear", "gearmand"):
            case = row.case(peer)
            assert (case.rounds, case.load.seconds, case.load.scenario) == (ROUNDS, 3.0, name)
        assert {"gearmand-t1", "trigear-tls"} <= {case.peer for case in row.cases}


def test_every_case_has_a_server_and_a_name_of_its_own() -> None:
    for row in rows().values():
        names = [case.name for case in row.cases]
        assert len(set(names)) == len(names)
        assert all(case.peer in PEERS for case in row.cases)


def test_fewer_rounds_are_fewer_for_all_and_one_at_least() -> None:
    fewer = rows(rounds=1)
    assert {case.rounds for row in fewer.values() for case in row.cases} == {1}
    assert rows(rounds=30)["drain"].case("perl").rounds == 2 * rows()["drain"].case("perl").rounds


def test_cases_are_divided_by_each_other_as_a_reader_wants_to_know() -> None:
    every = rows()
    assert every["drain"].pairs == (
        *(("trigear", "gearmand"), ("trigear", "gearmand-t1"), ("trigear-tls", "trigear")),
        ("trigear", "perl"),
    )
    assert ("trigear", "trigear, 1,000 queued") in every["million"].pairs
    for row in every.values():
        assert {case for pair in row.pairs for case in pair} <= {case.name for case in row.cases}


def test_a_quick_run_has_two_short_rounds_of_everything() -> None:
    every = rows(quick=True)
    assert every.keys() == rows().keys()
    assert max(case.rounds for row in every.values() for case in row.cases) == 2
    assert {case.load.seconds for row in every.values() for case in row.cases} == {0.3}


def test_rows_are_measured_in_their_own_order_whatever_the_order_of_the_words() -> None:
    every = rows()
    chosen = suite.choose(every, "background, drain")
    assert [row.name for row in chosen] == ["drain", "background"]
    assert len(suite.choose(every, None)) == len(every)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--rounds", "0"], "--rounds and --seconds have to be above zero"),
        (["--seconds", "0"], "--rounds and --seconds have to be above zero"),
        (["--only", "drian"], "there is no row 'drian'; there are drain, foreground"),
        (["--continue"], "--continue needs --json FILE"),
        (["--json", "/nowhere/at/all.json"], "/nowhere/at is no directory"),
    ],
)
def test_options_that_make_no_sense_get_one_line(
    words: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert suite.main(words) == 2
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1


def test_the_list_tells_rows_rounds_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert suite.main(["--list", "--only", "oneatatime"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("oneatatime ")
    assert "rounds: trigear 15, gearmand 15" in said


def test_a_file_that_is_there_is_neither_overwritten_nor_mixed_with_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "record.json"
    for content, words, complaint in (
        ("{}", [], "is there already; --continue goes on with it"),
        ("{}", ["--continue"], "is no record of this program"),
        ("[]", ["--continue"], "is no record of this program"),
        (json.dumps(Record.new(None, quick=True).data), ["--continue"], "--quick and what is in"),
    ):
        file.write_text(content)
        assert suite.main(["--json", str(file), *words]) == 2
        assert complaint in capsys.readouterr().err
        assert file.read_text() == content


def test_a_row_is_measured_and_written_down_round_by_round(
    compiler: None, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    suite.Suite(record, [a_row()], None).run()
    again = Record.load(record.file or pytest.fail("it has a file"))
    assert again.data == record.data
    found = again.rounds("echo")["trigear"]
    assert list(found) == [0, 1]
    assert all(one["generator"]["jobs"] > 0 and one["session"] == 0 for one in found.values())
    assert again.problems() == []
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2
    assert lines[0].startswith("echo ")
    assert lines[1].endswith("0.0 min left")


def test_what_is_there_is_not_measured_again(compiler: None, record: Record) -> None:
    row = a_row(a_case(rounds=1))
    suite.Suite(record, [row], None).run()
    before = record.rounds("echo")["trigear"][0]
    record.begin("2030-01-03T03:04:05+00:00", MACHINE)
    suite.Suite(record, [replace(row, cases=(a_case(rounds=2),))], None).run()
    found = record.rounds("echo")["trigear"]
    assert found[0] == before
    assert found[1]["session"] == 1


def test_a_case_that_cannot_be_measured_is_told_of_and_the_others_go_on(
    compiler: None,
    record: Record,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = PEERS["trigear"].command
    absent = Peer("absent", "Absent", "/nonexistent/absent", "no-such-package", command)
    monkeypatch.setitem(PEERS, "absent", absent)
    silent = replace(a_case().load, scenario="foreground", workers=0, timeout=0.1)
    cases = (
        a_case("absent", 3, peer="absent"),
        a_case("mute", 1, load=silent),
        a_case("trigear", 3),
    )
    suite.Suite(record, [a_row(*cases)], None).run()
    assert {case: len(found) for case, found in record.rounds("echo").items()} == {"trigear": 3}
    problems = record.problems()
    assert len(problems) == 2
    assert problems[0].startswith("echo, absent: absent: /nonexistent/absent is not there")
    assert "given up" in capsys.readouterr().err
    said = suite_report.text(record)
    assert f"could not be measured:\n  {problems[0]}\n  {problems[1]}" in said


def test_a_run_stops_when_its_time_is_over(compiler: None, record: Record) -> None:
    with pytest.raises(suite.Stopped):
        suite.Suite(record, [a_row()], 0.0).run()
    assert record.rounds("echo") == {}


def test_a_queue_is_filled_and_emptied_beside_a_connection_that_notes_its_pauses(
    compiler: None, record: Record
) -> None:
    load = Load("drain", seconds=0.02, keep=10_000, backlog=100, empty=True)
    suite.Suite(record, [a_row(a_case(rounds=1, load=load, pauses=True))], None).run()
    assert record.problems() == []
    (one,) = record.rounds("echo")["trigear"].values()
    assert set(one["pauses_us"]) == {"filling", "emptying"}
    for figure in (figures.pause(), figures.memory_per_queued_job, figures.level_rate(2)):
        assert (figure(one) or 0) > 0
    assert len(one["window_cpu_seconds"]) == 15


def test_idle_workers_are_connected_beside_the_others(compiler: None, record: Record) -> None:
    load = Load("foreground", seconds=0.02, warmup=0.01, workers=2, idle=50)
    suite.Suite(record, [a_row(a_case(rounds=1, load=load))], None).run()
    assert record.problems() == []
    (one,) = record.rounds("echo")["trigear"].values()
    assert one["generator"]["idle"] == 50
    assert figures.memory_per_idle_worker(one) is not None


def test_a_disk_can_be_made_to_look_like_a_slower_one(compiler: None, record: Record) -> None:
    load = Load("background", seconds=0.02, warmup=0.01)
    case = a_case(rounds=1, peer="trigear-sqlite", load=load, slow_syncs=True)
    suite.Suite(record, [a_row(case)], None).run()
    assert record.problems() == []
    assert record.rounds("echo")["trigear"][0]["generator"]["jobs"] > 0


def test_pinned_rows_give_each_side_a_processor(compiler: None, record: Record) -> None:
    before = os.sched_getaffinity(0)
    suite.Suite(record, [replace(a_row(a_case(rounds=1)), pinned=True)], None).run()
    assert os.sched_getaffinity(0) == before
    if len(before) < 2:
        assert "needs two processors" in record.problems()[0]
    else:
        assert list(record.rounds("echo")) == ["trigear"]


def test_another_machine_does_not_go_on_with_a_record(record: Record) -> None:
    record.begin("2030-01-03T03:04:05+00:00", MACHINE | {"load_at_start": 1.5})
    with pytest.raises(RecordError, match="another digest: abc, now xyz"):
        record.begin("2030-01-04T03:04:05+00:00", MACHINE | {"digest": "xyz"})


def test_a_row_is_not_mixed_with_one_under_another_load(record: Record) -> None:
    record.prepare(a_row())
    with pytest.raises(RecordError, match="echo was measured under another load: --scenario echo"):
        record.prepare(a_row(a_case(load=Load("echo", seconds=3))))


def test_the_whole_program_says_what_is_reached(
    compiler: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(suite, "rows", lambda *_, **__: {"echo": a_row(a_case(rounds=1))})
    file = str(tmp_path / "record.json")
    assert suite.main(["--json", file]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("Measured ")
    assert "echo: one echo after the other" in said.out
    assert "not measured" in said.out
    assert f"kept in {file}" in said.err
    assert suite.main(["--json", file, "--continue", "--check"]) == 1
    other = str(tmp_path / "other.json")
    assert suite.main(["--json", other, "--continue", "--minutes", "0"]) == 3
    assert "the time is over" in capsys.readouterr().err


def test_the_interpreter_of_the_servers_is_described() -> None:
    found = machine.interpreter_facts()
    assert found["openssl"].startswith("OpenSSL ")
    assert found["python"].startswith("CPython 3.")
    assert isinstance(found["optimised"], bool)
    assert isinstance(found["compiled"], bool)
    assert len(found["digest"]) == 16


def test_an_interpreter_without_trigear_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "QUESTION", "raise SystemExit('No module named trigear')")
    with pytest.raises(machine.MachineError, match="does not run trigear: No module named trigear"):
        machine.interpreter_facts()


def test_the_machine_is_described_with_its_interpreter_and_what_was_compiled() -> None:
    assert machine.describe(MACHINE) == (
        "Fast 9000, 2 cores, 8 GiB, 1,234 syncs/s, Linux 6, CPython 3.11.2 (optimised build), "
        "OpenSSL 3.0.1; trigear 0.1.0, not compiled"
    )
