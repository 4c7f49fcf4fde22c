"""What trigear is to reach beside gearmand, and whether a run says that it does.

A demand belongs to a row of the suite and is computed from the rounds of its cases, one value for
each round; what counts is the median. Ratios are taken within a round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import figures, report
from benchmarks.report import MEASURES, plain
from benchmarks.rows import BASIC
from benchmarks.stats import Estimate, estimate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Figures = Mapping[str, Any]
    Rounds = Mapping[str, Mapping[int, Figures]]
    """Of one row: the figures by case and number of the round."""
    Measure = Callable[[Figures], float | None]

UNMEASURED = "not measured"


@dataclass(frozen=True, slots=True)
class Demand:
    """`compute` gives the values of the rounds; `least` tells whether they are to be large."""

    row: str
    name: str
    bound: float
    goal: float | None
    compute: Callable[[Rounds], list[float]]
    least: bool = False
    unit: str = ""

    def meets(self, value: float, bound: float) -> bool:
        """Whether `value` is on the right side of `bound`."""
        return value >= bound if self.least else value <= bound

    def shown(self, bound: float | None) -> str:
        """A bound as text."""
        if bound is None:
            return ""
        return f"{'≥' if self.least else '≤'} {bound:g}{self.unit}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a run says about a demand; `measured` is None where it says nothing."""

    demand: Demand
    measured: Estimate | None

    @property
    def reached(self) -> bool:
        """Whether the median is on the right side."""
        return self.measured is not None and self.demand.meets(
            self.measured.median, self.demand.bound
        )

    @property
    def word(self) -> str:
        """The verdict in words."""
        if self.measured is None:
            return UNMEASURED
        if not self.reached:
            return "not reached"
        goal = self.demand.goal
        if goal is not None and self.demand.meets(self.measured.median, goal):
            return "reached, the goal too"
        return "reached"


def each(case: str, measure: Measure) -> Callable[[Rounds], list[float]]:
    """A figure of one case, round by round."""

    def compute(rounds: Rounds) -> list[float]:
        found = (measure(one) for _, one in sorted(rounds.get(case, {}).items()))
        return [value for value in found if value is not None]

    return compute


def ratio(
    measure: Measure, ours: str, theirs: str, other_measure: Measure | None = None
) -> Callable[[Rounds], list[float]]:
    """A figure of one case divided by that of another, in the rounds that have both.

    With `other_measure` it is that figure of the other case.
    A round that was too short for the clock, so that theirs is zero, is left out.
    """

    def compute(rounds: Rounds) -> list[float]:
        mine, other = rounds.get(ours, {}), rounds.get(theirs, {})
        values = []
        for number in sorted(mine.keys() & other.keys()):
            above, below = measure(mine[number]), (other_measure or measure)(other[number])
            if above is not None and below:
                values.append(above / below)
        return values

    return compute


def _basic(rows: str) -> Iterator[Demand]:
    """Against gearmand with its four threads; `rows` is what the rows' names end with."""
    cpu = ratio(report.cpu_us_per_job, "trigear", "gearmand")
    rate = ratio(MEASURES["rate"], "trigear", "gearmand")
    p50 = ratio(MEASURES["p50_us"], "trigear", "gearmand")
    yield Demand(f"drain{rows}", "CPU per job, trigear / gearmand", 0.7, 0.45, cpu)
    yield Demand(f"drain{rows}", "rate, trigear / gearmand", 1.1, 1.7, rate, least=True)
    yield Demand(f"foreground{rows}", "CPU per job, trigear / gearmand", 0.85, 0.55, cpu)
    yield Demand(f"foreground{rows}", "rate, trigear / gearmand", 1.0, 1.5, rate, least=True)
    yield Demand(f"oneatatime{rows}", "p50, trigear / gearmand", 1.1, 0.9, p50)
    yield Demand(f"background{rows}", "CPU per job, trigear / gearmand", 1.6, 0.9, cpu)
    yield Demand(f"background{rows}", "rate, trigear / gearmand", 0.5, 1.0, rate, least=True)


def _tls() -> Iterator[Demand]:
    cpu = ratio(report.cpu_us_per_job, "trigear-tls", "trigear")
    rate = ratio(MEASURES["rate"], "trigear-tls", "trigear")
    yield Demand("foreground", "rate, TLS / plain", 0.5, 0.65, rate, least=True)
    yield Demand("foreground", "CPU per job, TLS / plain", 1.9, 1.5, cpu)
    yield Demand("drain", "rate, TLS / plain", 0.6, 0.75, rate, least=True)
    yield Demand("drain", "CPU per job, TLS / plain", 1.7, 1.4, cpu)


def _perl() -> Iterator[Demand]:
    cpu = ratio(report.cpu_us_per_job, "trigear", "perl")
    rate = ratio(MEASURES["rate"], "trigear", "perl")
    for row, least in (("background", 2.5), ("foreground", 2.5), ("drain", 1.5)):
        yield Demand(row, "rate, trigear / Perl's server", least, None, rate, least=True)
        yield Demand(row, "CPU per job, trigear / Perl's server", 0.5, None, cpu)


def _durable() -> Iterator[Demand]:
    for row, store, goal in (
        ("durable", "sqlite", 120),
        ("durable-postgresql", "postgresql", None),
    ):
        rate = ratio(MEASURES["rate"], f"trigear-{store}", f"gearmand-{store}")
        for name in (row, f"{row}-slow"):
            yield Demand(name, "rate, trigear / gearmand", 60, goal, rate, least=True)


def _million() -> Iterator[Demand]:
    for level, where in enumerate(figures.LEVELS):
        drained = ratio(
            figures.level_rate(level), "trigear", "trigear, 1,000 queued", MEASURES["rate"]
        )
        name = f"rate when {where} / with 1,000 queued"
        yield Demand("million", name, 0.9, 0.98, drained, least=True)
    longest = each("trigear", figures.pause())
    yield Demand("million", "longest pause", 20, 5, longest, unit=" ms")
    memory = each("trigear", figures.memory_per_queued_job)
    yield Demand("million", "memory per queued job", 870, 450, memory, unit=" bytes")


def _idle() -> Iterator[Demand]:
    for row in ("idle-2000", "idle-10000"):
        for peer, kind, bound, goal in (("trigear", "plain", 8, 4), ("trigear-tls", "TLS", 30, 20)):
            memory = each(peer, figures.memory_per_idle_worker)
            yield Demand(row, f"memory per idle worker, {kind}", bound, goal, memory, unit=" KiB")


def _mebibyte() -> Iterator[Demand]:
    cpu = ratio(report.cpu_us_per_job, "trigear", "gearmand")
    yield Demand("mebibyte", "CPU per MiB, trigear / gearmand", 1.0, 0.8, cpu)


DEMANDS = (
    *(*_basic(""), *_basic("-pinned"), *_tls(), *_durable(), *_million(), *_idle(), *_mebibyte()),
    *_perl(),
)
"""Everything that is demanded, in the order of the table."""

COUNTED = (
    (
        "a submission beside 10,000 idle workers of other functions: as many calls as without",
        "tests/engine/test_sizes.py",
        "test_a_job_costs_the_same_beside_ten_thousand_idle_workers_of_other_functions",
    ),
    (
        "traced memory of a job of 1 MiB in flight: at most 2.2 times its workload",
        "tests/engine/test_sizes.py",
        "test_a_large_job_in_flight_needs_little_more_memory_than_twice_its_workload",
    ),
)
"""What is demanded and cannot be noisy is counted by tests: what, where, and by which."""

assert {demand.row.removesuffix("-pinned") for demand in DEMANDS} >= set(BASIC)


def judge(rows: Mapping[str, Rounds]) -> list[Verdict]:
    """What the rounds say about each demand.

    Args:
        rows: by the row's name; rows and cases may be missing.
    """
    verdicts = []
    for demand in DEMANDS:
        values = demand.compute(rows.get(demand.row, {}))
        verdicts.append(Verdict(demand, estimate(values) if values else None))
    return verdicts


HEADINGS = ("row", "what is demanded", "at least or at most", "goal", "measured", "verdict")


def table(verdicts: list[Verdict]) -> list[list[str]]:
    """One line of text for each verdict, under `HEADINGS`."""
    lines = []
    for verdict in verdicts:
        demand, found = verdict.demand, verdict.measured
        measured = UNMEASURED
        if found is not None:
            low, high = plain(found.low), plain(found.high)
            measured = f"{plain(found.median)} ({low} to {high}){demand.unit}"
        lines.append(
            [
                *(demand.row, demand.name, demand.shown(demand.bound), demand.shown(demand.goal)),
                *(measured, verdict.word),
            ]
        )
    return lines
