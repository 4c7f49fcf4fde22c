"""The client without Trio, against a real server, and against servers that misbehave."""

from __future__ import annotations

import contextlib
import datetime
import re
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from tests.plain import Held, plain_worker, scripted_server, server_in_thread
from trigear import connect_blocking
from trigear.errors import (
    ConfigError,
    ConnectionLost,
    JobFailed,
    JobLost,
    JobRaised,
    LocalProtocolError,
    Refused,
    RemoteProtocolError,
)
from trigear.model import Priority
from trigear.protocol.events import Data, Status, Warning
from trigear.runtime.values import JobStatus, epoch_of
from trigear.wire import packets
from trigear.wire.codec import response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trigear import BlockingClient

PATIENCE = 20.0


@pytest.fixture
def server() -> Iterator[str]:
    with server_in_thread() as (address,):
        yield address


@pytest.fixture
def client(server: str) -> Iterator[BlockingClient]:
    with connect_blocking(server, timeout=PATIENCE) as client:
        yield client


def reverse(job: Held) -> None:
    job.complete(job.workload[::-1])


# Jobs


def test_submit_returns_what_the_job_sent_and_completed_with(
    server: str, client: BlockingClient
) -> None:
    def speak(job: Held) -> None:
        job.data(b"one ")
        job.status(1, 2)
        job.data(b"two ")
        job.complete(b"three")

    with plain_worker(server, speak=speak):
        assert client.submit("speak", b"") == b"one two three"


def test_large_workloads_go_there_and_back(server: str, client: BlockingClient) -> None:
    large = bytes(range(256)) * 30_000
    with plain_worker(server, reverse=reverse):
        assert client.submit(b"reverse", large) == large[::-1]


def test_many_large_jobs_at_once_do_not_stop_each_other(
    server: str, client: BlockingClient
) -> None:
    """The server stops reading a client that does not read; so the client reads while it sends."""
    large = bytes(1_000_000)
    with plain_worker(server, reverse=reverse):
        jobs = [client.job("reverse", large) for _ in range(12)]
        assert [job.result() for job in jobs] == [large] * 12


def test_job_that_failed_raises(server: str, client: BlockingClient) -> None:
    with plain_worker(server, bad=Held.fail), pytest.raises(JobFailed) as caught:
        client.submit("bad", b"")
    assert caught.value.handle.startswith(b"H:")


def test_job_that_raised_brings_along_what_its_worker_said(
    server: str, client: BlockingClient
) -> None:
    with (
        plain_worker(server, bad=lambda job: job.exception(b"out of paper")),
        pytest.raises(JobRaised) as caught,
    ):
        client.submit("bad", b"")
    assert caught.value.data == b"out of paper"


def test_iterating_over_a_job_gives_its_updates_and_then_its_result(
    server: str, client: BlockingClient
) -> None:
    read = threading.Event()

    def speak(job: Held) -> None:
        job.status(1, 4)
        assert read.wait(PATIENCE)
        job.warning(b"hot")
        job.data(b"a")
        job.complete(b"b")

    with plain_worker(server, speak=speak):
        job = client.job("speak", b"")
        first = next(job)
        assert isinstance(first, Status)
        assert (first.numerator, first.denominator) == (1, 4)
        read.set()
        warned, said = job
        assert isinstance(warned, Warning)
        assert isinstance(said, Data)
        assert (warned.data, said.data) == (b"hot", b"a")
        assert job.done
        assert job.result() == b"ab"
        assert list(job) == []


def test_reader_that_is_behind_gets_the_newest_status_only(
    server: str, client: BlockingClient
) -> None:
    def count(job: Held) -> None:
        for step in range(100):
            job.status(step, 99)
        job.complete()

    with plain_worker(server, count=count):
        job = client.job("count", b"")
        job.result()
        (last,) = job.arrived()
        assert isinstance(last, Status)
        assert last.numerator == 99
        assert job.arrived() == []


def test_data_need_not_be_kept_twice(server: str, client: BlockingClient) -> None:
    def speak(job: Held) -> None:
        job.data(b"on the way")
        job.complete(b"at the end")

    with plain_worker(server, speak=speak):
        job = client.job("speak", b"", keep=False)
        assert [update.data for update in job if isinstance(update, Data)] == [b"on the way"]
        assert job.result() == b"at the end"


def test_jobs_of_one_client_run_at_the_same_time(server: str, client: BlockingClient) -> None:
    together = threading.Barrier(3)

    def meet(job: Held) -> None:
        together.wait(PATIENCE)
        job.complete(job.workload)

    with (
        plain_worker(server, meet=meet),
        plain_worker(server, meet=meet),
        plain_worker(server, meet=meet),
    ):
        jobs = [client.job("meet", b"%d" % number) for number in range(3)]
        assert [job.result() for job in jobs] == [b"0", b"1", b"2"]


def test_submissions_with_one_unique_become_one_job(server: str, client: BlockingClient) -> None:
    runs = []

    def count(job: Held) -> None:
        runs.append(job.workload)
        job.complete(b"once")

    jobs = [client.job("count", b"%d" % number, unique="order-17") for number in range(3)]
    assert len({job.handle for job in jobs}) == 1
    with plain_worker(server, count=count):
        assert [job.result() for job in jobs] == [b"once"] * 3
    assert runs == [b"0"]


def test_jobs_of_higher_priority_are_taken_first(server: str, client: BlockingClient) -> None:
    order: list[bytes] = []

    def note(job: Held) -> None:
        order.append(job.workload)
        job.complete()

    client.submit_background("note", b"low", priority=Priority.LOW)
    client.submit_background("note", b"normal")
    last = client.job("note", b"last", priority=Priority.LOW)
    client.submit_background("note", b"high", priority="high")
    with plain_worker(server, note=note):
        last.result()
    assert order == [b"high", b"normal", b"low", b"last"]


def test_background_job_is_known_by_its_handle_and_by_its_unique(client: BlockingClient) -> None:
    handle = client.submit_background("mail", b"", unique="order-17")
    assert client.status(handle) == JobStatus(True, False, 0, 0)
    assert client.status(handle.decode()) == JobStatus(True, False, 0, 0)
    assert client.status_of_unique("order-17") == JobStatus(True, False, 0, 0, clients=0)
    assert client.status("H:nobody:1") == JobStatus(False, False, 0, 0)
    assert not client.status_of_unique("nobody").known


@pytest.mark.parametrize("given", ["at", "moment", "delay"])
def test_job_with_a_time_waits_for_it(server: str, client: BlockingClient, given: str) -> None:
    when: dict[str, object] = {
        "at": {"at": time.time() + 3600},
        "moment": {"at": datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)},
        "delay": {"delay": 3600},
    }
    handle = client.submit_background("reverse", b"", **when[given])  # type: ignore[arg-type]
    with plain_worker(server, reverse=reverse):
        assert client.submit("reverse", b"abc") == b"cba"
        assert client.status(handle) == JobStatus(True, False, 0, 0)


def test_time_is_rounded_up_to_whole_seconds() -> None:
    berlin = datetime.timezone(datetime.timedelta(hours=1))
    assert epoch_of(datetime.datetime(2026, 11, 23, 9, 0, 0, 1, tzinfo=berlin), None) == 1795420801
    assert epoch_of(10.5, None) == 11
    assert epoch_of(None, None) is None


@pytest.mark.parametrize(
    ("when", "says"),
    [
        ({"at": 1, "delay": 1}, "leave one out"),
        ({"at": datetime.datetime(2026, 1, 1)}, "no time zone"),
        ({"at": -1}, "no time after 1970"),
        ({"at": float("nan")}, "no time after 1970"),
        ({"delay": -5}, "from now"),
        ({"delay": 5, "priority": "high"}, "always has normal priority"),
    ],
)
def test_time_that_is_none_is_refused_before_anything_is_sent(
    client: BlockingClient, when: dict[str, object], says: str
) -> None:
    with pytest.raises(LocalProtocolError, match=says):
        client.submit_background("f", b"", **when)  # type: ignore[arg-type]
    assert client.admin("status") == []


# Questions


def test_echo_brings_back_the_same_bytes(client: BlockingClient) -> None:
    assert client.echo(b"\0 and so on") == b"\0 and so on"


def test_text_commands_are_answered_by_lines(client: BlockingClient) -> None:
    client.submit_background("mail", b"")
    assert client.admin("status") == ["mail\t1\t0\t0"]
    assert client.admin("create function other") == ["OK"]
    with pytest.raises(Refused) as caught:
        client.admin("cancel job H:nobody:1")
    assert caught.value.code == "UNKNOWN_JOB"


def test_client_has_its_name_in_the_list_of_connections(server: str) -> None:
    with connect_blocking(server, timeout=PATIENCE, client_id="nightly") as client:
        assert client.admin("workers")[0].endswith(" nightly :")


# What callers do wrong


def test_text_as_workload_is_refused_with_the_remedy(client: BlockingClient) -> None:
    with pytest.raises(TypeError, match="encode it first"):
        client.submit("f", "text")  # type: ignore[arg-type]


def test_name_that_cannot_be_sent_is_refused(client: BlockingClient) -> None:
    with pytest.raises(LocalProtocolError, match="NUL"):
        client.submit("f\0", b"")


def test_priority_that_is_none_is_refused(client: BlockingClient) -> None:
    with pytest.raises(ValueError, match="high, normal or low"):
        client.submit("f", b"", priority="urgent")  # type: ignore[arg-type]


def test_job_that_the_server_refuses(client: BlockingClient) -> None:
    client.submit_background("f", b"")
    client.admin("maxqueue f 1")
    with pytest.raises(Refused, match="queue is full"):
        client.submit("f", b"")
    assert client.echo(b"still here") == b"still here"


def test_closed_client_says_so(server: str) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        job = client.job("f", b"")
    client.close()
    with pytest.raises(LocalProtocolError, match="closed: connect again"):
        client.submit("f", b"")
    with pytest.raises(LocalProtocolError, match="closed: connect again"):
        job.result()


def test_two_threads_with_one_client_are_told_apart(server: str, client: BlockingClient) -> None:
    job = client.job("slow", b"")
    thread = threading.Thread(target=job.result)
    thread.start()
    # Whether the other thread waits already can be seen in nothing but the refusal itself.
    while True:
        try:
            client.echo(b"")
        except LocalProtocolError as error:
            assert "connect once in each thread" in str(error)  # noqa: PT017
            break
    with plain_worker(server, slow=Held.complete):
        thread.join(PATIENCE)
    assert not thread.is_alive()


# Time limits


def test_submit_that_runs_out_of_time_leaves_the_connection_usable(
    server: str, client: BlockingClient
) -> None:
    client.timeout = 0.05
    with pytest.raises(TimeoutError, match=f"in time: {server}"):
        client.submit("reverse", b"first")
    client.timeout = PATIENCE
    with plain_worker(server, reverse=reverse):
        assert client.submit("reverse", b"second") == b"dnoces"


def test_job_goes_on_after_a_wait_that_ran_out_of_time(server: str, client: BlockingClient) -> None:
    job = client.job("reverse", b"abc")
    client.timeout = 0
    with pytest.raises(TimeoutError):
        job.result()
    with pytest.raises(TimeoutError):
        next(job)
    with pytest.raises(TimeoutError):
        client.wait()
    client.timeout = None
    with plain_worker(server, reverse=reverse):
        assert job.result() == b"cba"
        client.timeout = float("inf")
        assert client.submit("reverse", b"xyz") == b"zyx"


def test_flood_of_updates_does_not_put_off_the_time_limit(
    server: str, client: BlockingClient
) -> None:
    enough = threading.Event()

    def flood(job: Held) -> None:
        while not enough.is_set():
            job.status(1, 2)
        job.complete()

    with plain_worker(server, flood=flood):
        job = client.job("flood", b"")
        client.timeout = 0.05
        with pytest.raises(TimeoutError):
            job.result()
        enough.set()
        client.timeout = PATIENCE
        assert job.result() == b""


def test_forgotten_job_is_heard_of_no_more(server: str, client: BlockingClient) -> None:
    job = client.job("speak", b"")
    job.forget()
    job.forget()
    with plain_worker(server, speak=lambda held: held.complete(b"unheard")):
        assert client.submit("speak", b"") == b"unheard"
    assert not job.done


def test_job_that_was_forgotten_before_it_began_is_dropped(client: BlockingClient) -> None:
    job = client.job("f", b"")
    assert client.status(job.handle).known
    job.forget()
    assert not client.status(job.handle).known


def test_submit_that_runs_out_of_time_drops_a_job_that_has_not_begun(
    client: BlockingClient,
) -> None:
    client.echo(b"")  # the server has agreed to extended mode
    client.timeout = 0.05
    with pytest.raises(TimeoutError):
        client.submit("f", b"")
    client.timeout = PATIENCE
    assert client.admin("show jobs") == []


# Connections


def test_first_server_that_answers_is_taken(server: str) -> None:
    with connect_blocking(["127.0.0.1:1", server, "127.0.0.1:2"], timeout=PATIENCE) as client:
        assert str(client.address) == server


def test_no_server_at_all_names_each_and_why() -> None:
    with pytest.raises(ConnectionLost) as caught:
        connect_blocking(["127.0.0.1:1", "gearman://[::1]:1"], timeout=PATIENCE)
    assert re.fullmatch(
        r"none of 2 servers can be reached: (no connection to \S+:1: .+; is a server .+){2}",
        str(caught.value),
    )
    assert isinstance(caught.value.__cause__, OSError)


def test_host_that_does_not_exist_is_said_in_the_systems_words() -> None:
    with pytest.raises(ConnectionLost, match=r"no connection to nowhere\.invalid:4730: \w+"):
        connect_blocking("nowhere.invalid", timeout=PATIENCE)
    with pytest.raises(ConnectionLost, match="cannot be the name of a host"):
        connect_blocking("a" * 64 + ".invalid", timeout=PATIENCE)


@pytest.mark.parametrize("wrong", ["localhost:port", "http://localhost", "", []])
def test_address_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ConfigError):
        connect_blocking(wrong)


def test_client_id_of_two_words_is_refused(server: str) -> None:
    with pytest.raises(LocalProtocolError, match="without blanks"):
        connect_blocking(server, client_id="two words")


def test_unix_sockets_do_as_well(tmp_path: Path) -> None:
    with (
        server_in_thread(f"unix:{tmp_path}/x") as (address,),
        connect_blocking(address, timeout=PATIENCE) as client,
    ):
        assert client.echo(b"x") == b"x"
    with pytest.raises(ConnectionLost, match="No such file"):
        connect_blocking(f"unix:{tmp_path}/absent")


def test_server_that_never_accepts_is_given_up_in_time() -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fill = [socket.socket() for _ in range(4)]
        for one in fill:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        try:
            with pytest.raises(ConnectionLost, match="no answer in time"):
                connect_blocking(f"127.0.0.1:{deaf.getsockname()[1]}", timeout=0.05)
        finally:
            for one in fill:
                one.close()


def test_server_that_goes_away_loses_the_jobs_under_way() -> None:
    with server_in_thread() as (address,):
        client = connect_blocking(address, timeout=PATIENCE, patience=0)
        job = client.job("f", b"")
    with pytest.raises(JobLost) as caught:
        job.result()
    assert caught.value.handle == job.handle
    assert isinstance(caught.value.__cause__, ConnectionLost)
    assert list(job) == []
    for _ in range(2):
        with pytest.raises(ConnectionLost, match=r"closed the|broke|no connection to") as refused:
            client.submit("f", b"")
        assert not refused.value.in_doubt
    client.close()


def test_server_that_hangs_up_before_it_has_the_job_is_a_lost_connection() -> None:
    with (
        scripted_server(lambda link: link.recv(10_000)) as address,
        connect_blocking(address, timeout=PATIENCE) as client,
        pytest.raises(ConnectionLost, match=address) as caught,
    ):
        client.submit("f", b"")
    assert caught.value.in_doubt


def test_server_that_stops_in_the_middle_of_a_packet() -> None:
    def cut(link: socket.socket) -> None:
        link.recv(10_000)
        link.sendall(response(packets.OPTION_RES, b"exceptions")[:15])
        link.shutdown(socket.SHUT_WR)
        link.recv(10_000)

    with (
        scripted_server(cut) as address,
        connect_blocking(address, timeout=PATIENCE) as client,
        pytest.raises(ConnectionLost, match="in the middle of a packet"),
    ):
        client.echo(b"")


def test_server_that_speaks_another_protocol_is_said_what_it_sent() -> None:
    def speak_http(link: socket.socket) -> None:
        link.recv(10_000)
        link.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    with (
        scripted_server(speak_http) as address,
        connect_blocking(address, timeout=PATIENCE) as client,
        pytest.raises(ConnectionLost, match=r"broke the protocol: .*HTTP/1\.1 400") as caught,
    ):
        client.echo(b"")
    assert isinstance(caught.value.__cause__, RemoteProtocolError)


def test_server_without_the_option_is_a_server_all_the_same() -> None:
    def old(link: socket.socket) -> None:
        link.recv(10_000)
        link.sendall(response(packets.ERROR, b"UNKNOWN_OPTION", b"no") * 2)
        link.sendall(response(packets.ECHO_RES, b"hello"))
        link.recv(1)

    with scripted_server(old) as address, connect_blocking(address, timeout=PATIENCE) as client:
        assert client.echo(b"hello") == b"hello"


def test_last_words_of_a_server_are_heard_although_it_reads_no_more() -> None:
    """The workload cannot be sent to its end; why not is in the ERROR that came before."""

    def refuse(link: socket.socket) -> None:
        link.recv(100)
        link.sendall(response(packets.OPTION_RES, b"exceptions") * 2)
        link.sendall(response(packets.ERROR, b"DATA_TOO_LARGE", b"too large"))
        link.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(ConnectionResetError):
            while link.recv(1 << 20):
                pass

    with (
        scripted_server(refuse) as address,
        connect_blocking(address, timeout=PATIENCE) as client,
        pytest.raises((Refused, ConnectionLost)) as caught,
    ):
        client.submit("f", bytes(20_000_000))
    assert caught.type is Refused


# What it costs


def test_neither_trio_nor_ssl_nor_rich_is_loaded(server: str) -> None:
    code = (
        "import sys, trigear\n"
        f"with trigear.connect_blocking({server!r}, timeout={PATIENCE}) as client:\n"
        "    client.submit_background('f', b'')\n"
        "print({name.partition('.')[0] for name in sys.modules} & {'trio', 'ssl', 'rich'})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
