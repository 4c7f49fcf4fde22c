"""A queue in PostgreSQL, under load: our server is killed, and all kinds of things happen to the
database."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest

from tests.crash.run import Crash
from tests.crash.trouble import Trouble
from tests.postgres import Cluster, url_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A database that syncs what it writes."""
    found = Cluster()
    found.start()
    yield found
    found.remove()


def test_kills_of_our_server_lose_no_acknowledged_job(tmp_path: Path, cluster: Cluster) -> None:
    crash = Crash(tmp_path, 10, random.Random(10), cluster=cluster)
    assert crash.run() == []
    assert len(crash.record.created) > 500
    assert crash.record.again() < len(crash.record.created)


@pytest.mark.parametrize("trouble", ["restarted", "killed", "paused", "sessions ended"])
def test_trouble_with_the_database_loses_no_acknowledged_job(
    tmp_path: Path, cluster: Cluster, trouble: str
) -> None:
    def end_sessions() -> None:
        for _ in range(10):
            cluster.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'trigear'"
            )

    begin, end = {
        "restarted": (cluster.stop, cluster.start),
        "killed": (cluster.kill, cluster.start),
        "paused": (cluster.pause, cluster.resume),
        "sessions ended": (end_sessions, lambda: None),
    }[trouble]
    series = Trouble(tmp_path, cluster, begin, end, lasting=trouble != "sessions ended")
    assert series.run() == []
    assert len(series.record.created) > 1000


def test_a_failover_to_a_synchronous_standby_loses_no_acknowledged_job(
    tmp_path: Path, cluster: Cluster
) -> None:
    standby = Cluster(standby_of=cluster)
    try:
        standby.start()
        cluster.run("ALTER SYSTEM SET synchronous_standby_names = 'standby'")
        cluster.run("SELECT pg_reload_conf()")

        series = Trouble(
            *(tmp_path, standby, cluster.kill, standby.promote),
            times=1,
            url=url_of(cluster, standby),
        )
        assert series.run() == []
        assert len(series.record.created) > 500
    finally:
        standby.remove()
