"""Servers and workers that live as long as the run, and the record of what the matrix showed."""

from __future__ import annotations

import importlib.util
import pathlib
from typing import TYPE_CHECKING

import pytest

from tests.interop import servers, table
from tests.interop.features import BEHAVIOURS, function_name
from tests.interop.peers import PEERS, Peer, WorkerProcesses

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import PeerTools
    from tests.interop.servers import Server


FINDINGS = pytest.StashKey[table.Findings]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("interop")
    group.addoption(
        "--write-interop-table",
        action="store_true",
        help="write what the whole matrix showed into docs/interop.md",
    )
    group.addoption(
        "--interop-json",
        metavar="FILE",
        help="write what the matrix showed into this file, one object for each cell",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[FINDINGS] = table.Findings()


def pytest_sessionfinish(session: pytest.Session) -> None:
    if file := session.config.getoption("--interop-json", default=None):
        pathlib.Path(file).write_text(session.config.stash[FINDINGS].as_json())


@pytest.fixture(scope="session")
def findings(request: pytest.FixtureRequest) -> table.Findings:
    """What the cells of the matrix have shown so far."""
    return request.config.stash[FINDINGS]


@pytest.fixture(scope="session")
def directory(peer_tools: PeerTools, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """Where servers log and workers record. That the peers are there is asked for on the way."""
    if importlib.util.find_spec("gear") is None:
        pytest.fail("the package gear is missing: pip install -e .[interop]", pytrace=False)
    return tmp_path_factory.mktemp("interop")


@pytest.fixture(scope="session", params=sorted(servers.COMMANDS))
def server(request: pytest.FixtureRequest, directory: pathlib.Path) -> Iterator[Server]:
    """Each of the two servers in turn, one process for all tests."""
    name: str = request.param
    with servers.running(name, servers.COMMANDS[name], directory) as running:
        yield running


@pytest.fixture(scope="session")
def worker_of(
    server: Server, directory: pathlib.Path
) -> Iterator[Callable[[Peer, str], WorkerProcesses]]:
    """The worker of a peer at this server: started at first use, again if it has died.

    The functions of one behaviour are served by processes of their own, so that a worker that
    dies of an exception takes nobody along.
    """
    started: dict[tuple[str, str], WorkerProcesses] = {}

    def worker(peer: Peer, feature: str) -> WorkerProcesses:
        behaviour = BEHAVIOURS[feature]
        key = (peer.name, behaviour)
        if key not in started or not started[key].alive():
            functions = {
                function_name(name, client, peer): its
                for name, its in BEHAVIOURS.items()
                if its == behaviour
                for client in PEERS
            }
            started[key] = peer.start_worker(server, functions, directory)
        return started[key]

    try:
        yield worker
    finally:
        for processes in started.values():
            processes.stop()
