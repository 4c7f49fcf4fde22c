"""Ten kills under load; `nox -s crash` does five hundred. And the judge is judged, too."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.crash.run import Crash, Created, Record, Run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_no_acknowledged_job_is_lost_and_none_runs_again_without_need(tmp_path: Path):
    crash = Crash(tmp_path, 10, random.Random(10))
    assert crash.run() == []
    assert len(crash.record.created) > 1000
    assert crash.record.again() < len(crash.record.created)


def record_of(*runs: Run, created: Created | None = None) -> Record:
    record = Record()
    record.created[b"a"] = created or Created(b"H:1", 1, 1.0)
    if runs:
        record.runs[b"a"] = list(runs)
    return record


@pytest.mark.parametrize(
    ("runs", "fault"),
    [
        ([], "b'a' was acknowledged in life 1 and never ran"),
        ([Run(b"H:2", 1)], "b'a' has not kept its handle"),
        ([Run(b"H:1", 1), Run(b"H:1", 1)], "b'a' ran twice in life 1"),
        # Something was submitted at 5.0 and answered: what a worker knew at 4.0 to have arrived
        # was written before.
        ([Run(b"H:1", 1, 4.0), Run(b"H:1", 2)], "b'a' ran again although its end in 1 was written"),
    ],
)
def test_what_must_not_happen_is_noticed(runs: list[Run], fault: str):
    record = record_of(*runs)
    record.created[b"b"] = Created(b"H:9", 1, 5.0)
    record.runs[b"b"] = [Run(b"H:9", 1)]
    assert record.faults() == [fault]


def test_two_jobs_with_one_handle_are_noticed():
    record = record_of(Run(b"H:1", 1))
    record.created[b"b"] = Created(b"H:1", 1, 1.0)
    record.runs[b"b"] = [Run(b"H:1", 1)]
    assert record.faults() == ["b'b' and b'a' have one handle"]


@pytest.mark.parametrize(
    "runs",
    [
        [Run(b"H:1", 1)],
        # Running at the kill.
        [Run(b"H:1", 1), Run(b"H:1", 2)],
        # Ended, and nothing that was submitted later was answered in that life.
        [Run(b"H:1", 1, 6.0), Run(b"H:1", 2)],
        [Run(b"H:1", 3, 4.0), Run(b"H:1", 4)],
    ],
)
def test_what_may_happen_is_no_fault(runs: list[Run]):
    record = record_of(*runs)
    record.created[b"b"] = Created(b"H:9", 1, 5.0)
    record.runs[b"b"] = [Run(b"H:9", 1)]
    assert record.faults() == []


def test_a_job_that_was_not_acknowledged_may_run_or_not():
    record = Record(submitted=2)
    record.runs[b"a"] = [Run(b"H:1", 1), Run(b"H:1", 2)]
    assert record.faults() == []
