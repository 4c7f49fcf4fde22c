"""What became of a job, asked by the client on Trio, of servers in memory, scripted, and real."""

from __future__ import annotations

import threading
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio
from trio.testing import wait_all_tasks_blocked

from tests.runtime.books import PATIENCE, Book
from tests.runtime.calling import beside, calling
from tests.runtime.calls import Call, client_of, greeted
from tests.runtime.scripted import ScriptedPlace
from tests.stores.places import OWNER
from trigear import Result, Worker, connect
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.engine.reads import READ_SECONDS
from trigear.errors import ConnectionLost, LocalProtocolError, Refused, StoreUnavailable
from trigear.runtime.server import open_server
from trigear.stores.sqlite import SqliteStore
from trigear.testing import open_memory_server
from trigear.wire.packets import ECHO_RES, ERROR, RESULT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import pytest
    from trio.testing import MockClock

    from trigear.runtime.worker import WorkerJob
    from trigear.stores.base import Record

H = b"H:here:1"
KEEPING = EngineConfig(functions={b"f": FunctionSettings(keep_results=3600.0)})


def worker_of() -> Worker:
    worker = Worker()

    @worker.function("f")
    async def f(job: WorkerJob) -> bytes:
        await trio.sleep(10)
        return job.workload[::-1]

    return worker


# What comes back


async def test_a_job_is_followed_to_its_end(autojump_clock: MockClock) -> None:
    async with (
        open_memory_server(KEEPING, wall=1_800_000_000.0) as server,
        server.connect() as client,
    ):
        handle = await client.submit_background("f", b"abc")
        assert await client.result(handle) == Result(handle, "queued", 0, None, None)
        async with server.work(worker_of()):
            result = await client.result(handle, wait=True)
        assert (result.known, result.over, result.done) == (True, True, True)
        assert (result.state, result.attempts, result.data) == ("done", 1, b"cba")
        assert result.ended is not None
        late = (result.ended - datetime.fromtimestamp(1_800_000_010, UTC)).total_seconds()
        assert late == 0
        assert await client.result(handle.decode()) == result


async def test_a_job_that_nobody_knows_is_not_waited_for(autojump_clock: MockClock) -> None:
    async with open_memory_server() as server, server.connect() as client:
        result = await client.result(b"H:nobody:1", wait=True)
        assert result == Result(b"H:nobody:1", "unknown", 0, None, None)
        assert (result.known, result.over, result.done) == (False, False, False)


async def test_a_schedule_is_not_waited_for(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place, extended=True)
        call = Call(nursery, lambda: client.result(H, wait=True))
        await expects_question(server)
        await server.says(RESULT, H, b"scheduled", b"0", b"0", b"0", b"")
        result = await call.outcome()
        assert isinstance(result, Result)
        assert (result.known, result.over, result.settled) == (True, False, True)


async def test_an_outcome_without_its_result_has_no_data(autojump_clock: MockClock) -> None:
    async with (
        open_memory_server() as server,
        server.connect() as client,
        server.work(worker_of()),
    ):
        handle = await client.submit_background("f", b"abc")
        result = await client.result(handle, wait=True)
        assert (result.state, result.data) == ("done", None)


async def test_waiting_asks_less_and_less_often_and_may_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    async with open_memory_server() as server, server.connect() as client:
        handle = await client.submit_background("f", b"abc")
        asked = 0
        look = server.core.engine.results.look

        def counting(*args: object, **more: object) -> int:
            nonlocal asked
            asked += 1
            return look(*args, **more)

        server.core.engine.results.look = counting  # type: ignore[assignment]
        with trio.move_on_after(100) as scope:
            await client.result(handle, wait=True)
        assert scope.cancelled_caught
        assert 100 < asked < 120
        assert (await client.status(handle)).known


async def test_a_result_that_cannot_be_read_is_a_refusal(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place, extended=True)
        call = Call(nursery, lambda: client.result(H, wait=True))
        await expects_question(server)
        await server.says(ERROR, b"RESULT_UNAVAILABLE", b"The store does not answer")
        error = await call.outcome()
        assert isinstance(error, Refused)
        assert error.code == "RESULT_UNAVAILABLE"


async def expects_question(server) -> None:
    """GET_RESULT, behind an echo if the client has not heard yet that it may ask."""
    said = await server.hears()
    if said == ("ECHO_REQ", b""):
        await server.says(ECHO_RES, b"")
        said = await server.hears()
    assert said == ("GET_RESULT", H)


async def test_it_is_asked_at_every_server_until_one_knows(autojump_clock: MockClock) -> None:
    places = [ScriptedPlace(), ScriptedPlace(), ScriptedPlace()]
    async with client_of(*places, first=1) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.result(H))
        for number, state in ((1, b"unknown"), (2, b"running")):
            server = await greeted(places[number], extended=True)
            await expects_question(server)
            await server.says(RESULT, H, state, b"1", b"0", b"0", b"")
        assert await call.outcome() == Result(H, "running", 1, None, None)
        assert places[0].attempts == 0


async def test_a_server_that_is_not_trigear_cannot_be_asked(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        call = Call(nursery, lambda: client.result(H))
        await server.expects(("ECHO_REQ", b""))
        await server.says(ECHO_RES, b"")
        error = await call.outcome()
        assert isinstance(error, LocalProtocolError)
        assert str(error) == (
            "a knows nothing of jobs that are over: it does not speak trigear's extended mode"
        )


async def test_of_several_servers_those_that_are_not_trigear_are_passed_over(
    autojump_clock: MockClock,
) -> None:
    places = [ScriptedPlace(), ScriptedPlace()]
    async with client_of(*places) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.result(H))
        plain = await greeted(places[0])
        await plain.expects(("ECHO_REQ", b""))
        await plain.says(ECHO_RES, b"")
        server = await greeted(places[1], extended=True)
        await expects_question(server)
        await server.says(RESULT, H, b"done", b"2", b"1500", b"1", b"data")
        ended = datetime.fromtimestamp(1.5, UTC)
        assert await call.outcome() == Result(H, "done", 2, ended, b"data")


async def test_a_server_that_is_down_may_know_the_job(autojump_clock: MockClock) -> None:
    places = [ScriptedPlace(), ScriptedPlace()]
    places[1].closed = True
    async with client_of(*places) as client, trio.open_nursery() as nursery:
        call = Call(nursery, lambda: client.result(H))
        server = await greeted(places[0], extended=True)
        await expects_question(server)
        await server.says(RESULT, H, b"unknown", b"0", b"0", b"0", b"")
        error = await call.outcome()
        assert isinstance(error, ConnectionLost)
        assert str(error) == "nobody there; the others do not know the job"


# Behind it, a store


async def test_a_result_outlives_the_server_in_its_store(tmp_path: Path) -> None:
    path = str(tmp_path / "jobs.sqlite3")
    config = beside(tmp_path, KEEPING)
    worker = Worker()
    worker.function("f")(reverse)
    async with (
        open_server(config, store=SqliteStore(path)) as server,
        connect(server.addresses[0]) as client,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(worker.run, server.addresses[0])
        handle = await client.submit_background("f", b"abc")
        result = await client.result(handle, wait=True)
        assert result.data == b"cba"
        nursery.cancel_scope.cancel()
    async with (
        open_server(config, store=SqliteStore(path)) as server,
        connect(server.addresses[0]) as client,
    ):
        assert await client.result(handle) == result
    store = SqliteStore(path)
    with closing(store):
        store.open(OWNER)
        (record,) = store.records("result", None, 10)
        assert (record.key, record.data) == (handle, b"cba")


async def reverse(job: WorkerJob) -> bytes:
    return job.workload[::-1]


class Shelf(Book):
    """A book whose records are looked up in a thread that waits for the test, or fails."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = threading.Event()
        self.reading.set()
        self.asked = trio.Event()
        self.unreadable: Exception | None = None

    def fetch(self, kind: str, tenant: str, keys: Sequence[bytes]) -> Sequence[Record]:
        trio.from_thread.run_sync(self.asked.set)
        assert self.reading.wait(PATIENCE), "nobody let this go on"
        if self.unreadable is not None:
            raise self.unreadable
        return super().fetch(kind, tenant, keys)


async def kept(server, data: bytes = b"result") -> bytes:
    """A job whose result is kept; its handle."""
    async with calling(server) as peer:
        await peer.can_do(b"f")
        handle = await peer.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
        assert await peer.grab() == handle
        await peer.tell("WORK_COMPLETE", handle, data)
        await peer.submit("SUBMIT_JOB_BG", b"g", b"", b"later, so that the result is written")
    return handle


async def test_jobs_go_on_while_a_result_is_read(tmp_path: Path) -> None:
    shelf = Shelf()
    async with (
        open_server(beside(tmp_path, KEEPING), store=shelf) as server,
        calling(server) as peer,
        calling(server) as other,
    ):
        handle = await kept(server)
        await peer.ask("OPTION_REQ", b"trigear")
        shelf.reading.clear()
        await peer.tell("GET_RESULT", handle)
        await shelf.asked.wait()
        await other.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
        shelf.reading.set()
        name, same, state, attempts, ended, is_kept, data = await peer.hears()
        assert (name, same, state, attempts) == ("RESULT", handle, b"done", b"1")
        assert (int(ended) > 0, is_kept, data) == (True, b"1", b"result")


async def test_a_store_that_hangs_is_told_of_in_time_and_recovers(
    tmp_path: Path, mock_clock: MockClock
) -> None:
    shelf = Shelf()
    async with (
        open_server(beside(tmp_path, KEEPING), store=shelf) as server,
        calling(server) as peer,
    ):
        handle = await kept(server)
        await peer.ask("OPTION_REQ", b"trigear")
        shelf.reading.clear()
        await peer.tell("GET_RESULT", handle)
        await shelf.asked.wait()
        mock_clock.jump(READ_SECONDS)
        silent = ("ERROR", b"RESULT_UNAVAILABLE", b"The store does not answer")
        assert await peer.hears() == silent
        assert await peer.ask("GET_RESULT", handle) == silent
        shelf.reading.set()
        while (said := await peer.ask("GET_RESULT", handle)) == silent:
            await wait_all_tasks_blocked(0.001)
        assert said[-1] == b"result"


async def test_a_store_that_fails_is_logged_once_and_asked_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shelf = Shelf()
    async with (
        open_server(beside(tmp_path, KEEPING), store=shelf) as server,
        calling(server) as peer,
    ):
        handle = await kept(server)
        await peer.ask("OPTION_REQ", b"trigear")
        shelf.unreadable = StoreUnavailable("the disk is on fire")
        refused = ("ERROR", b"RESULT_UNAVAILABLE", b"The store cannot be read now")
        for _ in range(3):
            assert await peer.ask("GET_RESULT", handle) == refused
        assert caplog.messages == [
            "a record that was asked for cannot be read: StoreUnavailable: the disk is on fire"
        ]
        shelf.unreadable = None
        assert (await peer.ask("GET_RESULT", handle))[-1] == b"result"
        assert caplog.messages[1:] == ["a record can be read again"]


async def test_a_server_stops_although_a_read_hangs(tmp_path: Path) -> None:
    shelf = Shelf()
    async with (
        open_server(beside(tmp_path, KEEPING), store=shelf) as server,
        calling(server) as peer,
    ):
        handle = await kept(server)
        await peer.ask("OPTION_REQ", b"trigear")
        shelf.reading.clear()
        await peer.tell("GET_RESULT", handle)
        await shelf.asked.wait()
        server.stop()
        assert await peer.to_the_end() == b""
    shelf.reading.set()
