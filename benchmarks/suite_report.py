"""The record of a run of the suite as tables: for a terminal, and as Markdown for the docs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import demands, figures, machine, report
from benchmarks.demands import each, ratio
from benchmarks.report import MEASURES, interval
from benchmarks.stats import estimate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.demands import Measure, Rounds, Verdict
    from benchmarks.record import Record

# What the cases of a row are compared in.
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


def _shown(case: str, rounds: Rounds, measure: Measure) -> str | None:
    """A figure of a case as median and interval, or None where no round has it."""
    values = each(case, measure)(rounds)
    return interval(estimate(values).as_dict()) if values else None


def _more(case: str, title: str, rounds: Rounds) -> list[str]:
    """What a case shows beside the columns of the table."""
    lines = []
    for level, where in enumerate(figures.LEVELS):
        rate = _shown(case, rounds, figures.level_rate(level))
        cpu = _shown(case, rounds, figures.level_cpu(level))
        if rate is not None:
            lines.append(f"{title}, when {where}: {rate} jobs/s, CPU {cpu} µs/job")
    for words, measure in (
        ("grew by {} bytes per queued job", figures.memory_per_queued_job),
        ("grew by {} KiB per idle worker", figures.memory_per_idle_worker),
        ("took at most {} ms for an echo while it was filled", figures.pause("filling")),
        ("took at most {} ms for an echo from then on", figures.pause("emptying")),
    ):
        if (found := _shown(case, rounds, measure)) is not None:
            lines.append(f"{title} " + words.format(found))
    return lines


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
    notes: list[str] = []
    others: list[float] = []
    for case in cases:
        found = {key: estimate(each(case, m)(rounds)).as_dict() for key, m in MEASURES.items()}
        lines.append([*report.row(titles[case], found), str(len(rounds[case]))])
        remarks += _more(case, titles[case], rounds)
        notes += report.generator_note(titles[case], found)
        others.append(found["others_cores"]["median"])
    compared = []
    for ours, theirs in entry["pairs"]:
        if ours not in titles or theirs not in titles:
            continue
        shares = {
            word: ratio(MEASURES[key], ours, theirs)(rounds) for key, word in COMPARED.items()
        }
        words = [f"{w} {interval(estimate(v).as_dict())}" for w, v in shares.items() if v]
        if words:
            compared.append(f"{titles[ours]} / {titles[theirs]}: " + ", ".join(words))
    if max(others) > report.BUSY_OTHERS:
        notes.append(
            f"note: other programs used up to {max(others):.2f} processors meanwhile (median of a "
            "server's rounds): rates and latencies suffered"
        )
    return Section(name, entry["title"], lines, [*compared, *remarks, *notes])


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
    """One sentence for each part of the run in which anything was measured."""
    rounds = (one for entry in record.data["rows"].values() for one in entry["rounds"])
    used = {one["session"] for one in rounds}
    return [
        f"Measured {session['started'][:16].replace('T', ' ')} on "
        f"{machine.describe(session['machine'])}; load at the start "
        f"{session['machine']['load_at_start']:g}."
        for number, session in enumerate(record.data["sessions"])
        if number in used
    ]


FOOTNOTE = (
    "Medians of the rounds; in parentheses the distribution-free interval that encloses the true "
    "median with a probability of at least 90 % (from five rounds on; of fewer the smallest and "
    "the largest). Ratios are taken round by round. CPU and busy cores are the server's user and "
    "system time, generator is the share of one processor that the load generator used."
)


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
    out += [FOOTNOTE, ""]
    out += _columns([list(demands.HEADINGS), *demands.table(judge(record))])
    out += ["", "counted by tests, which fail if it is not so:"]
    out += _columns([[what, f"{file}: {test}"] for what, file, test in demands.COUNTED])
    return "\n".join(out)


def _table(lines: Sequence[Sequence[str]]) -> list[str]:
    head, *rest = ("| " + " | ".join(line) + " |" for line in lines)
    return [head, "|---" * len(lines[0]) + "|", *rest]


def markdown(record: Record, picture: str) -> str:
    """Everything as a Markdown fragment.

    Args:
        record: what was measured.
        picture: where the plot is, as seen from the page.
    """
    out = []
    if record.data["quick"]:
        out += ["**This was a quick run: its figures mean nothing.**", ""]
    for sentence in measured_where(record):
        out += [sentence, ""]
    out += [*_table([list(demands.HEADINGS), *demands.table(judge(record))]), ""]
    out += ["Counted by tests, which fail if it is not so:", ""]
    out += [*(f"- {what}: `{file}`" for what, file, _ in demands.COUNTED), ""]
    if problems := record.problems():
        out += ["Could not be measured:", "", *(f"- {line}" for line in problems), ""]
    out += [f"![Processor time per job and jobs per second of each server]({picture})", ""]
    for section in sections(record):
        out += [f"**{section.name}**: {section.title}", "", *_table(section.lines), ""]
        if section.remarks:
            out += [*(f"- {line}" for line in section.remarks), ""]
    return "\n".join([*out, FOOTNOTE])
