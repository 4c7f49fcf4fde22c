"""The load generator against servers that do everything right, and that do one thing wrong.

Its verdict on a server is worth something only if it notices.
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import database
from benchmarks.generator import (
    Generator,
    GeneratorError,
    Load,
    build,
    build_slow_sync,
    find_compiler,
)
from benchmarks.servers import PEERS, Server
from tests.conftest import install
from tests.postgres import needed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import PeerTools

CAN_DO, PRE_SLEEP, NOOP, SUBMIT_JOB, JOB_CREATED, GRAB_JOB, NO_JOB = 1, 4, 6, 7, 8, 9, 10
JOB_ASSIGN, WORK_COMPLETE, ECHO_REQ, ECHO_RES, SUBMIT_JOB_BG, ERROR = 11, 13, 16, 17, 18, 19


@pytest.fixture(scope="session")
def loadgen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        find_compiler()
    except GeneratorError as missing:
        if os.environ.get("CI") != "true":
            pytest.skip(str(missing))
        install(["gcc", "libc6-dev"])
    return build(tmp_path_factory.mktemp("loadgen"))


class LittleServer(socketserver.ThreadingTCPServer):
    """A job server for one function, with a place for every fault of interest."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, fault: str = "") -> None:
        super().__init__(("127.0.0.1", 0), Conversation)
        self.fault = fault
        self.lock = threading.Lock()
        self.jobs: deque[tuple[bytes, bytes, Conversation | None]] = deque()
        self.waiting: dict[bytes, Conversation | None] = {}
        self.sleepers: set[Conversation] = set()
        self.count = 0

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # the generator hangs up in the middle when it is not content


class Conversation(socketserver.StreamRequestHandler):
    server: LittleServer

    def send(self, kind: int, payload: bytes = b"") -> None:
        self.request.sendall(b"\0RES" + struct.pack(">II", kind, len(payload)) + payload)

    def handle(self) -> None:
        while len(head := self.rfile.read(12)) == 12:
            kind, size = struct.unpack(">II", head[4:])
            payload = self.rfile.read(size)
            with self.server.lock:
                self.answer(kind, payload)
        with self.server.lock:
            self.server.sleepers.discard(self)

    def answer(self, kind: int, payload: bytes) -> None:
        server, fault = self.server, self.server.fault
        server.count += 1
        late = server.count > 20  # a fault that starts with the first packet is too easy to find
        if kind == ECHO_REQ:
            if late and fault == "silence":
                return
            if late and fault == "hang up":
                self.request.shutdown(socket.SHUT_RDWR)
                return
            swapped = payload[:-1] + b"y" if late and fault == "other echo" else payload
            self.send(ECHO_RES, swapped)
        elif kind in {SUBMIT_JOB, SUBMIT_JOB_BG}:
            handle = b"H:little:%020d" % server.count
            if late and fault == "refusal":
                self.send(ERROR, b"QUEUE_ERROR\0Job queue is full")
                return
            if late and fault == "reply of another kind":
                self.send(ECHO_RES, payload)
                return
            self.send(JOB_CREATED, handle)
            workload = payload.split(b"\0", 2)[2]
            server.jobs.append((handle, workload, self if kind == SUBMIT_JOB else None))
            for sleeper in server.sleepers:
                sleeper.send(NOOP)
            server.sleepers.clear()
        elif kind == PRE_SLEEP:
            if server.jobs:
                self.send(NOOP)
            else:
                server.sleepers.add(self)
        elif kind == GRAB_JOB:
            self.grab(late)
        elif kind == WORK_COMPLETE:
            self.complete(payload, late)

    def grab(self, late: bool) -> None:
        server, fault = self.server, self.server.fault
        if not server.jobs:
            self.send(NO_JOB)
            return
        handle, workload, client = server.jobs.popleft()
        server.waiting[handle] = client
        if late and fault == "job handed out twice":
            server.jobs.appendleft((handle, workload, client))
        if late and fault == "lost job":
            self.send(NO_JOB)
            server.fault = ""
            return
        function = b"other" if late and fault == "other function" else b"bench"
        self.send(JOB_ASSIGN, handle + b"\0" + function + b"\0" + workload)

    def complete(self, payload: bytes, late: bool) -> None:
        server, fault = self.server, self.server.fault
        handle, result = payload.split(b"\0", 1)
        if (client := server.waiting.pop(handle)) is None:
            return
        if late and fault == "result of another job":
            result = result[:8] + bytes([result[8] ^ 1]) + result[9:]
        if late and fault == "handle of another job":
            handle = handle[:-1] + b"x"
        if late and fault == "result before its job was created":
            client.send(WORK_COMPLETE, handle + b"\0" + result)
        client.send(WORK_COMPLETE, handle + b"\0" + result)


@pytest.fixture
def little_server(request: pytest.FixtureRequest) -> Iterator[LittleServer]:
    with LittleServer(getattr(request, "param", "")) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def small(scenario: str, **more: Any) -> Load:
    return Load(scenario, **{"seconds": 0.05, "warmup": 0.01, "backlog": 100, **more})


def run(program: Path, server: LittleServer, load: Load) -> dict[str, Any]:
    port = server.server_address[1]
    with Generator(program, port, load, handshake=False) as generator:
        return generator.result()


@pytest.mark.parametrize(
    "scenario", ["background", "drain", "foreground", "oneatatime", "echo", "flood"]
)
def test_a_server_that_does_everything_right_gets_no_complaint(
    loadgen: Path, little_server: LittleServer, scenario: str
) -> None:
    load = small(scenario, clients=5 if scenario == "flood" else None)
    found = run(loadgen, little_server, load)
    assert found["errors"] == 0
    assert found["jobs"] > 0
    assert found["rate"] == pytest.approx(found["jobs"] / found["seconds"], rel=0.01)
    latency = found["latency_us"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"] * 1.01


@pytest.mark.parametrize(
    ("little_server", "scenario", "complaint"),
    [
        ("silence", "echo", "nothing from the server for 0.2 s (1 requests"),
        ("hang up", "echo", "closed by the server"),
        ("other echo", "echo", "ECHO_RES with other bytes than were sent"),
        ("refusal", "background", "the server answered ERROR QUEUE_ERROR Job queue is full"),
        ("reply of another kind", "background", "packet type 17 in answer to a submission"),
        ("other function", "foreground", "JOB_ASSIGN for another function"),
        ("result of another job", "foreground", "WORK_COMPLETE with somebody else's result"),
        ("handle of another job", "foreground", "WORK_COMPLETE with another job's handle"),
        ("result before its job was created", "foreground", "WORK_COMPLETE for a job that is not"),
        ("job handed out twice", "drain", "a job was handed out twice, or never submitted"),
        ("lost job", "drain", "nothing from the server for 0.2 s"),
    ],
    indirect=["little_server"],
)
def test_a_wrong_answer_ends_the_run_and_is_named(
    loadgen: Path, little_server: LittleServer, scenario: str, complaint: str
) -> None:
    with pytest.raises(GeneratorError) as ended:
        run(loadgen, little_server, small(scenario, timeout=0.2, seconds=1))
    assert complaint in str(ended.value)


def test_a_wrong_answer_is_also_in_the_result_and_in_the_exit_status(loadgen: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as idle:
        port = idle.getsockname()[1]
        command = [loadgen, "--scenario", "echo", "--port", str(port), "--timeout", "0.1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["errors"] == 1
    assert found["error"].startswith("nothing from the server")


def test_nobody_listening_is_said_in_one_line(loadgen: Path) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        command = [loadgen, "--scenario", "echo", "--port", str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == f"loadgen: connect to 127.0.0.1 port {port}: Connection refused\n"


@pytest.mark.parametrize(
    "words", [[], ["--scenario", "drian"], ["--scenario", "echo", "--size", "1"], ["--what"]]
)
def test_wrong_options_end_with_status_2_and_the_usage(loadgen: Path, words: list[str]) -> None:
    done = subprocess.run([loadgen, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "usage: loadgen --scenario NAME" in done.stderr


def test_every_measured_window_is_announced_and_the_warm_up_is_not(
    loadgen: Path, little_server: LittleServer
) -> None:
    port = little_server.server_address[1]
    with Generator(loadgen, port, small("drain", seconds=0.001)) as generator:
        assert list(generator.windows()) == ["begin", "end"]
        found = generator.result()
    assert (found["windows"], found["jobs"]) == (1, 100)


def test_paced_requests_come_at_their_rate_however_fast_the_answers_are(
    loadgen: Path, little_server: LittleServer
) -> None:
    load = small("echo", clients=2, interval=0.01, seconds=0.2, warmup=0)
    found = run(loadgen, little_server, load)
    assert found["jobs"] <= 2 * (found["seconds"] / 0.01 + 1)


def test_workloads_larger_than_one_read_are_carried_whole(
    loadgen: Path, little_server: LittleServer
) -> None:
    load = small("foreground", size=300_000, clients=2, workers=2, outstanding=2)
    assert run(loadgen, little_server, load)["jobs"] > 0


def test_the_same_sources_are_compiled_once(loadgen: Path) -> None:
    stamp = loadgen.stat().st_mtime_ns
    assert build(loadgen.parent) == loadgen
    assert loadgen.stat().st_mtime_ns == stamp


def test_without_a_compiler_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(GeneratorError, match="apt install gcc"):
        find_compiler()


def test_a_queue_that_stays_is_filled_in_ten_parts_and_each_is_announced(
    loadgen: Path, little_server: LittleServer
) -> None:
    load = small("drain", seconds=0.001, keep=50, backlog=20, warmup=0)
    with Generator(loadgen, little_server.server_address[1], load) as generator:
        words = list(generator.windows())
        found = generator.result()
    assert words[:11] == ["fill", *["filling"] * 9, "filled"]
    # Who is quick has to have several goes, until the time is over.
    windows = len(words[11:]) // 2
    assert words[11:] == ["begin", "end"] * windows != []
    assert len(found["fill_rates"]) == 10
    assert (found["jobs"], found["keep"]) == (20 * windows, 50)
    assert len(little_server.jobs) == 50


def test_what_was_left_is_handed_out_and_measured_at_three_levels(
    loadgen: Path, little_server: LittleServer
) -> None:
    load = small("drain", keep=300, backlog=10, empty=True)
    with Generator(loadgen, little_server.server_address[1], load) as generator:
        words = list(generator.windows())
        found = generator.result()
    assert words[11:] == ["begin", "end"] * 15
    assert [(one["queued"], one["jobs"]) for one in found["levels"]] == [
        *((300, 50), (175, 50), (50, 50))
    ]
    assert found["jobs"] == found["latency_us"]["count"] == 150
    # Each is rounded to the microsecond.
    seconds = pytest.approx(found["seconds"], abs=3e-6)
    assert sum(one["seconds"] for one in found["levels"]) == seconds
    assert not little_server.jobs


def test_a_queue_too_short_for_three_levels_is_refused(loadgen: Path) -> None:
    words = ["--scenario", "drain", "--keep", "100", "--backlog", "10", "--empty"]
    done = subprocess.run([loadgen, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--empty with a --keep of less than 15 backlogs" in done.stderr


def test_a_window_can_be_ended_before_its_time(loadgen: Path, little_server: LittleServer) -> None:
    load = small("echo", seconds=3600, interval=0.001, warmup=0)
    with Generator(loadgen, little_server.server_address[1], load) as generator:
        generator.begin()
        found = generator.stop()
    assert (found["errors"], found["windows"]) == (0, 1)


def test_a_slower_disk_holds_up_each_sync(
    loadgen: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    syncs = "import os, sys\nfor _ in range(20): os.fdatasync(1), os.fsync(1)"
    library = build_slow_sync(loadgen.parent)
    with (tmp_path / "file").open("wb") as file:
        before = time.monotonic()
        subprocess.run(
            [sys.executable, "-c", syncs],
            env={**os.environ, "LD_PRELOAD": str(library)},
            stdout=file,
            check=True,
        )
    assert time.monotonic() - before >= 40 * 0.0005
    assert capfd.readouterr().err == ""


def test_a_database_can_have_a_slower_disk(loadgen: Path) -> None:
    needed()
    library = build_slow_sync(loadgen.parent)
    # Not in a folder of pytest's, into which nobody else may look.
    with tempfile.TemporaryDirectory() as folder, database.postgresql(Path(folder), library):
        number = (database.place(Path(folder)) / "data" / "postmaster.pid").read_text().split()[0]
        assert library.name in Path("/proc", number, "maps").read_text()


@pytest.mark.peers
@pytest.mark.parametrize("peer", ["gearmand", "perl"])
@pytest.mark.parametrize("scenario", ["background", "drain", "foreground"])
def test_submissions_with_uniques_get_along_with_foreign_servers(
    loadgen: Path, peer_tools: PeerTools, peer: str, scenario: str
) -> None:
    with Server(PEERS[peer]) as server:
        load = small(scenario, unique=36)
        with Generator(loadgen, server.port, load, handshake=False) as generator:
            assert generator.result()["errors"] == 0


@pytest.mark.peers
@pytest.mark.parametrize("peer", ["gearmand-postgresql", "trigear-postgresql"])
def test_servers_with_their_queue_in_postgresql_have_one_of_their_own(
    loadgen: Path, peer_tools: PeerTools, peer: str
) -> None:
    needed()
    load = small("background", unique=36)
    with Server(PEERS[peer]) as server, Generator(loadgen, server.port, load) as generator:
        assert generator.result()["errors"] == 0
