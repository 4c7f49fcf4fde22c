"""Four kills around the moments at which schedules run; `nox -s crash` does a hundred."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.crash.schedules import SCHEDULES, ScheduleCrash

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_runs_are_neither_lost_nor_made_twice(tmp_path: Path):
    crash = ScheduleCrash(tmp_path, 4, random.Random(4))
    assert crash.run() == []
    with closing(sqlite3.connect(crash.server.database)) as connection:
        (jobs,) = connection.execute("SELECT count(*) FROM job").fetchone()
        assert jobs >= 5 * SCHEDULES
        # The judge is judged, too: what must not have happened is noticed.
        assert crash.faults() == []
        (first,) = connection.execute("SELECT min(sequence) FROM job").fetchone()
        damages = [
            (f"DELETE FROM job WHERE sequence = {first}", "runs and has"),
            ("UPDATE job SET submitted = 1.0", "ran twice between two due times"),
            ("UPDATE job SET handle = x'00'", "two jobs have one handle"),
            ("DELETE FROM record WHERE function = x'7332'", "schedules are missing in the store"),
        ]
        for damage, fault in damages:
            assert not any(fault in found for found in crash.faults())
            with connection:
                connection.execute(damage)
            assert any(fault in found for found in crash.faults())
