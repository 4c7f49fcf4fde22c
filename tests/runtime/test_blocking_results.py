"""What became of a job, asked without Trio."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.plain import Held, plain_worker, scripted_server
from trigear import Result, connect_blocking
from trigear.engine.config import EngineConfig, FunctionSettings, ServerConfig
from trigear.errors import ConnectionLost, LocalProtocolError
from trigear.testing import open_server_in_thread
from trigear.wire import packets
from trigear.wire.codec import response

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from trigear import BlockingClient

PATIENCE = 20.0
KEEPING = EngineConfig(functions={b"f": FunctionSettings(keep_results=3600.0)})


@pytest.fixture
def server() -> Iterator[str]:
    config = ServerConfig(KEEPING, listen=("127.0.0.1",), port=0)
    with open_server_in_thread(config) as server:
        yield server.addresses[0]


@pytest.fixture
def client(server: str) -> Iterator[BlockingClient]:
    with connect_blocking(server, timeout=PATIENCE) as client:
        yield client


def test_a_job_is_followed_to_its_end(server: str, client: BlockingClient) -> None:
    begun, release = threading.Event(), threading.Event()

    def reverse(job: Held) -> None:
        begun.set()
        assert release.wait(PATIENCE)
        job.complete(job.workload[::-1])

    handle = client.submit_background("f", b"abc")
    assert client.result(handle) == Result(handle, "queued", 0, None, None)
    with plain_worker(server, f=reverse):
        assert begun.wait(PATIENCE)
        assert client.result(handle.decode()) == Result(handle, "running", 1, None, None)
        timer = threading.Timer(0.2, release.set)
        timer.start()
        result = client.result(handle, wait=True)
        timer.join()
    assert (result.state, result.attempts, result.data) == ("done", 1, b"cba")
    assert client.result(handle) == result


def test_a_job_that_nobody_knows_is_not_waited_for(client: BlockingClient) -> None:
    assert client.result("H:nobody:1", wait=True).known is False


def test_what_arrives_for_others_is_taken_in_while_one_waits(
    server: str, client: BlockingClient
) -> None:
    release = threading.Event()

    def work(job: Held) -> None:
        if job.workload == b"last":
            assert release.wait(PATIENCE)
        job.complete(b"done")

    handle = client.submit_background("f", b"last", priority="low")
    other = client.job("f", b"first", priority="high")
    timer = threading.Timer(0.2, release.set)
    with plain_worker(server, f=work):
        timer.start()
        client.result(handle, wait=True)
        timer.join()
    assert other.done
    assert other.result() == b"done"


def test_a_job_that_does_not_end_is_not_waited_for_any_longer(client: BlockingClient) -> None:
    handle = client.submit_background("f", b"abc")
    client.timeout = 0.3
    with pytest.raises(TimeoutError, match=f"job {handle.decode()} did not end in time"):
        client.result(handle, wait=True)
    client.timeout = PATIENCE
    assert client.result(handle).state == "queued"


def test_a_server_that_is_not_trigear_cannot_be_asked() -> None:
    def refuses(link: socket.socket) -> None:
        stream = link.makefile("rb")
        for reply in (
            response(packets.OPTION_RES, b"exceptions"),
            response(packets.ERROR, b"UNKNOWN_OPTION", b"what?"),
            response(packets.ECHO_RES, b""),
        ):
            head = stream.read(12)
            stream.read(int.from_bytes(head[8:]))
            link.sendall(reply)
        stream.close()

    with (
        scripted_server(refuses) as address,
        connect_blocking(address, timeout=PATIENCE) as client,
        pytest.raises(LocalProtocolError, match="does not speak trigear's extended mode"),
    ):
        client.result("H:x:1")


def test_a_server_that_goes_away_is_no_end_of_the_job(server: str) -> None:
    def hangs_up(link: socket.socket) -> None:
        stream = link.makefile("rb")
        for reply in (
            response(packets.OPTION_RES, b"exceptions"),
            response(packets.OPTION_RES, b"trigear"),
            response(packets.ECHO_RES, b""),
            response(packets.RESULT, b"H:x:1", b"queued", b"0", b"0", b"0", b""),
        ):
            head = stream.read(12)
            stream.read(int.from_bytes(head[8:]))
            link.sendall(reply)
        stream.close()

    with (
        scripted_server(hangs_up) as address,
        connect_blocking(address, timeout=PATIENCE) as client,
        pytest.raises(ConnectionLost),
    ):
        client.result("H:x:1", wait=True)
