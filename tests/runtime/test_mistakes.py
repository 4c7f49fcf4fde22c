"""What programmers get wrong first, and that they are told what to write instead."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.runtime.workplace import H, assign, at_work
from trigear import (
    JobFailed,
    JobRaised,
    Worker,
    connect,
    connect_blocking,
)
from trigear.model import SAID, said
from trigear.runtime.client import open_client
from trigear.runtime.opening import Opening
from trigear.runtime.telling import STANDSTILL_SECONDS, Standstill, for_log, in_words
from trigear.runtime.worker import importing
from trigear.testing.memory import open_memory_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear import WorkerJob

ADVICE = "write `async with trigear.connect(...) as client:`, and use client in there"


# Entering


def test_a_client_that_was_not_entered_says_how() -> None:
    client: Any = connect("localhost")
    with pytest.raises(AttributeError) as caught:
        client.submit("f", b"")
    assert str(caught.value) == f"trigear.connect(...) has no 'submit' yet: {ADVICE}"


def test_a_client_that_is_entered_without_async_says_how() -> None:
    opening: Any = connect("localhost")
    with pytest.raises(TypeError) as caught, opening:
        pass
    assert str(caught.value) == f"trigear.connect(...) is entered asynchronously: {ADVICE}"


async def test_a_client_that_is_awaited_says_how() -> None:
    opening: Any = connect("localhost")
    with pytest.raises(TypeError) as caught:
        await opening
    assert str(caught.value) == f"trigear.connect(...) is not awaited: {ADVICE}"


def test_whoever_looks_what_kind_of_thing_it_is_gets_the_usual_answer() -> None:
    assert not hasattr(connect("localhost"), "__iter__")
    assert isinstance(connect("localhost"), Opening)


async def test_a_job_that_was_not_entered_says_how() -> None:
    async with open_memory_server() as network, open_client(network.stream()) as client:
        job: Any = client.open_job("f", b"")
        with pytest.raises(AttributeError, match=r"client\.open_job\(\.\.\.\) as job:"):
            await job.result()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (
            "async with trigear.connect('localhost'): pass",
            "trigear.connect(...) runs on Trio, and this is not a task of Trio's: start the program"
            " with trio.run(main). Without Trio there is trigear.connect_blocking; under asyncio,"
            " call it in asyncio.to_thread",
        ),
        (
            "await trigear.Worker().run('localhost')",
            "worker.run runs on Trio, and this is not a task of Trio's: start the program with"
            " trio.run(main). From a shell, `trigear worker module:worker` runs it",
        ),
    ],
)
def test_under_asyncio_one_reads_what_there_is_instead(code: str, says: str) -> None:
    # A process of its own: importing trio_asyncio, as other tests do, changes what asyncio runs on.
    program = f"import asyncio, trigear\nasync def main():\n    {code}\nasyncio.run(main())\n"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr.splitlines()[-1] == f"RuntimeError: {says}"


# Arguments


async def test_several_servers_in_a_list_are_told_to_be_arguments() -> None:
    servers: Any = ["localhost", "localhost:4731"]
    with pytest.raises(TypeError, match="several servers are several arguments"):
        connect(servers)


def test_an_address_that_is_no_text_is_refused_everywhere() -> None:
    port: Any = 4730
    with pytest.raises(TypeError, match="4730 is no address"):
        connect(port)
    with pytest.raises(TypeError, match="4730 is no address"):
        connect_blocking([port])


async def test_a_name_is_text_or_bytes() -> None:
    async with open_memory_server() as network, open_client(network.stream()) as client:
        with pytest.raises(TypeError, match="7 is no name"):
            await client.submit(7, b"")  # type: ignore[arg-type]


async def test_one_workload_is_not_taken_for_many() -> None:
    async with open_memory_server() as network, open_client(network.stream()) as client:
        with pytest.raises(TypeError, match="put it into a list"):
            client.map("f", b"workload")  # type: ignore[arg-type]


def test_a_failure_has_no_words() -> None:
    with pytest.raises(TypeError, match="Raise any other exception, and its words are sent"):
        JobFailed("no such picture")  # type: ignore[arg-type]


# Handlers


def test_a_decorator_without_a_name_says_so() -> None:
    decorate: Any = Worker().function
    with pytest.raises(TypeError, match=r'@worker\.function\("name"\)'):

        @decorate
        async def reverse(job: WorkerJob) -> bytes:
            return b""


async def nothing() -> None: ...


async def two(job: object, more: object) -> None: ...


async def several(*jobs: object) -> None: ...


async def with_default(job: object, more: object = None) -> None: ...


@pytest.mark.parametrize("handler", [nothing, two, lambda: b""])
def test_a_handler_that_takes_no_job_is_refused_at_once(handler: Any) -> None:
    with pytest.raises(TypeError, match=r"the handler of f is called with the job, .+\(job\)"):
        Worker().register("f", handler)


@pytest.mark.parametrize("handler", [several, with_default, bytes, lambda job: b""])
def test_whatever_can_be_called_with_a_job_is_a_handler(handler: Any) -> None:
    Worker().register("f", handler)


async def test_an_async_handler_that_forgets_to_await_is_told_so() -> None:
    worker = Worker()

    async def helper() -> bytes:
        return b""

    @worker.function("f")
    async def handler(job: WorkerJob) -> Any:
        return helper()

    async with at_work(worker) as server:
        await assign(server)
        name, _, text = await server.hears()
        assert (name, text) == (
            "WORK_EXCEPTION",
            b"TypeError: the handler returned a coroutine: await it, in an `async def`",
        )


async def test_a_module_that_runs_its_worker_when_it_is_imported_is_told_what_to_do() -> None:
    worker = Worker()
    worker.register("f", lambda job: b"")
    with importing("shop"), pytest.raises(RuntimeError, match=r"^shop runs its worker"):
        await worker.run("localhost")


# What is told of errors


def test_an_exception_is_its_name_and_its_words() -> None:
    assert in_words(ValueError("no")) == "ValueError: no"
    assert in_words(TimeoutError()) == "TimeoutError"
    assert in_words(ExceptionGroup("group", [ValueError("no")])) == "ValueError: no"
    both = ExceptionGroup("group", [ValueError("a"), ExceptionGroup("in", [KeyError("b")])])
    assert in_words(both) == "2 exceptions: ValueError: a; KeyError: 'b'"


async def test_the_log_shows_the_handlers_part_of_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    worker = Worker()

    @worker.function("f")
    def handler(job: object) -> bytes:
        raise ValueError("no such picture")

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_EXCEPTION", H, b"ValueError: no such picture"))
    (record,) = [record for record in caplog.records if "raised" in record.message]
    lines = logging.Formatter().formatException(record.exc_info).splitlines()  # type: ignore[arg-type]
    assert len(lines) == 4
    assert lines[1].endswith("in handler")
    assert lines[3] == "ValueError: no such picture"


async def test_a_wrong_result_is_logged_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()
    worker.register("f", lambda job: "text")  # type: ignore[arg-type,return-value]
    async with at_work(worker) as server:
        await assign(server)
        assert (await server.hears())[0] == "WORK_EXCEPTION"
    (record,) = [record for record in caplog.records if "raised" in record.message]
    words = "TypeError: the handler returned str, not bytes: encode it"
    assert logging.Formatter().formatException(record.exc_info) == words  # type: ignore[arg-type]


@pytest.mark.pure
def test_an_error_that_is_all_ours_keeps_its_traceback() -> None:
    with pytest.raises(AttributeError) as caught:
        said(None)  # type: ignore[arg-type]
    error, trace = caught.value, caught.tb.tb_next
    assert for_log(error.with_traceback(trace)) == (AttributeError, error, trace)


def test_an_exception_of_a_job_says_what_the_worker_said() -> None:
    assert str(JobRaised(b"H:1", b"ValueError: no\n  such picture\n")) == (
        "job H:1 raised an exception in its worker: ValueError: no · such picture"
    )
    assert str(JobRaised(b"H:1", b"")) == "job H:1 raised an exception in its worker"
    assert str(JobRaised(b"H:1", b"\xff")).endswith("worker: 1 byte that is no text")
    assert str(JobRaised(b"H:1", b"x\x1b[0m")).endswith(r"worker: x\x1b[0m")


def test_what_a_peer_says_is_cut() -> None:
    assert said(b"x" * SAID) == "x" * SAID
    assert said(b"x" * (SAID + 1)) == "x" * SAID + " …"
    assert said(b"x" * (SAID + 1), None) == "x" * (SAID + 1)


# A loop that does not get on


@pytest.fixture
def heard() -> list[float]:
    return []


@pytest.fixture
def clock() -> Callable[[float], float]:
    """A clock that is moved by so many seconds, and read."""
    now = 0.0

    def move(seconds: float = 0.0) -> float:
        nonlocal now
        now += seconds
        return now

    return move


def test_a_standstill_is_told_with_its_length(
    heard: list[float], clock: Callable[..., float]
) -> None:
    watch = Standstill(heard.append, clock)
    watch.before_io_wait(1.0)
    clock(1000)  # nothing was to be done
    watch.after_io_wait(1.0)
    clock(STANDSTILL_SECONDS / 2)
    watch.before_io_wait(1.0)
    assert heard == []
    watch.after_io_wait(1.0)
    clock(STANDSTILL_SECONDS * 3)
    watch.before_io_wait(1.0)
    assert heard == [STANDSTILL_SECONDS * 3]


def test_standstills_are_told_once_a_minute(
    heard: list[float], clock: Callable[..., float]
) -> None:
    watch = Standstill(heard.append, clock)
    for _ in range(61):
        watch.after_io_wait(1.0)
        clock(2)
        watch.before_io_wait(1.0)
    assert heard == [2.0, 2.0, 2.0]


async def test_a_handler_that_blocks_is_named_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker()

    @worker.function("f")
    async def handler(job: WorkerJob) -> None:
        time.sleep(STANDSTILL_SECONDS)  # noqa: ASYNC251

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_COMPLETE", H, b""))
    (line,) = [record.message for record in caplog.records if "stood still" in record.message]
    assert line.startswith("the event loop stood still for 1.")
    assert ", busy with f: " in line
    assert "make it a plain `def`" in line


async def test_a_handler_that_swallows_its_cancellation_is_told_of_in_the_log(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = Worker()

    @worker.function("f", timeout=7)
    async def handler(job: WorkerJob) -> bytes:
        try:
            await trio.sleep_forever()
        except BaseException:
            return b"half of it"

    async with at_work(worker) as server:
        await assign(server)
        await server.expects(("WORK_COMPLETE", H, b"half of it"))
    assert "its handler returned a result all the same: it counts" in caplog.text
