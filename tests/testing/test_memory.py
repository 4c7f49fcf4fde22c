"""The network in memory: synchronous peers, and streams under Trio's clock."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from trigear.engine.config import EngineConfig
from trigear.model import CloseReason
from trigear.testing.clock import SettableClock
from trigear.testing.memory import MemoryEngine, open_memory_server
from trigear.wire.codec import request, response
from trigear.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    GRAB_JOB,
    JOB_ASSIGN,
    JOB_CREATED,
    NOOP,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_EPOCH,
    WORK_FAIL,
)

HANDLE = b"H:memory:%020d"


def test_everything_has_arrived_when_send_returns() -> None:
    server = MemoryEngine(SettableClock())
    client, worker = server.connect(), server.connect()
    worker.send(request(CAN_DO, b"f") + request(PRE_SLEEP))
    client.send(request(SUBMIT_JOB, b"f", b"", b"w"))
    assert client.take() == response(JOB_CREATED, HANDLE % 1)
    assert worker.take() == response(NOOP)
    worker.send(request(GRAB_JOB))
    assert worker.take() == response(JOB_ASSIGN, HANDLE % 1, b"f", b"w")
    assert client.take() == worker.take() == b""


def test_more_packets_than_one_turn_are_handled_all_the_same() -> None:
    peer = MemoryEngine(SettableClock()).connect()
    peer.send(request(ECHO_REQ, b"x") * 100)
    assert peer.take() == response(ECHO_RES, b"x") * 100


def test_hanging_up_is_noticed_once() -> None:
    server = MemoryEngine(SettableClock(), EngineConfig(attempts=1))
    client, worker = server.connect(), server.connect()
    client.send(request(SUBMIT_JOB, b"f", b"", b"w"))
    worker.send(request(CAN_DO, b"f") + request(GRAB_JOB))
    worker.hang_up()
    worker.hang_up()
    assert client.take() == response(JOB_CREATED, HANDLE % 1) + response(WORK_FAIL, HANDLE % 1)


def test_a_connection_that_the_server_closes_is_closed() -> None:
    server = MemoryEngine(SettableClock())
    peer = server.connect()
    peer.send(b"\0BAD" + bytes(8))
    assert peer.closed is CloseReason.BAD_MAGIC
    assert peer.take().startswith(response(ERROR, b"INVALID_MAGIC")[:4])
    with pytest.raises(BrokenPipeError, match="the server has closed the connection"):
        peer.send(b"status\n")


def test_what_is_due_happens_at_a_tick() -> None:
    clock = SettableClock()
    server = MemoryEngine(clock)
    client, worker = server.connect(), server.connect()
    worker.send(request(CAN_DO, b"f") + request(PRE_SLEEP))
    client.send(request(SUBMIT_JOB_EPOCH, b"f", b"", b"%d" % (clock().wall + 5), b"w"))
    clock.advance(4.5)
    server.tick()
    assert worker.take() == b""
    clock.advance(0.5)
    server.tick()
    assert worker.take() == response(NOOP)


async def test_streams_run_under_trios_clock(autojump_clock: trio.testing.MockClock) -> None:
    async with open_memory_server() as network:
        client, worker = network.stream(), network.stream()
        await worker.send_all(request(CAN_DO, b"f") + request(PRE_SLEEP))
        due = b"%d" % (network.core.clock().wall + 5)
        start = trio.current_time()
        await client.send_all(request(SUBMIT_JOB_EPOCH, b"f", b"", due, b"w"))
        assert await worker.receive_some() == response(NOOP)
        assert trio.current_time() - start == pytest.approx(5)
        assert network.core.engine.statistics().jobs == 1


async def test_a_stream_ends_when_either_side_closes() -> None:
    async with open_memory_server() as network:
        ours, theirs = network.stream(), network.stream()
        await ours.wait_send_all_might_not_block()
        await ours.send_eof()
        assert await ours.receive_some() == b""
        with pytest.raises(trio.BrokenResourceError):
            await ours.send_all(b"x")
        await theirs.send_all(b"\0BAD" + bytes(8))
        assert await theirs.receive_some() != b""
        assert await theirs.receive_some() == b""
        await theirs.aclose()
        await theirs.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await theirs.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await theirs.send_all(b"x")
        assert network.core.engine.statistics().connections == 0


async def test_an_exception_in_the_block_leaves_bare() -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_memory_server():
            raise ZeroDivisionError
