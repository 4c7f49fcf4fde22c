"""A network in memory around the engine: a whole server without a socket.

Two faces. A :class:`MemoryPeer` is driven synchronously, with a :class:`SettableClock`: what it
sends is handled before :meth:`~MemoryPeer.send` returns, and every byte of that is at the peers
then. :func:`open_memory_server` runs the same under Trio's clock, which may be a ``MockClock``, for
real clients and workers.
"""

from __future__ import annotations

import itertools
import math
import random
import time
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import trio

from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.errors import ConnectionLost
from trigear.model import CloseReason, Now
from trigear.runtime.backoff import PATIENCE
from trigear.runtime.client import connect_to
from trigear.runtime.link import hidden_nursery
from trigear.runtime.pool import Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trigear.engine.logins import Logins
    from trigear.engine.session import Session
    from trigear.runtime.client import Client
    from trigear.runtime.worker import Worker
    from trigear.security.mechs import Channel


def counting_mint() -> Callable[[str, bytes, bytes], bytes]:
    """Handles that count, so that a failing test reads well."""
    numbers = itertools.count(1)
    return lambda tenant, function, unique: b"H:memory:%020d" % next(numbers)


class MemoryPeer:
    """The far end of one connection.

    ``received`` holds what came and was not taken; ``closed`` says why the server closed the
    connection, or is None.
    """

    def __init__(self, server: MemoryEngine, session: Session) -> None:
        self.session = session
        self.received = bytearray()
        self.closed: CloseReason | None = None
        self.changed: Callable[[], object] = lambda: None
        self._server = server

    def send(self, data: bytes) -> None:
        """Send bytes. Returns when the server has handled them and all that followed."""
        self._server.receive(self, data)

    def take(self, most: int | None = None) -> bytes:
        """What has come since the last call, at most so many bytes of it."""
        data = bytes(self.received[:most])
        del self.received[: len(data)]
        return data

    def hang_up(self, reason: CloseReason = CloseReason.PEER_CLOSED) -> None:
        """Close the connection from this side."""
        self._server.lose(self, reason)

    def cut(self) -> None:
        """Let the connection break, for both sides."""
        self.closed = self.closed or CloseReason.PEER_RESET
        self.hang_up(CloseReason.PEER_RESET)
        self.changed()


class MemoryEngine:
    """An engine, and everything that is connected to it.

    Args:
        clock: tells the time.
        config: how the server behaves.
        mint: makes job handles.
        logins: how peers have to say who they are; None: nobody is asked.
    """

    def __init__(
        self,
        clock: Callable[[], Now],
        config: EngineConfig | None = None,
        *,
        mint: Callable[[str, bytes, bytes], bytes] | None = None,
        logins: Logins | None = None,
    ) -> None:
        self.clock = clock
        self.engine = Engine(
            config or EngineConfig(), mint or counting_mint(), clock(), logins=logins
        )
        self.flushed: Callable[[], object] = lambda: None
        self._numbers = itertools.count(1)
        self._peers: dict[int, MemoryPeer] = {}

    def connect(self, address: str = "127.0.0.1", channel: Channel | None = None) -> MemoryPeer:
        """A new connection."""
        session = self.engine.connection_opened(next(self._numbers), address, self.clock(), channel)
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

    def cut(self) -> None:
        """Let every connection break."""
        for peer in list(self._peers.values()):
            peer.cut()

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
                return self._peer.take(max_bytes)
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


class MemoryServer:
    """A server in memory, under Trio's clock. Made by :func:`open_memory_server`."""

    def __init__(self, core: MemoryEngine) -> None:
        self._core = core
        self._reachable = True

    @property
    def core(self) -> MemoryEngine:
        """What trigear's own tests look into."""
        return self._core

    @asynccontextmanager
    async def connect(
        self, *, client_id: str | None = None, patience: float = PATIENCE
    ) -> AsyncIterator[Client]:
        """A client, as :func:`trigear.connect` makes it; it connects again after a break.

        Args:
            client_id: what the server's list of connections calls this one; one word.
            patience: seconds that a call waits while the server is unreachable.

        Raises:
            ConnectionLost: the server is unreachable.
            LocalProtocolError: the client id is not one word.
            ValueError: the patience is negative.

        Cancellation: as with :func:`trigear.connect`.
        """
        place = Place("the server in memory", self.open)
        async with connect_to(
            [place],
            client_id=client_id,
            patience=patience,
            rng=random.Random(0),  # noqa: S311  so that a test replays
            wall=lambda: self._core.clock().wall,
        ) as client:
            yield client

    @asynccontextmanager
    async def work(self, *workers: Worker) -> AsyncIterator[None]:
        """Let workers work here while the block runs, which begins when they can be given jobs.

        Raises:
            ValueError: a worker has no functions.
            RuntimeError: a worker runs already.

        At the end of the block, and when it is cancelled, the workers are cancelled as
        ``Worker.run`` describes it. ``worker.drain()`` before that lets their jobs end.
        """
        async with hidden_nursery() as nursery:
            for worker in workers:
                await nursery.start(worker.run, self.open)
            yield
            nursery.cancel_scope.cancel()

    async def open(self) -> MemoryStream:
        """A new connection, as a stream; ``worker.run(server.open)`` works over such ones.

        Raises:
            ConnectionLost: the server is unreachable.
        """
        await trio.lowlevel.checkpoint()
        if not self._reachable:
            raise ConnectionLost("no connection to the server in memory: it is unreachable")
        return self.stream()

    def stream(self) -> MemoryStream:
        """As :meth:`open`, at once, reachable or not."""
        return MemoryStream(self._core.connect())

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """Let all connections break, and nobody connect while the block runs.

        The server lives on, and does what it does when the network fails: foreground jobs go with
        their clients, background jobs stay.
        """
        self._reachable = False
        self._core.cut()
        try:
            yield
        finally:
            self._reachable = True


@asynccontextmanager
async def open_memory_server(
    config: EngineConfig | None = None, *, wall: float | None = None
) -> AsyncIterator[MemoryServer]:
    """Run a server in memory beside the block: no sockets, no files, no other process.

    It is trigear's server, without what reads from sockets. Its time is Trio's: under a
    ``trio.testing.MockClock`` that jumps, deadlines and delays pass without anybody waiting.

    Args:
        config: how it behaves, instead of as `trigear server` does by default.
        wall: what its wall clock shows at the beginning, in seconds since 1970; None: the time of
            this machine, in whole seconds. From there it goes on as Trio's clock does. It decides
            when a job begins that was submitted with ``at`` or ``delay``.

    Cancellation: what was opened at the server is told, as by any other.
    """
    start = trio.current_time()
    begin = float(math.floor(time.time()) if wall is None else wall)

    def clock() -> Now:
        now = trio.current_time()
        return Now(now, begin + now - start)

    core = MemoryEngine(clock, config)
    scope = trio.CancelScope()

    def look() -> None:
        scope.deadline = min(scope.deadline, core.engine.next_deadline())

    async def tick_in_time() -> None:
        nonlocal scope
        while True:
            with trio.CancelScope(deadline=core.engine.next_deadline()) as scope:
                await trio.sleep_forever()
            core.tick()

    core.flushed = look
    async with hidden_nursery() as nursery:
        nursery.start_soon(tick_in_time)
        yield MemoryServer(core)
        nursery.cancel_scope.cancel()
