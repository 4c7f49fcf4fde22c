"""Several jobs at once: on several servers, and of functions with limits of their own."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from tests.runtime.scripted import ScriptedPlace, ScriptedServer
from tests.runtime.workplace import H, assign, greet, meet, part
from trigear.errors import Refused
from trigear.runtime.worker import Worker, WorkerJob
from trigear.wire.packets import ERROR, JOB_ASSIGN_UNIQ, NO_JOB, NOOP


class Gate:
    """A handler whose jobs end when they are let through; counts those under way."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0
        self.open = trio.Event()

    async def __call__(self, job: WorkerJob) -> bytes:
        self.running += 1
        self.most = max(self.most, self.running)
        await self.open.wait()
        self.running -= 1
        return job.workload


async def test_the_limit_counts_all_servers_together() -> None:
    worker, gate = Worker(max_jobs=1), Gate()
    worker.register("f", gate)
    one, other = ScriptedPlace(), ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, [one, other])
        first = await one.accepts()
        second = await other.accepts()
        await meet(first, worker)
        await assign(first)
        await meet(second, worker)
        await trio.testing.wait_all_tasks_blocked()
        assert worker.statistics().running == 1
        # The place that is free goes to whoever has waited longest for it.
        gate.open.set()
        await first.expects(("WORK_COMPLETE", H, b"w"))
        await assign(first)
        await first.expects(("WORK_COMPLETE", H, b"w"))
        await second.expects(("GRAB_JOB_UNIQ",))
        await second.says(NO_JOB)
        await second.expects(("PRE_SLEEP",))
        await first.expects(("GRAB_JOB_UNIQ",))
        await part(nursery, first, second)


async def test_who_is_woken_without_a_free_place_grabs_when_there_is_one() -> None:
    worker, gate = Worker(max_jobs=1), Gate()
    worker.register("f", gate)
    one, other = ScriptedPlace(), ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, [one, other])
        first, second = await one.accepts(), await other.accepts()
        await meet(first, worker)
        await meet(second, worker, extended=False)
        await first.expects(("GRAB_JOB_UNIQ",))
        await first.says(NO_JOB)
        await first.expects(("PRE_SLEEP",))
        await assign(second)
        await first.says(NOOP)
        await trio.testing.wait_all_tasks_blocked()
        gate.open.set()
        await second.expects(("WORK_COMPLETE", H, b"w"), ("GRAB_JOB_UNIQ",))
        await second.says(NO_JOB)
        await first.expects(("GRAB_JOB_UNIQ",))
        await part(nursery, first, second)


async def test_one_server_that_is_down_does_not_keep_the_others_waiting() -> None:
    worker = Worker()
    worker.register("f", Gate())
    down, up = ScriptedPlace(), ScriptedPlace()
    down.closed = True
    async with trio.open_nursery() as nursery:

        async def serve() -> None:
            servers.append(await up.accepts())
            await meet(servers[0], worker)

        servers: list[ScriptedServer] = []
        nursery.start_soon(serve)
        await nursery.start(worker.run, [down, up])
        assert worker.statistics().connections == 1
        await part(nursery, *servers)


async def test_a_function_with_a_limit_has_a_connection_of_its_own() -> None:
    worker, limited, free = Worker(max_jobs=4), Gate(), Gate()
    worker.register("limited", limited, concurrency=1)
    worker.register("free", free)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        for _ in range(2):
            server = await place.accepts()
            await greet(server, extended=True)
            function = (await server.hears())[1]
            assert isinstance(function, bytes)
            if function == b"limited":
                narrow = server
            else:
                wide = server
        await assign(narrow, function=b"limited", handle=b"H:1")
        await assign(wide, function=b"free", handle=b"H:2")
        await trio.testing.wait_all_tasks_blocked()
        assert worker.statistics().running == 2
        free.open.set()
        await wide.expects(("GRAB_JOB_UNIQ",), ("WORK_COMPLETE", b"H:2", b"w"))
        limited.open.set()
        await narrow.expects(("WORK_COMPLETE", b"H:1", b"w"), ("GRAB_JOB_UNIQ",))
        await part(nursery, narrow, wide)
    assert limited.most == 1


async def test_a_total_is_not_exceeded_and_no_server_is_forgotten() -> None:
    worker, gate = Worker(max_jobs=5), Gate()
    worker.register("f", gate)
    gate.open.set()
    one, other = ScriptedPlace(), ScriptedPlace()

    async def run() -> None:
        await worker.run([one, other], total=1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        first, second = await one.accepts(), await other.accepts()
        await meet(first, worker)
        await first.expects(("GRAB_JOB_UNIQ",))
        await meet(second, worker)
        await trio.testing.wait_all_tasks_blocked()
        await first.says(NO_JOB)
        await first.expects(("PRE_SLEEP",))
        await second.expects(("GRAB_JOB_UNIQ",))
        await second.says(JOB_ASSIGN_UNIQ, H, b"f", b"", b"")
        await first.expects(("RESET_ABILITIES",), ("end",))
        await second.expects(("RESET_ABILITIES",), ("WORK_COMPLETE", H, b""), ("end",))
        await first.hangs_up()
        await second.hangs_up()


async def test_a_refusal_by_one_server_ends_the_worker() -> None:
    worker = Worker(max_jobs=2)
    worker.register("f", Gate())
    one, other = ScriptedPlace(), ScriptedPlace()

    async def run() -> None:
        with pytest.raises(Refused, match="NOT_ALLOWED"):
            await worker.run([one, other])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        first, second = await one.accepts(), await other.accepts()
        await meet(first, worker)
        await meet(second, worker)
        await first.expects(("GRAB_JOB_UNIQ",))
        await first.says(ERROR, b"NOT_ALLOWED", b"who are you?")
        await first.expects(("end",))
        await second.expects(("GRAB_JOB_UNIQ",), ("end",))
        await first.hangs_up()
        await second.hangs_up()
