"""Checking passwords in a thread of its own, one at a time, so that nobody else is held up."""

from __future__ import annotations

import logging
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

import trio

from trigear.runtime.address import Address
from trigear.runtime.clock import now
from trigear.security.mechs import Channel
from trigear.security.tls import bindings

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.engine.engine import Engine
    from trigear.engine.logins import Logins
    from trigear.security.layer import TlsLayer

log: Final = logging.getLogger("trigear.server")

_UCRED: Final = struct.Struct("3i")

WRONG: Final = -1
"""What a check comes to that could not be made."""


class Verifier:
    """Checks what waits to be checked.

    Args:
        engine: whose connections wait.
        logins: where they wait.
        flush: called when the engine may have something to send, or another deadline.
    """

    def __init__(self, engine: Engine, logins: Logins, flush: Callable[[], None]) -> None:
        self._engine = engine
        self._logins = logins
        self._flush = flush
        self._limiter = trio.CapacityLimiter(1)
        self._work = trio.Event()

    def look(self) -> None:
        """There may be something to check now."""
        if self._logins.has_check:
            self._work.set()

    async def run(self) -> None:
        """Check until cancelled. Cancelling it leaves a check at hand to its thread."""
        while True:
            check = self._logins.next_check(now())
            if check is None:
                self._work = trio.Event()
                await self._work.wait()
                continue
            try:
                result = await trio.to_thread.run_sync(
                    check.work, limiter=self._limiter, abandon_on_cancel=True
                )
            except Exception as error:
                # Who cannot be checked is not let in, whatever it was.
                log.error("a password cannot be checked: %s: %s", type(error).__name__, error)
                result = WRONG
            self._engine.checked(check, result, now())
            self._flush()


def channel_of(sock: socket.socket, address: str, layer: TlsLayer | None) -> Channel:
    """What is known of a connection without asking its peer.

    Args:
        sock: the connection.
        address: the peer's address as text.
        layer: TLS, whose handshake is done; None for none.
    """
    where = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        found = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        return Channel(address, unix=True, uid=_UCRED.unpack(found)[1], listener=f"unix:{where}")
    listener = str(Address(where[0], where[1], tls=layer is not None))
    ip = ip_address(address.partition("%")[0])
    ip = getattr(ip, "ipv4_mapped", None) or ip
    if layer is None:
        return Channel(address, loopback=ip.is_loopback, listener=listener)
    cipher = layer.tls.cipher()
    return Channel(
        address,
        tls=True,
        loopback=ip.is_loopback,
        bindings=bindings(layer.tls),
        certificate=layer.certificate,
        version=layer.tls.version() or "",
        cipher="" if cipher is None else cipher[0],
        listener=listener,
    )
