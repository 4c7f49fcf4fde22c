"""How jobs end that do not end by themselves: deadlines, cancelling, draining, silence."""

from __future__ import annotations

import pytest
import trio
import trio.lowlevel
import trio.testing

from tests.runtime.scripted import ScriptedPlace
from tests.runtime.workplace import H, assign, at_work, meet, part
from trigear.runtime.client import open_client
from trigear.runtime.worker import Worker, WorkerJob, WorkerStatistics
from trigear.testing.memory import open_memory_server
from trigear.wire.packets import JOB_ASSIGN_UNIQ, JOB_CANCELLED, NO_JOB


class Endless:
    """A handler that never ends by itself, and tells when and how it ended."""

    def __init__(self) -> None:
        self.began = 0
        self.ended: list[float] = []

    async def __call__(self, job: WorkerJob) -> bytes:
        self.began += 1
        try:
            await trio.sleep_forever()
        finally:
            self.ended.append(trio.current_time())
        raise AssertionError


# Deadlines


async def test_a_job_is_released_at_its_deadline(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker, handler = Worker(), Endless()
    worker.register("f", handler, timeout=7)
    async with at_work(worker) as server:
        start = trio.current_time()
        await assign(server)
        await server.expects(("JOB_RELEASE", H, b"deadline"), ("GRAB_JOB_UNIQ",))
        assert handler.ended == [pytest.approx(start + 7)]
        assert worker.statistics() == WorkerStatistics(connections=1, started=1, released=1)
    assert "took longer than its timeout of 7 s and was cancelled; others will do it" in caplog.text


async def test_a_plain_server_learns_of_a_deadline_by_the_end_of_the_connection(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, handler = Worker(max_jobs=2), Endless()
    worker.register("f", handler, timeout=7)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        first = await place.accepts()
        await meet(first, worker, extended=False)
        start = trio.current_time()
        await assign(first)
        # One connection carries one job, so there is a second one for the second job ...
        second = await place.accepts()
        await meet(second, worker, extended=False)
        await second.expects(("GRAB_JOB_UNIQ",))
        await first.expects(("end",))
        assert handler.ended == [pytest.approx(start + 7)]
        await first.hangs_up()
        # ... which is not touched when the first one is closed, and the first one is made again.
        third = await place.accepts()
        await meet(third, worker, extended=False)
        await second.says(JOB_ASSIGN_UNIQ, b"H:2", b"f", b"", b"")
        await third.expects(("GRAB_JOB_UNIQ",))
        assert place.attempts == 3
        await part(nursery, second, third)


async def test_a_plain_server_gets_no_more_connections_than_jobs_at_once() -> None:
    worker, handler = Worker(max_jobs=5), Endless()
    worker.register("f", handler, timeout=7, concurrency=2)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        servers = []
        for _ in range(2):
            servers.append(await place.accepts())
            await meet(servers[-1], worker, extended=False)
            await assign(servers[-1])
        await trio.testing.wait_all_tasks_blocked()
        assert (place.attempts, handler.began) == (2, 2)
        await part(nursery, *servers)


async def test_an_extra_connection_that_is_lost_comes_back_when_it_is_needed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, handler = Worker(max_jobs=2), Endless()
    worker.register("f", handler, timeout=7)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        first = await place.accepts()
        await meet(first, worker, extended=False)
        await assign(first)
        second = await place.accepts()
        await meet(second, worker, extended=False)
        await second.hangs_up()
        third = await place.accepts()
        await meet(third, worker, extended=False)
        await third.expects(("GRAB_JOB_UNIQ",))
        await part(nursery, third)


async def test_a_handler_that_stops_by_raising_is_released_too(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker = Worker()

    @worker.function("f", timeout=1)
    async def handler(job: WorkerJob) -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise OSError("on its way out")

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("JOB_RELEASE", H, b"deadline"))


async def test_a_handler_that_is_done_at_its_deadline_is_done(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker = Worker()

    @worker.function("f", timeout=1)
    async def handler(job: WorkerJob) -> bytes:
        with trio.CancelScope(shield=True):
            await trio.sleep(2)
        return b"late"

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_COMPLETE", H, b"late"))


# Cancelled at the server


@pytest.mark.parametrize(
    ("reason", "answers"), [(b"cancelled", []), (b"timeout", [("JOB_RELEASE", H, b"deadline")])]
)
async def test_what_the_server_takes_away_is_stopped(
    reason: bytes, answers: list[tuple[bytes | str, ...]]
) -> None:
    worker, handler = Worker(), Endless()
    worker.register("f", handler)
    async with at_work(worker) as server:
        await assign(server)
        await trio.testing.wait_all_tasks_blocked()
        await server.says(JOB_CANCELLED, b"H:another", b"cancelled")
        await server.says(JOB_CANCELLED, H, reason)
        await server.expects(*answers, ("GRAB_JOB_UNIQ",))
        assert len(handler.ended) == 1
        assert worker.statistics().lost == 1


@pytest.mark.parametrize("end", ["returns", "raises"])
async def test_what_a_handler_answers_after_that_is_dropped(end: str) -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked()
        if end == "raises":
            raise ValueError

    async with at_work(worker) as server:
        await assign(server)
        await server.says(JOB_CANCELLED, H, b"cancelled")
        await server.expects(("GRAB_JOB_UNIQ",))


# Heartbeats


async def test_a_worker_tells_a_server_that_it_lives(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker = Worker(heartbeat=5)
    worker.register("f", Endless())
    async with at_work(worker) as server:
        await server.expects(("GRAB_JOB_UNIQ",))
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))
        with trio.move_on_after(17):
            await server.hears()
        assert server.beats == [5000] * 4


async def test_a_plain_server_hears_no_heart() -> None:
    worker = Worker(heartbeat=0.001)
    worker.register("f", Endless())
    async with at_work(worker, extended=False) as server:
        await server.expects(("GRAB_JOB_UNIQ",))
        await trio.testing.wait_all_tasks_blocked()
        assert server.beats == []


# Draining


@pytest.mark.parametrize("extended", [True, False])
async def test_a_draining_worker_finishes_what_it_has_and_ends(*, extended: bool) -> None:
    worker = Worker(max_jobs=2)
    release = trio.Event()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        await release.wait()
        return b"done"

    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker, extended=extended)
        await assign(server)
        await server.expects(("GRAB_JOB_UNIQ",))
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))
        worker.drain()
        await worker.wait_draining()
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        # gearmand takes running jobs away from who takes a function back; ours does not, and
        # would go on waking a worker that does not.
        done, unregister = ("WORK_COMPLETE", H, b"done"), ("RESET_ABILITIES",)
        said = (unregister, done) if extended else (done, unregister)
        await server.expects(*said, ("end",))
        await server.hangs_up()


async def test_an_idle_worker_drains_at_once() -> None:
    worker = Worker()
    worker.register("f", Endless())
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker)
        await server.expects(("GRAB_JOB_UNIQ",))
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))
        worker.drain()
        await server.expects(("RESET_ABILITIES",), ("end",))
        await server.hangs_up()


async def test_no_job_is_the_last_word_to_a_draining_worker() -> None:
    worker = Worker()
    worker.register("f", Endless())
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker)
        await server.expects(("GRAB_JOB_UNIQ",))
        worker.drain()
        await server.expects(("RESET_ABILITIES",))
        await server.says(NO_JOB)
        await server.expects(("end",))
        await server.hangs_up()


async def test_a_job_on_its_way_to_a_draining_worker_is_given_back() -> None:
    worker, handler = Worker(), Endless()
    worker.register("f", handler)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker)
        await server.expects(("GRAB_JOB_UNIQ",))
        worker.drain()
        await server.says(JOB_ASSIGN_UNIQ, H, b"f", b"", b"")
        await server.expects(("RESET_ABILITIES",), ("JOB_RELEASE", H, b"drain"), ("end",))
        await server.hangs_up()
    assert handler.began == 0


async def test_a_job_on_its_way_from_a_plain_server_is_done() -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        return b"done"

    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker, extended=False)
        await server.expects(("GRAB_JOB_UNIQ",))
        worker.drain()
        await server.says(JOB_ASSIGN_UNIQ, H, b"f", b"", b"")
        await server.expects(("WORK_COMPLETE", H, b"done"), ("RESET_ABILITIES",), ("end",))
        await server.hangs_up()


@pytest.mark.parametrize("extended", [True, False])
async def test_what_is_not_done_after_the_grace_goes_to_others(
    autojump_clock: trio.testing.MockClock, *, extended: bool
) -> None:
    worker, handler = Worker(), Endless()
    worker.register("f", handler, timeout=100)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker, extended=extended)
        await assign(server)
        await trio.sleep(1)
        worker.drain(grace=20)
        worker.drain(grace=10)
        worker.drain(grace=30)
        start = trio.current_time()
        if extended:
            await server.expects(("RESET_ABILITIES",), ("JOB_RELEASE", H, b"drain"))
        await server.expects(("end",))
        assert handler.ended == [pytest.approx(start + 10)]
        await server.hangs_up()


async def test_a_worker_that_waits_for_a_server_drains_at_once(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker = Worker()
    worker.register("f", Endless())
    place = ScriptedPlace()
    place.closed = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        await trio.sleep(100)
        assert 5 < place.attempts < 30
        worker.drain()


async def test_a_worker_whose_server_says_nothing_drains_at_once() -> None:
    worker = Worker()
    worker.register("f", Endless())
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await trio.testing.wait_all_tasks_blocked()
        worker.drain()
        await server.hears()
        await server.hears()
        await server.expects(("end",))
        await server.hangs_up()


async def test_a_worker_that_is_still_connecting_drains_at_once() -> None:
    worker = Worker()
    worker.register("f", Endless())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, trio.sleep_forever)
        await trio.testing.wait_all_tasks_blocked()
        worker.drain()


async def test_a_server_that_does_not_answer_is_left_and_tried_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()
    worker.register("f", Endless())
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        await place.accepts()
        server = await place.accepts()
        assert "does not answer; is it a Gearman server? (trying again" in caplog.text
        await part(nursery, server)


async def test_a_worker_ends_after_so_many_jobs() -> None:
    worker = Worker(max_jobs=2)

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        await trio.lowlevel.checkpoint()
        return job.workload

    async def work() -> None:
        await worker.run([network.open, network.open], total=3)

    async with open_memory_server() as network, trio.open_nursery() as nursery:
        async with open_client(network.stream()) as client:
            for number in range(5):
                await client.submit_background("f", b"%d" % number)
            await work()
            assert await client.admin("status") == ["f\t2\t0\t0"]
        nursery.cancel_scope.cancel()
