"""Ten kills of a server that keeps results; `nox -s crash` does fifty."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from tests.crash.results import ResultsCrash
from tests.postgres import Cluster

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_there_is_either_the_job_or_its_result(tmp_path: Path) -> None:
    crash = ResultsCrash(tmp_path, 10, random.Random(10))
    assert crash.run() == []
    assert len(crash.record.created) > 1000
    assert crash.cut, "some were running, or had ended just before the kill"
    assert crash.look()[0] == {}, "everything was done in the end"
    acknowledged = {job.handle: name for name, job in crash.record.created.items()}
    assert crash.faults(acknowledged) == []
    # The judge is judged, too: what must not have happened is noticed.
    handle, name = next(iter(acknowledged.items()))
    damages = [
        ("UPDATE record SET data = x'00' WHERE key = ?", "has the result b'\\x00'"),
        ("DELETE FROM record WHERE key = ?", f"{name!r} is not there and has no result"),
    ]
    with closing(sqlite3.connect(crash.server.database)) as connection:
        for damage, fault in damages:
            with connection:
                connection.execute(damage, (handle,))
            (found,) = crash.faults(acknowledged)
            assert fault in found


def test_so_there_is_in_postgresql(tmp_path: Path) -> None:
    cluster = Cluster()
    cluster.start()
    try:
        crash = ResultsCrash(tmp_path, 5, random.Random(5), cluster=cluster)
        assert crash.run() == []
        assert len(crash.record.created) > 300
        acknowledged = {job.handle: name for name, job in crash.record.created.items()}
        assert crash.faults(acknowledged) == []
    finally:
        cluster.remove()
