"""What a program sees when the server restarts under it: each row of the page, with a real server.

The broken moments come from a relay between client and server, which the test cuts.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.docs_tables import rows_of
from trigear.engine.config import ServerConfig
from trigear.errors import ConnectionLost, JobLost
from trigear.runtime.client import Client, connect
from trigear.runtime.server import open_server
from trigear.runtime.worker import Worker, WorkerJob

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

ROWS = rows_of("exceptions.md")
SCENES: dict[str, Callable[[Outage], Awaitable[str]]] = {}


class Outage:
    """A server that can be away, at an address that stays.

    Between the client and the server stands a relay: `deaf`, it lets nothing of what the server
    says through, so that a reply is still under way when the connection breaks.
    """

    def __init__(self, nursery: trio.Nursery, server: int) -> None:
        self.port = 0
        self.away = trio.Event()
        self.ran = 0
        self.began = trio.Event()
        self.go_on = trio.Event()
        self.heard: list[bytes] = []
        self.sent = trio.Event()
        self.deaf = False
        self._nursery = nursery
        self._server = server
        self._listener: trio.CancelScope | None = None

    async def start(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be there until :meth:`stop`."""
        with trio.CancelScope() as self._listener:
            async with trio.open_nursery() as nursery:
                listeners = await nursery.start(
                    partial(trio.serve_tcp, self._relay, self.port, host="127.0.0.1")
                )
                self.port = listeners[0].socket.getsockname()[1]
                task_status.started()
        self.away.set()

    async def stop(self) -> None:
        """Break all connections and be away."""
        assert self._listener is not None
        self._listener.cancel()
        await self.away.wait()

    async def back(self) -> None:
        """Be there again."""
        self.away = trio.Event()
        self.deaf = False
        await self._nursery.start(self.start)

    async def restart(self) -> None:
        await self.stop()
        await self.back()

    async def _relay(self, near: trio.SocketStream) -> None:
        far = await trio.open_tcp_stream("127.0.0.1", self._server)
        async with far, trio.open_nursery() as nursery:
            nursery.start_soon(self._carry, near, far, False)
            await self._carry(far, near, True)
            nursery.cancel_scope.cancel()

    async def _carry(
        self, source: trio.SocketStream, target: trio.SocketStream, back: bool
    ) -> None:
        try:
            async for data in source:
                if not back:
                    self.heard.append(bytes(data))
                    self.sent.set()
                if not (back and self.deaf):
                    await target.send_all(data)
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    @asynccontextmanager
    async def client(self, patience: float = 10) -> AsyncIterator[Client]:
        async with connect(f"127.0.0.1:{self.port}", patience=patience) as client:
            await client.echo(b"the greeting is over")
            self.heard.clear()
            self.sent = trio.Event()
            yield client

    async def sees(self, call: Callable[[], Awaitable[object]]) -> str:
        """What a call comes to, in the words of the page."""
        try:
            await call()
        except ConnectionLost as error:
            return "`ConnectionLost`, in doubt" if error.in_doubt else "`ConnectionLost`"
        except JobLost:
            return "`JobLost`"
        return "nothing"

    async def sees_when(
        self,
        call: Callable[[], Awaitable[object]],
        moment: Callable[[], Awaitable[object]],
        then: Callable[[], Awaitable[object]],
    ) -> str:
        """What a call comes to if at that moment this happens."""
        seen = ""

        async def see() -> None:
            nonlocal seen
            seen = await self.sees(call)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(see)
            await moment()
            await then()
        return seen


@asynccontextmanager
async def outage() -> AsyncIterator[Outage]:
    worker = Worker(max_jobs=4)
    config = ServerConfig(listen=("127.0.0.1",), port=0)
    with trio.fail_after(60):
        async with open_server(config) as server, trio.open_nursery() as nursery:
            address = server.addresses[0]
            there = Outage(nursery, int(address.rpartition(":")[2]))

            @worker.function("hold")
            async def hold(job: WorkerJob) -> bytes:
                there.ran += 1
                await job.data(b"part")
                there.began.set()
                await there.go_on.wait()
                return b"done"

            await nursery.start(worker.run, address)
            await nursery.start(there.start)
            yield there
            nursery.cancel_scope.cancel()


def scene(row: str) -> Callable[[Any], Any]:
    def register(function: Callable[[Outage], Awaitable[str]]) -> Callable[..., Awaitable[str]]:
        SCENES[row] = function
        return function

    return register


@pytest.mark.parametrize("row", ROWS)
async def test_what_the_page_says_is_what_a_program_sees(row: str) -> None:
    async with outage() as there:
        seen = await SCENES[row](there)
    assert seen == ROWS[row].partition(";")[0]


def test_the_page_has_a_row_for_every_scene() -> None:
    assert set(SCENES) == set(ROWS)


@scene("`submit`, broke before the server said that it has the job")
async def _(there: Outage) -> str:
    async with there.client() as client:
        there.deaf = True
        return await there.sees_when(
            lambda: client.submit("hold", b""), there.sent.wait, there.restart
        )


@scene("`submit`, broke while the job was queued or ran")
async def _(there: Outage) -> str:
    async with there.client() as client:
        return await there.sees_when(
            lambda: client.submit("hold", b""), there.began.wait, there.restart
        )


@scene("`submit` with `resubmit=True`, broke, back")
async def _(there: Outage) -> str:
    async def come_back() -> None:
        await there.restart()
        there.go_on.set()

    async with there.client() as client:
        seen = await there.sees_when(
            lambda: client.submit("hold", b"", unique="u", resubmit=True),
            there.began.wait,
            come_back,
        )
    assert sum(data.count(b"hold\0u") for data in there.heard) == 2
    return seen


@scene("`submit` with `resubmit=True`, broke, away")
async def _(there: Outage) -> str:
    async with there.client(patience=0.1) as client:
        return await there.sees_when(
            lambda: client.submit("hold", b"", unique="u", resubmit=True),
            there.began.wait,
            there.stop,
        )


@scene("`submit_background`, broke before the reply")
async def _(there: Outage) -> str:
    async with there.client() as client:
        there.deaf = True
        return await there.sees_when(
            lambda: client.submit_background("hold", b""), there.sent.wait, there.restart
        )


@scene("`submit_background` with `resubmit=True`, broke before the reply, back")
async def _(there: Outage) -> str:
    async with there.client() as client:
        there.deaf = True
        seen = await there.sees_when(
            lambda: client.submit_background("hold", b"", unique="u", resubmit=True),
            there.sent.wait,
            there.restart,
        )
    assert sum(data.count(b"hold\0u") for data in there.heard) == 2
    return seen


@scene("`schedule`, broke before the reply")
async def _(there: Outage) -> str:
    async with there.client() as client:
        there.deaf = True
        return await there.sees_when(
            lambda: client.schedule("hold", "@daily"), there.sent.wait, there.restart
        )


@scene("entering `open_job`, broke before the reply")
async def _(there: Outage) -> str:
    async def enter() -> None:
        async with client.open_job("hold", b""):
            raise AssertionError

    async with there.client() as client:
        there.deaf = True
        return await there.sees_when(enter, there.sent.wait, there.restart)


@scene("`async for` over a job, broke")
async def _(there: Outage) -> str:
    got: list[object] = []
    some_came = trio.Event()

    async def follow() -> None:
        async with client.open_job("hold", b"") as job:
            async for update in job:
                got.append(update)
                some_came.set()

    async with there.client() as client:
        seen = await there.sees_when(follow, some_came.wait, there.restart)
    assert len(got) == 1
    return seen


@scene("`job.result`, broke")
async def _(there: Outage) -> str:
    async with there.client() as client, client.open_job("hold", b"") as job:
        return await there.sees_when(job.result, there.began.wait, there.restart)


@scene("`map`, broke, back")
async def _(there: Outage) -> str:
    errors: list[object] = []

    async def collect() -> None:
        async for outcome in client.map("hold", [b"1", b"2"], concurrency=1):
            errors.append(outcome.error and type(outcome.error))  # noqa: PERF401

    async def come_back() -> None:
        await there.restart()
        there.go_on.set()

    async with there.client() as client:
        seen = await there.sees_when(collect, there.began.wait, come_back)
    assert errors == [JobLost, None]
    return seen


@scene("`map` with `resubmit=True`, broke, back")
async def _(there: Outage) -> str:
    got: list[bytes] = []

    async def collect() -> None:
        batch = client.map(
            "hold", [b"1", b"2"], concurrency=1, unique=lambda word: word, resubmit=True
        )
        async for outcome in batch:
            got.append(outcome.result())  # noqa: PERF401

    async def come_back() -> None:
        await there.restart()
        there.go_on.set()

    async with there.client() as client:
        seen = await there.sees_when(collect, there.began.wait, come_back)
    assert got == [b"partdone"] * 2
    return seen


@scene("`map`, away")
async def _(there: Outage) -> str:
    async with there.client(patience=0.1) as client:
        await there.stop()
        await trio.testing.wait_all_tasks_blocked(0.01)
        return await there.sees(client.map("hold", [b"1"]).__anext__)


@scene("`status`, `status_of_unique`, `echo`, broke")
async def _(there: Outage) -> str:
    seen = set()
    for ask in (
        lambda client: client.status(b"H:1"),
        lambda client: client.status_of_unique("u"),
        lambda client: client.echo(b"x"),
    ):
        async with there.client() as client:
            there.deaf = True
            seen.add(await there.sees_when(partial(ask, client), there.sent.wait, there.restart))
    (one,) = seen
    return one


@scene("`admin`, broke")
async def _(there: Outage) -> str:
    async with there.client() as client:
        there.deaf = True
        return await there.sees_when(lambda: client.admin("status"), there.sent.wait, there.restart)


@scene("entering `connect`, away")
async def _(there: Outage) -> str:
    async def enter() -> None:
        async with connect(f"127.0.0.1:{there.port}"):
            raise AssertionError

    await there.stop()
    return await there.sees(enter)


async def all_calls(there: Outage, client: Client) -> set[str]:
    async def enter() -> None:
        async with client.open_job("hold", b""):
            pass

    return {
        await there.sees(call)
        for call in (
            lambda: client.submit("hold", b""),
            lambda: client.submit_background("hold", b""),
            lambda: client.submit_background("hold", b"", delay=10),
            enter,
            lambda: client.status("H:1"),
            lambda: client.status_of_unique("u"),
            lambda: client.echo(b"x"),
            lambda: client.admin("status"),
        )
    }


@scene("any call, away")
async def _(there: Outage) -> str:
    async with there.client(patience=0.05) as client:
        await there.stop()
        await trio.testing.wait_all_tasks_blocked(0.01)
        (one,) = await all_calls(there, client)
        return one


@scene("any call, back")
async def _(there: Outage) -> str:
    there.go_on.set()
    async with there.client() as client:
        await there.stop()
        await trio.testing.wait_all_tasks_blocked(0.01)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(there.back)
            (one,) = await all_calls(there, client)
        return one


@scene("any call, away, the caller's deadline is shorter than the patience")
async def _(there: Outage) -> str:
    async with there.client() as client:
        await there.stop()
        await trio.testing.wait_all_tasks_blocked(0.01)
        with trio.move_on_after(0.05) as scope:
            await client.submit("hold", b"")
        return "`Cancelled`" if scope.cancelled_caught else "nothing"


@scene("the body of `connect`, broke, no call under way")
async def _(there: Outage) -> str:
    async def use() -> None:
        async with there.client() as client:
            await there.restart()
            await trio.testing.wait_all_tasks_blocked(0.01)
            await client.echo(b"still here")

    return await there.sees(use)


@scene("leaving `connect`, away")
async def _(there: Outage) -> str:
    async def use() -> None:
        async with there.client():
            await there.stop()

    return await there.sees(use)
