"""How a worker connects again, and how it leaves a connection."""

from __future__ import annotations

import socket
from itertools import pairwise

import pytest
import trio
import trio.testing

from tests.runtime.scripted import ScriptedPlace, ScriptedServer
from tests.runtime.workplace import assign, meet, part
from trigear.errors import ConnectionLost
from trigear.runtime.backoff import LEAST, STEADY_SECONDS
from trigear.runtime.posts import CLEANUP_GRACE
from trigear.runtime.worker import (
    ThreadJob,
    Worker,
    WorkerJob,
    WorkerStatistics,
)


async def endless(job: WorkerJob) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


@pytest.fixture
def longest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every wait is as long as its bound."""
    monkeypatch.setattr("trigear.runtime.posts.random.random", lambda: 1.0)


@pytest.mark.usefixtures("longest_waits")
async def test_a_server_that_greets_and_hangs_up_is_called_ever_more_rarely(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, place = Worker(), ScriptedPlace()
    worker.register("f", endless)
    calls: list[float] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        for _ in range(6):
            server = await place.accepts()
            calls.append(trio.current_time())
            await meet(server, worker)
            await server.expects(("GRAB_JOB_UNIQ",))
            await server.hangs_up()
        nursery.cancel_scope.cancel()
    waits = [later - earlier for earlier, later in pairwise(calls)]
    assert waits == pytest.approx([LEAST * 2**step for step in range(5)])


@pytest.mark.usefixtures("longest_waits")
@pytest.mark.parametrize(("lived", "wait"), [(0, 2 * LEAST), (STEADY_SECONDS, LEAST)])
async def test_only_after_a_connection_that_has_held_is_the_next_one_tried_soon(
    autojump_clock: trio.testing.MockClock, lived: float, wait: float
) -> None:
    worker, place = Worker(heartbeat=None), ScriptedPlace()
    worker.register("f", endless)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker)
        await server.hangs_up()
        server = await place.accepts()
        await meet(server, worker)
        await server.expects(("GRAB_JOB_UNIQ",))
        await trio.sleep(lived)
        start = trio.current_time()
        await server.hangs_up()
        server = await place.accepts()
        assert trio.current_time() - start == pytest.approx(wait)
        await part(nursery, server)


@pytest.mark.usefixtures("longest_waits")
async def test_an_extra_connection_that_is_refused_is_tried_ever_more_rarely(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, place = Worker(max_jobs=2), ScriptedPlace()
    worker.register("f", endless, timeout=1000)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server: ScriptedServer = await place.accepts()
        await meet(server, worker, extended=False)
        place.closed = True
        await assign(server)
        await trio.sleep(5)
        assert place.attempts == 1 + 6  # after 0, 0.1, 0.3, 0.7, 1.5 and 3.1 seconds
        await part(nursery, server)


async def test_a_thread_that_sends_to_a_plain_server_that_is_deaf_ends_at_its_deadline() -> None:
    worker = Worker()
    raised: list[Exception] = []

    @worker.function("f", timeout=1)
    def handler(job: ThreadJob) -> bytes:
        try:
            while True:
                job.data(b"x" * 100_000)
        except Exception as error:
            raised.append(error)
            raise

    connected, accepted = trio.open_memory_channel[trio.SocketStream](1)

    async def connect() -> trio.abc.Stream:
        near, far = map(trio.socket.from_stdlib_socket, socket.socketpair())
        await connected.send(trio.SocketStream(far))
        return trio.SocketStream(near)

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(worker.run, connect)
            deaf = await accepted.receive()
            server = ScriptedServer(trio.StapledStream(deaf, deaf))
            await meet(server, worker, extended=False)
            await assign(server)
            # Not a word of it is read until the worker is back for another job.
            stream = await accepted.receive()
            another = ScriptedServer(trio.StapledStream(stream, stream))
            await meet(another, worker, extended=False)
            await another.expects(("GRAB_JOB_UNIQ",))
            await part(nursery, another)
            await deaf.aclose()
    assert [type(error) for error in raised] == [ConnectionLost]


class Tidy:
    """A handler that is cancelled and cleans up until it is let go, if it takes an hour."""

    def __init__(self) -> None:
        self.jobs = 0
        self.go = trio.Event()

    async def __call__(self, job: WorkerJob) -> bytes:
        self.jobs += 1
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await self.go.wait()
        return b"late"


async def test_a_handler_that_cleans_up_for_long_does_not_keep_its_job_from_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, place, handler = Worker(), ScriptedPlace(), Tidy()
    worker.register("f", handler)
    ended = False

    async def work() -> None:
        nonlocal ended
        with scope:
            await worker.run(place)
        ended = True

    scope = trio.CancelScope()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(work)
        server = await place.accepts()
        await meet(server, worker)
        await assign(server)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        scope.cancel()
        await server.expects(("end",))
        assert trio.current_time() - start == pytest.approx(CLEANUP_GRACE)
        await server.hangs_up()
        await trio.sleep(3600)
        assert not ended
        handler.go.set()


async def test_a_lost_connection_is_made_again_while_a_handler_cleans_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, place, handler = Worker(), ScriptedPlace(), Tidy()
    worker.register("f", handler)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker)
        await assign(server)
        await trio.testing.wait_all_tasks_blocked()
        await server.hangs_up()
        server = await place.accepts()
        await meet(server, worker)
        await trio.testing.wait_all_tasks_blocked()
        handler.go.set()
        # It kept its place until it had ended.
        await server.expects(("GRAB_JOB_UNIQ",))
        assert worker.statistics() == WorkerStatistics(connections=1, started=1, lost=1)
        await part(nursery, server)
