"""What a peer is owed reaches it before its connection ends, whoever ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.engine.world import packet, spoken
from tests.runtime.books import Book
from tests.runtime.calling import Caller, beside, calling, local
from trigear.engine.config import EngineConfig
from trigear.runtime.hub import LINGER, READ_SIZE
from trigear.runtime.server import DRAIN_LOOK, open_server
from trigear.wire.codec import response
from trigear.wire.packets import ECHO_RES, WORK_COMPLETE

if TYPE_CHECKING:
    from pathlib import Path

    from trigear.runtime.server import Server

JOBS = 10_000
"""So many that a list of them fits no buffer of a socket."""

LARGE = bytes(range(256)) * 65536


async def submit_many(peer: Caller) -> None:
    await peer.say(packet("SUBMIT_JOB_BG", b"f", b"", b"") * JOBS)
    for _ in range(JOBS):
        await peer.hears()


async def stop_talking(peer: Caller) -> None:
    """Close one's own direction, and read nothing before the server knows."""
    await peer.stream.send_eof()
    await wait_all_tasks_blocked()


# Peers that have said everything and then read (`printf … | nc -N`)


@pytest.mark.parametrize("place", ["tcp", "unix"])
async def test_who_has_stopped_talking_gets_a_large_answer(tmp_path: Path, place: str) -> None:
    config = local() if place == "tcp" else beside(tmp_path)
    async with open_server(config) as server, calling(server) as peer:
        await peer.tell("ECHO_REQ", LARGE)
        await stop_talking(peer)
        assert await peer.to_the_end() == response(ECHO_RES, LARGE)


@pytest.mark.parametrize("times", [1, 16])
async def test_who_has_stopped_talking_gets_lists_to_their_last_dot(
    tmp_path: Path, times: int
) -> None:
    """Sixteen lists are more than the server produces for a peer that does not read."""
    engine = EngineConfig(soft_mark=1 << 20)
    async with open_server(beside(tmp_path, engine)) as server, calling(server) as peer:
        await submit_many(peer)
        await peer.say(b"show jobs\n" * times)
        await stop_talking(peer)
        lists = (await peer.to_the_end()).split(b"\n.\n")
        assert lists.pop() == b""
        assert [answer.count(b"\n") + 1 for answer in lists] == [JOBS] * times


async def test_who_is_sent_away_while_talking_gets_everything_before_it() -> None:
    """Closing a socket with unread input resets it, and a reset takes with it what is unread at
    the peer."""
    async with open_server(local()) as server, calling(server) as peer:
        await peer.tell("ECHO_REQ", LARGE)
        await peer.say(b"\0" * 4 * READ_SIZE)
        await stop_talking(peer)
        *_, echo, error = spoken(await peer.to_the_end())
        assert echo == ("ECHO_RES", LARGE)
        assert error[:2] == ("ERROR", b"INVALID_MAGIC")


async def test_who_has_stopped_talking_hears_that_its_job_is_stored(tmp_path: Path) -> None:
    book = Book()
    book.shut()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as peer:
        await peer.tell("SUBMIT_JOB_BG", b"f", b"", b"work")
        await peer.tell("ECHO_REQ", b"behind")
        await book.begun()
        await stop_talking(peer)
        book.reopen()
        created, echo = spoken(await peer.to_the_end())
        assert (created[0], echo) == ("JOB_CREATED", ("ECHO_RES", b"behind"))
        assert book.workloads == [b"work"]


async def test_a_worker_that_has_stopped_talking_does_not_keep_its_jobs_for_that(
    tmp_path: Path,
) -> None:
    """Its own submission is on the way to the store, and that may take long."""
    book = Book()
    async with (
        open_server(beside(tmp_path), store=book) as server,
        calling(server) as worker,
        calling(server) as client,
        calling(server) as other,
    ):
        await worker.can_do(b"f")
        handle = await client.submit()
        assert await worker.grab() == handle
        book.shut()
        await worker.tell("SUBMIT_JOB_BG", b"g", b"", b"more work")
        await book.begun()
        await stop_talking(worker)
        await other.can_do(b"f")
        assert await other.grab() == handle
        book.reopen()
        assert await worker.to_the_end() == b""


async def test_a_peer_that_is_gone_is_not_waited_for_until_its_job_is_stored(
    tmp_path: Path,
) -> None:
    book = Book()
    book.shut()
    async with open_server(beside(tmp_path), store=book) as server:
        async with calling(server) as peer:
            await peer.tell("SUBMIT_JOB_BG", b"f", b"", b"work")
            await book.begun()
        await wait_all_tasks_blocked()
        assert server.statistics().connections == 0
        book.reopen()
    assert book.workloads == [b"work"]


# Draining


@pytest.fixture(params=[True, False], ids=["trigear", "gearmand"])
def engine(request: pytest.FixtureRequest) -> EngineConfig:
    """Both ways to drain."""
    return EngineConfig(drain_refuses=request.param)


async def look(clock: MockClock, seconds: float) -> None:
    """Let a draining server look so long whether it is done."""
    for _ in range(round(seconds / DRAIN_LOOK)):
        clock.jump(DRAIN_LOOK)
        await wait_all_tasks_blocked()


async def drain_with_a_last_result(server: Server, client: Caller, worker: Caller) -> bytes:
    """The server drains, and its last job's result of 30 MB waits for its client to read it."""
    await worker.can_do(b"f")
    handle = await client.submit()
    await worker.grab()
    server.drain()
    result = b"r" * 30_000_000
    await worker.tell("WORK_COMPLETE", handle, result)
    await worker.settled()
    assert server.statistics().jobs == 0
    return response(WORK_COMPLETE, handle, result)


async def test_a_drain_waits_until_the_last_result_is_read(
    tmp_path: Path, mock_clock: MockClock, engine: EngineConfig
) -> None:
    async with (
        open_server(beside(tmp_path, engine)) as server,
        calling(server) as client,
        calling(server) as worker,
    ):
        expected = await drain_with_a_last_result(server, client, worker)
        await look(mock_clock, 1.0)
        assert not server.stopped.is_set()
        mock_clock.autojump_threshold = 0.01
        assert await client.to_the_end() == expected
        await server.stopped.wait()


async def test_a_drain_waits_for_a_client_that_reads_slowly(
    tmp_path: Path, mock_clock: MockClock, engine: EngineConfig
) -> None:
    async with (
        open_server(beside(tmp_path, engine)) as server,
        calling(server) as client,
        calling(server) as worker,
    ):
        expected = await drain_with_a_last_result(server, client, worker)
        for _ in range(3):
            await look(mock_clock, 0.8 * LINGER)
            for _ in range(16):
                await client.some()
            await wait_all_tasks_blocked()
        assert not server.stopped.is_set()
        mock_clock.autojump_threshold = 0.01
        assert await client.to_the_end() == expected


async def test_a_drain_does_not_wait_for_a_client_that_does_not_read(
    tmp_path: Path, mock_clock: MockClock, engine: EngineConfig
) -> None:
    async with (
        open_server(beside(tmp_path, engine, grace=None)) as server,
        calling(server) as client,
        calling(server) as worker,
    ):
        await drain_with_a_last_result(server, client, worker)
        await look(mock_clock, 0.8 * LINGER)
        assert not server.stopped.is_set()
        await look(mock_clock, 0.4 * LINGER)
        assert server.stopped.is_set()


async def test_a_draining_server_waits_with_its_farewell_for_who_waits_for_the_store(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    book = Book()
    book.shut()
    async with open_server(beside(tmp_path), store=book) as server, calling(server) as client:
        await client.tell("SUBMIT_JOB_BG", b"f", b"", b"work")
        await book.begun()
        server.drain()
        await look(mock_clock, 1.0)
        still_there = server.statistics().connections
        book.reopen()
        assert still_there == 1
        assert (await client.hears())[0] == "JOB_CREATED"
        await look(mock_clock, 0.2)
        assert await client.to_the_end() == b""
        mock_clock.autojump_threshold = 0.01
        await server.stopped.wait()
    assert book.workloads == [b"work"]
