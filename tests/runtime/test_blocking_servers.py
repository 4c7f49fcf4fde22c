"""The client without Trio when servers go and come, and when there are several."""

from __future__ import annotations

import contextlib
import random
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.conftest import free_port
from tests.plain import Held, plain_worker, scripted_server, server_in_thread
from trigear import connect_blocking
from trigear.errors import ConfigError, ConnectionLost, JobLost, LocalProtocolError
from trigear.protocol.choice import home_of
from trigear.wire import packets
from trigear.wire.codec import response

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATIENCE = 30.0


class Server:
    """`trigear server` as a process that is killed and started again at the same place."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "trigear", "server", "--port", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "--state-dir", str(self.folder)], stderr=subprocess.PIPE, text=True
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if "listening on" in line:
                return
        pytest.fail("the server does not start")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()


@pytest.fixture
def two() -> Iterator[tuple[str, str]]:
    """Two servers, in the order of a client's list."""
    with server_in_thread() as (first,), server_in_thread() as (second,):
        yield first, second


def upper(job: Held) -> None:
    job.complete(job.workload.upper())


def unique_for(home: int) -> str:
    """A unique that belongs to this one of two servers."""
    return next(str(n) for n in range(100) if home_of(str(n).encode(), b"", 2) == home)


def jobs_at(address: str) -> int:
    with connect_blocking(address, timeout=PATIENCE) as client:
        return len(client.admin("show jobs"))


# A restart


def test_next_call_connects_again(server: Server) -> None:
    with connect_blocking(server.address, timeout=PATIENCE, client_id="me") as client:
        assert client.echo(b"before") == b"before"
        server.kill()
        server.start()
        assert client.echo(b"after") == b"after"
        assert any(" me :" in line for line in client.admin("workers"))


def test_job_under_way_is_lost_and_not_submitted_again(server: Server) -> None:
    with connect_blocking(server.address, timeout=PATIENCE) as client:
        job = client.job("f", b"")
        server.kill()
        server.start()
        with pytest.raises(JobLost) as caught:
            job.result()
        assert caught.value.handle == job.handle
        assert isinstance(caught.value.__cause__, ConnectionLost)
        assert client.admin("show jobs") == []
        job.forget()  # nobody is told
        assert client.status(job.handle).known is False


def test_background_job_survives_and_the_client_finds_it_again(server: Server) -> None:
    with connect_blocking(server.address, timeout=PATIENCE) as client:
        handle = client.submit_background("f", b"")
        server.kill()
        server.start()
        assert client.status(handle).known


def test_job_with_a_unique_is_submitted_again_on_demand(server: Server) -> None:
    submitted = threading.Event()
    results: list[bytes] = []

    def submit() -> None:
        with connect_blocking(server.address, timeout=PATIENCE) as client:
            submitted.set()
            results.append(client.submit("upper", b"a", unique="-", resubmit=True))

    thread = threading.Thread(target=submit)
    thread.start()
    try:
        assert submitted.wait(PATIENCE)
        with connect_blocking(server.address, timeout=PATIENCE) as client:
            while not client.admin("show jobs"):
                pass
        server.kill()
        server.start()
        with plain_worker(server.address, upper=upper):
            thread.join(PATIENCE)
    finally:
        thread.join(PATIENCE)
    assert results == [b"A"]


def test_call_waits_for_a_server_that_comes_back(server: Server) -> None:
    with connect_blocking(server.address, timeout=PATIENCE) as client:
        server.kill()
        starting = threading.Timer(0.3, server.start)
        starting.start()
        assert client.echo(b"x") == b"x"
        starting.join()


def test_patience_ends(server: Server) -> None:
    with connect_blocking(server.address, timeout=PATIENCE, patience=0.2) as client:
        server.kill()
        with pytest.raises(ConnectionLost, match=r"no connection to .*is a server") as gone:
            client.echo(b"x")
        assert not gone.value.in_doubt
        with pytest.raises(ConnectionLost):
            client.wait()


def test_time_of_a_call_ends_its_waiting_for_a_server(server: Server) -> None:
    with connect_blocking(server.address, timeout=0.3, patience=1e9) as client:
        server.kill()
        with pytest.raises(ConnectionLost):
            client.submit("f", b"", unique="u", resubmit=True)


def test_without_patience_a_broken_connection_is_said_at_once(server: Server) -> None:
    with connect_blocking(server.address, timeout=PATIENCE, patience=0) as client:
        server.kill()
        with pytest.raises(ConnectionLost):
            client.submit_background("f", b"", unique="u", resubmit=True)


@pytest.mark.parametrize("patience", [-1, float("nan")])
def test_patience_that_is_none_is_refused(patience: float) -> None:
    with pytest.raises(ValueError, match="patience="):
        connect_blocking("127.0.0.1:1", patience=patience)


# Twice


GREETED = response(packets.OPTION_RES, b"exceptions") + response(packets.OPTION_RES, b"trigear")


def hang_up_after(*numbers: int) -> Callable[[socket.socket], None]:
    """Read requests until the last of these types has come, then hang up."""

    def serve(link: socket.socket) -> None:
        read_until(link, numbers[-1])

    return serve


def read_until(link: socket.socket, number: int) -> list[int]:
    """The types of the packets that come, up to one of this type or the end."""
    seen = []
    with link.makefile("rb") as stream:
        while len(header := stream.read(12)) == 12:
            stream.read(int.from_bytes(header[8:12]))
            seen.append(int.from_bytes(header[4:8]))
            if seen[-1] == number:
                break
    return seen


@pytest.mark.parametrize("unique", ["", "u"])
def test_nothing_is_submitted_twice_on_its_own(unique: str) -> None:
    seen: list[int] = []

    def answer(link: socket.socket) -> None:
        seen.extend(read_until(link, packets.ECHO_REQ))
        link.sendall(GREETED + response(packets.ECHO_RES, b""))
        link.recv(100)

    scripts = hang_up_after(packets.SUBMIT_JOB_BG), answer
    with scripted_server(*scripts) as address, connect_blocking(address, timeout=20) as client:
        with pytest.raises(ConnectionLost, match="whether the server has the job") as caught:
            client.submit_background("f", b"", unique=unique)
        assert caught.value.in_doubt
        assert client.echo(b"") == b""
    assert packets.SUBMIT_JOB_BG not in seen


def test_background_job_whose_reply_was_lost_is_submitted_again_on_demand() -> None:
    def answer(link: socket.socket) -> None:
        read_until(link, packets.SUBMIT_JOB_BG)
        link.sendall(GREETED + response(packets.JOB_CREATED, b"H:2"))
        link.recv(100)

    scripts = hang_up_after(packets.SUBMIT_JOB_BG), answer
    with scripted_server(*scripts) as address, connect_blocking(address, timeout=20) as client:
        assert client.submit_background("f", b"", unique="u", resubmit=True) == b"H:2"


@pytest.mark.parametrize("unique", [b"", "-"])
def test_submitting_again_needs_a_unique(unique: str, two: tuple[str, str]) -> None:
    with connect_blocking(two, timeout=PATIENCE) as client:
        for submit in (client.submit, client.submit_background):
            with pytest.raises(ValueError, match="resubmit=True needs a unique"):
                submit("f", b"", unique=unique, resubmit=True)


# Several servers


@pytest.mark.parametrize("home", [0, 1])
def test_unique_goes_to_its_home(home: int, two: tuple[str, str]) -> None:
    with connect_blocking(two, timeout=PATIENCE) as client:
        client.submit_background("f", b"", unique=unique_for(home))
        assert str(client.address) == two[home]
    assert [jobs_at(address) for address in two] == [1 - home, home]


@pytest.mark.parametrize("seed", [1, 2])
def test_what_has_no_unique_goes_to_the_server_drawn_by_lot(
    seed: int, two: tuple[str, str]
) -> None:
    with connect_blocking(two, timeout=PATIENCE, rng=random.Random(seed)) as client:
        for _ in range(3):
            client.submit_background("f", b"")
    drawn = int(random.Random(seed).random() * 2)
    assert jobs_at(two[drawn]) == 3


def test_next_server_in_the_list_stands_in_until_the_home_is_back() -> None:
    port = free_port()
    with server_in_thread() as (other,):
        addresses = f"127.0.0.1:{port}", other
        with connect_blocking(addresses, timeout=PATIENCE) as client:
            client.submit_background("f", b"", unique=unique_for(0))
            assert str(client.address) == other
            with server_in_thread(f"gearman://{addresses[0]}"):
                while str(client.address) == other:  # until its next attempt is due
                    client.submit_background("f", b"", unique=unique_for(0))
            # Gone again: what was there was in memory, and the next call goes elsewhere.
            client.submit_background("f", b"", unique=unique_for(0))
            assert str(client.address) == other
        assert jobs_at(other) == 1


def test_jobs_at_several_servers_are_heard_of_at_once(two: tuple[str, str]) -> None:
    release = threading.Event()

    def hold(job: Held) -> None:
        assert release.wait(PATIENCE)
        job.complete(b"held")

    with (
        plain_worker(two[0], f=hold),
        plain_worker(two[1], f=upper),
        connect_blocking(two, timeout=PATIENCE) as client,
    ):
        slow = client.job("f", b"a", unique=unique_for(0))
        quick = client.job("f", b"b", unique=unique_for(1))
        while not quick.done:
            client.wait()
        assert not slow.done
        release.set()
        assert (slow.result(), quick.result()) == (b"held", b"B")


def test_job_is_looked_for_at_every_server(two: tuple[str, str]) -> None:
    with connect_blocking(two[1], timeout=PATIENCE) as client:
        handle = client.submit_background("f", b"", unique=unique_for(0))
    with connect_blocking(two, timeout=PATIENCE) as client:
        assert client.status(handle).known
        assert client.status_of_unique(unique_for(0)).known
        assert client.result(handle).state == "queued"
        assert not client.status(b"H:nobody:1").known
        assert not client.result(b"H:nobody:1").known


def test_server_that_is_down_may_know_the_job(two: tuple[str, str]) -> None:
    servers = "127.0.0.1:1", two[0]
    with connect_blocking(servers, timeout=PATIENCE) as client:
        for ask in (client.status, client.result):
            with pytest.raises(ConnectionLost, match="the others do not know the job"):
                ask(b"H:nobody:1")


def test_server_that_broke_down_is_passed_over_while_another_is_up() -> None:
    with contextlib.ExitStack() as stack:
        (first,) = stack.enter_context(server_in_thread())
        with server_in_thread() as (second,):
            client = stack.enter_context(connect_blocking([first, second], timeout=PATIENCE))
            client.submit_background("f", b"", unique=unique_for(1))
        for _ in range(20):
            client.submit_background("f", b"", unique=unique_for(1))
            assert str(client.address) == first


def test_all_that_are_down_are_named(two: tuple[str, str]) -> None:
    with pytest.raises(ConnectionLost, match=r"none of 2 servers.*127\.0\.0\.1:1.*127\.0\.0\.1:2"):
        connect_blocking(["127.0.0.1:1", "127.0.0.1:2"], timeout=PATIENCE)


def test_no_server_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="there is none"):
        connect_blocking([])


def test_closed_client_asks_nobody(two: tuple[str, str]) -> None:
    client = connect_blocking(two, timeout=PATIENCE)
    job = client.job("f", b"")
    client.close()
    client.close()
    for call in (lambda: client.status(b"H"), client.wait, job.result):
        with pytest.raises(LocalProtocolError, match="this client is closed"):
            call()
    job.forget()


def test_a_job_that_is_waited_for_is_lost_when_no_server_is_left(server: Server) -> None:
    """Waiting for its end, again and again, ends with the connection."""
    with connect_blocking(server.address, timeout=PATIENCE, patience=0) as client:
        handle = client.submit_background("f", b"")
        killing = threading.Timer(0.2, server.kill)
        killing.start()
        with pytest.raises(ConnectionLost):
            client.result(handle, wait=True)
        killing.join()
