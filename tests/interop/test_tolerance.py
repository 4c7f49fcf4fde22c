"""Packets that Perl's worker leaves incomplete, at which gearmand waits for the rest for ever."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PeerTools
from tests.interop import servers
from tests.interop.features import names, whole
from tests.interop.peers import PEERS, PROGRAMS, Peer, Request

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

pytestmark = pytest.mark.peers

# What the library sends of these: its packets carry no false values.
RESULTS = {
    "empty": b"",
    "false": b"",
    "half_status": b"done",
    "empty_warning": b"done",
    "timed": b"in time",
}


@pytest.fixture(scope="module")
def sloppy(directory: pathlib.Path) -> Iterator[servers.Server]:
    """A trigear server with the sloppy worker at it."""
    with servers.running("trigear", servers.trigear_command, directory) as server:
        program = [PeerTools.perl, PROGRAMS / "sloppy_worker.pl"]
        worker = subprocess.Popen(
            [*program, server.host, str(server.port)], stdin=subprocess.DEVNULL
        )
        try:
            server.wait_for_functions(list(RESULTS))
            yield server
            assert worker.poll() is None, "the worker has died"
        finally:
            servers.stop(worker)


@pytest.mark.parametrize(
    ("client", "function"),
    [
        pytest.param(client, function, id=f"{client.name}_client-{function}")
        for client in PEERS
        for function in RESULTS
        # The tool computes its percents with a whole division and dies of a denominator of 0.
        if (client.name, function) != ("gearman", "half_status")
    ],
)
def test_incomplete_packets_of_a_perl_worker_reach_every_client_as_what_they_mean(
    sloppy: servers.Server, client: Peer, function: str
) -> None:
    with contextlib.closing(client.client(sloppy)) as session:
        session.submit(Request(function, b"x"))
        events = session.events()
    assert "complete" in names(events)
    assert "fail" not in names(events)
    assert whole(events) == RESULTS[function]
