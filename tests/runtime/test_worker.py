"""The worker: its cycle, its handlers, and what the server hears of their ends."""

from __future__ import annotations

import logging
from functools import partial

import pytest
import trio
import trio.testing

from tests.runtime.scripted import ScriptedPlace
from tests.runtime.workplace import H, assign, at_work, greet, meet, part
from trigear.errors import ConfigError, ConnectionLost, JobRaised, LocalProtocolError, Refused
from trigear.runtime.client import open_client
from trigear.runtime.worker import Worker, WorkerJob
from trigear.testing.memory import open_memory_server
from trigear.wire.packets import ERROR, JOB_ASSIGN_UNIQ, NO_JOB, NOOP

# Greetings and the cycle


@pytest.mark.parametrize("extended", [True, False])
async def test_a_worker_introduces_itself_and_its_functions(*, extended: bool) -> None:
    worker = Worker(name="me", heartbeat=None)

    @worker.function("plain")
    async def handler(job: WorkerJob) -> bytes:
        return b""

    worker.register(b"timed", handler, timeout=30)
    worker.register("short", handler, timeout=0.2)
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await greet(server, extended=extended, name=b"me")
        # A second more than the worker's own, so that they do not race. gearmand's timer outlives
        # the job it was set for: a plain server is not told of any.
        timed = [
            ("CAN_DO_TIMEOUT", b"timed", b"31000"),
            ("CAN_DO_TIMEOUT", b"short", b"1200"),
        ]
        plain = [("CAN_DO", b"timed"), ("CAN_DO", b"short")]
        await server.expects(
            ("CAN_DO", b"plain"),
            *(timed if extended else plain),
            ("GRAB_JOB_UNIQ",),
        )
        nursery.cancel_scope.cancel()
        await server.hangs_up()


def test_a_worker_has_a_name_of_one_word() -> None:
    name = Worker().name
    assert name
    assert len(name.split()) == 1


async def test_a_worker_sleeps_when_there_is_no_job_and_grabs_when_woken() -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        return job.workload[::-1]

    async with at_work(worker) as server:
        await server.expects(("GRAB_JOB_UNIQ",))
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))
        await server.says(NOOP)
        await assign(server, b"abc")
        await server.expects(("WORK_COMPLETE", H, b"cba"))
        await server.expects(("GRAB_JOB_UNIQ",))
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))


async def test_a_worker_with_its_hands_full_does_not_grab() -> None:
    worker = Worker(max_jobs=2)
    release = {b"1": trio.Event(), b"2": trio.Event()}

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        await release[job.workload].wait()
        return job.workload

    async with at_work(worker) as server:
        await assign(server, b"1", b"H:1")
        await assign(server, b"2", b"H:2")
        await trio.testing.wait_all_tasks_blocked()
        release[b"2"].set()
        await server.expects(("WORK_COMPLETE", b"H:2", b"2"), ("GRAB_JOB_UNIQ",))
        release[b"1"].set()
        await server.expects(("WORK_COMPLETE", b"H:1", b"1"))
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))


async def test_a_job_that_ends_while_the_worker_sleeps_does_not_make_it_grab() -> None:
    worker = Worker(max_jobs=2)
    release = trio.Event()

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        await release.wait()

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("GRAB_JOB_UNIQ",))
        await server.says(NO_JOB)
        await server.expects(("PRE_SLEEP",))
        release.set()
        await server.expects(("WORK_COMPLETE", H, b""))
        await server.says(NOOP)
        await server.expects(("GRAB_JOB_UNIQ",))


# What the server hears of a job


async def test_a_handler_can_tell_how_it_gets_on() -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        assert (job.handle, job.function, job.unique) == (H, b"f", b"u")
        assert repr(job) == "<job H:here:1 of function f>"
        await job.status(1, 2)
        await job.data(b"part")
        await job.warning(b"careful")
        return b"done"

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(
            ("WORK_STATUS", H, b"1", b"2"),
            ("WORK_DATA", H, b"part"),
            ("WORK_WARNING", H, b"careful"),
            ("WORK_COMPLETE", H, b"done"),
        )


async def raise_error(job: WorkerJob) -> bytes:
    raise ValueError("größe")


async def return_text(job: WorkerJob) -> bytes:
    return "text"  # type: ignore[return-value]


async def raise_a_group(job: WorkerJob) -> bytes:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raise_error, job)
    return b""


async def miss_its_own_deadline(job: WorkerJob) -> bytes:
    with trio.fail_after(0):
        await trio.sleep_forever()
    return b""


@pytest.mark.parametrize(
    ("handler", "says"),
    [
        (raise_error, "ValueError: größe"),
        (return_text, "TypeError: the handler returned str, not bytes: encode it"),
        (raise_a_group, "ValueError: größe"),
        (miss_its_own_deadline, "TooSlowError"),
    ],
)
async def test_a_handler_that_raises_sends_an_exception_and_nothing_after_it(
    handler: object, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()
    worker.register("f", handler)  # type: ignore[arg-type]
    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_EXCEPTION", H, says.encode()), ("GRAB_JOB_UNIQ",))
    (record,) = caplog.records
    assert (record.levelno, record.exc_info is not None) == (logging.WARNING, True)
    assert record.getMessage() == "<job H:here:1 of function f> raised"


async def test_a_handler_may_return_anything_that_holds_bytes() -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        return memoryview(bytearray(b"abc"))[1:]  # type: ignore[return-value]

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_COMPLETE", H, b"bc"))


async def test_nothing_is_sent_for_a_job_that_is_over() -> None:
    worker = Worker()
    jobs: list[WorkerJob] = []

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        jobs.append(job)

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_COMPLETE", H, b""))
        with pytest.raises(LocalProtocolError, match="is over"):
            await jobs[0].data(b"late")


async def test_a_function_that_was_never_offered_fails(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    worker.register("f", raise_error)
    async with at_work(worker) as server:
        await assign(server, function=b"other")
        await server.expects(("WORK_FAIL", H), ("GRAB_JOB_UNIQ",))
    assert "was assigned, but was not offered" in caplog.text


async def test_a_disowned_job_is_logged_and_work_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        pass

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_COMPLETE", H, b""))
        await server.says(ERROR, b"JOB_NOT_FOUND", b"gone")
        await assign(server)
        await server.expects(("WORK_COMPLETE", H, b""))
    assert "its job went to somebody else: gone" in caplog.text


# Ends from outside


async def test_a_cancelled_worker_says_nothing_about_its_jobs() -> None:
    worker = Worker()
    cleaned_up = False

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        nonlocal cleaned_up
        await job.status(1, 2)
        try:
            await trio.sleep_forever()
        finally:
            cleaned_up = True
        raise AssertionError

    place = ScriptedPlace()
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await worker.run(place)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        server = await place.accepts()
        await meet(server, worker)
        await assign(server)
        await server.expects(("WORK_STATUS", H, b"1", b"2"))
        scope.cancel()
        await server.expects(("end",))
        await server.hangs_up()
    assert cleaned_up
    assert scope.cancelled_caught


async def test_a_worker_that_is_being_cancelled_begins_nothing() -> None:
    worker = Worker(max_jobs=2)
    ran: list[bytes] = []
    release = trio.Event()

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        ran.append(job.workload)
        with trio.CancelScope(shield=True):
            await release.wait()

    place = ScriptedPlace()
    scope = trio.CancelScope()

    async def run() -> None:
        with scope:
            await worker.run(place)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        server = await place.accepts()
        await meet(server, worker)
        await assign(server, b"first", b"H:1")
        await server.expects(("GRAB_JOB_UNIQ",))
        await trio.testing.wait_all_tasks_blocked()
        scope.cancel()
        await trio.testing.wait_all_tasks_blocked()
        await server.says(JOB_ASSIGN_UNIQ, b"H:2", b"f", b"", b"second")
        await trio.testing.wait_all_tasks_blocked()
        release.set()
        await server.expects(("WORK_COMPLETE", b"H:1", b""), ("end",))
        await server.hangs_up()
    assert ran == [b"first"]


async def test_a_lost_connection_cancels_the_handlers_and_is_made_again(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()
    cleaned_up = False

    @worker.function("f")
    async def handler(job: WorkerJob) -> bytes:
        nonlocal cleaned_up
        try:
            await trio.sleep_forever()
        finally:
            cleaned_up = True
        raise AssertionError

    place = ScriptedPlace()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker)
        await assign(server)
        await trio.testing.wait_all_tasks_blocked()
        await server.hangs_up()
        server = await place.accepts()
        assert cleaned_up
        await meet(server, worker)
        await server.expects(("GRAB_JOB_UNIQ",))
        nursery.cancel_scope.cancel()
        await server.hangs_up()
    assert "the server closed the connection (trying again in" in caplog.text


@pytest.mark.parametrize("end", ["returns", "raises"])
async def test_what_a_handler_does_after_the_end_is_nobodys_business(end: str) -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
        if end == "raises":
            raise ValueError

    place = ScriptedPlace()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker)
        await assign(server)
        await server.hangs_up()
        await part(nursery, await place.accepts())


async def test_a_handler_that_still_talks_learns_that_the_connection_broke() -> None:
    worker = Worker()
    learned = trio.Event()

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        with trio.CancelScope(shield=True):
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(ConnectionLost):
                await job.status(1, 2)
        learned.set()

    place = ScriptedPlace()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker)
        await assign(server)
        await server.hangs_up()
        await learned.wait()
        nursery.cancel_scope.cancel()


async def test_a_refused_grab_ends_the_worker() -> None:
    worker = Worker()
    worker.register("f", raise_error)
    place = ScriptedPlace()

    async def run() -> None:
        with pytest.raises(Refused, match="NOT_ALLOWED: you are nobody"):
            await worker.run(place)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        server = await place.accepts()
        await meet(server, worker)
        await server.expects(("GRAB_JOB_UNIQ",))
        await server.says(ERROR, b"NOT_ALLOWED", b"you are nobody")
        await server.expects(("end",))
        await server.hangs_up()


async def test_a_handler_that_ends_the_program_ends_it_bare() -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        raise SystemExit(3)

    place = ScriptedPlace()

    async def run() -> None:
        with pytest.raises(SystemExit):
            await worker.run(place)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(run)
        server = await place.accepts()
        await meet(server, worker)
        await assign(server)
        await server.expects(("end",))
        await server.hangs_up()


# What is wrong at the caller


def test_callables_and_partials_may_be_handlers() -> None:
    class Handler:
        async def __call__(self, job: WorkerJob) -> bytes:
            return b""

    worker = Worker()
    worker.register("object", Handler())
    worker.register("partial", partial(raise_error))


def test_a_function_has_one_handler() -> None:
    worker = Worker()
    assert worker.function("f")(raise_error) is raise_error
    with pytest.raises(ValueError, match="f has a handler already"):
        worker.register(b"f", raise_error)


@pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
def test_a_timeout_is_a_positive_number(timeout: float) -> None:
    with pytest.raises(ValueError, match="not a positive number"):
        Worker().register("f", raise_error, timeout=timeout)


def test_a_worker_does_at_least_one_job() -> None:
    with pytest.raises(ValueError, match="at least one job at a time"):
        Worker(max_jobs=0)


def test_a_handler_can_be_called() -> None:
    with pytest.raises(TypeError, match="handler of f cannot be called: 'text'"):
        Worker().register("f", "text")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "two words", "a\nb"])
def test_a_worker_is_not_called_anything_else(name: str) -> None:
    with pytest.raises(ValueError, match="one word is needed"):
        Worker(name=name)


@pytest.mark.parametrize("name", ["", "a\0b"])
def test_a_function_has_a_name(name: str) -> None:
    with pytest.raises(ValueError, match="a name without NUL"):
        Worker().register(name, raise_error)


def test_numbers_are_positive() -> None:
    with pytest.raises(ValueError, match="concurrency=0 of f"):
        Worker().register("f", raise_error, concurrency=0)
    with pytest.raises(ValueError, match="heartbeat=0"):
        Worker(heartbeat=0)


async def test_a_worker_needs_servers_and_functions() -> None:
    worker = Worker()
    with pytest.raises(ValueError, match="no functions"):
        await worker.run("localhost")
    worker.register("f", raise_error)
    with pytest.raises(ValueError, match="no server"):
        await worker.run([])
    with pytest.raises(ValueError, match="at least one job"):
        await worker.run("localhost", total=0)
    with pytest.raises(ConfigError):
        await worker.run("no port:")


async def test_a_worker_runs_once_at_a_time() -> None:
    worker = Worker()
    worker.register("f", raise_error)
    async with at_work(worker):
        with pytest.raises(RuntimeError, match="f> runs already"):
            await worker.run("localhost")
    with pytest.raises(RuntimeError, match="does not run"):
        await worker.wait_draining()
    worker.drain()  # nothing to drain is no error


# Against the engine


async def test_client_and_worker_meet_at_the_engine() -> None:
    worker = Worker(max_jobs=3)

    @worker.function("reverse")
    async def reverse(job: WorkerJob) -> bytes:
        await job.status(1, 2)
        return job.workload[::-1]

    @worker.function("fail")
    async def fail(job: WorkerJob) -> bytes:
        raise KeyError("nothing there")

    results: dict[bytes, bytes] = {}
    async with (
        open_memory_server() as network,
        open_client(network.stream()) as client,
        trio.open_nursery() as nursery,
    ):

        async def submit(workload: bytes) -> None:
            results[workload] = await client.submit("reverse", workload)

        async with trio.open_nursery() as jobs:
            jobs.start_soon(submit, b"before the worker")
            await trio.testing.wait_all_tasks_blocked()
            await nursery.start(worker.run, network.open)
            for number in range(20):
                jobs.start_soon(submit, b"job %d" % number)
        assert results == {workload: workload[::-1] for workload in results}
        assert len(results) == 21
        with pytest.raises(JobRaised) as caught:
            await client.submit("fail", b"")
        assert caught.value.data == b"KeyError: 'nothing there'"
        assert await client.admin("status") == ["reverse\t0\t0\t1", "fail\t0\t0\t1"]
        nursery.cancel_scope.cancel()


async def test_a_job_whose_worker_is_cancelled_is_run_by_another() -> None:
    ran: list[str] = []

    def named(name: str) -> Worker:
        worker = Worker(name=name)

        @worker.function("f")
        async def handler(job: WorkerJob) -> bytes:
            ran.append(name)
            if name == "first":
                await trio.sleep_forever()
            return name.encode()

        return worker

    async with (
        open_memory_server() as network,
        open_client(network.stream()) as client,
        trio.open_nursery() as nursery,
    ):
        first = trio.CancelScope()

        async def run_first() -> None:
            with first:
                await named("first").run(network.open)

        async def swap() -> None:
            await trio.testing.wait_all_tasks_blocked()
            first.cancel()
            await named("second").run(network.open)

        nursery.start_soon(run_first)
        nursery.start_soon(swap)
        assert await client.submit("f", b"") == b"second"
        assert ran == ["first", "second"]
        nursery.cancel_scope.cancel()


async def test_a_job_over_its_timeout_is_run_by_another(
    autojump_clock: trio.testing.MockClock,
) -> None:
    ran: list[str] = []

    async def take_long(job: WorkerJob) -> bytes:
        ran.append("slow")
        await trio.sleep_forever()
        raise AssertionError

    async def be_quick(job: WorkerJob) -> bytes:
        ran.append("quick")
        return b"quick"

    slow, quick = Worker(), Worker()
    slow.register("f", take_long, timeout=5)
    quick.register("f", be_quick)
    async with (
        open_memory_server() as network,
        open_client(network.stream()) as client,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(slow.run, network.open)

        async def join_later() -> None:
            await trio.sleep(1)
            await quick.run(network.open)

        nursery.start_soon(join_later)
        start = trio.current_time()
        assert await client.submit("f", b"") == b"quick"
        assert trio.current_time() - start == pytest.approx(5)
        assert ran == ["slow", "quick"]
        nursery.cancel_scope.cancel()
