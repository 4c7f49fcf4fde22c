"""Handlers of the other kinds: in threads, for asyncio, as programs; and jobs that fail."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.runtime.workplace import H, assign, at_work
from trigear.errors import JobFailed, LocalProtocolError
from trigear.runtime.program import program
from trigear.runtime.worker import ThreadJob, Worker, WorkerJob, import_aio
from trigear.wire.packets import JOB_CANCELLED

if TYPE_CHECKING:
    from pathlib import Path

    from trigear.runtime.aio import AsyncioJob

OTHER = b"H:here:2"


# Failing


@pytest.mark.parametrize("handle", [b"", H])
async def test_a_handler_may_say_that_its_job_failed(handle: bytes) -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        raise JobFailed(handle) if handle else JobFailed

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_FAIL", H))
        assert worker.statistics().failed == 1


async def test_the_failure_of_another_job_is_an_exception() -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        raise JobFailed(OTHER)

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_EXCEPTION", H, b"JobFailed: job H:here:2 failed"))
        assert worker.statistics().raised == 1


# Threads


async def test_a_plain_function_runs_in_a_thread() -> None:
    worker = Worker(max_jobs=2)
    loop_thread = threading.get_ident()

    @worker.function("f")
    def handler(job: ThreadJob) -> bytes:
        assert threading.get_ident() != loop_thread
        assert (job.handle, job.function, job.unique, job.over) == (H, b"f", b"u", False)
        assert repr(job) == "<job H:here:1 of function f>"
        job.status(1, 2)
        job.data(b"part")
        job.warning(b"careful")
        return job.workload[::-1]

    async with at_work(worker) as server:
        await assign(server, b"abc")
        await server.expects(
            ("GRAB_JOB_UNIQ",),
            ("WORK_STATUS", H, b"1", b"2"),
            ("WORK_DATA", H, b"part"),
            ("WORK_WARNING", H, b"careful"),
            ("WORK_COMPLETE", H, b"cba"),
        )


async def test_what_a_plain_function_raises_is_an_exception() -> None:
    worker = Worker()

    @worker.function("f")
    def handler(job: ThreadJob) -> bytes:
        raise KeyError("x")

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_EXCEPTION", H, b"KeyError: 'x'"))


async def test_a_plain_function_that_returns_a_coroutine_is_told_so() -> None:
    worker = Worker()

    async def meant(job: ThreadJob) -> bytes:
        return b""

    worker.register("f", lambda job: meant(job))
    async with at_work(worker) as server:
        await assign(server)
        said, _, text = await server.hears()
        assert said == "WORK_EXCEPTION"
        assert b"returned a coroutine: await it, in an `async def`" in text  # type: ignore[operator]


async def test_a_thread_keeps_its_place_until_it_ends() -> None:
    """A thread cannot be stopped. Its job is given back all the same, but no other is begun."""
    worker = Worker()
    release = threading.Event()
    late: list[object] = []

    @worker.function("f")
    def handler(job: ThreadJob) -> bytes:
        job.status(0, 1)
        release.wait()
        late.append(job.over)
        try:
            job.status(1, 1)
        except LocalProtocolError as error:
            late.append(str(error))
        return b"for nothing"

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_STATUS", H, b"0", b"1"))
        await server.says(JOB_CANCELLED, H, b"timeout")
        await server.expects(("JOB_RELEASE", H, b"deadline"))
        await trio.testing.wait_all_tasks_blocked()
        assert late == []
        release.set()
        await server.expects(("GRAB_JOB_UNIQ",))
    assert late[0] is True
    assert "is over: nothing can be said about it any more" in str(late[1])


async def test_a_thread_does_not_hold_up_the_end_of_a_drained_worker() -> None:
    worker = Worker()
    begun, release = trio.Event(), threading.Event()

    @worker.function("f")
    def handler(job: ThreadJob) -> None:
        trio.from_thread.run_sync(begun.set)
        release.wait()

    async with at_work(worker) as server:
        await assign(server)
        await begun.wait()
        worker.drain(grace=0)
        await server.expects(("RESET_ABILITIES",), ("JOB_RELEASE", H, b"drain"), ("end",))
        await server.hangs_up()
        while worker._crew is not None:
            await trio.lowlevel.checkpoint()
        release.set()


# asyncio


async def test_handlers_for_asyncio_share_a_loop() -> None:
    worker = Worker(max_jobs=2)
    met: asyncio.Event | None = None

    async def handler(job: AsyncioJob) -> bytes:
        nonlocal met
        assert (job.function, job.unique, job.over) == (b"f", b"u", False)
        assert repr(job).startswith("<job H:here:")
        if met is None:
            met = asyncio.Event()
            await met.wait()
        met.set()
        await asyncio.sleep(0)
        await job.status(1, 2)
        await job.data(b"part")
        await job.warning(b"careful")
        return job.handle + job.workload

    worker.register("f", handler, asyncio=True)
    async with at_work(worker) as server:
        await assign(server)
        await assign(server, handle=OTHER)
        heard = [await server.hears() for _ in range(9)]
    assert sorted(said for said in heard if said[1:2] == (H,)) == [
        ("WORK_COMPLETE", H, H + b"w"),
        ("WORK_DATA", H, b"part"),
        ("WORK_STATUS", H, b"1", b"2"),
        ("WORK_WARNING", H, b"careful"),
    ]
    assert len([said for said in heard if said[1:2] == (OTHER,)]) == 4


async def test_what_a_handler_for_asyncio_raises_is_an_exception() -> None:
    worker = Worker()

    @worker.function("f", asyncio=True)
    async def handler(job: AsyncioJob) -> bytes:
        raise KeyError("x")

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_EXCEPTION", H, b"KeyError: 'x'"))


async def test_being_cancelled_reaches_an_asyncio_task() -> None:
    worker = Worker()
    seen: list[type[BaseException]] = []
    begun = trio.Event()

    @worker.function("f", asyncio=True)
    async def handler(job: AsyncioJob) -> bytes:
        begun.set()
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError as error:
            seen.append(type(error))
            raise
        raise AssertionError

    async with at_work(worker) as server:
        await assign(server)
        await begun.wait()
        await server.says(JOB_CANCELLED, H, b"cancelled")
        await server.expects(("GRAB_JOB_UNIQ",))
    assert seen == [asyncio.CancelledError]


async def test_an_asyncio_task_that_cancels_itself_is_no_reason_to_end() -> None:
    worker = Worker()

    @worker.function("f", asyncio=True)
    async def handler(job: AsyncioJob) -> bytes:
        raise asyncio.CancelledError

    async with at_work(worker) as server:
        await assign(server)
        said, handle, text = await server.hears()
        assert (said, handle) == ("WORK_EXCEPTION", H)
        assert b"task was cancelled by the handler" in text  # type: ignore[operator]
        await server.expects(("GRAB_JOB_UNIQ",))


def test_a_handler_for_asyncio_is_async() -> None:
    with pytest.raises(TypeError, match="is for asyncio: make it `async def`"):
        Worker().register("f", lambda job: b"", asyncio=True)


def test_who_lacks_trio_asyncio_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "trigear.runtime.aio")
    monkeypatch.setitem(sys.modules, "trio_asyncio", None)
    with pytest.raises(ImportError, match=r"pip install 'trigear\[asyncio\]'"):
        import_aio()


# Programs


async def test_a_program_gets_the_workload_and_gives_the_result() -> None:
    worker = Worker()
    worker.register("f", program(["tr", "a-z", "A-Z"]))
    large = b"abcdefgh" * 100_000
    async with at_work(worker) as server:
        await assign(server, large)
        await server.expects(("WORK_COMPLETE", H, large.upper()))


async def test_a_program_knows_its_job() -> None:
    worker = Worker()
    script = 'echo -n "$TRIGEAR_FUNCTION $TRIGEAR_HANDLE $TRIGEAR_UNIQUE $MORE"'
    worker.register("f", program(["/bin/sh", "-c", script], env={"MORE": "more"}))
    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_COMPLETE", H, b"f H:here:1 u more"))


async def test_a_program_that_reads_nothing_is_no_error() -> None:
    worker = Worker()
    worker.register("f", program(["true"]))
    async with at_work(worker) as server:
        await assign(server, bytes(1_000_000))
        await server.expects(("WORK_COMPLETE", H, b""))


@pytest.mark.parametrize("output", [b"", b"sorry"])
async def test_a_status_other_than_nought_is_a_failure(output: bytes) -> None:
    worker = Worker()
    worker.register("f", program(["/bin/sh", "-c", "cat; exit 3"]))
    async with at_work(worker) as server:
        await assign(server, output)
        data = [("WORK_DATA", H, output)] if output else []
        await server.expects(*data, ("WORK_FAIL", H))


@pytest.mark.parametrize(
    ("lines", "parts"),
    [("whole", [b"one\n", b"two\n", b"rest"]), ("stripped", [b"one", b"two", b"rest"])],
)
async def test_lines_leave_one_by_one(lines: str, parts: list[bytes]) -> None:
    worker = Worker()
    worker.register("f", program(["cat"], lines=lines))
    async with at_work(worker) as server:
        await assign(server, b"one\ntwo\nrest")
        await server.expects(*[("WORK_DATA", H, part) for part in parts], ("WORK_COMPLETE", H, b""))


async def test_a_program_that_is_not_there_is_an_exception() -> None:
    worker = Worker()
    worker.register("f", program(["/no/such/program"]))
    async with at_work(worker) as server:
        await assign(server)
        said, handle, text = await server.hears()
        assert (said, handle) == ("WORK_EXCEPTION", H)
        assert b"/no/such/program" in text  # type: ignore[operator]


@pytest.mark.parametrize("deaf", [False, True])
async def test_a_program_is_ended_with_everything_it_started(tmp_path: Path, *, deaf: bool) -> None:
    """A group of processes ends at SIGTERM, or two seconds later."""
    fifo = tmp_path / "alive"
    os.mkfifo(fifo)
    trap = "trap '' TERM; " if deaf else ""
    script = f"{trap}exec 3>{fifo}; sleep 1000 & sleep 1000 & echo begun; wait; wait"
    worker = Worker()
    worker.register("f", program(["/bin/sh", "-c", script], lines="stripped"))
    end = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        async with at_work(worker) as server:
            await assign(server)
            await server.expects(("WORK_DATA", H, b"begun"))
            await server.says(JOB_CANCELLED, H, b"cancelled")
            await server.expects(("GRAB_JOB_UNIQ",))
        # The pipe has an end when nobody holds it open any more.
        await trio.lowlevel.wait_readable(end)
        assert os.read(end, 1) == b""
    finally:
        os.close(end)


def test_a_program_is_a_list() -> None:
    assert repr(program(["tr", "a", "b"])) == "program(['tr', 'a', 'b'])"
    for wrong in "tr a b", []:
        with pytest.raises(ValueError, match="a list of a program and its arguments"):
            program(wrong)
    with pytest.raises(ValueError, match="'whole' or 'stripped'"):
        program(["tr"], lines="other")
