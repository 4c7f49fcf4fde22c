from __future__ import annotations

from typing import Any

import pytest

from benchmarks import demands, report
from benchmarks.demands import DEMANDS, Demand, Verdict, each, judge, ratio
from benchmarks.rows import rows
from benchmarks.stats import estimate


def figures(jobs: int, cpu: float, p50: float = 100.0) -> dict[str, Any]:
    return {
        "generator": {"jobs": jobs, "rate": jobs / 3},
        "server_cpu_seconds": cpu,
        "latency_us": {"p50": p50},
    }


def test_every_demand_belongs_to_a_row_that_is_measured() -> None:
    assert {demand.row for demand in DEMANDS} <= set(rows())


def test_no_two_demands_are_called_the_same() -> None:
    names = [(demand.row, demand.name) for demand in DEMANDS]
    assert len(set(names)) == len(names)


def test_what_no_round_was_measured_of_is_not_measured() -> None:
    verdicts = judge({})
    assert [verdict.word for verdict in verdicts] == [demands.UNMEASURED] * len(DEMANDS)
    assert not any(verdict.reached for verdict in verdicts)


def test_ratios_are_taken_in_the_rounds_that_have_both() -> None:
    found = ratio(report.cpu_us_per_job, "trigear", "gearmand")(
        {
            "trigear": {0: figures(1000, 0.1), 1: figures(1000, 0.4), 2: figures(1000, 0.1)},
            # A slow minute hits both; the third round was not measured, the fourth too short.
            "gearmand": {1: figures(1000, 0.8), 0: figures(1000, 0.2), 3: figures(10, 0.0)},
        }
    )
    assert found == [0.5, 0.5]


def test_a_round_that_was_too_short_for_the_clock_gives_no_ratio() -> None:
    one = {"trigear": {0: figures(10, 0.01)}, "gearmand": {0: figures(10, 0.0)}}
    assert ratio(report.cpu_us_per_job, "trigear", "gearmand")(one) == []


def test_figures_that_a_round_does_not_have_are_left_out() -> None:
    def jobs(one: Any) -> float | None:
        return float(one["generator"]["jobs"]) if one["server_cpu_seconds"] else None

    found = each("a", jobs)({"a": {1: figures(7, 0.1), 0: figures(5, 0.1), 2: figures(9, 0.0)}})
    assert found == [5, 7]


@pytest.mark.parametrize(
    ("least", "value", "word"),
    [
        (False, 0.6, "reached, the goal too"),
        (False, 1.0, "reached"),
        (False, 1.01, "not reached"),
        (True, 0.6, "not reached"),
        (True, 1.0, "reached"),
        (True, 1.5, "reached, the goal too"),
    ],
)
def test_the_median_decides(least: bool, value: float, word: str) -> None:
    demand = Demand("drain", "rate", 1.0, 1.5 if least else 0.6, each("", lambda _: 0.0), least)
    assert Verdict(demand, estimate([value, value, 99.0, 0.0, value])).word == word


def test_the_figures_of_the_basic_rows_reach_what_they_should() -> None:
    rounds = {
        "trigear": {0: figures(3000, 0.06), 1: figures(3000, 0.06)},
        "gearmand": {0: figures(2000, 0.1), 1: figures(2000, 0.1)},
        "trigear-tls": {0: figures(1500, 0.09)},
    }
    found = {
        verdict.demand.name: verdict.word
        for verdict in judge({"drain": rounds})
        if verdict.demand.row == "drain"
    }
    assert found == {
        "CPU per job, trigear / gearmand": "reached, the goal too",
        "rate, trigear / gearmand": "reached",
        "rate, TLS / plain": "not reached",
        "CPU per job, TLS / plain": "not reached",
        "rate, trigear / Perl's server": demands.UNMEASURED,
        "CPU per job, trigear / Perl's server": demands.UNMEASURED,
    }


def test_the_table_shows_bound_interval_and_verdict() -> None:
    lines = demands.table(judge({"oneatatime": {"trigear": {0: figures(1, 1, 105.0)}}}))
    assert ["oneatatime", "p50, trigear / gearmand", "≤ 1.1", "≤ 0.9", *["not measured"] * 2] in (
        lines
    )
    both = {"trigear": {0: figures(1, 1, 105.0)}, "gearmand": {0: figures(1, 1, 100.0)}}
    lines = demands.table(judge({"oneatatime": both}))
    assert [
        *("oneatatime", "p50, trigear / gearmand", "≤ 1.1", "≤ 0.9"),
        *("1.05 (1.05 to 1.05)", "reached"),
    ] in lines
