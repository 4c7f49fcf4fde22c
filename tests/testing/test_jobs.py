"""Handlers called without a server, and the jobs they are called with."""

from __future__ import annotations

import asyncio
import inspect

import pytest
import trio
import trio.testing

from trigear.errors import JobFailed, LocalProtocolError
from trigear.runtime.aio import AsyncioJob
from trigear.runtime.job import ThreadJob, WorkerJob
from trigear.runtime.program import program
from trigear.runtime.worker import Worker
from trigear.testing import FakeAsyncioJob, FakeJob, FakeThreadJob, call, call_blocking

worker = Worker(max_jobs=4)


@worker.function("reverse", timeout=30)
async def reverse(job: WorkerJob) -> bytes:
    await job.status(1, 2)
    await job.warning(b"slow today")
    await job.data(job.workload[:1])
    return job.workload[::-1]


@worker.function("reverse in a thread", timeout=30)
def reverse_in_thread(job: ThreadJob) -> bytes:
    job.status(1, 2)
    job.warning(b"slow today")
    job.data(job.workload[:1])
    return job.workload[::-1]


@worker.function("reverse on asyncio", timeout=30, asyncio=True)
async def reverse_on_asyncio(job: AsyncioJob) -> bytes:
    await job.status(1, 2)
    await job.warning(b"slow today")
    await job.data(job.workload[:1])
    return job.workload[::-1]


worker.register("reverse by a program", program(["rev"]))

TALKING = ("reverse", "reverse in a thread", "reverse on asyncio")


@worker.function("nothing")
async def nothing(job: WorkerJob) -> None:
    pass


@worker.function("fail")
async def fail(job: WorkerJob) -> bytes:
    raise JobFailed


@worker.function("divide")
def divide(job: ThreadJob) -> bytes:
    return b"%d" % (1 // int(job.workload))


@worker.function("text")
async def text(job: WorkerJob) -> bytes:
    return job.workload.decode()  # type: ignore[return-value]


@worker.function("endless", timeout=3600)
async def endless(job: WorkerJob) -> bytes:
    await job.data(b"begun")
    await trio.sleep_forever()
    raise AssertionError


@worker.function("late", timeout=3600)
async def late(job: WorkerJob) -> bytes:
    try:
        await trio.sleep_forever()
    finally:
        raise ValueError("half done")
    raise AssertionError


# Calling


@pytest.mark.parametrize("function", TALKING)
async def test_a_job_keeps_what_any_kind_of_handler_says(function: str) -> None:
    job = await call(worker, function, b"abc")
    assert job.result == b"cba"
    assert job.statuses == [(1, 2)]
    assert job.warnings == [b"slow today"]
    assert job.sent == [b"a"]
    assert job.answer == b"acba"
    assert job.function == function.encode()
    assert job.over


async def test_a_program_is_called_as_well() -> None:
    assert (await call(worker, "reverse by a program", b"abc")).result == b"cba"


@pytest.mark.parametrize("function", TALKING)
def test_a_test_without_trio_can_call_any_kind_of_handler(function: str) -> None:
    assert call_blocking(worker, function, b"abc").answer == b"acba"


async def test_a_handler_that_returns_nothing_has_an_empty_result() -> None:
    assert (await call(worker, b"nothing")).result == b""


async def test_several_jobs_can_be_done_at_once() -> None:
    async def one(number: int) -> None:
        workload = b"%d" % number
        assert (await call(worker, TALKING[number % 3], workload)).result == workload

    async with trio.open_nursery() as nursery:
        for number in range(9):
            nursery.start_soon(one, number)


async def test_what_a_handler_raises_leaves_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        await call(worker, "divide", b"0")
    with pytest.raises(JobFailed):
        await call(worker, "fail")


async def test_a_result_that_is_no_bytes_is_refused_as_the_worker_refuses_it() -> None:
    with pytest.raises(TypeError, match="the handler returned str, not bytes"):
        await call(worker, "text", b"abc")


@pytest.mark.parametrize("function", ["endless", "late"])
async def test_a_handler_is_cancelled_at_its_timeout(
    autojump_clock: trio.testing.MockClock, function: str
) -> None:
    start = trio.current_time()
    job = FakeJob()
    with pytest.raises(trio.TooSlowError, match=f"function {function}> was cancelled .* 3600 s"):
        await call(worker, function, job)
    assert trio.current_time() - start == 3600
    assert job.over
    assert job.result is None
    assert job.sent == ([b"begun"] if function == "endless" else [])


async def test_being_cancelled_cancels_the_handler(autojump_clock: trio.testing.MockClock) -> None:
    job = FakeJob()
    with trio.move_on_after(5) as scope:
        await call(worker, "endless", job)
    assert scope.cancelled_caught
    assert job.over


async def test_a_function_that_the_worker_has_not_is_named_beside_those_it_has() -> None:
    with pytest.raises(ValueError, match="has no function nonsense: there is reverse, "):
        await call(worker, "nonsense")
    with pytest.raises(ValueError, match="there is none"):
        await call(Worker(), "nonsense")


async def test_a_job_is_done_once() -> None:
    job = await call(worker, "nothing", FakeJob(b"abc"))
    with pytest.raises(LocalProtocolError, match="is over: make another one"):
        await call(worker, "nothing", job)


# The jobs themselves, with handlers called as the functions they are


async def test_a_handler_on_trio_can_be_called_like_any_function() -> None:
    job = FakeJob(b"abc", function="reverse", unique="u", handle="H:1")
    assert await reverse(job) == b"cba"
    assert (job.statuses, job.sent, job.warnings) == ([(1, 2)], [b"a"], [b"slow today"])
    assert (job.function, job.unique, job.handle) == (b"reverse", b"u", b"H:1")
    assert repr(job) == "<job H:1 of function reverse>"
    assert job.answer == b"a"


def test_a_plain_handler_can_be_called_like_any_function() -> None:
    job = FakeThreadJob(b"abc", function="reverse", unique="u", handle="H:1")
    assert reverse_in_thread(job) == b"cba"
    assert (job.statuses, job.sent, job.warnings) == ([(1, 2)], [b"a"], [b"slow today"])
    assert (job.function, job.unique, job.handle) == (b"reverse", b"u", b"H:1")
    assert repr(job) == "<job H:1 of function reverse>"


def test_a_handler_on_asyncio_can_be_called_like_any_function() -> None:
    job = FakeAsyncioJob(b"abc", function="reverse", unique="u", handle="H:1")
    assert asyncio.run(reverse_on_asyncio(job)) == b"cba"
    assert (job.statuses, job.sent, job.warnings) == ([(1, 2)], [b"a"], [b"slow today"])
    assert (job.function, job.unique, job.handle) == (b"reverse", b"u", b"H:1")
    assert repr(job) == "<job H:1 of function reverse>"


async def test_what_a_real_job_refuses_a_fake_one_refuses() -> None:
    job = FakeJob()
    with pytest.raises(LocalProtocolError, match="negative"):
        await job.status(-1, 2)
    with pytest.raises(TypeError, match="bytes are needed"):
        await job.data("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes are needed"):
        await job.warning("text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bytes are needed"):
        FakeJob("text")  # type: ignore[arg-type]
    assert job.statuses == job.sent == job.warnings == []


async def test_a_job_that_is_over_hears_nothing_more() -> None:
    job = FakeJob()
    job.over = True
    for say in (job.data, job.warning):
        with pytest.raises(LocalProtocolError, match="is over"):
            await say(b"x")


def test_a_job_in_a_thread_that_is_over_hears_nothing_more() -> None:
    job = FakeThreadJob()
    assert not job.over
    job.over = True
    for say in (job.data, job.warning):
        with pytest.raises(LocalProtocolError, match="is over"):
            say(b"x")
    with pytest.raises(LocalProtocolError, match="negative"):
        FakeThreadJob().status(1, -2)


def test_a_job_on_asyncio_that_is_over_hears_nothing_more() -> None:
    async def test() -> None:
        job = FakeAsyncioJob()
        assert not job.over
        job.over = True
        with pytest.raises(LocalProtocolError, match="is over"):
            await job.data(b"x")

    asyncio.run(test())


@pytest.mark.parametrize(
    ("fake", "real"),
    [(FakeJob, WorkerJob), (FakeThreadJob, ThreadJob), (FakeAsyncioJob, AsyncioJob)],
)
def test_a_fake_job_takes_what_the_real_one_takes(fake: type, real: type) -> None:
    assert issubclass(fake, real)
    job = fake(b"w")
    for name in vars(real):
        if name.startswith("_"):
            continue
        there, here = getattr(real, name), getattr(fake, name)
        getattr(job, name) if name != "left_behind" else None
        if callable(there):
            assert inspect.signature(here) == inspect.signature(there)
            assert inspect.iscoroutinefunction(here) == inspect.iscoroutinefunction(there)
