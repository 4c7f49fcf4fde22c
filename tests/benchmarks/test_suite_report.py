"""What is made of a record: demands, tables, the page and the plot. The record is of a real run."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest

from benchmarks import demands, figures, plot, suite, suite_report
from benchmarks.record import Record

RECORDED = Path(__file__).parent / "recorded.json"
PAGE = Path(__file__).parent.parent.parent / "docs" / "benchmarks.md"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def record() -> Record:
    return Record.load(RECORDED)


def test_demands_are_judged_by_what_was_measured(record: Record) -> None:
    found = {
        (verdict.demand.row, verdict.demand.name): verdict.word
        for verdict in suite_report.judge(record)
    }
    assert len(found) == len(demands.DEMANDS)
    assert found["drain", "CPU per job, trigear / gearmand"] == "not reached"
    assert found["drain", "rate, trigear / Perl's server"] == "reached"
    assert found["million", "longest pause"] == "reached"
    assert found["million", "memory per queued job"] == "reached"
    assert found["idle-2000", "memory per idle worker, TLS"] == "reached, the goal too"
    assert found["foreground", "rate, TLS / plain"] == demands.UNMEASURED


def test_the_drain_of_a_long_queue_is_measured_at_three_levels(record: Record) -> None:
    one = record.rounds("million")["trigear"][0]
    levels = one["generator"]["levels"]
    jobs = sum(level["jobs"] for level in levels)
    spent = sum((figures.level_cpu(i)(one) or 0) * level["jobs"] for i, level in enumerate(levels))
    assert spent == pytest.approx(one["server_cpu_seconds"] * 1e6)
    assert jobs == one["generator"]["jobs"]
    assert figures.level_rate(1)(one) == levels[1]["jobs"] / levels[1]["seconds"]


def test_the_longest_pause_is_that_of_both_halves(record: Record) -> None:
    one = record.rounds("million")["trigear"][0]
    both = figures.pause("filling")(one), figures.pause("emptying")(one)
    assert figures.pause()(one) == max(each for each in both if each is not None)


def test_rounds_of_other_rows_have_none_of_that(record: Record) -> None:
    one = record.rounds("drain")["trigear"][0]
    measures = (
        *(figures.level_rate(0), figures.level_cpu(0), figures.pause()),
        *(figures.memory_per_queued_job, figures.memory_per_idle_worker),
    )
    assert [measure(one) for measure in measures] == [None] * len(measures)


def test_so_few_jobs_do_not_tell_what_one_needs(record: Record) -> None:
    one = record.rounds("million")["trigear, 1,000 queued"][0]
    assert figures.memory_per_queued_job(one) is None


def test_the_text_has_rows_problems_and_demands(record: Record) -> None:
    said = suite_report.text(record)
    assert said.startswith("Measured 2026-12-01 07:05 on Fast 9000, 2 cores, 24 GiB")
    assert "\ndrain: 4 workers empty backlogs of 20,000 jobs\n" in said
    assert "trigear 0.1.0, when half of them are: " in said
    assert "gearmand -t 4 1.1.20+ds / gearmand -t 4 1.1.20+ds, 1,000 queued: CPU " in said
    assert "trigear, TLS 1.3 0.1.0 / trigear 0.1.0: CPU " in said
    assert "  drain, perl: perl gave no version within 20 s command: perl\n" in said
    assert "quick" not in said
    assert "other programs" not in said


def test_a_part_of_the_run_in_which_nothing_was_measured_is_not_told_of(record: Record) -> None:
    record.data["sessions"].append(record.data["sessions"][0])
    assert suite_report.text(record).count("Measured 2026-12-01") == 1
    record.data["rows"]["drain"]["rounds"][0]["session"] = 1
    assert suite_report.text(record).count("Measured 2026-12-01") == 2


def test_what_speaks_against_the_figures_is_said(record: Record) -> None:
    record.data["quick"] = True
    for one in record.data["rows"]["drain"]["rounds"]:
        one["others_cores"] = 0.7
        one["generator"]["cpu_share"] = 0.9
    for said in (suite_report.text(record), suite_report.markdown(record, "x.svg")):
        assert "This was a quick run: its figures mean nothing." in said
        assert said.count("note: other programs used up to 0.70 processors") == 1
        assert "note: the generator was busy 90% of the time with trigear 0.1.0" in said


def test_markdown_has_tables_whose_lines_have_as_many_cells_as_their_heads(record: Record) -> None:
    said = suite_report.markdown(record, "benchmarks.svg")
    tables = [
        [line for line in block.splitlines() if line.startswith("|")]
        for block in said.split("\n\n")
        if block.startswith("|")
    ]
    assert len(tables) == 1 + len(record.data["rows"])
    for table in tables:
        assert len({line.count("|") for line in table}) == 1
    assert len(tables[0]) == 2 + len(demands.DEMANDS)
    assert "](benchmarks.svg)" in said


def test_a_row_of_which_nothing_was_measured_is_not_shown(record: Record) -> None:
    record.data["rows"]["drain"]["rounds"] = []
    assert [section.name for section in suite_report.sections(record)] == [
        *("oneatatime", "million", "idle-2000")
    ]


def test_a_pair_of_which_one_is_missing_is_not_compared(record: Record) -> None:
    entry = record.data["rows"]["drain"]
    entry["rounds"] = [one for one in entry["rounds"] if one["case"] != "gearmand"]
    (drain, *_) = suite_report.sections(record)
    assert not any("gearmand -t 4" in line for line in drain.remarks)
    assert any("gearmand -t 1" in line for line in drain.remarks)


def test_the_plot_has_two_bars_for_each_server_within_their_column(record: Record) -> None:
    picture = ElementTree.fromstring(plot.svg(record))
    cases = [len(record.rounds(row)) for row in ("drain", "oneatatime")]
    background, *bars = picture.iter(f"{SVG}rect")
    assert len(bars) == 2 * sum(cases)
    assert all(0 < float(bar.attrib["width"]) <= plot.COLUMN for bar in bars)
    texts = [text.text for text in picture.iter(f"{SVG}text")]
    assert texts.count("gearmand-t1") == 2
    bottom = max(float(bar.attrib["y"]) for bar in bars)
    assert bottom < float(background.attrib["height"])


def test_a_record_is_put_into_the_page_between_its_marks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "benchmarks.md"
    shutil.copy(PAGE, page)
    before, _, rest = page.read_text().partition(suite.BEGIN)
    after = rest.partition(suite.END)[2]
    for _ in range(2):  # what was there before is replaced
        assert suite.main(["--render", str(RECORDED), "--page", str(page)]) == 0
    found = page.read_text()
    assert found.startswith(before + suite.BEGIN)
    assert found.endswith(suite.END + after)
    assert found.count("Fast 9000") == 1
    assert (tmp_path / "benchmarks.svg").read_text().startswith("<svg ")


def test_a_page_without_marks_and_a_file_that_is_no_record_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    for content, file, complaint in (
        ("# A page", RECORDED, "has no <!-- python -m benchmarks.suite --render -->"),
        (f"{suite.END}{suite.BEGIN}", RECORDED, "has no <!-- python -m benchmarks.suite"),
        ("# A page", page, "is no record of this program"),
    ):
        page.write_text(content)
        assert suite.main(["--render", str(file), "--page", str(page)]) == 2
        assert complaint in capsys.readouterr().err
        assert page.read_text() == content
    assert suite.main(["--render", str(RECORDED), "--page", str(tmp_path / "none.md")]) == 2
    assert "none.md cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(("what", "file", "test"), demands.COUNTED)
def test_what_is_counted_by_tests_is_counted_by_one_that_is_there(
    what: str, file: str, test: str
) -> None:
    assert f"def {test}(" in (PAGE.parent.parent / file).read_text()
