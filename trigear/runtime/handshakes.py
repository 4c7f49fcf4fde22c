"""TLS handshakes of those who connect, before the hub serves them.

A handshake computes for a millisecond or two: 300 of them in the hub made every other connection
a third of a second late. So each has a task of its own, which computes in a thread, and there are
two such threads. How many handshakes are open at a time is bounded, in all and per address, so that
nobody can keep others from theirs; who comes too much waits its turn.
"""

from __future__ import annotations

import logging
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from trigear.runtime.doorstep import receive, send
from trigear.security.layer import TlsLayer
from trigear.wire.codec import response
from trigear.wire.packets import ERROR

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

    from trigear.engine.doors import Arrival
    from trigear.runtime.doorstep import Doorstep
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

_PLAIN_PACKET: Final = response(ERROR, b"TLS_REQUIRED", b"TLS required")
_PLAIN_TEXT: Final = b"ERR TLS_REQUIRED TLS+required\r\n"
_TLS: Final = b"\x16"


class Handshakes:
    """Makes TLS connections of plain ones and gives them to the hub.

    Args:
        hub: who serves them.
        doorstep: where those wait whose handshake failed.
        seconds: how long a handshake may take.
    """

    def __init__(self, hub: Hub, doorstep: Doorstep, seconds: float = SECONDS) -> None:
        self._hub = hub
        self._doorstep = doorstep
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
        words: bytes | None = None
        try:
            async with self._turn(address, exempt), self._all:
                with trio.move_on_after(self._seconds) as scope:
                    layer, words = await self._shake(sock, tls, address)
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
        if words is None:
            sock.close()
        else:
            # Where it takes nobody's turn.
            await self._doorstep.leave(sock, address, words)

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

    async def _shake(
        self, sock: socket.socket, tls: Listening, address: str
    ) -> tuple[TlsLayer | None, bytes | None]:
        """The layer of a connection whose handshake is done; else what its peer is told, if it is
        there to hear it."""
        data = await receive(sock)
        if not data:
            return None, None
        if not data.startswith(_TLS):
            log.info("%s: speaks plainly on a port that wants TLS", address)
            return None, _PLAIN_TEXT if data[0] else _PLAIN_PACKET
        layer = TlsLayer(tls.context)
        while True:
            layer.feed(data)
            try:
                done = await trio.to_thread.run_sync(layer.step, limiter=self._threads)
            except ssl.SSLError as error:
                log.info("%s: TLS handshake failed: %s", address, error.reason or error)
                return None, layer.outgoing()
            await send(sock, layer.outgoing())
            if done:
                return layer, None
            data = await receive(sock)
