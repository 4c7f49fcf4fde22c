"""A budget for what a job costs: nothing on the hot path grows without somebody saying so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
TOLERANCE = 1.04
"""What is above the budget by more fails. The counts themselves do not vary."""

BUDGET = {
    # Per job: calls, and instructions of Python 3.11 (other versions count them differently).
    "background": (24.2, 511),
    "background, durable": (60.9, 964),
    "drain": (49.0, 904),
    "foreground": (86.3, 1552),
    "foreground, quotas": (97.4, 1696),
}
INSTRUCTIONS_OF = (3, 11)


@pytest.fixture(scope="module")
def costs() -> dict[str, list[float]]:
    """Counted in a process of its own, where no other tool listens to every call."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.engine.cost"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def complaint(name: str, what: str, cost: float, budget: float) -> str:
    return (
        f"{name}: {cost:.1f} {what} per job, the budget is {budget:.1f}. If that is worth it, "
        f"count with `python -m tests.engine.cost` and write the new figure into {__name__}; "
        "`nox -s bench` says what it is in time."
    )


@pytest.mark.parametrize("name", BUDGET)
def test_a_job_costs_no_more_calls_and_instructions_than_its_budget(costs, name):
    calls, instructions = costs[name]
    most_calls, most_instructions = BUDGET[name]
    assert calls <= most_calls * TOLERANCE, complaint(name, "calls", calls, most_calls)
    if sys.version_info[:2] == INSTRUCTIONS_OF:
        assert instructions <= most_instructions * TOLERANCE, complaint(
            name, "instructions", instructions, most_instructions
        )


def test_every_kind_of_work_has_a_budget(costs):
    assert costs.keys() == BUDGET.keys()
