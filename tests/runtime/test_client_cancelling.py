"""What cancelling each call means: each row of the table in the client's page, on a mock clock."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing

from tests.docs_tables import rows_of
from tests.runtime.calls import GREETING, Lot, client_of, greeted
from tests.runtime.scripted import ScriptedPlace, ScriptedServer, scripted
from trigear.engine.config import EngineConfig
from trigear.protocol.events import Data
from trigear.runtime.client import Client, connect_to, open_client
from trigear.runtime.link import FLUSH_GRACE
from trigear.runtime.pool import Place
from trigear.testing.memory import MemoryPeer, open_memory_server
from trigear.wire.codec import request, response
from trigear.wire.packets import (
    CAN_DO,
    ECHO_RES,
    GRAB_JOB,
    JOB_CREATED,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    WORK_COMPLETE,
    WORK_DATA,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from trio.testing import MockClock

ROWS = rows_of("client.md")
SCENES: dict[str, Callable[[], Awaitable[None]]] = {}

H = b"H:here:1"
DEADLINE = 5.0


def scene(row: str) -> Callable[[Any], Any]:
    def register(function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        SCENES[row] = function
        return function

    return register


@pytest.mark.parametrize("row", ROWS)
async def test_cancelling_means_what_the_page_says(autojump_clock: MockClock, row: str) -> None:
    await SCENES[row]()


def test_the_page_has_a_row_for_every_scene() -> None:
    assert set(SCENES) == set(ROWS)


@asynccontextmanager
async def plain(*, extended: bool = False) -> AsyncIterator[tuple[Client, ScriptedServer]]:
    """A client of a scripted server; both still get on when the block ends."""
    place = ScriptedPlace()
    async with client_of(place) as client:
        server = await greeted(place, extended=extended)
        yield client, server
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.echo, b"as good as new")
            assert await server.hears() == ("ECHO_REQ", b"as good as new")
            await server.says(ECHO_RES, b"as good as new")
        await server.hangs_up()


class Engine:
    """A trigear server in memory, and what its administrator sees."""

    def __init__(self, client: Client, watching: Client, worker: MemoryPeer) -> None:
        self.client = client
        self.worker = worker
        self._watching = watching

    async def jobs(self) -> tuple[int, int]:
        """How many jobs of the function there are, and how many of them run."""
        for line in await self._watching.admin("status"):
            name, total, running, _ = line.split("\t")
            if name == "f":
                return int(total), int(running)
        return 0, 0


@asynccontextmanager
async def engine() -> AsyncIterator[Engine]:
    async with open_memory_server(EngineConfig()) as network:
        place = [Place("memory", network.open)]
        async with connect_to(place) as client, connect_to(place) as watching:
            worker = network.core.connect()
            worker.send(request(CAN_DO, b"f"))
            yield Engine(client, watching, worker)


async def cancelled(call: Callable[[], Awaitable[object]]) -> None:
    """The call runs into its caller's deadline."""
    start = trio.current_time()
    with trio.move_on_after(DEADLINE) as scope:
        await call()
    assert scope.cancelled_caught
    assert trio.current_time() - start == pytest.approx(DEADLINE)


async def cancelled_with(
    server: ScriptedServer, call: Callable[[], Awaitable[object]], *said: bytes
) -> tuple[bytes | str, ...]:
    """The call runs into its deadline; the server hears it, says this at once. What it heard."""
    heard: tuple[bytes | str, ...] = ()

    async def serve() -> None:
        nonlocal heard
        heard = await server.hears()
        await server.sends(b"".join(said))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve)
        await cancelled(call)
    return heard


@scene("entering `connect`")
async def _() -> None:
    attempts = 0

    async def hangs() -> trio.abc.Stream:
        nonlocal attempts
        attempts += 1
        try:
            await trio.sleep_forever()
        finally:
            attempts -= 1
        raise AssertionError

    async def enter() -> None:
        async with connect_to([Place("a", hangs)], rng=Lot()):
            raise AssertionError

    await cancelled(enter)
    assert attempts == 0


@scene("the body of `connect`")
async def _() -> None:
    # The server takes nothing in until a second after the deadline, or never.
    for patience, left_after in ((DEADLINE + 1, DEADLINE + 1), (60, DEADLINE + FLUSH_GRACE)):
        near, server = scripted()
        assert isinstance(near.send_stream, trio.testing.MemorySendStream)
        pump = near.send_stream.send_all_hook
        start = trio.current_time()

        async def arrive(
            pump: Callable[[], Awaitable[None]] = pump, arrival: float = start + patience
        ) -> None:
            await trio.sleep_until(arrival)
            await pump()

        near.send_stream.send_all_hook = arrive
        with trio.move_on_after(DEADLINE) as scope:
            async with open_client(near) as client:
                await client.submit_background("f", b"queued")
        assert scope.cancelled_caught
        assert trio.current_time() - start == pytest.approx(left_after, abs=FLUSH_GRACE)
        if patience < 60:
            await server.expects(*GREETING, ("SUBMIT_JOB_BG", b"f", b"", b"queued"), ("end",))


@scene("`submit`, waiting for a server")
async def _() -> None:
    place = ScriptedPlace()
    async with client_of(place) as client:
        server = await greeted(place)
        place.closed = True
        await server.hangs_up()
        await trio.testing.wait_all_tasks_blocked()
        await cancelled(lambda: client.submit("f", b"w"))
        place.closed = False
        server = await greeted(place)
    assert await server.hears() == ("end",)


@scene("`submit`, sent")
async def _() -> None:
    async with plain() as (client, server):
        heard = await cancelled_with(
            server, lambda: client.submit("f", b"w"), response(JOB_CREATED, H)
        )
        assert heard == ("SUBMIT_JOB", b"f", b"", b"w")
        await server.sends(response(WORK_DATA, H, b"1") + response(WORK_COMPLETE, H, b"2"))
    async with plain() as (client, server):
        await cancelled_with(server, lambda: client.submit("f", b"w"))
        await server.sends(response(JOB_CREATED, H) + response(WORK_COMPLETE, H, b"2"))


@scene("`submit`, sent to a trigear server")
async def _() -> None:
    async with engine() as there:
        await cancelled(lambda: there.client.submit("f", b"w"))
        await there.client.echo(b"")
        assert await there.jobs() == (0, 0)
        # Two submissions of one job: it stays for the other one.
        async with there.client.open_job("f", b"w", unique="u"):
            await cancelled(lambda: there.client.submit("f", b"w", unique="u"))
            await there.client.echo(b"")
            assert await there.jobs() == (1, 0)


@scene("`submit`, already running at a trigear server")
async def _() -> None:
    async with engine() as there:

        async def grab() -> None:
            await trio.sleep(DEADLINE / 2)
            there.worker.send(request(GRAB_JOB))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(grab)
            await cancelled(lambda: there.client.submit("f", b"w"))
        await there.client.echo(b"")
        assert await there.jobs() == (1, 1)
        handle = there.worker.take()[12:].partition(b"\0")[0]
        there.worker.send(request(WORK_COMPLETE, handle, b"done"))
        assert await there.jobs() == (0, 0)


@scene("`submit_background`")
async def _() -> None:
    async with plain() as (client, server):
        heard = await cancelled_with(server, lambda: client.submit_background("f", b"w"))
        assert heard == ("SUBMIT_JOB_BG", b"f", b"", b"w")
        await server.says(JOB_CREATED, H)


@scene("`schedule`")
async def _() -> None:
    async with plain() as (client, server):
        heard = await cancelled_with(server, lambda: client.schedule("f", "@hourly", b"w"))
        assert heard == ("SUBMIT_JOB_SCHED", b"f", b"", b"0", b"*", b"*", b"*", b"*", b"w")
        await server.says(JOB_CREATED, H)


@scene("entering `open_job`")
async def _() -> None:
    async with plain(extended=True) as (client, server):

        async def enter() -> None:
            async with client.open_job("f", b"w"):
                raise AssertionError

        assert (await cancelled_with(server, enter))[0] == "SUBMIT_JOB"
        await server.says(JOB_CREATED, H)
        await server.expects(("JOB_DETACH", H), ("ECHO_REQ", b""))
        await server.says(ECHO_RES, b"")


@scene("the body of `open_job`")
async def _() -> None:
    async with plain(extended=True) as (client, server):

        async def follow() -> None:
            async with client.open_job("f", b"w"):
                await trio.sleep_forever()

        await cancelled_with(server, follow, response(JOB_CREATED, H), response(WORK_DATA, H, b""))
        await server.expects(("JOB_DETACH", H), ("ECHO_REQ", b""))
        await server.sends(response(WORK_DATA, H, b"dropped") + response(ECHO_RES, b""))


@asynccontextmanager
async def followed(
    rest: bytes,
) -> AsyncIterator[tuple[Any, ScriptedServer, Callable[[], Awaitable[None]]]]:
    """A job under way, and what lets the server say the rest of it."""
    async with plain() as (client, server), trio.open_nursery() as nursery:

        async def accept() -> None:
            await server.hears()
            await server.says(JOB_CREATED, H)

        nursery.start_soon(accept)
        async with client.open_job("f", b"w") as job:
            yield job, server, lambda: server.sends(rest)


@scene("`async for` over a job")
async def _() -> None:
    rest = response(WORK_DATA, H, b"1") + response(WORK_DATA, H, b"2")
    async with followed(rest) as (job, server, go_on):
        await cancelled(job.__anext__)
        await go_on()
        for expected in b"1", b"2":
            update = await anext(job)
            assert isinstance(update, Data)
            assert update.data == expected
        await cancelled(job.__anext__)
        await server.says(WORK_COMPLETE, H, b"")
        with pytest.raises(StopAsyncIteration):
            await anext(job)


@scene("`job.result`")
async def _() -> None:
    rest = response(WORK_DATA, H, b"1") + response(WORK_COMPLETE, H, b"2")
    async with followed(rest) as (job, _, go_on):
        await cancelled(job.result)
        await go_on()
        assert await job.result() == b"12"
        assert await job.result() == b"12"


@scene("`async for` over a `map`")
async def _() -> None:
    async with plain() as (client, server):
        batch = client.map("f", [b"1", b"2"], concurrency=2)
        heard = await cancelled_with(server, batch.__anext__)
        assert heard == ("SUBMIT_JOB", b"f", b"", b"1")
        await server.expects(("SUBMIT_JOB", b"f", b"", b"2"))
        await server.sends(
            response(JOB_CREATED, H)
            + response(JOB_CREATED, b"H:2")
            + response(WORK_COMPLETE, H, b"one")
            + response(WORK_COMPLETE, b"H:2", b"two")
        )
        assert [outcome.result() async for outcome in batch] == [b"one", b"two"]


@scene("the block of a `map`")
async def _() -> None:
    async with plain(extended=True) as (client, server):

        async def use() -> None:
            async with client.map("f", [b"1", b"2"], concurrency=1) as batch:
                await anext(batch)

        heard = await cancelled_with(server, use, response(JOB_CREATED, H))
        assert heard == ("SUBMIT_JOB", b"f", b"", b"1")
        await server.expects(("JOB_DETACH", H), ("ECHO_REQ", b""))
        await server.says(ECHO_RES, b"")


@scene("`status`, `status_of_unique`, `echo`")
async def _() -> None:
    nothing = (b"0",) * 4
    async with plain() as (client, server):
        await cancelled_with(server, lambda: client.status(H))
        await server.says(STATUS_RES, H, *nothing)
    async with plain() as (client, server):
        await cancelled_with(server, lambda: client.status_of_unique("u"))
        await server.says(STATUS_RES_UNIQUE, b"u", *nothing, b"0")
    async with plain() as (client, server):
        await cancelled_with(server, lambda: client.echo(b"x"))
        await server.says(ECHO_RES, b"x")


@scene("`admin`")
async def _() -> None:
    async with plain() as (client, server):
        assert await cancelled_with(server, lambda: client.admin("status")) == ("text", b"status")
        await server.sends(b"f\t0\t0\t0\n")
        await trio.testing.wait_all_tasks_blocked()
        await server.sends(b".\n")
