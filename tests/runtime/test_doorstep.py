"""Connections that are not served: told why, and not too soon when they come back."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import trio

from trigear.engine.doors import TurnedAway
from trigear.runtime import doorstep
from trigear.runtime.doorstep import PAUSE, Doorstep

if TYPE_CHECKING:
    import pytest


def pair() -> tuple[socket.socket, trio.SocketStream]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    return ours, trio.SocketStream(trio.socket.from_stdlib_socket(theirs))


async def heard(stream: trio.SocketStream) -> bytes:
    async with stream:
        return b"".join([piece async for piece in stream])


async def test_t36_who_comes_back_waits_and_others_do_not(
    autojump_clock: trio.testing.MockClock,
) -> None:
    step = Doorstep(TurnedAway())
    for address, pauses in (("a", 0.0), ("a", PAUSE), ("b", 0.0)):
        began = trio.current_time()
        ours, theirs = pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(step.leave, ours, address, b"no")
            assert await theirs.receive_some() == b"no"
            await theirs.aclose()
        assert trio.current_time() - began == pauses
        assert ours.fileno() == -1


async def test_a_flood_takes_no_more_places_than_there_are(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doorstep, "PLACES", 1)
    step = Doorstep(TurnedAway())
    step._turned_away.again("a", doorstep.now())
    async with trio.open_nursery() as nursery:
        waiting, peer = pair()
        nursery.start_soon(step.leave, waiting, "a")
        await trio.testing.wait_all_tasks_blocked()
        ours, theirs = pair()
        await step.leave(ours, "a")
        assert waiting.fileno() != -1
        assert await heard(theirs) == b""
    assert await heard(peer) == b""


async def test_who_waits_is_hung_up_on_when_the_server_stops() -> None:
    step = Doorstep(TurnedAway())
    step._turned_away.again("a", doorstep.now())
    ours, theirs = pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(step.leave, ours, "a", b"no")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert ours.fileno() == -1
    await theirs.aclose()
