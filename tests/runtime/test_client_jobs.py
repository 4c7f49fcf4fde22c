"""Following jobs: what is kept for whom, when the reader stops, how the server is told."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.runtime.calls import Call, client_of, greeted
from tests.runtime.scripted import ScriptedPlace
from trigear.engine.config import EngineConfig
from trigear.errors import JobFailed, JobLost, LocalProtocolError
from trigear.protocol.events import Data, Status
from trigear.runtime.client import connect_to, open_client
from trigear.runtime.pool import Place
from trigear.runtime.waiting import UNREAD_LIMIT
from trigear.testing.memory import MemoryServer, open_memory_server
from trigear.wire.codec import response
from trigear.wire.packets import (
    ECHO_RES,
    JOB_CREATED,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio.testing import MockClock

    from trigear.runtime.client import Client
    from trigear.runtime.waiting import Job

H = b"H:here:1"
CHUNK = bytes(UNREAD_LIMIT // 4)


async def settle() -> None:
    await trio.testing.wait_all_tasks_blocked()


# Priorities, times


async def test_priorities_may_be_names(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        nursery.start_soon(lambda: client.submit("f", b"w", priority="high"))
        assert (await server.hears())[0] == "SUBMIT_JOB_HIGH"
        nursery.start_soon(lambda: client.submit_background("f", b"w", priority="low"))
        assert (await server.hears())[0] == "SUBMIT_JOB_LOW_BG"
        with pytest.raises(ValueError, match="priority='urgent': high, normal or low is needed"):
            await client.submit("f", b"w", priority="urgent")  # type: ignore[arg-type]
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("at", "epoch"),
    [
        (1_900_000_000, 1_900_000_000),
        (1_900_000_000.25, 1_900_000_001),
        (datetime(2030, 1, 1, tzinfo=UTC), 1_893_456_000),
        (datetime(2030, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 1_893_456_000),
    ],
)
async def test_a_job_may_have_its_time(
    autojump_clock: MockClock, at: datetime | float, epoch: int
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        call = Call(nursery, lambda: client.submit_background("f", b"w", unique="u", at=at))
        await server.expects(("SUBMIT_JOB_EPOCH", b"f", b"u", b"%d" % epoch, b"w"))
        await server.says(JOB_CREATED, H)
        assert await call.outcome() == H


async def test_a_delay_counts_from_now(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        before = time.time()
        nursery.start_soon(lambda: client.submit_background("f", b"w", delay=90.5))
        heard = await server.hears()
        assert heard[0] == "SUBMIT_JOB_EPOCH"
        assert before + 90 <= int(heard[3]) <= time.time() + 92
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"at": 1, "delay": 1}, "leave one out"),
        ({"at": datetime(2030, 1, 1)}, "has no time zone"),
        ({"delay": -1}, "a number of seconds from now is needed"),
        ({"at": -5}, "is no time after 1970"),
        ({"at": 1_900_000_000, "priority": "high"}, "always has normal priority"),
    ],
)
async def test_a_time_that_is_none_is_refused_before_anything_is_sent(
    autojump_clock: MockClock, how: dict[str, object], says: str
) -> None:
    async with client_of(ScriptedPlace()) as client:
        with pytest.raises(LocalProtocolError, match=says):
            await client.submit_background("f", b"w", **how)  # type: ignore[arg-type]


# What is kept


async def following(client: Client, body: Callable[[Job], object], *, keep: bool = True) -> object:
    async with client.open_job("f", b"w", keep=keep) as job:
        return await body(job)  # type: ignore[misc]


async def test_data_can_be_had_once_instead_of_twice(autojump_clock: MockClock) -> None:
    async def body(job: Job) -> object:
        parts = [update.data async for update in job if isinstance(update, Data)]
        return parts, await job.result()

    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        call = Call(nursery, lambda: following(client, body, keep=False))
        await server.hears()
        await server.sends(
            response(JOB_CREATED, H)
            + response(WORK_DATA, H, b"1")
            + response(WORK_COMPLETE, H, b"2")
        )
        assert await call.outcome() == ([b"1"], b"2")


async def test_a_follower_who_takes_nothing_stops_the_reader_until_he_does(
    autojump_clock: MockClock,
) -> None:
    go = trio.Event()

    async def body(job: Job) -> object:
        await go.wait()
        return sum([len(update.data) async for update in job if not isinstance(update, Status)])

    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        call = Call(nursery, lambda: following(client, body))
        await server.hears()
        await server.says(JOB_CREATED, H)
        for _ in range(3):
            await server.says(WORK_DATA, H, CHUNK)
            await server.says(WORK_WARNING, H, CHUNK)
        echo = Call(nursery, lambda: client.echo(b"x"))
        await server.hears()
        await server.says(ECHO_RES, b"x")
        await settle()
        assert not echo.done.is_set()
        go.set()
        assert await echo.outcome() == b"x"
        await server.says(WORK_COMPLETE, H, b"")
        assert await call.outcome() == 6 * len(CHUNK)


@pytest.mark.parametrize("way_out", ["result", "leaving", "cancelled"])
async def test_a_stopped_reader_goes_on_when_nobody_needs_the_updates_kept(
    autojump_clock: MockClock, way_out: str
) -> None:
    go = trio.Event()

    async def body(job: Job) -> object:
        await go.wait()
        return len(await job.result()) if way_out == "result" else None

    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        call = Call(nursery, lambda: following(client, body))
        await server.hears()
        await server.sends(response(JOB_CREATED, H) + response(WORK_DATA, H, CHUNK) * 5)
        await settle()
        echo = Call(nursery, lambda: client.echo(b"x"))
        await server.hears()
        await server.says(ECHO_RES, b"x")
        await settle()
        assert not echo.done.is_set()
        if way_out == "cancelled":
            await call.cancel()
        else:
            go.set()
        assert await echo.outcome() == b"x"
        await server.says(WORK_COMPLETE, H, b"")
        if way_out == "result":
            assert await call.outcome() == 5 * len(CHUNK)


async def test_progress_can_be_shown_beside_the_waiting_for_the_result(
    autojump_clock: MockClock,
) -> None:
    async def body(job: Job) -> object:
        seen: list[object] = []

        async def show() -> None:
            async for update in job:
                assert isinstance(update, Status)
                seen.append((update.numerator, update.denominator))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(show)
            return await job.result(), seen

    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        call = Call(nursery, lambda: following(client, body))
        await server.hears()
        await server.says(JOB_CREATED, H)
        for step in (b"1", b"2"):
            await server.says(WORK_STATUS, H, step, b"2")
            await settle()
        await server.says(WORK_COMPLETE, H, b"x")
        assert await call.outcome() == (b"x", [(1, 2), (2, 2)])


async def test_a_job_that_was_left_says_so(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        jobs: list[Job] = []

        async def keep(job: Job) -> None:
            await trio.lowlevel.checkpoint()
            jobs.append(job)

        call = Call(nursery, lambda: following(client, keep))
        await server.hears()
        await server.says(JOB_CREATED, H)
        await call.outcome()
        with pytest.raises(trio.ClosedResourceError, match="the block around this job has ended"):
            await jobs[0].result()
        with pytest.raises(trio.ClosedResourceError, match="the block around this job has ended"):
            await anext(jobs[0])


async def test_the_end_of_a_job_can_be_asked_for_after_the_block(
    autojump_clock: MockClock,
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        jobs: list[Job] = []

        async def keep(job: Job) -> None:
            jobs.append(job)
            with pytest.raises(JobFailed):
                await job.result()

        call = Call(nursery, lambda: following(client, keep))
        await server.hears()
        await server.sends(response(JOB_CREATED, H) + response(WORK_FAIL, H))
        await call.outcome()
        with pytest.raises(JobFailed):
            await jobs[0].result()
        with pytest.raises(StopAsyncIteration):
            await anext(jobs[0])


async def test_a_lost_job_is_lost_for_its_follower_too(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        call = Call(nursery, lambda: following(client, lambda job: job.result()))
        await server.hears()
        await server.says(JOB_CREATED, H)
        await server.hangs_up()
        assert isinstance(await call.outcome(), JobLost)


# Extended mode: who waits no more says so


async def test_a_cancelled_submission_is_detached(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place, extended=True)
        call = Call(nursery, lambda: client.submit("f", b"w"))
        await server.hears()
        await server.says(JOB_CREATED, H)
        await settle()
        await call.cancel()
        await server.expects(("JOB_DETACH", H), ("ECHO_REQ", b""))
        await server.sends(response(WORK_DATA, H, b"late") + response(ECHO_RES, b""))
        echo = Call(nursery, lambda: client.echo(b"x"))
        await server.expects(("ECHO_REQ", b"x"))
        await server.says(ECHO_RES, b"x")
        assert await echo.outcome() == b"x"


async def test_a_submission_cancelled_before_its_handle_came_is_detached_then(
    autojump_clock: MockClock,
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place, extended=True)
        call = Call(nursery, lambda: client.submit("f", b"w"))
        await server.hears()
        await call.cancel()
        await server.says(JOB_CREATED, H)
        await server.expects(("JOB_DETACH", H), ("ECHO_REQ", b""))


async def test_a_background_job_is_never_detached(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place, extended=True)
        call = Call(nursery, lambda: client.submit_background("f", b"w"))
        await server.hears()
        await call.cancel()
        await server.says(JOB_CREATED, H)
        nursery.start_soon(client.echo, b"x")
        await server.expects(("ECHO_REQ", b"x"))
        nursery.cancel_scope.cancel()


def place_at(network: MemoryServer) -> Place:
    return Place("memory", network.open)


@pytest.mark.parametrize("way_out", ["submit cancelled", "job left", "client left"])
async def test_the_server_drops_a_job_that_nobody_waits_for(
    autojump_clock: MockClock, way_out: str
) -> None:
    async with (
        open_memory_server(EngineConfig()) as network,
        connect_to([place_at(network)]) as watching,
    ):
        async with connect_to([place_at(network)]) as client, trio.open_nursery() as nursery:
            if way_out == "job left":
                async with client.open_job("f", b"w"):
                    assert await watching.admin("status") == ["f\t1\t0\t0"]
            else:
                call = Call(nursery, lambda: client.submit("f", b"w"))
                await settle()
                assert await watching.admin("status") == ["f\t1\t0\t0"]
                if way_out == "submit cancelled":
                    await call.cancel()
                else:
                    nursery.cancel_scope.cancel()
            if way_out != "client left":
                await client.echo(b"after the detaching")
                assert await watching.admin("status") == ["f\t0\t0\t0"]
        assert await watching.admin("status") == ["f\t0\t0\t0"]


async def test_a_job_that_another_waits_for_stays(autojump_clock: MockClock) -> None:
    async with (
        open_memory_server() as network,
        open_client(network.stream()) as client,
        trio.open_nursery() as nursery,
    ):
        lost, kept = (Call(nursery, lambda: client.submit("f", b"w", unique="u")) for _ in "12")
        await settle()
        await lost.cancel()
        await client.echo(b"")
        assert await client.admin("status") == ["f\t1\t0\t0"]
        assert (await client.status_of_unique("u")).clients == 1
        await kept.cancel()
        assert not (await client.status_of_unique("u")).known
