"""The record of a run of the suite as tables: for a terminal, and as Markdown for the docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import demands, machine, report
from benchmarks.demands import each, ratio
from benchmarks.report import MEASURES, interval
from benchmarks.stats import estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.demands import Verdict
    from benchmarks.record import Record

# What the first case of a row is compared with the others in.
COMPARED = {"cpu_us_per_job": "CPU", "rate": "rate", "p50_us": "p50"}


@dataclass(frozen=True, slots=True)
class Section:
    """A row of the suite as a table with remarks."""

    name: str
    title: str
    lines: list[list[str]]
    remarks: list[str]


def judge(record: Record) -> list[Verdict]:
    """What the record says about each demand."""
    return demands.judge({name: record.rounds(name) for name in record.data["rows"]})


def _title(record: Record, case: str, facts: dict[str, Any]) -> str:
    server = record.data["servers"][facts["peer"]]
    title = f"{server['title']} {server['version']}".strip()
    return title if case == facts["peer"] else f"{title}, {case.partition(', ')[2]}"


def _section(record: Record, name: str) -> Section | None:
    """The row's table, or None while nothing of it is measured."""
    entry, rounds = record.data["rows"][name], record.rounds(name)
    cases = [case for case in entry["cases"] if case in rounds]
    if not cases:
        return None
    scenario = name.removesuffix("-pinned")
    titles = {case: _title(record, case, entry["cases"][case]) for case in cases}
    lines = [[*report.headings(scenario), "rounds"]]
    remarks: list[str] = []
    for case in cases:
        figures = {key: estimate(each(case, m)(rounds)).as_dict() for key, m in MEASURES.items()}
        lines.append([*report.row(titles[case], figures), str(len(rounds[case]))])
        remarks += report.notes(titles[case], figures)
    compared = []
    for other in cases[1:]:
        found = {
            word: ratio(MEASURES[key], cases[0], other)(rounds) for key, word in COMPARED.items()
        }
        words = [f"{w} {interval(estimate(v).as_dict())}" for w, v in found.items() if v]
        if words:
            compared.append(f"{titles[cases[0]]} / {titles[other]}: " + ", ".join(words))
    return Section(name, entry["title"], lines, [*compared, *remarks])


def sections(record: Record) -> list[Section]:
    """The rows of which anything was measured."""
    found = (_section(record, name) for name in record.data["rows"])
    return [section for section in found if section is not None]


def _columns(lines: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return [
        "  " + "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]


def measured_where(record: Record) -> list[str]:
    """One sentence for each part of the run."""
    return [
        f"Measured {session['started'][:16].replace('T', ' ')} on "
        f"{machine.describe(session['machine'])}; load at the start "
        f"{session['machine']['load_at_start']:g}."
        for session in record.data["sessions"]
    ]


def text(record: Record) -> str:
    """Everything for a terminal: the rows, what could not be measured, the demands."""
    out = [*measured_where(record), ""]
    for section in sections(record):
        out += [f"{section.name}: {section.title}", *_columns(section.lines)]
        out += [*(f"  {line}" for line in section.remarks), ""]
    if problems := record.problems():
        out += ["could not be measured:", *(f"  {line}" for line in problems), ""]
    if record.data["quick"]:
        out += ["This was a quick run: its figures mean nothing.", ""]
    out += _columns([list(demands.HEADINGS), *demands.table(judge(record))])
    return "\n".join(out)
