"""`trigear bench`: what it measures, what it leaves behind, and whom it asks."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from tests.cli.conftest import PATIENCE, TRIGEAR
from tests.plain import plain_worker, scripted_server
from trigear import ConnectionLost, connect_blocking
from trigear.cli import bench_load, bench_process
from trigear.cli.bench_load import Load, Window
from trigear.cli.bench_process import process_at
from trigear.cli.bench_report import Round, Sizing, document, lines
from trigear.cli.report import Failure, Status
from trigear.runtime.address import Address, parse_address
from trigear.wire import packets
from trigear.wire.codec import request, response

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.cli.conftest import Running, Said
    from tests.cli.talking import Terminal
    from tests.conftest import ForeignServer
    from tests.plain import Held

SHORT = ("--rounds", "2", "--seconds", "0.05", "--backlog", "500")
SCENARIOS = ["background", "drain", "foreground", "oneatatime"]


def functions(address: str) -> list[str]:
    """The functions that a server knows."""
    with connect_blocking(address, timeout=PATIENCE) as client:
        return client.admin("status")


# Measuring


def test_every_scenario_is_measured_and_nothing_is_left(
    server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("bench", *SHORT, "--json")
    assert (said.status, said.err) == (0, "")
    found = json.loads(said.out)
    assert (found["server"], found["size"], found["rounds"]) == (server, 64, 2)
    assert list(found["scenarios"]) == SCENARIOS
    for figures in found["scenarios"].values():
        rate = figures["jobs_per_second"]
        assert 0 < rate["low"] <= rate["median"] <= rate["high"]
        assert 0 < figures["p50_ms"] <= figures["p99_ms"]
        assert figures["jobs"] > 0
        assert figures["generator_share"] > 0
        # The server of this test does not say which process it is.
        assert figures["server_cpu_us_per_job"] is None
    assert functions(server) == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_one_scenario_is_measured_alone(
    server: str, trigear: Callable[..., Said], scenario: str
) -> None:
    options = ("--scenario", scenario, "--connections", "2", "--outstanding", "3", "--size", "0")
    said = trigear("bench", *SHORT, *options)
    assert said.status == 0
    first, second, _, heads, row, *_ = said.out.splitlines()
    assert first.startswith(f"server at {server}, ")
    assert second == "2 x 0.05 s, workloads of 0 bytes, 2 connections"
    assert "".join(heads.split()) == "jobs/slowesthighestp50msp99msserverµs/job"
    assert row.startswith("one at a time" if scenario == "oneatatime" else scenario)
    assert functions(server) == []


def test_workloads_larger_than_a_socket_takes_at_once_arrive(
    server: str, trigear: Callable[..., Said]
) -> None:
    options = ("--size", "3MiB", "--rounds", "1", "--seconds", "0.1", "--outstanding", "2")
    said = trigear("bench", *options, "--json")
    assert said.status == 0
    assert json.loads(said.out)["size"] == 3 << 20


def test_a_server_on_this_machine_is_measured_from_outside(
    start: Callable[..., Running], trigear: Callable[..., Said], tmp_path: Path
) -> None:
    state = ("--state-dir", str(tmp_path / "state"))
    running = start(*TRIGEAR, "server", "--port", "0", *state)
    options = ("--server", running.address, "--rounds", "1", "--seconds", "0.5")
    said = trigear("bench", *options, "--backlog", "10000", "--json")
    found = json.loads(said.out)
    assert found["pid"] == running.process.pid
    assert found["version"]
    for figures in found["scenarios"].values():
        assert figures["server_cpu_us_per_job"] >= 0
    # A record has a workload of 64 bytes, a handle of 30 and a function of 26.
    assert found["disk_bytes_per_million"] > 100_000_000
    assert found["memory_bytes_per_million"] > 100_000_000
    assert functions(running.address) == []


def test_other_servers_are_left_empty_as_well(
    gearmand_c: ForeignServer, trigear: Callable[..., Said]
) -> None:
    said = trigear("bench", *SHORT, "--server", gearmand_c.address, "--json")
    found = json.loads(said.out)
    assert list(found["scenarios"]) == SCENARIOS
    assert found["pid"] == gearmand_c.process.pid
    assert functions(gearmand_c.address) == []


def test_a_terminal_sees_how_far_it_is(server: str, terminal: Callable[..., Terminal]) -> None:
    there = terminal("bench", *SHORT)
    there.read_until("round 2: foreground")
    assert there.wait() == 0
    assert "one at a time" in there.seen


# Others


def test_a_server_with_jobs_of_others_is_not_loaded_without_asking(
    server: str, trigear: Callable[..., Said], terminal: Callable[..., Terminal]
) -> None:
    with connect_blocking(server, timeout=PATIENCE) as client:
        handle = client.submit_background("mail", b"")
        said = trigear("bench", *SHORT)
        assert said.status == Status.USAGE
        assert f"{server} has 1 job and 0 registrations of workers already" in said.line
        assert "say --yes" in said.line
        there = terminal("bench", *SHORT)
        there.read_until("Go on?")
        there.type("n\n")
        assert there.wait() == Status.NO
        assert "nothing was submitted" in there.seen
        assert trigear("bench", *SHORT, "--yes").status == 0
        assert client.status(handle).known
        assert client.admin("status") == ["mail\t1\t0\t0"]


def test_a_server_with_workers_of_others_is_not_loaded_without_asking(
    server: str, trigear: Callable[..., Said]
) -> None:
    def never(job: Held) -> None:
        raise AssertionError

    with plain_worker(server, mail=never):
        assert "1 registration of workers already" in trigear("bench", *SHORT).line


# Ends


@pytest.fixture
def running_bench(start: Callable[..., Running]) -> Iterator[tuple[Running, subprocess.Popen[str]]]:
    """A server, and a bench that fills its queue."""
    running = start(*TRIGEAR, "server", "--port", "0", "--store", "memory")
    options = ("--server", running.address, "--seconds", "60")
    process = subprocess.Popen(
        [*TRIGEAR, "bench", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    give_up = time.monotonic() + PATIENCE
    while not any(int(line.split("\t")[1]) for line in functions(running.address)):
        assert time.monotonic() < give_up
        assert process.poll() is None
    yield running, process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_bench_leaves_nothing(
    running_bench: tuple[Running, subprocess.Popen[str]], number: signal.Signals
) -> None:
    running, process = running_bench
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (Status.INTERRUPTED, "")
    assert err.endswith("trigear: error: interrupted\n")
    assert functions(running.address) == []


def test_a_server_that_dies_is_named_with_what_may_be_left(
    running_bench: tuple[Running, subprocess.Popen[str]],
) -> None:
    running, process = running_bench
    running.kill()
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == Status.NO_SERVER
    remark, error = err.splitlines()
    assert remark.startswith("trigear: jobs of 'trigear.bench.")
    assert "trigear admin drop-function trigear.bench." in remark
    assert running.address in error


def test_no_server_is_status_3(nowhere: str, trigear: Callable[..., Said]) -> None:
    said = trigear("bench")
    assert said.status == Status.NO_SERVER
    assert nowhere in said.line


def test_a_workload_that_no_server_takes_is_refused(
    server: str, trigear: Callable[..., Said]
) -> None:
    said = trigear("bench", "--size", "64MiB")
    assert said.status == Status.USAGE
    assert "a server may not take that" in said.line


# Servers that answer wrongly


def created(number: int) -> bytes:
    return response(packets.JOB_CREATED, b"H:%d" % number)


WRONG = [
    (b"OK\n", "sent text: is it a Gearman server?"),
    (b"\0BAD" + bytes(8), "sent bytes that are no packet"),
    (request(packets.ECHO_RES, b""), "sent packet 17 as a request"),
    (response(packets.NO_JOB), "sent packet 10, which nobody asked for"),
    (b"\0RES" + b"\0\0\0\x0d\xff\xff\xff\xff", "sent packet 13 of 4294967295 bytes"),
    (b"x" * 100_000, "sent a line without an end"),
    (response(packets.ERROR, b"QUEUE_ERROR", b"full"), "refused to go on: full (QUEUE_ERROR)"),
    (created(1) + created(2), "took a job that was not submitted"),
    (response(packets.WORK_COMPLETE, b"H:1", b"w"), "ended a job that is not there"),
    (response(packets.WORK_COMPLETE, b"H:1", b"x"), "returned another result than"),
    (response(packets.WORK_FAIL, b"H:1"), "let job H:1 fail, which no worker did"),
]


@pytest.mark.parametrize(("answer", "complaint"), WRONG, ids=[words for _, words in WRONG])
def test_a_wrong_answer_ends_it(answer: bytes, complaint: str) -> None:
    def script(link: socket.socket) -> None:
        link.recv(1000)
        # Whoever has read enough of it hangs up.
        with contextlib.suppress(ConnectionError):
            link.sendall(answer)
            link.recv(1)

    with scripted_server(script) as address:
        load = Load(parse_address(address), b"f", b"w")
        try:
            submitters = load.submitters(1, 1, background=False)
            with pytest.raises(Failure) as failed:
                load.submit(submitters, most=1, seconds=PATIENCE)
        finally:
            load.close()
    assert complaint in str(failed.value)


@pytest.mark.parametrize(
    ("job", "complaint"),
    [
        ((b"H:1", b"g", b"w"), "handed out another job than was submitted"),
        ((b"H:1", b"f", b"x"), "handed out another job than was submitted"),
        ((b"H:1",), "sent packet 11 with too few arguments"),
    ],
)
def test_a_job_that_nobody_submitted_ends_it(job: tuple[bytes, ...], complaint: str) -> None:
    def script(link: socket.socket) -> None:
        link.sendall(response(packets.ECHO_RES, b""))
        link.recv(1000)
        link.sendall(response(packets.JOB_ASSIGN, *job))
        while link.recv(1000):
            pass

    with scripted_server(script) as address:
        load = Load(parse_address(address), b"f", b"w")
        with pytest.raises(Failure, match=complaint):
            load.drain(load.doers(1, timed=True))
        load.close()


@pytest.mark.parametrize("polite", [True, False])
def test_a_server_that_hangs_up_ends_it(*, polite: bool) -> None:
    def script(link: socket.socket) -> None:
        if polite:
            link.recv(1000)
        # Else unread bytes reset the connection.

    with scripted_server(script) as address:
        load = Load(parse_address(address), b"f", b"w" * 1_000_000)
        submitters = load.submitters(1, 1, background=True)
        with pytest.raises(ConnectionLost, match=address):
            load.submit(submitters, most=1, seconds=PATIENCE)
        load.close()


def test_a_server_that_says_nothing_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_load, "PATIENCE", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
        load = Load(address, b"f", b"w")
        with pytest.raises(Failure, match=r"has not answered for 0\.05 s"):
            load.doers(1, timed=True)
        load.close()


def test_jobs_that_a_server_loses_are_noticed(
    server: str, trigear: Callable[..., Said], monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = Load.submit

    def exaggerated(self: Load, *args: object, **options: object) -> Window:
        window = submit(self, *args, **options)  # type: ignore[arg-type]
        window.jobs += 3
        return window

    monkeypatch.setattr(Load, "submit", exaggerated)
    said = trigear("bench", *SHORT)
    assert said.status == Status.NO
    assert f"{server} accepted 3 jobs more than it handed out" in said.line


# The server's process


def test_the_process_behind_a_unix_socket_is_known(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    place = f"unix:{tmp_path}/socket"
    running = start(*TRIGEAR, "server", "--listen", place, "--store", "memory")
    process = process_at(parse_address(place), None)
    assert process is not None
    assert process.pid == running.process.pid
    assert process.cpu_seconds() > 0
    assert process.memory() > 1 << 20
    assert process.disk() is None


def test_a_process_that_does_not_listen_there_is_not_the_servers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
        found = process_at(address, os.getpid())
        assert found is not None
        assert found.pid == os.getpid()
        with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
            assert process_at(address, other.pid) is None
            assert other.stdin is not None
            other.stdin.close()
        assert process_at(address, other.pid) is None  # not there any more
        for unknown in (None, 0):
            assert process_at(address, unknown) is None


def test_where_nobody_listens_there_is_no_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert process_at(Address(path=str(tmp_path / "nothing")), None) is None
    monkeypatch.setattr(bench_process, "PROC", tmp_path)  # as on a system without it
    assert process_at(Address("127.0.0.1", 4730), os.getpid()) is None


def test_disk_is_what_files_need_that_are_read_and_written(tmp_path: Path) -> None:
    process = bench_process.ServerProcess(os.getpid())
    before = process.disk() or 0
    with (
        (tmp_path / "store").open("w+b") as store,
        (tmp_path / "store").open("r+b"),
        (tmp_path / "log").open("ab") as log,
    ):
        for file in (store, log):
            file.write(b"x" * 1000)
            file.flush()
        assert process.disk() == before + 1000


# The report


def one_round(rate: float, *, share: float = 0.5, cpu: float | None = 0.01) -> Round:
    latencies = [(0.001, 989), (0.002, 1), (0.5, 10)]
    return Round(int(rate * 2), 2.0, 2 * share, cpu, latencies)


FACTS = {
    "server": "jobs.example:4730",
    "version": None,
    "pid": None,
    "size": 64,
    "connections": 4,
    "seconds": 2.0,
    "rounds": 3,
}


def test_a_scenario_is_told_by_medians_and_spread() -> None:
    rounds = {"drain": [one_round(1000.0), one_round(3000.0), one_round(2000.0)]}
    drain = document(FACTS, rounds, None)["scenarios"]["drain"]
    assert drain == {
        "jobs_per_second": {"median": 2000.0, "low": 1000.0, "high": 3000.0},
        "p50_ms": 1.0,
        "p99_ms": 2.0,
        "server_cpu_us_per_job": 2.5,
        "generator_share": 0.5,
        "jobs": 12000,
    }


def test_a_generator_that_was_the_limit_says_so() -> None:
    rounds = {"drain": [one_round(1000.0)], "oneatatime": [one_round(1000.0, share=0.97)]}
    notes = [line for line in lines(FACTS, rounds, None) if line.startswith("note: ")]
    assert notes == [
        "note: in one at a time this program was busy 97% of the time: the server can do more"
    ]


def test_a_server_elsewhere_has_no_processor_time() -> None:
    text = "\n".join(lines(FACTS, {"drain": [one_round(12345.0, cpu=None)]}, None))
    assert "server at jobs.example:4730, process not known" in text
    assert "12,345" in text
    assert "  -\n" in text
    assert "only for a server on this machine that we may look into" in text


@pytest.mark.parametrize(
    ("sizing", "words"),
    [
        (Sizing(50_000, 25 << 20, 10 << 20), "500 MiB of memory; 200 MiB of disk"),
        (Sizing(50_000, 25 << 20, None), "500 MiB of memory; no disk: they are not stored"),
        (Sizing(50_000, 0, -4096), "memory: no growth seen, there was room from before; disk: no"),
        (Sizing(4_999, 25 << 20, None), "4,999 jobs are too few to tell what a million need"),
    ],
)
def test_what_a_million_jobs_need_is_told_as_far_as_it_is_known(sizing: Sizing, words: str) -> None:
    facts = {**FACTS, "version": "0.1.0", "pid": 7}
    text = "\n".join(lines(facts, {"drain": [one_round(1000.0)]}, sizing))
    assert "version 0.1.0, process 7 of this machine" in text
    assert words in text
    found = document(facts, {}, sizing)
    assert found["memory_bytes_per_million"] == (500 << 20 if "500 MiB" in words else None)
    assert found["disk_bytes_per_million"] == (200 << 20 if "200 MiB" in words else None)


def test_a_round_in_which_nothing_was_answered_took_no_time_per_job() -> None:
    nothing = Round(0, 1.0)
    assert nothing.percentile(0.5) == 0.0
    assert nothing.cost is None
