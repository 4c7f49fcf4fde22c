from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import install
from tests.postgres import FAST, Cluster
from tests.stores.places import PLACES
from trigear.stores import postgresql_link

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.stores.places import PostgresqlPlace, SqlitePlace

    Place = SqlitePlace | PostgresqlPlace


@pytest.fixture(autouse=True)
def patient_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no session gives up what would come about in the end. Where one
    is to give up, a test says so: see :func:`tests.stores.places.impatience`."""
    monkeypatch.setattr(postgresql_link, "LOCK_SECONDS", 50.0)
    monkeypatch.setattr(postgresql_link, "ANSWER_SECONDS", 50.0)


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """A place for a store, of each kind in turn."""
    found = PLACES[request.param](tmp_path)
    yield found
    found.clear()


@pytest.fixture(scope="session")
def own_cluster() -> Iterator[Cluster]:
    """A PostgreSQL server for tests that do things to it. It is running, and is left running."""
    cluster = Cluster(FAST)
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def pgbouncer() -> Path:
    """The pooler of Debian. With CI=true it is installed, and never skipped."""
    program = Path("/usr/sbin/pgbouncer")
    if not program.exists():
        if os.environ.get("CI") != "true":
            pytest.skip("Debian package not installed here: pgbouncer")
        if os.geteuid() != 0:
            pytest.fail("only root can install pgbouncer", pytrace=False)
        install(["pgbouncer"])
    assert subprocess.run([program, "--version"], capture_output=True, check=True).stdout
    return program
