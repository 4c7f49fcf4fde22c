"""Where those who are turned away wait for a moment.

Programs that know nothing of being refused connect again at once: a worker on libgearman 80 times a
second, others 400 times. So whoever comes back hears only two seconds later that it is turned away
again. There are only so many places: a flood is hung up on without waiting.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trigear.runtime.clock import now

if TYPE_CHECKING:
    from trigear.engine.doors import TurnedAway

PLACES: Final = 256
"""Connections that wait at the same time."""

PAUSE: Final = 2.0
"""Seconds that somebody waits who comes back."""

LAST_WORDS: Final = 1.0
"""Seconds in which a peer may take what says why."""

PATIENCE: Final = 0.5
"""Those of them in which the peer may be the one who hangs up: `gearadmin` tells nobody what a
server said that did."""

_READ: Final = 16384


class Doorstep:
    """Ends connections that are not served.

    Args:
        turned_away: remembers who came before.
    """

    def __init__(self, turned_away: TurnedAway) -> None:
        self._turned_away = turned_away
        self._places = trio.CapacityLimiter(PLACES)

    async def leave(self, sock: socket.socket, address: str, words: bytes = b"") -> None:
        """Say what is to be said, and close: at once, or in a moment to whoever comes back.

        Args:
            sock: the connection, whose owner this becomes; not blocking.
            address: where it comes from.
            words: what says why.

        Cancelling it closes the connection.
        """
        with sock:
            if self._turned_away.again(address, now()):
                with suppress(trio.WouldBlock):
                    self._places.acquire_on_behalf_of_nowait(sock)
                    try:
                        await trio.sleep(PAUSE)
                    finally:
                        self._places.release_on_behalf_of(sock)
            if words:
                await _bid_farewell(sock, words)


async def _bid_farewell(sock: socket.socket, data: bytes) -> None:
    """Send last words, and wait a moment until the peer has them: closing a connection with input
    unread would make the system take them back."""
    with trio.move_on_after(LAST_WORDS), suppress(OSError):
        await send(sock, data)
        with trio.move_on_after(PATIENCE):
            await _until_the_end(sock)
        sock.shutdown(socket.SHUT_WR)
        await _until_the_end(sock)


async def _until_the_end(sock: socket.socket) -> None:
    while await receive(sock):
        pass


async def receive(sock: socket.socket) -> bytes:
    """What has come; nothing at the end."""
    while True:
        try:
            return sock.recv(_READ)
        except BlockingIOError:
            await trio.lowlevel.wait_readable(sock)


async def send(sock: socket.socket, data: bytes) -> None:
    """Send all of it."""
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
