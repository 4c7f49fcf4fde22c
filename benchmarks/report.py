"""Turns measured rounds into a summary, a table for the terminal and Markdown for the docs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.stats import estimate, ratios

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Round = Mapping[str, Any]
    Report = Mapping[str, Any]
    Figures = Mapping[str, float]

FORMAT = 1
MIB = 1024 * 1024

# Scenarios that count requests instead of jobs.
REQUESTS = ("echo", "flood")
# Above these shares of a processor a row gets a note.
BUSY_GENERATOR = 0.85
BUSY_OTHERS = 0.25


def cpu_us_per_job(one: Round) -> float:
    """Server processor time per job, or per request where those are counted, in microseconds."""
    return float(one["server_cpu_seconds"]) * 1e6 / float(one["generator"]["jobs"])


def server_cores(one: Round) -> float:
    """How many processors the server kept busy."""
    return float(one["server_cpu_seconds"]) / float(one["generator"]["seconds"])


def memory_per_job(one: Round) -> float:
    """Bytes by which the server grew, per job: of use where jobs stay queued."""
    return float(one["memory_end"] - one["memory_begin"]) / float(one["generator"]["jobs"])


def _latency(share: str) -> Callable[[Round], float]:
    return lambda one: float(one["latency_us"][share])


def _generator(key: str) -> Callable[[Round], float]:
    return lambda one: float(one["generator"][key])


MEASURES: dict[str, Callable[[Round], float]] = {
    "cpu_us_per_job": cpu_us_per_job,
    "rate": _generator("rate"),
    "p50_us": _latency("p50"),
    "p95_us": _latency("p95"),
    "p99_us": _latency("p99"),
    "peak_memory": lambda one: float(one["peak_memory"]),
    "server_cores": server_cores,
    "generator_share": _generator("cpu_share"),
    "others_cores": lambda one: float(one["others_cores"]),
}
COMPARED = ("cpu_us_per_job", "rate", "p50_us", "peak_memory")
# Where jobs stay queued the faster server holds more of them: its growth counts, not its peak.
COMPARED_QUEUED = ("cpu_us_per_job", "rate", "p50_us", "memory_per_job")


def _ordered(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def complete_rounds(rounds: Sequence[Round], servers: Sequence[str]) -> list[Round]:
    """The rounds in which every server was measured: an interrupted last one is left out."""
    measured: dict[tuple[int, str], set[str]] = {}
    for one in rounds:
        measured.setdefault((one["round"], one["scenario"]), set()).add(one["server"])
    return [one for one in rounds if measured[one["round"], one["scenario"]] >= set(servers)]


def summarise(report: Report) -> dict[str, Any]:
    """Medians and intervals per scenario and server, and the first server's ratios to the others.

    A ratio is taken in each round and its median afterwards, so that what disturbs both sides of a
    round alike does not count. A ratio to a round that measured nothing (a smoke run shorter than
    the clock's tick) is left out.
    """
    names = list(report["servers"])
    rounds = complete_rounds(report["rounds"], names)
    summary: dict[str, Any] = {}
    for scenario in _ordered(one["scenario"] for one in rounds):
        values: dict[str, dict[str, list[float]]] = {}
        for name in names:
            mine = [one for one in rounds if (one["scenario"], one["server"]) == (scenario, name)]
            mine.sort(key=lambda one: int(one["round"]))
            values[name] = {
                key: [measure(one) for one in mine] for key, measure in MEASURES.items()
            }
            if scenario == "background":
                values[name]["memory_per_job"] = [memory_per_job(one) for one in mine]
        compared = COMPARED_QUEUED if scenario == "background" else COMPARED
        subject, *others = names
        summary[scenario] = {
            "servers": {
                name: {key: estimate(found).as_dict() for key, found in figures.items()}
                for name, figures in values.items()
            },
            "ratios": {
                other: {
                    key: estimate(ratios(values[subject][key], values[other][key])).as_dict()
                    for key in compared
                    if all(values[other][key])
                }
                for other in others
            },
        }
    return summary


def plain(value: float) -> str:
    """Three significant digits without an exponent, thousands separated."""
    if abs(value) >= 999.5:
        digits = len(str(round(abs(value)))) - 3
        return f"{round(value, -digits):,.0f}"
    if abs(value) >= 99.95:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 9.995 else f"{value:.2f}"


def interval(figures: Figures) -> str:
    """`median (low to high)`."""
    return f"{plain(figures['median'])} ({plain(figures['low'])} to {plain(figures['high'])})"


def headings(scenario: str) -> list[str]:
    """The head of a table of servers."""
    unit = "request" if scenario in REQUESTS else "job"
    return [
        *("server", f"CPU µs/{unit}", f"{unit}s/s", "p50 / p95 / p99 µs"),
        *("peak MiB", "busy cores", "generator"),
    ]


def row(title: str, figures: Mapping[str, Figures]) -> list[str]:
    """A server's line of it."""
    return [
        title,
        interval(figures["cpu_us_per_job"]),
        interval(figures["rate"]),
        " / ".join(plain(figures[key]["median"]) for key in ("p50_us", "p95_us", "p99_us")),
        plain(figures["peak_memory"]["median"] / MIB),
        f"{figures['server_cores']['median']:.2f}",
        f"{figures['generator_share']['median']:.0%}",
    ]


def _titles(report: Report) -> dict[str, str]:
    return {
        name: f"{facts['title']} {facts['version']}".strip()
        for name, facts in report["servers"].items()
    }


def generator_note(title: str, figures: Mapping[str, Figures]) -> list[str]:
    """Says that the generator was busy with a server, if it was."""
    share = figures["generator_share"]["median"]
    if share <= BUSY_GENERATOR:
        return []
    return [
        f"note: the generator was busy {share:.0%} of the time with {title}: "
        "the rate is a lower bound"
    ]


def _notes(title: str, figures: Mapping[str, Figures]) -> list[str]:
    """What speaks against trusting the figures of a server."""
    lines = generator_note(title, figures)
    others = figures["others_cores"]["median"]
    if others > BUSY_OTHERS:
        lines.append(
            f"note: other programs used {others:.2f} processors beside {title}: "
            "rate and latencies suffered"
        )
    return lines


def _remarks(entry: Mapping[str, Any], titles: Mapping[str, str]) -> list[str]:
    """The ratios of a scenario, and what speaks against trusting its figures."""
    subject = titles[next(iter(titles))]
    words = {
        **{"cpu_us_per_job": "CPU", "rate": "rate", "p50_us": "p50"},
        **{"peak_memory": "peak memory", "memory_per_job": "memory per queued job"},
    }
    lines = [
        f"{subject} / {titles[other]}: "
        + ", ".join(f"{words[key]} {interval(figures)}" for key, figures in found.items())
        for other, found in entry["ratios"].items()
    ]
    for name, figures in entry["servers"].items():
        if grown := figures.get("memory_per_job"):
            lines.append(f"{titles[name]} grew by {interval(grown)} bytes per queued job")
        lines += _notes(titles[name], figures)
    return lines


def describe(report: Report, scenario: str) -> str:
    """One phrase with the connections, the outstanding requests and the size of the workloads."""
    one = next(one["generator"] for one in report["rounds"] if one["scenario"] == scenario)
    load = f"{one['outstanding']} outstanding on each of {one['clients']} connections"
    if scenario == "drain":
        backlog = report["options"]["backlog"]
        load = f"{one['workers']} workers empty backlogs of {backlog:,} jobs"
    elif one["workers"]:
        load += f", workers: {one['workers']}"
    if scenario == "flood":
        load += "; latencies are those of one more connection that asks 100 times a second"
    return f"{load}; workloads of {one['size']:,} bytes"


def table(report: Report) -> str:
    """The summary as text for a terminal."""
    titles = _titles(report)
    out: list[str] = []
    for scenario, entry in report["summary"].items():
        rows = [headings(scenario)]
        rows += [row(titles[name], figures) for name, figures in entry["servers"].items()]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        out.append(f"{scenario}: {describe(report, scenario)}")
        out += [
            "  " + "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        out += [*(f"  {line}" for line in _remarks(entry, titles)), ""]
    return "\n".join([*out, footnote(report)])


def markdown(report: Report) -> str:
    """The summary as a Markdown fragment that names the machine."""
    titles = _titles(report)
    out = [machine_sentence(report), ""]
    for scenario, entry in report["summary"].items():
        heads = headings(scenario)
        out += [f"**{scenario}**: {describe(report, scenario)}", ""]
        out += ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
        for name, figures in entry["servers"].items():
            out.append("| " + " | ".join(row(titles[name], figures)) + " |")
        out += ["", *(f"- {line}" for line in _remarks(entry, titles)), ""]
    return "\n".join([*out, footnote(report)])


def machine_sentence(report: Report) -> str:
    """Where and when it was measured."""
    machine = report["machine"]
    pinned = "server and generator pinned apart" if report["options"]["pin"] else "nothing pinned"
    return (
        f"Measured {report['started'][:10]} on {machine['cpu']}, {machine['usable_cores']} cores, "
        f"{machine['memory_bytes'] / MIB / 1024:.0f} GiB, {machine['kernel']}, "
        f"{machine['python']}, over loopback, {pinned}."
    )


def footnote(report: Report) -> str:
    """How the figures are to be read."""
    entries = [
        figures["rate"]
        for entry in report["summary"].values()
        for figures in entry["servers"].values()
    ]
    if not entries:
        return "No complete round was measured."
    rounds = min(int(entry["rounds"]) for entry in entries)
    coverage = min(entry["coverage"] for entry in entries)
    return (
        f"Medians of {rounds} interleaved rounds of {report['options']['seconds']:g} s; in "
        f"parentheses the distribution-free {coverage:.0%} interval of the median. Ratios are "
        "taken round by round. CPU and busy cores are the server's user and system time, generator "
        "is the share of one processor that the load generator used."
    )
