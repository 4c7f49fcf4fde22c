"""A network in memory around the engine: a whole server without a socket.

Two faces. A :class:`MemoryPeer` is driven synchronously, with a :class:`SettableClock`: what it
sends is handled before :meth:`~MemoryPeer.send` returns, and every byte of that is at the peers
then. :func:`open_memory_server` runs the same under Trio's clock, which may be a ``MockClock``, and
hands out streams for a client or a worker.
"""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.model import CloseReason, Now
from trigear.runtime.link import hidden_nursery

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from trigear.engine.session import Session


def counting_mint() -> Callable[[str, bytes, bytes], bytes]:
    """Handles that count, so that a failing test reads well."""
    numbers = itertools.count(1)
    return lambda tenant, function, unique: b"H:memory:%020d" % next(numbers)


class MemoryPeer:
    """The far end of one connection.

    ``received`` holds what came and was not taken; ``closed`` says why the server closed the
    connection, or is None.
    """

    def __init__(self, server: MemoryServer, session: Session) -> None:
        self.session = session
        self.received = bytearray()
        self.closed: CloseReason | None = None
        self.changed: Callable[[], object] = lambda: None
        self._server = server

    def send(self, data: bytes) -> None:
        """Send bytes. Returns when the server has handled them and all that followed."""
        self._server.receive(self, data)

    def take(self) -> bytes:
        """What has come since the last call."""
        data = bytes(self.received)
        self.received.clear()
        return data

    def hang_up(self, reason: CloseReason = CloseReason.PEER_CLOSED) -> None:
        """Close the connection from this side."""
        self._server.lose(self, reason)


class MemoryServer:
    """An engine, and everything that is connected to it.

    Args:
        clock: tells the time.
        config: how the server behaves.
        mint: makes job handles.
    """

    def __init__(
        self,
        clock: Callable[[], Now],
        config: EngineConfig | None = None,
        *,
        mint: Callable[[str, bytes, bytes], bytes] | None = None,
    ) -> None:
        self.clock = clock
        self.engine = Engine(config or EngineConfig(), mint or counting_mint(), clock())
        self.flushed: Callable[[], object] = lambda: None
        self._numbers = itertools.count(1)
        self._peers: dict[int, MemoryPeer] = {}

    def connect(self, address: str = "127.0.0.1") -> MemoryPeer:
        """A new connection."""
        session = self.engine.connection_opened(next(self._numbers), address, self.clock())
        peer = self._peers[session.number] = MemoryPeer(self, session)
        return peer

    def receive(self, peer: MemoryPeer, data: bytes) -> None:
        """Bytes from a peer."""
        if peer.closed is not None:
            raise BrokenPipeError(f"the server has closed the connection: {peer.closed.value}")
        more = self.engine.receive(peer.session, data, self.clock())
        while more:
            self.flush()
            more = self.engine.receive(peer.session, b"", self.clock())
        self.flush()

    def lose(self, peer: MemoryPeer, reason: CloseReason) -> None:
        """A peer is gone."""
        if self._peers.pop(peer.session.number, None) is not None:
            self.engine.connection_lost(peer.session, reason, self.clock())
            self.flush()

    def tick(self) -> None:
        """Do what is due by now."""
        if self.engine.next_deadline() <= self.clock().monotonic:
            self.engine.tick(self.clock())
            self.flush()

    def flush(self) -> None:
        """Carry everything that is to be sent to where it goes."""
        while touched := self.engine.take_touched():
            for session in touched:
                peer = self._peers.get(session.number)
                if peer is None:
                    continue
                peer.received += b"".join(session.take())
                if session.closing is not None:
                    peer.closed = session.closing
                    self.lose(peer, session.closing)
                peer.changed()
        self.flushed()


class MemoryStream(trio.abc.HalfCloseableStream):
    """A connection to a memory server, for Trio."""

    def __init__(self, peer: MemoryPeer) -> None:
        self._peer = peer
        self._lot = trio.lowlevel.ParkingLot()
        self._gone = False
        peer.changed = self._lot.unpark_all

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        if self._gone:
            raise trio.ClosedResourceError
        try:
            self._peer.send(bytes(data))
        except BrokenPipeError as error:
            raise trio.BrokenResourceError from error

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        await trio.lowlevel.checkpoint()
        while True:
            if self._gone:
                raise trio.ClosedResourceError
            if self._peer.received:
                return self._peer.take()
            if self._peer.closed is not None:
                return b""
            await self._lot.park()

    async def send_eof(self) -> None:
        await trio.lowlevel.checkpoint()
        self._hang_up()

    async def aclose(self) -> None:
        self._gone = True
        self._hang_up()
        await trio.lowlevel.checkpoint()

    def _hang_up(self) -> None:
        self._peer.hang_up()
        if self._peer.closed is None:
            self._peer.closed = CloseReason.PEER_CLOSED
        self._lot.unpark_all()


class MemoryNetwork:
    """A server in memory under Trio's clock. Made by :func:`open_memory_server`."""

    def __init__(self, server: MemoryServer) -> None:
        self.server = server

    @property
    def engine(self) -> Engine:
        return self.server.engine

    def stream(self) -> MemoryStream:
        """A new connection."""
        return MemoryStream(self.server.connect())

    async def connect(self) -> MemoryStream:
        """A new connection, for those who take a function that opens one."""
        await trio.lowlevel.checkpoint()
        return self.stream()


@asynccontextmanager
async def open_memory_server(config: EngineConfig | None = None) -> AsyncIterator[MemoryNetwork]:
    """Run a server in memory beside the block.

    Durations are Trio's; the wall clock starts at a fixed moment, so that a test replays.
    """
    start = trio.current_time()

    def clock() -> Now:
        passed = trio.current_time() - start
        return Now(start + passed, 1_800_000_000.0 + passed)

    server = MemoryServer(clock, config)
    scope = trio.CancelScope()

    def look() -> None:
        scope.deadline = min(scope.deadline, server.engine.next_deadline())

    async def tick_in_time() -> None:
        nonlocal scope
        while True:
            with trio.CancelScope(deadline=server.engine.next_deadline()) as scope:
                await trio.sleep_forever()
            server.tick()

    server.flushed = look
    async with hidden_nursery() as nursery:
        nursery.start_soon(tick_in_time)
        yield MemoryNetwork(server)
        nursery.cancel_scope.cancel()
