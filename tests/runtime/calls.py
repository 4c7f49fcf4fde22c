"""Calls that run while a test looks on, and servers in memory that come and go."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trigear.runtime.client import Client, connect_to
from trigear.runtime.pool import Place
from trigear.wire.packets import ERROR, OPTION_RES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.runtime.scripted import ScriptedPlace, ScriptedServer

GREETING = (("OPTION_REQ", b"exceptions"), ("OPTION_REQ", b"trigear"))


class Call:
    """A call under way in a task of its own."""

    def __init__(self, nursery: trio.Nursery, call: Callable[[], Awaitable[object]]) -> None:
        self.scope = trio.CancelScope()
        self.done = trio.Event()
        self.result: object = None
        self.error: Exception | None = None
        nursery.start_soon(self._run, call)

    async def _run(self, call: Callable[[], Awaitable[object]]) -> None:
        with self.scope:
            try:
                self.result = await call()
            except Exception as error:
                self.error = error
        self.done.set()

    async def outcome(self) -> object:
        await self.done.wait()
        return self.error or self.result

    async def cancel(self) -> None:
        self.scope.cancel()
        await self.done.wait()
        assert self.scope.cancelled_caught


class Lot(random.Random):
    """Chance that is none: the first server is number ``first``, a jitter is as long as can be."""

    def __init__(self, first: int = 0) -> None:
        super().__init__(0)
        self.first = first

    def randrange(self, *args: int) -> int:  # type: ignore[override]
        return self.first

    def random(self) -> float:
        return 1.0


async def greeted(place: ScriptedPlace, *, extended: bool = False) -> ScriptedServer:
    """The next connection to a place, its greeting over."""
    server = await place.accepts()
    await server.expects(*GREETING)
    await server.says(OPTION_RES, b"exceptions")
    if extended:
        await server.says(OPTION_RES, b"trigear")
    else:
        await server.says(ERROR, b"UNKNOWN_OPTION", b"what?")
    return server


@asynccontextmanager
async def client_of(
    *places: ScriptedPlace, patience: float = 10, first: int = 0
) -> AsyncIterator[Client]:
    """A client of these places, which are called a, b, c and so on."""
    named = [Place(chr(ord("a") + number), place) for number, place in enumerate(places)]
    async with connect_to(named, patience=patience, rng=Lot(first)) as client:
        yield client
