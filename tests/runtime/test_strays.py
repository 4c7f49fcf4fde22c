"""Handlers that go on although they were told to stop: the worker does without them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.runtime.scripted import ScriptedPlace
from tests.runtime.workplace import H, assign, at_work, meet, part
from trigear.errors import LocalProtocolError
from trigear.runtime import crew
from trigear.runtime.crew import STRAY_GRACE
from trigear.runtime.worker import Worker
from trigear.wire.packets import JOB_ASSIGN_UNIQ, JOB_CANCELLED, NO_JOB

if TYPE_CHECKING:
    from trigear.runtime.job import ThreadJob, WorkerJob


class Stubborn:
    """A handler that goes on under a shield until it is let go; later jobs end at once."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self.began = 0
        self.go = trio.Event()
        self.said: list[str] = []

    async def __call__(self, job: WorkerJob) -> bytes:
        self.began += 1
        if self.began <= self.jobs:
            with trio.CancelScope(shield=True):
                await self.go.wait()
            try:
                await job.data(b"too late")
            except LocalProtocolError as error:
                self.said.append(str(error))
        return b"done"


async def test_other_jobs_go_on_beside_a_handler_that_hides_from_its_deadline(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker, handler = Worker(), Stubborn()
    worker.register("f", handler, timeout=7)
    async with at_work(worker) as server:
        start = trio.current_time()
        await assign(server)
        await server.expects(("JOB_RELEASE", H, b"deadline"))
        assert trio.current_time() == pytest.approx(start + 7 + STRAY_GRACE)
        await assign(server, handle=b"H:2")
        await server.expects(("WORK_COMPLETE", b"H:2", b"done"), ("GRAB_JOB_UNIQ",))
        assert (worker.statistics().strays, worker.statistics().running) == (1, 0)
        assert "goes on, 3 s after it was told to stop; other jobs are begun beside it" in (
            caplog.text
        )
        handler.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert worker.statistics().strays == 0
        assert "its handler has ended 3.0 s after it was told to stop; its answer is lost" in (
            caplog.text
        )
        # Its answer is not sent, and its place is not given back twice.
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))
        counts = worker.statistics()
        assert (counts.completed, counts.released, counts.lost) == (1, 1, 0)
    assert handler.said[0].endswith("is over: nothing can be said about it any more")


async def test_on_a_plain_server_the_connection_is_made_anew_beside_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, handler = Worker(), Stubborn()
    worker.register("f", handler, timeout=7)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        first = await place.accepts()
        await meet(first, worker, extended=False)
        start = trio.current_time()
        await assign(first)
        await first.expects(("end",))
        assert trio.current_time() == pytest.approx(start + 7 + STRAY_GRACE)
        await first.hangs_up()
        second = await place.accepts()
        await meet(second, worker, extended=False)
        await assign(second, handle=b"H:2")
        await second.expects(("WORK_COMPLETE", b"H:2", b"done"), ("GRAB_JOB_UNIQ",))
        handler.go.set()
        await trio.testing.wait_all_tasks_blocked()
        assert worker.statistics().strays == 0
        await part(nursery, second)


async def test_jobs_of_a_lost_connection_do_not_keep_their_places(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, handler = Worker(), Stubborn()
    worker.register("f", handler)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        first = await place.accepts()
        await meet(first, worker)
        await assign(first)
        await trio.testing.wait_all_tasks_blocked()
        await first.hangs_up()
        second = await place.accepts()
        await meet(second, worker)
        await assign(second, handle=b"H:2")
        await second.expects(("WORK_COMPLETE", b"H:2", b"done"))
        handler.go.set()
        await part(nursery, second)


@pytest.mark.parametrize(
    ("reason", "answers"), [(b"cancelled", []), (b"timeout", [("JOB_RELEASE", H, b"deadline")])]
)
async def test_what_the_server_takes_away_does_not_keep_its_place(
    reason: bytes,
    answers: list[tuple[bytes | str, ...]],
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, handler = Worker(), Stubborn()
    worker.register("f", handler)
    async with at_work(worker) as server:
        await assign(server)
        await trio.testing.wait_all_tasks_blocked()
        await server.says(JOB_CANCELLED, H, reason)
        await server.expects(*answers, ("GRAB_JOB_UNIQ",))
        assert worker.statistics().strays == 1
        handler.go.set()


async def test_there_are_no_more_strays_than_places(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker, handler = Worker(), Stubborn(jobs=2)
    worker.register("f", handler, timeout=7)
    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("JOB_RELEASE", H, b"deadline"))
        await assign(server, handle=b"H:2")
        await server.expects(("JOB_RELEASE", b"H:2", b"deadline"))
        await trio.sleep(100)
        assert (handler.began, worker.statistics().strays) == (2, 2)
        assert "; 1 others do so as well: no job is begun in its place" not in caplog.text
        assert "; 1 other does so as well: no job is begun in its place" in caplog.text
        handler.go.set()
        await assign(server, handle=b"H:3")
        await server.expects(("WORK_COMPLETE", b"H:3", b"done"), ("GRAB_JOB_UNIQ",))
        assert worker.statistics().strays == 0


async def test_a_stray_that_raises_is_not_heard(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker = Worker()
    go = trio.Event()

    @worker.function("f", timeout=1)
    async def handler(job: WorkerJob) -> None:
        with trio.CancelScope(shield=True):
            await go.wait()
        raise OSError("after all")

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("JOB_RELEASE", H, b"deadline"), ("GRAB_JOB_UNIQ",))
        go.set()
        await trio.testing.wait_all_tasks_blocked()
        counts = worker.statistics()
        assert (counts.released, counts.raised, counts.lost, counts.strays) == (1, 0, 0, 0)
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))


async def test_a_draining_worker_gives_the_job_of_a_stray_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, handler = Worker(), Stubborn()
    worker.register("f", handler, timeout=700)
    async with at_work(worker) as server:
        await assign(server)
        await trio.testing.wait_all_tasks_blocked()
        start = trio.current_time()
        worker.drain(grace=5)
        await server.expects(("RESET_ABILITIES",), ("JOB_RELEASE", H, b"drain"), ("end",))
        assert trio.current_time() == pytest.approx(start + 5 + STRAY_GRACE)
        await server.hangs_up()
        handler.go.set()


async def test_the_nearest_deadline_is_looked_after_first(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker, slow, quick = Worker(max_jobs=2), Stubborn(), Stubborn()
    worker.register("slow", slow, timeout=50)
    worker.register("quick", quick, timeout=5)
    async with at_work(worker) as server:
        start = trio.current_time()
        await assign(server, function=b"slow")
        await assign(server, function=b"quick", handle=b"H:2")
        await server.expects(("JOB_RELEASE", b"H:2", b"deadline"), ("GRAB_JOB_UNIQ",))
        assert trio.current_time() == pytest.approx(start + 5 + STRAY_GRACE)
        await server.expects(("JOB_RELEASE", H, b"deadline"))
        assert trio.current_time() == pytest.approx(start + 50 + STRAY_GRACE)
        slow.go.set()
        quick.go.set()


async def test_a_loop_that_stood_still_makes_no_strays(
    mock_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()
    order: list[str] = []

    @worker.function("f", timeout=7)
    async def handler(job: WorkerJob) -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
                order.append("cleaned up")

    async with at_work(worker) as server:
        await assign(server)
        await trio.testing.wait_all_tasks_blocked()
        mock_clock.jump(7 + 3 * STRAY_GRACE)
        await trio.testing.wait_all_tasks_blocked()
        assert worker.statistics().strays == 0
        mock_clock.jump(1)
        await server.expects(("JOB_RELEASE", H, b"deadline"), ("GRAB_JOB_UNIQ",))
    assert order == ["cleaned up"]
    assert "goes on" not in caplog.text


# Threads


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads know no other clock than the real one: then a stray is one soon."""
    monkeypatch.setattr(crew, "STRAY_GRACE", 0.01)


@pytest.mark.usefixtures("short_grace")
async def test_other_jobs_go_on_beside_a_thread_that_cannot_be_stopped() -> None:
    worker = Worker()
    release = threading.Event()
    said: list[str] = []

    @worker.function("f", timeout=0.05)
    def handler(job: ThreadJob) -> bytes:
        release.wait()
        assert job.over
        for say in (lambda: job.status(1, 1), lambda: job.data(b"x"), lambda: job.warning(b"x")):
            try:
                say()
            except LocalProtocolError as error:
                said.append(str(error))
        return b"for nothing"

    worker.register("g", lambda job: b"done")
    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("JOB_RELEASE", H, b"deadline"), ("GRAB_JOB_UNIQ",))
        assert worker.statistics().strays == 1
        await server.says(JOB_ASSIGN_UNIQ, b"H:2", b"g", b"", b"")
        await server.expects(("WORK_COMPLETE", b"H:2", b"done"), ("GRAB_JOB_UNIQ",))
        release.set()
        while worker.statistics().strays:
            await trio.lowlevel.checkpoint()
        # Nothing of what it said has come.
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))
    assert len(said) == 3
    assert all(text.endswith("is over: nothing can be said about it any more") for text in said)


def test_a_thread_that_outlives_the_whole_program_hears_that_its_job_is_over() -> None:
    begun, release, ended = threading.Event(), threading.Event(), threading.Event()
    said: list[str] = []
    worker = Worker()

    @worker.function("f")
    def handler(job: ThreadJob) -> None:
        begun.set()
        release.wait()
        try:
            job.data(b"x")
        except LocalProtocolError as error:
            said.append(str(error))
        ended.set()

    async def run() -> None:
        async with at_work(worker) as server:
            await assign(server)
            await trio.to_thread.run_sync(begun.wait)

    trio.run(run)
    release.set()
    assert ended.wait(30)
    assert said[0].endswith("is over: nothing can be said about it any more")
