"""Client first, server later, worker last: whoever waits is served in the end."""

from __future__ import annotations

import contextlib
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.conftest import PeerTools, free_port
from tests.interop import servers
from tests.interop.features import created, whole
from tests.interop.peers import PEERS, Request

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Iterator

pytestmark = pytest.mark.peers

# The tool itself gives up at once, with a message and often with success; a script tries again.
UNTIL_SERVED = """
until answer=$("$1" -h "$2" -p "$3" -f late "$4" 2>>"$5") && [ -n "$answer" ]; do
    echo failed >>"$5"
    sleep 0.05
done
printf %s "$answer"
"""


@contextlib.contextmanager
def server_and_then_a_worker(
    name: str, port: int, worker: str, directory: pathlib.Path
) -> Iterator[None]:
    """Start the server on this port, see the client's job wait in it, start the worker."""
    peer = next(peer for peer in PEERS if peer.name == worker)
    with servers.running(name, servers.COMMANDS[name], directory, port) as server:
        servers.wait_until(
            "the job in the server", lambda: server.functions().get("late") == (1, 0, 0)
        )
        processes = peer.start_worker(server, {"late": "reverse"}, directory)
        try:
            yield
        finally:
            processes.stop()


@pytest.mark.parametrize("name", sorted(servers.COMMANDS))
def test_gear_waits_for_the_server_by_itself(
    name: str, peer_tools: PeerTools, tmp_path: pathlib.Path
) -> None:
    port = free_port()
    gear = next(peer for peer in PEERS if peer.name == "gear")
    nowhere = servers.Address(port)
    with contextlib.closing(gear.client(nowhere)) as client:
        client.submit(Request("late", b"better than never"))
        with pytest.raises(TimeoutError):
            client.next_event(0.5)
        with server_and_then_a_worker(name, port, "php", tmp_path):
            events = client.events()
    assert len(created(events)) == 1
    assert whole(events) == b"reven naht retteb"


@pytest.mark.parametrize("name", sorted(servers.COMMANDS))
def test_a_script_that_tries_again_with_the_tool_is_served(
    name: str, peer_tools: PeerTools, tmp_path: pathlib.Path
) -> None:
    port = free_port()
    failures = tmp_path / "failures"
    arguments = [str(PeerTools.gearman), servers.HOST, str(port), "better than never"]
    client = subprocess.Popen(
        ["/bin/sh", "-c", UNTIL_SERVED, "sh", *arguments, str(failures)],
        stdout=subprocess.PIPE,
    )
    try:
        servers.wait_until(
            "failures without a server",
            lambda: failures.exists() and failures.read_text().count("failed\n") > 2,
        )
        with server_and_then_a_worker(name, port, "gearman", tmp_path):
            answer, _ = client.communicate(timeout=servers.WAIT_SECONDS)
    finally:
        servers.stop(client)
    assert answer == b"reven naht retteb"
