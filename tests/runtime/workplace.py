"""A scripted server at which a worker works."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from tests.runtime.scripted import ScriptedPlace, ScriptedServer
from trigear.wire.packets import ERROR, JOB_ASSIGN_UNIQ, OPTION_RES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trigear.runtime.worker import Worker

H = b"H:here:1"


async def greet(server: ScriptedServer, *, extended: bool, name: bytes | None = None) -> None:
    """Hear the worker's greeting, and say what kind of server this is."""
    said, its_name = await server.hears()
    assert said == "SET_CLIENT_ID"
    assert name in {None, its_name}
    await server.expects(("OPTION_REQ", b"trigear"))
    if extended:
        await server.says(OPTION_RES, b"trigear")
    else:
        await server.says(ERROR, b"UNKNOWN_OPTION", b"what?")


async def meet(server: ScriptedServer, worker: Worker, *, extended: bool = True) -> None:
    """Greet, and hear the functions."""
    await greet(server, extended=extended)
    for _ in worker._functions:
        assert (await server.hears())[0] in {"CAN_DO", "CAN_DO_TIMEOUT"}


@asynccontextmanager
async def at_work(worker: Worker, *, extended: bool = True) -> AsyncIterator[ScriptedServer]:
    """A server at which the worker has announced its functions, and been heard.

    Afterwards the worker is cancelled.
    """
    place = ScriptedPlace()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(worker.run, place)
        server = await place.accepts()
        await meet(server, worker, extended=extended)
        yield server
        nursery.cancel_scope.cancel()
        await server.hangs_up()


async def assign(
    server: ScriptedServer, workload: bytes = b"w", handle: bytes = H, function: bytes = b"f"
) -> None:
    await server.expects(("GRAB_JOB_UNIQ",))
    await server.says(JOB_ASSIGN_UNIQ, handle, function, b"u", workload)


async def part(nursery: trio.Nursery, *servers: ScriptedServer) -> None:
    """Cancel the worker, which shall not have to wait for the servers to hang up."""
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        for server in servers:
            await server.hangs_up()
