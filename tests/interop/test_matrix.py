"""Every client with every worker at both servers, feature by feature; then the table of it all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.interop import table
from tests.interop.features import SCENES, Cell
from tests.interop.limits import LIMITS, POINTS
from tests.interop.peers import PEERS, Peer, WorkerProcesses

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Callable

    from tests.interop.servers import Server

pytestmark = pytest.mark.peers


@pytest.mark.parametrize("feature", SCENES)
@pytest.mark.parametrize("client", PEERS, ids=lambda peer: f"{peer.name}_client")
@pytest.mark.parametrize("worker", PEERS, ids=lambda peer: f"{peer.name}_worker")
def test_client_and_worker_understand_each_other_but_for_their_own_limits(
    server: Server,
    worker: Peer,
    client: Peer,
    feature: str,
    worker_of: Callable[[Peer, str], WorkerProcesses],
    directory: pathlib.Path,
    findings: table.Findings,
) -> None:
    cell = Cell(server, client, worker, directory, worker_of(worker, feature))
    try:
        SCENES[feature](cell)
    except Exception as error:
        error.add_note(f"the worker wrote: {cell.workers.output()[-2000:]!r}")
        error.add_note(f"the server wrote: {server.log.read_text(errors='replace')[-2000:]!r}")
        raise
    key = (server.name, client.name, worker.name, feature)
    expected = set(POINTS[feature]) - {limit.point for limit in table.limits_of(*key)}
    assert cell.points == expected
    findings.add(key, cell.points)


def test_a_limit_of_a_peer_is_the_same_at_both_servers() -> None:
    of_servers = [limit for limit in LIMITS if limit.servers]
    assert {server for limit in of_servers for server in limit.servers} == {"gearmand"}
    # Where the server is at fault the feature itself has passed or failed for the peers' reasons.
    assert all(limit.point != POINTS[limit.feature][0] for limit in of_servers)


def test_the_table_in_the_documentation_is_what_this_run_showed(
    request: pytest.FixtureRequest, findings: table.Findings
) -> None:
    if request.config.getoption("--write-interop-table", default=False):
        assert findings.complete(), "the table is written by a run of the whole matrix only"
        table.write(findings)
    cells = table.cells_of(table.committed())
    assert {key: cells.get(key) for key in findings.cells} == {
        key: findings.text(key) for key in findings.cells
    }
    if findings.complete():
        assert table.committed().strip() == table.render(findings).strip()


def test_the_table_in_the_documentation_has_no_blank_cell() -> None:
    cells = table.cells_of(table.committed())
    assert set(cells) == set(table.every_key())
    assert {text.split()[0] for text in cells.values() if text} <= {table.PASSED, table.LIMITED}
    assert all(cells.values())
