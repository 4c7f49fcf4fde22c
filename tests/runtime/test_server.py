"""A server in a nursery: who gets in, what it says, and how it stops."""

from __future__ import annotations

import gc
import http.client
import socket
import ssl
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.engine.test_engine import broken
from tests.runtime.calling import beside, local
from tests.runtime.wired import PATIENCE, Wire
from trigear.engine.config import EngineConfig, FunctionSettings, Keepalive, ServerConfig
from trigear.errors import ConfigError, TrigearInternalError
from trigear.model import CloseReason
from trigear.runtime import hub, server
from trigear.runtime.accepting import ACCEPTS
from trigear.runtime.link import hidden_nursery
from trigear.runtime.listeners import bind
from trigear.runtime.server import DRAIN_LOOK, Server, open_server, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from trio.testing import MockClock


class Watched(hub.Hub):
    """A hub that shows itself and its sockets."""

    latest: Watched

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        Watched.latest = self
        self.added: list[socket.socket] = []

    def add(self, sock: socket.socket, *args: object, **kwargs: object) -> None:
        self.added.append(sock)
        super().add(sock, *args, **kwargs)  # type: ignore[arg-type]


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "Hub", Watched)


async def refused(address: str) -> bool:
    try:
        Wire.to(address)
    except OSError:
        return True
    return False


# Who gets in


async def test_every_address_is_served(tmp_path: Path) -> None:
    config = ServerConfig(listen=("127.0.0.1", "[::1]:0", f"unix:{tmp_path}/s"), port=0)
    async with open_server(config) as running:
        four, six, unix = running.addresses
        assert four.startswith("127.0.0.1:")
        assert six.startswith("[::1]:")
        assert unix == f"unix:{tmp_path}/s"
        wires = []
        for address in running.addresses:
            wires.append(Wire.to(address))
            assert await wires[-1].ask("ECHO_REQ", b"x") == ("ECHO_RES", b"x")
        lines = [await wires[0].command(b"workers")] + [await wires[0].next() for _ in range(3)]
        assert lines == [
            ("text", b"3 - - :"),
            ("text", b"2 ::1 - :"),
            ("text", b"1 127.0.0.1 - :"),
            ("text", b"."),
        ]
    assert not (tmp_path / "s").exists()


async def test_an_address_that_cannot_be_bound_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match="no such address"):
        async with open_server(ServerConfig(listen=("192.0.2.1:0",))):
            raise AssertionError


@pytest.mark.pure
@pytest.mark.usefixtures("watched")
async def test_dead_peers_are_looked_for_unless_told_otherwise(tmp_path: Path) -> None:
    options = {
        "idle": (socket.TCP_KEEPIDLE, 60),
        "interval": (socket.TCP_KEEPINTVL, 10),
        "count": (socket.TCP_KEEPCNT, 6),
        "user timeout": (socket.TCP_USER_TIMEOUT, 120_000),
    }

    async def accepted(config: ServerConfig) -> tuple[int, int, list[int]]:
        async with open_server(config) as running:
            await Wire.to(running.addresses[0]).ask("ECHO_REQ", b"x")
            (sock,) = Watched.latest.added
            return (
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY),
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                [sock.getsockopt(socket.IPPROTO_TCP, option) for option, _ in options.values()],
            )

    assert await accepted(local()) == (1, 1, [value for _, value in options.values()])
    nodelay, alive, system = await accepted(local(keepalive=None))
    assert (nodelay, alive) == (1, 0)
    mixed = Keepalive(idle=30, interval=None, count=None, user_timeout=None)
    assert await accepted(local(keepalive=mixed)) == (1, 1, [30, *system[1:]])
    async with open_server(beside(tmp_path)) as running:
        wire = Wire.to(running.addresses[0])
        assert await wire.ask("ECHO_REQ", b"x") == ("ECHO_RES", b"x")


async def test_networks_that_are_not_allowed_are_refused_with_one_line_each(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ServerConfig(
        listen=("127.0.0.1", "[::1]:0", f"unix:{tmp_path}/s"),
        port=0,
        allow=("10.0.0.0/8", "::1"),
    )
    async with open_server(config) as running:
        four, six, unix = running.addresses
        assert await Wire.to(four).is_over()
        for address in (six, unix):
            assert await Wire.to(address).ask("ECHO_REQ", b"x") == ("ECHO_RES", b"x")
        assert caplog.messages == ["refused 127.0.0.1: address not allowed"]
        assert running.statistics().connections == 2


@pytest.mark.pure
@pytest.mark.usefixtures("watched")
async def test_a_crowd_at_the_door_is_let_in_in_groups() -> None:
    """200 connections that wait must not keep everything else waiting until the last is in."""

    class Steps(trio.abc.Instrument):
        most = before = 0

        def before_task_step(self, task: trio.lowlevel.Task) -> None:
            self.before = len(Watched.latest.added)

        def after_task_step(self, task: trio.lowlevel.Task) -> None:
            self.most = max(self.most, len(Watched.latest.added) - self.before)

    config = local()
    sockets = bind(config)
    where = sockets[0].getsockname()
    wires = [Wire(socket.create_connection(where)) for _ in range(200)]
    steps = Steps()
    async with trio.open_nursery() as nursery:
        Watched.latest = Watched.__new__(Watched)
        Watched.latest.added = []
        trio.lowlevel.add_instrument(steps)
        running = await nursery.start(serve, config, sockets)
        for wire in wires:
            assert await wire.ask("ECHO_REQ", b"x") == ("ECHO_RES", b"x")
        trio.lowlevel.remove_instrument(steps)
        assert steps.most == ACCEPTS
        running.stop()


async def test_a_peer_that_is_gone_before_it_is_let_in_harms_nobody() -> None:
    config = local()
    sockets = bind(config)
    where = sockets[0].getsockname()
    for _ in range(10):
        await Wire(socket.create_connection(where)).reset()
    async with trio.open_nursery() as nursery:
        running = await nursery.start(serve, config, sockets)
        wire = Wire(socket.create_connection(where))
        assert await wire.ask("ECHO_REQ", b"x") == ("ECHO_RES", b"x")
        running.stop()


CRAMPED = """
import logging, os, resource, sys
import trio
from trigear.engine.config import ServerConfig
from trigear.runtime.server import open_server

logging.basicConfig(stream=sys.stdout, level=logging.ERROR, format="%(message)s")

async def main():
    async with open_server(ServerConfig(listen=("127.0.0.1",), port=0)) as server:
        used = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 20, used + 20))
        print(server.addresses[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read)

trio.run(main)
"""


@pytest.fixture
def cramped() -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process that may have 20 connections."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", CRAMPED], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        yield process
        process.kill()


async def test_a_server_out_of_descriptors_serves_on_and_recovers(
    cramped: subprocess.Popen[bytes],
) -> None:
    process = cramped
    assert process.stdout is not None
    assert process.stdin is not None
    address = process.stdout.readline().decode().strip()
    wires = [Wire.to(address) for _ in range(40)]
    line = process.stdout.readline().decode()
    assert line == "cannot accept connections: Too many open files; trying again every 0.5 s\n"
    assert await wires[0].ask("ECHO_REQ", b"still") == ("ECHO_RES", b"still")
    for wire in wires[:25]:
        await wire.close()
    assert await wires[-1].ask("ECHO_REQ", b"again") == ("ECHO_RES", b"again")
    process.stdin.close()
    assert process.wait(PATIENCE) == 0
    assert process.stdout.read() == b"", "it was said once"


# Other protocols


async def test_http_is_answered_in_http_and_told_of_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_server(local()) as running:
        host, port = running.addresses[0].split(":")

        def ask() -> int:
            connection = http.client.HTTPConnection(host, int(port), timeout=PATIENCE)
            connection.request("GET", "/metrics")
            response = connection.getresponse()
            connection.close()
            return response.status

        assert await trio.to_thread.run_sync(ask) == 400
        assert caplog.messages == ["connection 1 (127.0.0.1) closed: peer speaks HTTP"]
        assert running.statistics().closed == {CloseReason.SPEAKS_HTTP: 1}


async def test_tls_to_a_plain_port_is_told_of_in_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with open_server(local()) as running:
        stream = trio.SSLStream(
            Wire.to(running.addresses[0]).stream, ssl.create_default_context(), server_hostname="x"
        )
        with pytest.raises(trio.BrokenResourceError):
            await stream.do_handshake()
        assert caplog.messages == [
            "connection 1 (127.0.0.1) closed: peer speaks TLS to a plain port"
        ]


# Time


async def test_what_is_due_happens_in_time(mock_clock: MockClock, tmp_path: Path) -> None:
    """The earlier deadline comes while the later one is being waited for."""
    async with open_server(beside(tmp_path)) as running:
        client, worker, other = (Wire.to(running.addresses[0]) for _ in range(3))
        await worker.tell("CAN_DO_TIMEOUT", b"f", b"30000")
        await worker.tell("CAN_DO_TIMEOUT", b"g", b"2000")
        for function in (b"f", b"g"):
            await client.submit("SUBMIT_JOB", function, b"", b"w")
        assert {await worker.grab(), await worker.grab()}
        await other.tell("CAN_DO", b"g")
        await other.tell("PRE_SLEEP")
        await other.ask("ECHO_REQ", b"x")
        mock_clock.jump(1.9)
        await trio.testing.wait_all_tasks_blocked()
        assert running.statistics().running == 2
        mock_clock.jump(0.2)
        assert await other.next() == ("NOOP",)
        assert running.statistics().running == 1


async def test_who_does_not_go_is_shown_out_in_time(mock_clock: MockClock, tmp_path: Path) -> None:
    async with open_server(beside(tmp_path)) as running:
        wire = Wire.to(running.addresses[0])
        await wire.send(b"\0XYZ")
        assert (await wire.next())[0] == "ERROR"
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(hub.DISCARD + 0.1)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BrokenResourceError):
            await wire.send(b"anybody there?")


# The end


async def test_stopping_closes_everything_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ServerConfig(listen=("127.0.0.1", f"unix:{tmp_path}/s"), port=0)
    async with open_server(config) as running:
        client, worker = (Wire.to(address) for address in running.addresses)
        await worker.tell("CAN_DO", b"f")
        await client.submit()
        await worker.grab()
        await client.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert await client.is_over()
    assert await worker.is_over()
    assert await refused(running.addresses[0])
    assert not (tmp_path / "s").exists()
    assert caplog.messages == ["2 jobs in memory are gone with this server"]
    assert running.statistics().jobs == 2
    running.stop()
    running.drain()


async def test_serve_returns_when_it_is_told_to_stop() -> None:
    config = local()
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, config, bind(config))
        wire = Wire.to(running.addresses[0])
        await wire.ask("ECHO_REQ", b"x")
        running.stop()
    assert await wire.is_over()
    assert running.stopped.is_set()


async def test_cancelling_serve_closes_everything_at_once(tmp_path: Path) -> None:
    config = beside(tmp_path)
    sockets = bind(config)
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, config, sockets)
        wire = Wire.to(running.addresses[0])
        await wire.ask("ECHO_REQ", b"x")
        nursery.cancel_scope.cancel()
    assert await wire.is_over()
    assert sockets[0].fileno() == -1
    assert not (tmp_path / "server").exists()


async def test_what_the_block_raises_leaves_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="mine"):
        async with open_server(beside(tmp_path)):
            raise LookupError("mine")
    assert not (tmp_path / "server").exists()


@pytest.mark.pure
@pytest.mark.parametrize("face", ["serve", "open_server"])
async def test_a_server_with_damaged_queues_stops_with_an_error(
    monkeypatch: pytest.MonkeyPatch, face: str
) -> None:
    broken(monkeypatch)
    config = local()

    async def damage(running: Server) -> None:
        wire = Wire.to(running.addresses[0])
        await wire.tell("CAN_DO", b"f")
        await wire.ask("ECHO_REQ", b"x")
        (function,) = running._engine.broker.tenant("default").functions.values()
        function.running = 7
        await wire.tell("ECHO_REQ", b"trigger")
        assert await wire.is_over()

    if face == "open_server":

        async def use() -> None:
            async with open_server(config) as running:
                await damage(running)
                await trio.sleep_forever()

    else:

        async def use() -> None:
            async with hidden_nursery() as nursery:
                await damage(await nursery.start(serve, config, bind(config)))

    with pytest.raises(TrigearInternalError, match="queues are damaged"):
        await use()


# Drain


async def test_a_draining_server_closes_its_doors_and_lets_what_runs_end(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ServerConfig(listen=("127.0.0.1", f"unix:{tmp_path}/s"), port=0, grace=None)
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, config, bind(config))
        client, worker, idle = (Wire.to(running.addresses[1]) for _ in range(3))
        await worker.tell("CAN_DO", b"f")
        handle = await client.submit()
        await worker.grab()
        await client.submit("SUBMIT_JOB_BG", b"f", b"", b"stays")
        await idle.ask("ECHO_REQ", b"x")
        running.drain()
        running.drain()
        assert await idle.is_over()
        await trio.testing.wait_all_tasks_blocked()
        assert await refused(running.addresses[0])
        assert not (tmp_path / "s").exists()
        assert await worker.ask("GRAB_JOB") == ("NO_JOB",)
        refusal = await client.ask("SUBMIT_JOB", b"f", b"", b"w")
        assert refusal[:2] == ("ERROR", b"SHUTDOWN_GRACEFUL")
        await trio.sleep(1000 * DRAIN_LOOK)
        assert not running.stopped.is_set()
        await worker.tell("WORK_COMPLETE", handle, b"r")
        assert await client.next() == ("WORK_COMPLETE", handle, b"r")
        assert await client.is_over()
    assert await worker.is_over()
    assert caplog.messages == ["1 job in memory is gone with this server"]


async def test_the_grace_of_a_drain_has_an_end(
    autojump_clock: MockClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = beside(tmp_path, grace=7.0)
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, config, bind(config))
        client, worker = (Wire.to(running.addresses[0]) for _ in range(2))
        await worker.tell("CAN_DO", b"f")
        await client.submit()
        await worker.grab()
        start = trio.current_time()
        running.drain()
    assert 7.0 <= trio.current_time() - start <= 7.0 + 2 * DRAIN_LOOK
    assert caplog.messages[0] == "the grace of 7.0 s is over with 1 job running"
    assert await client.is_over()


async def test_a_drain_can_be_ended_early(autojump_clock: MockClock, tmp_path: Path) -> None:
    config = beside(tmp_path, grace=None)
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, config, bind(config))
        client, worker = (Wire.to(running.addresses[0]) for _ in range(2))
        await worker.tell("CAN_DO", b"f")
        await client.submit()
        await worker.grab()
        running.drain()
        await trio.sleep(100)
        running.stop()
    assert await client.is_over()


async def test_gearmands_way_to_drain_serves_who_is_there(
    autojump_clock: MockClock, tmp_path: Path
) -> None:
    config = beside(tmp_path, EngineConfig(drain_refuses=False), grace=None)
    async with trio.open_nursery() as nursery:
        running: Server = await nursery.start(serve, config, bind(config))
        client, worker = (Wire.to(running.addresses[0]) for _ in range(2))
        await worker.tell("CAN_DO", b"f")
        await client.submit("SUBMIT_JOB_BG", b"f", b"", b"1")
        running.drain()
        await trio.sleep(100)
        await client.submit("SUBMIT_JOB_BG", b"f", b"", b"2")
        for _ in range(2):
            assert not running.stopped.is_set()
            await worker.tell("WORK_COMPLETE", await worker.grab(), b"")
    assert await client.is_over()


# Settings


async def test_new_settings_hold_from_now_on(autojump_clock: MockClock, tmp_path: Path) -> None:
    config = beside(tmp_path)
    async with open_server(config) as running:
        client, worker, other = (Wire.to(running.addresses[0]) for _ in range(3))
        settings = {b"f": FunctionSettings(timeout=3.0)}
        running.reload(beside(tmp_path, EngineConfig(functions=settings)))
        for wire in (worker, other):
            await wire.tell("CAN_DO", b"f")
        handle = await client.submit()
        assert await worker.grab() == handle
        await other.tell("PRE_SLEEP")
        assert await other.next() == ("NOOP",)
        assert await other.grab() == handle


# Garbage

COLLECTING = """
import gc
import trio
from trigear.engine.config import ServerConfig
from trigear.runtime.link import hidden_nursery
from trigear.runtime import memory
from trigear.runtime.listeners import bind
from trigear.runtime.memory import GARBAGE, GARBAGE_LIMIT
from trigear.runtime.server import serve

memory.GARBAGE_SHARE = float("inf")
collections = []
gc.callbacks.append(lambda phase, info: phase == "stop" and collections.append(info))

async def ask(address):
    host, port = address.split(":")
    stream = await trio.open_tcp_stream(host, int(port))
    await stream.send_all(b"version\\n")
    await stream.receive_some()
    await stream.aclose()
    await trio.testing.wait_all_tasks_blocked()

async def main():
    config = ServerConfig(listen=("127.0.0.1",), port=0)
    async with trio.open_nursery() as nursery:
        server = await nursery.start(lambda task_status: serve(
            config, bind(config), own_process=True, task_status=task_status))
        assert not gc.isenabled()
        frozen = gc.get_freeze_count()
        assert frozen > 1000
        collections.clear()
        await ask(server.addresses[0])
        assert not collections, "nothing to collect"
        alive = [[] for _ in range(GARBAGE + 1)]
        await ask(server.addresses[0])
        assert len(collections) == 1, "looked at once, when idle"
        assert gc.get_freeze_count() > frozen + GARBAGE, "and set aside"
        more = [[] for _ in range(GARBAGE_LIMIT + 1)]
        await ask(server.addresses[0])
        assert len(collections) == 1, "too many to look at"
        assert gc.get_freeze_count() > frozen + GARBAGE + GARBAGE_LIMIT
        server.stop()

import trio.testing
trio.run(main)
"""


def test_a_server_of_its_own_process_collects_garbage_when_idle() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTING], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    assert done.returncode == 0


async def test_a_server_beside_other_things_leaves_garbage_collection_alone() -> None:
    frozen = gc.get_freeze_count()
    async with open_server(local()) as running:
        await Wire.to(running.addresses[0]).ask("ECHO_REQ", b"x")
        assert gc.isenabled()
        assert gc.get_freeze_count() == frozen


# The interpreter, shared with the store

SHARING = """
import sys
import trio
from trigear.engine.config import ServerConfig
from trigear.runtime.link import hidden_nursery
from trigear.runtime.listeners import bind
from trigear.runtime.server import serve
from trigear.stores.sqlite import SqliteStore

async def main():
    config = ServerConfig(listen=("127.0.0.1",), port=0)
    for store in (None, SqliteStore(sys.argv[1])):
        for own in (False, True):
            async with trio.open_nursery() as nursery:
                server = await nursery.start(lambda task_status: serve(
                    config, bind(config), store=store, own_process=own, task_status=task_status))
                waits = server._hub.before_pass is not None
                assert waits == (own and store is not None), (own, store)
                server.stop()

trio.run(main)
"""


def test_a_server_holds_still_for_its_store_where_the_process_is_its_own(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SHARING, str(tmp_path / "jobs.sqlite3")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert done.returncode == 0
