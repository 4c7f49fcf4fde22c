"""Batches: many jobs, some at a time, in order or as they end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.runtime.calls import Call, client_of, greeted
from tests.runtime.scripted import ScriptedPlace, ScriptedServer
from trigear.errors import (
    ConnectionLost,
    JobFailed,
    JobLost,
    JobRaised,
    LocalProtocolError,
    Refused,
)
from trigear.wire.packets import (
    ECHO_RES,
    ERROR,
    JOB_CREATED,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock

    from trigear.runtime.batch import Batch, Outcome


def handle(number: int) -> bytes:
    return b"H:here:%d" % number


def workloads(count: int, taken: list[int] | None = None) -> Iterator[bytes]:
    for number in range(count):
        if taken is not None:
            taken.append(number)
        yield b"%d" % number


async def accept(server: ScriptedServer, *numbers: int) -> None:
    """The server hears these jobs, in this order, and has them."""
    for number in numbers:
        heard = await server.hears()
        assert heard[0] == "SUBMIT_JOB"
        assert heard[-1] == b"%d" % number
        await server.says(JOB_CREATED, handle(number))


async def finish(server: ScriptedServer, *numbers: int) -> None:
    for number in numbers:
        await server.says(WORK_COMPLETE, handle(number), b"did %d" % number)


async def take(batch: Batch, into: list[Outcome]) -> None:
    async for outcome in batch:
        into.append(outcome)  # noqa: PERF401 - the test looks on


class Taking:
    """A task that takes outcomes when it is told to."""

    def __init__(self, nursery: trio.Nursery, batch: Batch) -> None:
        self.nursery = nursery
        self.batch = batch

    async def next(self) -> Call:
        call = Call(self.nursery, lambda: anext(self.batch))
        await trio.testing.wait_all_tasks_blocked()
        return call


async def test_results_come_in_the_order_of_the_workloads(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        got: list[Outcome] = []

        nursery.start_soon(take, client.map("f", workloads(5), concurrency=3), got)
        await accept(server, 0, 1, 2)
        await finish(server, 2, 1)
        await trio.testing.wait_all_tasks_blocked()
        assert got == []
        await finish(server, 0)
        await accept(server, 3, 4)
        await finish(server, 4, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert [outcome.result() for outcome in got] == [b"did %d" % n for n in range(5)]
        assert [(outcome.index, outcome.workload) for outcome in got] == [
            (number, b"%d" % number) for number in range(5)
        ]


async def test_results_come_as_jobs_end(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        got: list[Outcome] = []

        nursery.start_soon(take, client.map("f", workloads(4), concurrency=2, ordered=False), got)
        await accept(server, 0, 1)
        await finish(server, 1)
        await accept(server, 2)
        await finish(server, 2)
        await accept(server, 3)
        await finish(server, 0, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert [outcome.index for outcome in got] == [1, 2, 0, 3]


async def test_no_more_is_taken_and_sent_than_there_is_room_for(
    autojump_clock: MockClock,
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        taken: list[int] = []
        taking = Taking(nursery, client.map("f", workloads(9, taken), concurrency=2))
        first = await taking.next()
        await accept(server, 0, 1)
        await finish(server, 0, 1)
        assert (await first.outcome()).index == 0  # type: ignore[attr-defined]
        # Nobody asks for more, so nothing more is begun.
        await trio.testing.wait_all_tasks_blocked()
        assert taken == [0, 1]
        second = await taking.next()
        assert (await second.outcome()).index == 1  # type: ignore[attr-defined]
        assert taken == [0, 1, 2]
        taking.batch.close()


async def test_an_empty_batch_is_over_at_once(autojump_clock: MockClock) -> None:
    async with client_of(ScriptedPlace()) as client:
        assert [outcome async for outcome in client.map("f", [])] == []


async def test_how_each_job_ended_is_its_own_affair(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        got: list[Outcome] = []

        nursery.start_soon(take, client.map("f", workloads(4)), got)
        await accept(server, 0, 1)
        await server.hears()
        await server.says(ERROR, b"QUEUE_ERROR", b"full")
        await accept(server, 3)
        await server.says(WORK_FAIL, handle(0))
        await server.says(WORK_EXCEPTION, handle(1), b"boom")
        await server.says(WORK_DATA, handle(3), b"part, ")
        await finish(server, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(outcome.error) for outcome in got] == [
            JobFailed,
            JobRaised,
            Refused,
            type(None),
        ]
        assert got[3].result() == b"part, did 3"
        with pytest.raises(JobRaised):
            got[1].result()


async def test_what_was_under_way_is_lost_with_the_connection_and_the_rest_goes_on(
    autojump_clock: MockClock,
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        got: list[Outcome] = []

        nursery.start_soon(take, client.map("f", workloads(3), concurrency=2), got)
        await accept(server, 0)
        await server.hears()
        await server.hangs_up()
        server = await greeted(place)
        await accept(server, 2)
        await finish(server, 2)
        await trio.testing.wait_all_tasks_blocked()
        assert [type(outcome.error) for outcome in got] == [JobLost, ConnectionLost, type(None)]


@pytest.mark.parametrize("ordered", [True, False])
async def test_what_was_under_way_is_submitted_again_on_demand(
    autojump_clock: MockClock, ordered: bool
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        got: list[Outcome] = []

        batch = client.map(
            "f",
            workloads(4),
            concurrency=3,
            ordered=ordered,
            unique=lambda workload: b"job " + workload,
            resubmit=True,
        )
        nursery.start_soon(take, batch, got)
        await accept(server, 0, 1, 2)
        await finish(server, 1)
        await server.hangs_up()
        server = await greeted(place)
        again = {(await server.hears())[2:] for _ in range(2)}
        assert again == {(b"job 0", b"0"), (b"job 2", b"2")}
        await server.says(JOB_CREATED, handle(0))
        await server.says(JOB_CREATED, handle(2))
        await finish(server, 0, 2)
        if not ordered:
            assert await server.hears() == ("SUBMIT_JOB", b"f", b"job 3", b"3")
            await server.says(JOB_CREATED, handle(3))
        else:
            await accept(server, 3)
        await finish(server, 3)
        await trio.testing.wait_all_tasks_blocked()
        assert sorted(outcome.result() for outcome in got) == [b"did %d" % n for n in range(4)]


async def test_cancelling_an_iteration_loses_nothing(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        taking = Taking(nursery, client.map("f", workloads(2), concurrency=2))
        await (await taking.next()).cancel()
        await accept(server, 0, 1)
        await finish(server, 0, 1)
        for number in range(2):
            outcome = await (await taking.next()).outcome()
            assert outcome.result() == b"did %d" % number  # type: ignore[attr-defined]
        assert isinstance(await (await taking.next()).outcome(), StopAsyncIteration)


async def test_without_a_server_the_iteration_raises_and_may_go_on(
    autojump_clock: MockClock,
) -> None:
    place = ScriptedPlace()
    async with client_of(place, patience=0) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        place.closed = True
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        batch = client.map("f", workloads(2), concurrency=1)
        for _ in range(2):
            with pytest.raises(ConnectionLost):
                await anext(batch)
        place.closed = False
        server = await greeted(place)
        call = await Taking(nursery, batch).next()
        await accept(server, 0)
        await finish(server, 0)
        outcome = await call.outcome()
        assert outcome.result() == b"did 0"  # type: ignore[attr-defined]


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_workload_that_cannot_be_sent_is_left_out(
    autojump_clock: MockClock, ordered: bool
) -> None:
    def unique(workload: bytes) -> bytes:
        return b"x" * 65 if workload == b"1" else workload

    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        bad = [b"0", "text", b"1", b"3"]
        batch = client.map("f", bad, unique=unique, ordered=ordered)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="encode it first"):
            await anext(batch)
        with pytest.raises(LocalProtocolError, match="unique of 65 bytes"):
            await anext(batch)
        call = await Taking(nursery, batch).next()
        await accept(server, 0, 3)
        await finish(server, 0, 3)
        outcomes = [await call.outcome(), await anext(batch)]
        assert [one.result() for one in outcomes] == [b"did 0", b"did 3"]  # type: ignore[attr-defined]
        with pytest.raises(StopAsyncIteration):
            await anext(batch)


@pytest.mark.parametrize("way_out", ["block", "close"])
async def test_leaving_early_detaches_what_is_under_way(
    autojump_clock: MockClock, way_out: str
) -> None:
    place = ScriptedPlace()
    async with client_of(place) as client, trio.open_nursery() as nursery:
        server = await greeted(place, extended=True)

        async def take_one() -> None:
            batch = client.map("f", workloads(9), concurrency=2)
            if way_out == "block":
                async with batch:
                    await anext(batch)
            else:
                await anext(batch)
                batch.close()
            with pytest.raises(StopAsyncIteration):
                await anext(batch)

        call = Call(nursery, take_one)
        await accept(server, 0, 1)
        await finish(server, 0)
        await call.outcome()
        await server.expects(("JOB_DETACH", handle(1)), ("ECHO_REQ", b""))
        await server.says(ECHO_RES, b"")


async def test_a_batch_says_what_it_cannot_do(autojump_clock: MockClock) -> None:
    async with client_of(ScriptedPlace()) as client:
        with pytest.raises(ValueError, match="at least one job at a time"):
            client.map("f", [], concurrency=0)
        with pytest.raises(ValueError, match="resubmit=True needs unique"):
            client.map("f", [], resubmit=True)
        with pytest.raises(ValueError, match="priority"):
            client.map("f", [], priority="top")  # type: ignore[arg-type]


async def test_a_batch_ends_with_its_client(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        async with client_of(place) as client:
            await greeted(place)
            batch = client.map("f", workloads(5), concurrency=2)
            call = await Taking(nursery, batch).next()
        assert isinstance(await call.outcome(), trio.ClosedResourceError)


async def test_a_batch_that_another_task_closes_is_over(autojump_clock: MockClock) -> None:
    place = ScriptedPlace()
    async with client_of(place, patience=60) as client, trio.open_nursery() as nursery:
        server = await greeted(place)
        waiting_for_a_job = Taking(nursery, client.map("f", workloads(5), concurrency=2))
        one = await waiting_for_a_job.next()
        await accept(server, 0, 1)
        place.closed = True
        waiting_for_a_job.batch.close()
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        waiting_for_a_server = Taking(nursery, client.map("f", workloads(5), concurrency=2))
        two = await waiting_for_a_server.next()
        waiting_for_a_server.batch.close()
        place.closed = False
        for call in one, two:
            assert isinstance(await call.outcome(), StopAsyncIteration)
        await (await greeted(place)).hangs_up()
