"""Real sockets between a test and the server's hub, spoken to in packets by name."""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import pytest
import trio
import trio.testing

from tests.engine.world import Said, packet
from tests.wire.recording import Recorder, decoder
from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.model import CloseReason
from trigear.runtime.clock import now
from trigear.runtime.hub import Hub
from trigear.testing.memory import counting_mint
from trigear.wire.codec import RES
from trigear.wire.packets import name_of

if TYPE_CHECKING:
    import select
    from collections.abc import AsyncIterator

PATIENCE = 30.0
"""Seconds that no test comes near unless it hangs."""


WIRES: list[Wire] = []
"""Every connection of the test that runs."""


class Wire:
    """The far end of a connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.stream = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
        self._machine = decoder(RES, max_packet=1 << 30)
        self._target = Recorder()
        WIRES.append(self)

    @classmethod
    def to(cls, address: str) -> Self:
        """Connect to an address as a server on this machine gives it."""
        if address.startswith("unix:"):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address.removeprefix("unix:"))
            return cls(sock)
        host, _, port = address.rpartition(":")
        return cls(socket.create_connection((host.strip("[]"), int(port))))

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def tell(self, name: str, *args: bytes) -> None:
        await self.send(packet(name, *args))

    async def next(self) -> Said:
        """The next packet or line."""
        entries = self._target.entries
        while not entries:
            data = await self.stream.receive_some(65536)
            assert data, "the server closed the connection"
            self._machine.feed(data)
            self._machine.run(self._target, 1 << 62)
        entry = entries.pop(0)
        return (name_of(entry[1]), *entry[2:]) if entry[0] == "packet" else entry

    async def ask(self, name: str, *args: bytes) -> Said:
        await self.tell(name, *args)
        return await self.next()

    async def command(self, line: bytes) -> Said:
        await self.send(line + b"\n")
        return await self.next()

    async def submit(self, name: str = "SUBMIT_JOB", *args: bytes) -> bytes:
        """Submit a job, by default of function ``f``; the handle."""
        said, handle = await self.ask(name, *(args or (b"f", b"", b"work")))
        assert said == "JOB_CREATED"
        assert isinstance(handle, bytes)
        return handle

    async def grab(self) -> bytes:
        """Grab a job; the handle."""
        said, handle, *_ = await self.ask("GRAB_JOB")
        assert said == "JOB_ASSIGN"
        assert isinstance(handle, bytes)
        return handle

    async def rest(self) -> bytes:
        """All bytes until the server closes the connection."""
        assert not self._target.entries
        chunks = []
        while data := await self.stream.receive_some(65536):
            chunks.append(data)
        return b"".join(chunks)

    async def is_over(self) -> bool:
        """Wait until the server has closed the connection; False if it says something else."""
        try:
            return await self.stream.receive_some(1) == b""
        except trio.BrokenResourceError:
            return True

    async def close(self) -> None:
        await self.stream.aclose()

    async def reset(self) -> None:
        """Vanish as a program does that is killed, or a machine that is switched off and on."""
        option = struct.pack("ii", 1, 0)
        self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        await self.stream.aclose()


def socketpair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair()


ROOM = 1 << 17
"""Bytes that one end of a TCP connection has room for."""


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over the loopback: the server's and the other.

    What the server sends has little room on the way: left to itself, the system makes as much as
    it sees fit, some days enough for all that a test sends.
    """
    far = socket.socket()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far.connect(listener.getsockname())
        near, _ = listener.accept()
    near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)
    return near, far


class CountedEpoll:
    """An epoll instance that counts how often it is asked."""

    def __init__(self, epoll: select.epoll) -> None:
        self._epoll = epoll
        self.polls = 0

    def poll(self, timeout: float, most: int) -> list[tuple[int, int]]:
        self.polls += 1
        return self._epoll.poll(timeout, most)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._epoll, name)


class Room:
    """A hub with an engine, without listeners and timers."""

    def __init__(self, config: EngineConfig | None = None, engine: Engine | None = None) -> None:
        self.engine = engine or Engine(config or EngineConfig(), counting_mint(), now())
        self.hub = Hub(self.engine)
        self.epoll = CountedEpoll(self.hub._epoll)
        self.hub._epoll = self.epoll  # type: ignore[assignment]

    def wire(
        self,
        pair: Pair = socketpair,
        address: str = "127.0.0.1",
    ) -> Wire:
        """A new connection."""
        near, far = pair()
        self.hub.add(near, address)
        return Wire(far)

    async def worker(self, *functions: bytes) -> Wire:
        wire = self.wire()
        for function in functions or (b"f",):
            await wire.tell("CAN_DO", function)
        return wire

    @property
    def closed(self) -> Counter[CloseReason]:
        """How many connections ended, by reason."""
        return Counter(self.engine.statistics().closed)

    async def settled(self) -> int:
        """Wait until the hub has nothing left to do.

        Returns:
            How often it has asked for events so far.
        """
        await trio.testing.wait_all_tasks_blocked()
        return self.epoll.polls


@asynccontextmanager
async def open_room(
    config: EngineConfig | None = None, engine: Engine | None = None
) -> AsyncIterator[Room]:
    """A hub that runs beside the block."""
    room = Room(config, engine)
    try:
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(room.hub.run)
                yield room
                nursery.cancel_scope.cancel()
    finally:
        room.hub.close_all(CloseReason.SHUTDOWN)


Pair = Callable[[], tuple[socket.socket, socket.socket]]

PAIRS = pytest.mark.parametrize("pair", [socketpair, tcp_pair], ids=["unix", "tcp"])

SMALL = EngineConfig(soft_mark=200_000, hard_mark=1_000_000, max_packet=8 << 20)
"""Marks that a socket's buffers and a few packets exceed."""

LARGE = bytes(range(256)) * (4 << 12)
"""4 MiB: more than two sockets' buffers hold."""


async def choke(wire: Wire, room: Room) -> None:
    """Ask for more than this connection has room for, and do not read it."""
    await wire.tell("ECHO_REQ", LARGE)
    await room.settled()
    assert room.engine.broker.tenant("default").choked == 1
