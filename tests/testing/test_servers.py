"""The servers that tests of other programs use: in memory, and in a thread."""

from __future__ import annotations

import datetime
import subprocess
import sys
import threading

import pytest
import trio
import trio.testing

import trigear.testing
from trigear.engine.config import EngineConfig, OnTimeout, ServerConfig
from trigear.errors import ConfigError, ConnectionLost, JobFailed, JobLost, LocalProtocolError
from trigear.runtime.worker import ThreadJob, Worker, WorkerJob
from trigear.testing import (
    MemoryServer,
    ThreadServer,
    open_memory_server,
    open_server_in_thread,
)

pytest_plugins = ["trigear.testing.fixtures"]


def reverser(**options: float) -> Worker:
    worker = Worker(max_jobs=2)

    @worker.function("reverse", **options)
    async def reverse(job: WorkerJob) -> bytes:
        return job.workload[::-1]

    return worker


class FakeEnd(BaseException):
    """What ends a program, and no ``Exception``: as what ``pytest.fail`` raises."""


def ender() -> Worker:
    worker = Worker()

    @worker.function("end")
    async def end(job: WorkerJob) -> bytes:
        raise FakeEnd

    return worker


# In memory


async def test_a_client_and_a_worker_meet_in_memory() -> None:
    async with (
        open_memory_server() as server,
        server.work(reverser()),
        server.connect(client_id="me") as client,
    ):
        assert await client.submit("reverse", b"abc") == b"cba"
        assert any(" me :" in line for line in await client.admin("workers"))


async def test_the_clock_of_a_server_in_memory_is_that_of_trio(
    autojump_clock: trio.testing.MockClock,
) -> None:
    begun = []

    async def slow(job: WorkerJob) -> bytes:
        begun.append(trio.current_time())
        if len(begun) == 1:
            await trio.sleep_forever()
        return b"done"

    workers = Worker(), Worker()
    for worker in workers:
        worker.register("slow", slow, timeout=3600)
    async with (
        open_memory_server() as server,
        server.work(*workers),
        server.connect() as client,
    ):
        assert await client.submit("slow", b"") == b"done"
        first, second = begun
        assert second - first == 3600


@pytest.mark.parametrize("wall", [None, 86400.0])
async def test_a_delay_is_kept_by_the_clock_of_the_test(
    autojump_clock: trio.testing.MockClock, wall: float | None
) -> None:
    worker = Worker()
    done = trio.Event()

    @worker.function("note")
    async def note(job: WorkerJob) -> None:
        done.set()

    async with (
        open_memory_server(wall=wall) as server,
        server.work(worker),
        server.connect() as client,
    ):
        for _ in range(2):
            start = trio.current_time()
            done = trio.Event()
            await client.submit_background("note", b"", delay=7200)
            await done.wait()
            assert trio.current_time() - start == 7200


async def test_the_date_is_the_machines_unless_told_otherwise(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_memory_server() as server,
        server.work(reverser()),
        server.connect() as client,
    ):
        start = trio.current_time()
        when = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
        handle = await client.submit_background("reverse", b"", at=when)
        while (await client.status(handle)).known:
            await trio.sleep(1)
        assert 3599 <= trio.current_time() - start <= 3603


async def test_a_server_in_memory_can_be_configured(
    autojump_clock: trio.testing.MockClock,
) -> None:
    worker = Worker()

    @worker.function("slow", timeout=60)
    async def slow(job: WorkerJob) -> bytes:
        await trio.sleep_forever()
        raise AssertionError

    async with (
        open_memory_server(EngineConfig(on_timeout=OnTimeout.FAIL)) as server,
        server.work(worker),
        server.connect() as client,
    ):
        with pytest.raises(JobFailed):
            await client.submit("slow", b"")


async def test_clients_and_workers_come_back_when_a_server_was_unreachable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with (
        open_memory_server() as server,
        server.work(reverser()),
        server.connect(patience=5) as client,
    ):
        handle = await client.submit_background("nobody does this", b"")
        async with client.open_job("nobody does this either", b"") as job:
            with server.unreachable():
                with pytest.raises(JobLost):
                    await job.result()
                start = trio.current_time()
                with pytest.raises(ConnectionLost, match="the server in memory"):
                    await client.submit("reverse", b"abc")
                assert trio.current_time() - start == 5
                with pytest.raises(ConnectionLost, match="unreachable"):
                    await server.open()
                with pytest.raises(ConnectionLost, match="unreachable"):
                    async with server.connect():
                        raise AssertionError
        assert await client.submit("reverse", b"abc") == b"cba"
        assert (await client.status(handle)).known


async def test_a_client_with_a_wrong_name_is_told_so() -> None:
    async with open_memory_server() as server:
        with pytest.raises(LocalProtocolError):
            async with server.connect(client_id="two words"):
                raise AssertionError


async def test_a_worker_that_cannot_run_says_so_where_it_was_put_to_work() -> None:
    async with open_memory_server() as server:
        with pytest.raises(ValueError, match="no functions"):
            async with server.work(Worker()):
                raise AssertionError
        worker = reverser()
        with pytest.raises(RuntimeError, match="runs already"):
            async with server.work(worker, worker):
                raise AssertionError
        with pytest.raises(ZeroDivisionError):
            async with server.work(worker):
                raise ZeroDivisionError


async def test_what_ends_a_test_in_a_handler_ends_the_test() -> None:
    with pytest.raises(FakeEnd):
        async with (
            open_memory_server() as server,
            server.work(ender()),
            server.connect() as client,
        ):
            await client.submit("end", b"")


async def test_a_stream_gives_no_more_than_it_was_asked_for() -> None:
    async with open_memory_server() as server:
        stream = await server.open()
        await stream.send_all(b"version\n")
        assert await stream.receive_some(2) == b"OK"
        assert (await stream.receive_some()).endswith(b"\n")


# In a thread


def test_a_blocking_client_and_a_worker_meet_at_a_server_in_a_thread() -> None:
    worker = reverser()

    @worker.function("in a thread")
    def plain(job: ThreadJob) -> bytes:
        return threading.current_thread().name.encode()

    with open_server_in_thread() as server, server.work(worker), server.connect() as client:
        assert client.submit("reverse", b"abc") == b"cba"
        assert client.submit("in a thread", b"") != threading.current_thread().name.encode()
    assert worker.statistics().connections == 0
    with pytest.raises(ConnectionLost):
        server.connect()


def test_a_server_in_a_thread_listens_where_it_is_told(tmp_path: pytest.TempPathFactory) -> None:
    config = ServerConfig(listen=("127.0.0.1", f"unix:{tmp_path}/socket"), port=0)
    with open_server_in_thread(config) as server:
        assert server.addresses == (server.address, f"unix:{tmp_path}/socket")
        with trigear.connect_blocking(server.addresses[1], timeout=30) as client:
            assert client.echo(b"x") == b"x"


def test_a_server_that_cannot_start_says_why() -> None:
    with pytest.raises(ConfigError), open_server_in_thread(ServerConfig(listen=("no where",))):
        raise AssertionError


def test_workers_come_and_go_while_a_server_runs() -> None:
    with open_server_in_thread() as server, server.connect() as client:
        with server.work(reverser(), ender()):
            assert client.submit("reverse", b"abc") == b"cba"
        job = client.job("reverse", b"xyz")
        with server.work(reverser()):
            assert job.result() == b"zyx"


def test_a_worker_that_cannot_run_in_a_thread_says_so_where_it_was_put_to_work() -> None:
    with open_server_in_thread() as server:
        with pytest.raises(ValueError, match="no functions"), server.work(reverser(), Worker()):
            raise AssertionError
        with server.connect() as client, server.work(reverser()):
            assert client.submit("reverse", b"abc") == b"cba"


def test_what_ends_a_test_in_a_handler_in_a_thread_ends_the_server() -> None:
    with (
        pytest.raises(FakeEnd),
        open_server_in_thread() as server,
        server.work(ender()),
        server.connect() as client,
    ):
        client.submit("end", b"")


async def test_a_task_is_not_blocked_by_a_server_in_a_thread(trigear_server: ThreadServer) -> None:
    with pytest.raises(RuntimeError), trigear_server.work(reverser()):
        raise AssertionError
    async with trio.open_nursery() as nursery, trigear.connect(trigear_server.address) as client:
        await nursery.start(reverser().run, trigear_server.address)
        assert await client.submit("reverse", b"abc") == b"cba"
        nursery.cancel_scope.cancel()


# The fixtures, and the package


def test_a_fixture_gives_a_plain_test_its_server(trigear_server: ThreadServer) -> None:
    with trigear_server.work(reverser()), trigear_server.connect() as client:
        assert client.submit("reverse", b"abc") == b"cba"


async def test_a_fixture_gives_a_trio_test_its_server(
    trigear_memory_server: MemoryServer, autojump_clock: trio.testing.MockClock
) -> None:
    async with trigear_memory_server.work(reverser()), trigear_memory_server.connect() as client:
        assert await client.submit("reverse", b"abc") == b"cba"
        with trio.move_on_after(86400) as scope:
            await client.submit("nobody does this", b"")
        assert scope.cancelled_caught


def test_importing_it_imports_no_pytest() -> None:
    code = (
        "import sys, trigear.testing as testing\n"
        "for name in testing.__all__:\n"
        "    assert getattr(testing, name).__module__ == testing.__name__\n"
        "assert 'trio' in sys.modules\n"
        "sys.exit('pytest' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0


def test_jobs_for_asyncio_say_what_they_need() -> None:
    code = (
        "import sys\n"
        "sys.modules['trio_asyncio'] = None\n"
        "import trigear.testing\n"
        "try: trigear.testing.FakeAsyncioJob\n"
        "except ImportError as error: assert 'trigear[asyncio]' in str(error), error\n"
        "else: sys.exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == 0


def test_it_has_nothing_else_to_offer() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(trigear.testing, "nonsense")  # noqa: B009
