"""TLS handshakes of those who connect, before the hub serves them.

A handshake computes for a millisecond or two: 300 of them in the hub made every other connection
a third of a second late. So each has a task of its own, which computes in a thread, and there are
two such threads. How many handshakes are open at a time is bounded, in all and per address, so that
nobody can keep others from theirs; who comes too much waits its turn.
"""

from __future__ import annotations

import logging
import socket
import ssl
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final

import trio

from trigear.security.layer import TlsLayer
from trigear.wire.codec import response
from trigear.wire.packets import ERROR

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trigear.engine.doors import Arrival
    from trigear.runtime.hub import Hub
    from trigear.security.tls import Listening

log: Final = logging.getLogger("trigear.server")

THREADS: Final = 2
"""Handshakes that compute at the same time."""

OPEN: Final = 64
"""Handshakes that are open at the same time."""

OPEN_PER_ADDRESS: Final = 8

WAITING: Final = 1024
"""Connections whose handshake is open or has not begun; more stay with the system."""

SECONDS: Final = 10.0
"""How long a handshake may take."""

LAST_WORDS: Final = 1.0
"""Seconds for a peer whose handshake failed to take what says why."""

_READ: Final = 16384

_PLAIN_PACKET: Final = response(ERROR, b"TLS_REQUIRED", b"TLS required")
_PLAIN_TEXT: Final = b"ERR TLS_REQUIRED TLS+required\r\n"
_TLS: Final = b"\x16"


class Handshakes:
    """Makes TLS connections of plain ones and gives them to the hub.

    Args:
        hub: who serves them.
        seconds: how long a handshake may take.
    """

    def __init__(self, hub: Hub, seconds: float = SECONDS) -> None:
        self._hub = hub
        self._seconds = seconds
        self._threads = trio.CapacityLimiter(THREADS)
        self._all = trio.CapacityLimiter(OPEN)
        self._addresses: dict[str, trio.CapacityLimiter] = {}
        self._room = trio.Semaphore(WAITING)

    async def room(self) -> None:
        """Wait until one more may be welcomed; has to be followed by :meth:`welcome`."""
        await self._room.acquire()

    async def welcome(
        self, sock: socket.socket, tls: Listening, arrival: Arrival, *, exempt: bool = False
    ) -> None:
        """Do the handshake with a peer that has connected, and hand the connection over.

        Args:
            sock: the connection, whose owner this becomes; not blocking.
            tls: the server's side of TLS; who comes gets its context of the moment.
            arrival: where it comes from, and when.
            exempt: whether the bound per address does not hold for it.

        Cancelling it closes the connection.
        """
        address = arrival.address
        try:
            async with self._turn(address, exempt), self._all:
                with trio.move_on_after(self._seconds) as scope:
                    layer = await self._shake(sock, tls, address)
                    if layer is not None:
                        self._hub.add(sock, address, layer, arrival)
                        return
                if scope.cancelled_caught:
                    log.info("%s: no TLS handshake within %g s", address, self._seconds)
        except OSError as error:
            log.info("%s: lost during the TLS handshake: %s", address, error.strerror or error)
        except BaseException:
            arrival.over()
            sock.close()
            raise
        finally:
            self._room.release()
        arrival.over()
        sock.close()

    @asynccontextmanager
    async def _turn(self, address: str, exempt: bool) -> AsyncIterator[None]:
        if exempt:
            yield
            return
        limiter = self._addresses.get(address)
        if limiter is None:
            limiter = self._addresses[address] = trio.CapacityLimiter(OPEN_PER_ADDRESS)
        try:
            async with limiter:
                yield
        finally:
            statistics = limiter.statistics()
            if not statistics.borrowed_tokens and not statistics.tasks_waiting:
                self._addresses.pop(address, None)

    async def _shake(self, sock: socket.socket, tls: Listening, address: str) -> TlsLayer | None:
        """The layer of a connection whose handshake is done; None if it failed."""
        data = await _receive(sock)
        if not data:
            return None
        if not data.startswith(_TLS):
            log.info("%s: speaks plainly on a port that wants TLS", address)
            await _bid_farewell(sock, _PLAIN_TEXT if data[0] else _PLAIN_PACKET)
            return None
        layer = TlsLayer(tls.context)
        while True:
            layer.feed(data)
            try:
                done = await trio.to_thread.run_sync(layer.step, limiter=self._threads)
            except ssl.SSLError as error:
                log.info("%s: TLS handshake failed: %s", address, error.reason or error)
                await _bid_farewell(sock, layer.outgoing())
                return None
            await _send(sock, layer.outgoing())
            if done:
                return layer
            data = await _receive(sock)


async def _receive(sock: socket.socket) -> bytes:
    while True:
        try:
            return sock.recv(_READ)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)


async def _send(sock: socket.socket, data: bytes) -> None:
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def _bid_farewell(sock: socket.socket, data: bytes) -> None:
    """Send last words, and wait a moment until the peer has them: closing a connection with input
    unread would make the system take them back."""
    with trio.move_on_after(LAST_WORDS), suppress(OSError):
        await _send(sock, data)
        sock.shutdown(socket.SHUT_WR)
        while await _receive(sock):
            pass
