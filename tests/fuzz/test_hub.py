"""The hub's promise: whatever peers do to their sockets, it ends with no connection and no fault.

The order in which the system tells of events is not ours, so a failing seed need not fail again.
"""

from __future__ import annotations

import random
import socket
import struct
from typing import TYPE_CHECKING

import pytest
import trio

from tests.engine.world import packet
from tests.fuzz.mutation import Mutator, first_seed
from tests.runtime.wired import Room, open_room, socketpair, tcp_pair
from trigear.broker.check import faults_of
from trigear.engine.config import EngineConfig

if TYPE_CHECKING:
    from collections.abc import Callable

GUESTS = 20
VISITS = 15

CRAMPED = EngineConfig(soft_mark=200_000, hard_mark=1_000_000, max_packet=4 << 20)

WORKER = packet("CAN_DO", b"f") + packet("PRE_SLEEP")


class Guest:
    """Somebody who connects again and again and behaves in every way at once."""

    def __init__(self, room: Room, seed: int) -> None:
        self._room = room
        self._chance = random.Random(seed)
        self._mutator = Mutator(seed)

    async def visit(self) -> None:
        for _ in range(VISITS):
            near, far = self._chance.choice((socketpair, tcp_pair))()
            self._room.hub.add(near, "127.0.0.1")
            far.setblocking(False)
            with far:
                try:
                    for _ in range(self._chance.randrange(1, 12)):
                        self._chance.choice(self.ACTS)(self, far)
                        if self._chance.random() < 0.3:
                            await trio.lowlevel.checkpoint()
                except OSError:
                    pass  # it wrote more than there was room for, or it was shown out
                if self._chance.random() < 0.3:
                    option = struct.pack("ii", 1, 0)
                    far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
            await trio.lowlevel.checkpoint()

    def _mumble(self, sock: socket.socket) -> None:
        sock.send(self._mutator.stream())

    def _work(self, sock: socket.socket) -> None:
        sock.send(WORKER + packet("GRAB_JOB") * self._chance.choice((1, 40)))

    def _submit(self, sock: socket.socket) -> None:
        size = self._chance.choice((1, 1000, 200_000))
        sock.send(packet("SUBMIT_JOB", b"f", b"", bytes(size)))

    def _echo(self, sock: socket.socket) -> None:
        echo = packet("ECHO_REQ", bytes(self._chance.choice((10, 100_000))))
        sock.send(echo * self._chance.choice((1, 5, 30)))

    def _ask(self, sock: socket.socket) -> None:
        sock.send(b"status\nworkers\n")

    def _read(self, sock: socket.socket) -> None:
        try:
            sock.recv(self._chance.choice((10, 65536, 1 << 20)))
        except BlockingIOError:
            return

    def _shut(self, sock: socket.socket) -> None:
        sock.shutdown(self._chance.choice((socket.SHUT_RD, socket.SHUT_WR)))

    ACTS: tuple[Callable[[Guest, socket.socket], None], ...] = (
        *(_mumble, _mumble, _work, _work, _submit, _submit),
        *(_echo, _ask, _read, _read, _shut),
    )


@pytest.mark.slow
async def test_any_mixture_of_peers_leaves_nothing_behind(fuzz_examples: int) -> None:
    first = first_seed()
    for seed in range(first, first + fuzz_examples // 1000):
        try:
            await mixture(seed)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise


async def mixture(seed: int) -> None:
    """Many guests at once; afterwards there is nothing left of them."""
    async with open_room(CRAMPED) as room:
        async with trio.open_nursery() as nursery:
            for number in range(GUESTS):
                nursery.start_soon(Guest(room, seed * GUESTS + number).visit)
        polls = await room.settled()
        statistics = room.engine.statistics()
        assert statistics.faults == 0
        assert sum(statistics.closed.values()) == GUESTS * VISITS
        assert len(room.hub) == 0
        assert room.hub.quiet
        for function in room.engine.broker.tenant("default").functions.values():
            assert list(faults_of(function)) == []
        assert room.engine.broker.tenant("default").choked == 0
        assert await room.settled() == polls
