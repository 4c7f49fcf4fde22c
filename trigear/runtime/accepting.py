"""Accepting connections: who is let in at which address, and how many at a time."""

from __future__ import annotations

import errno
import logging
import socket
from functools import partial
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Final

import trio

from trigear.engine.doors import Arrivals, Door, Way
from trigear.model import CloseReason
from trigear.runtime.clock import now
from trigear.runtime.listeners import is_tls, peer_text, setting_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trigear.engine.config import Keepalive, ServerConfig
    from trigear.engine.doors import Arrival
    from trigear.engine.logins import Logins
    from trigear.runtime.doorstep import Doorstep
    from trigear.runtime.handshakes import Handshakes
    from trigear.runtime.hub import Hub
    from trigear.security.tls import Listening

log: Final = logging.getLogger("trigear.server")

ACCEPTS: Final = 32
"""Connections accepted in a row before other tasks have their turn."""

SAY_AGAIN: Final = 60.0
"""Seconds until it is said again that an address is refused."""

SAID: Final = 1024
"""Addresses of which that is remembered."""

ACCEPT_PAUSE: Final = 0.5
"""Seconds without accepting when the process is out of descriptors or memory."""

_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

EVERYWHERE: Final = ""
"""Stands for the TLS of addresses that have none of their own."""


def tls_of(config: ServerConfig, wall: float) -> dict[str, Listening]:
    """The server's side of TLS by address, as it is written in the configuration, and for
    :data:`EVERYWHERE` else: files read and tried out.

    Args:
        config: says where the files are.
        wall: seconds since 1970, to tell what has expired.

    Raises:
        ConfigError: one cannot be used.
    """
    settings = {text: own.tls for text, own in config.listeners.items() if own.tls is not None}
    if config.tls is not None:
        settings[EVERYWHERE] = config.tls
    if not settings:
        return {}
    # Only here: it brings what reads certificates.
    from trigear.security.tls import Listening

    return {text: Listening(one, wall) for text, one in settings.items()}


def renew_tls(tls: Mapping[str, Listening], config: ServerConfig, wall: float) -> None:
    """Read all files of TLS anew, and put them into service if every one is good.

    Raises:
        ConfigError: one cannot be used; nothing has changed then.
    """
    if not tls:
        return
    from trigear.security.tls import build_server

    built = []
    for text, listening in tls.items():
        own = config.listeners.get(text)
        fresh = config.tls if text == EVERYWHERE else None if own is None else own.tls
        settings = fresh or listening.settings
        built.append((listening, build_server(settings, wall), settings))
    for listening, context, settings in built:
        listening.adopt(context, settings)


class Acceptor:
    """Accepts connections at one socket.

    Args:
        listener: it.
        hub: serves those who are let in.
        handshakes: makes TLS connections of them, where that is asked for.
        doorstep: ends those that are not served.
        tls: the TLS of every address.
        config: what the server is told.
        logins: how peers have to say who they are; None: nobody is asked.
    """

    def __init__(
        self,
        listener: socket.socket,
        hub: Hub,
        handshakes: Handshakes,
        doorstep: Doorstep,
        tls: Mapping[str, Listening],
        config: ServerConfig,
        logins: Logins | None,
    ) -> None:
        own = config.own(setting_of(listener))
        self._listener = listener
        self._hub = hub
        self._handshakes = handshakes
        self._doorstep = doorstep
        self._keepalive = config.keepalive
        self._tcp = listener.family != socket.AF_UNIX
        self._tls: Listening | None = None
        if is_tls(listener):
            self._tls = tls[setting_of(listener) if own.tls is not None else EVERYWHERE]
        allow = config.allow if own.allow is None else own.allow
        self._networks = [ip_network(network, strict=False) for network in allow]
        door = own.door
        if door is None:
            door = Door(open=True) if logins is None else logins.door
        if not self._tcp or self._tls is not None:
            # Who is behind TLS or a Unix socket is not known by an address.
            door = door.without(Way.NETWORK)
        self._arrivals = Arrivals(
            door,
            config.max_unauthenticated,
            config.max_unauthenticated_per_address,
            config.limit_exempt,
        )
        self._said_full = False
        self._said: dict[tuple[str, str], float] = {}
        """When to say again of an address that it is refused."""

    async def run(self, nursery: trio.Nursery) -> None:
        """Accept until cancelled; handshakes run in the nursery, and who is refused ends there."""
        exhausted = False
        while True:
            await trio.lowlevel.wait_readable(self._listener)
            for _ in range(ACCEPTS):
                await self._room()
                try:
                    sock, address = self._listener.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno not in _EXHAUSTED:
                        # The peer was gone before it was accepted; the next one may be fine.
                        continue
                    if not exhausted:
                        log.error(
                            "cannot accept connections: %s; trying again every %s s",
                            error.strerror,
                            ACCEPT_PAUSE,
                        )
                    exhausted = True
                    await trio.sleep(ACCEPT_PAUSE)
                    break
                exhausted = False
                arrival = self._let_in(sock, peer_text(address), nursery)
                if arrival is not None:
                    await self._serve(sock, arrival, nursery)
            await trio.lowlevel.checkpoint()

    async def _room(self) -> None:
        """Wait while too many have not said yet who they are: more of them stay with the system."""
        waiting = len(self._arrivals)
        if not self._arrivals.full:
            self._said_full = self._said_full and waiting > self._arrivals.most // 2
            return
        if not self._said_full:
            # Once for a flood, which is full again and again.
            self._said_full = True
            log.warning(
                "%d connections have not logged in yet: no more are accepted until some have",
                waiting,
            )
        left = trio.Event()
        self._arrivals.on_leave = left.set
        await left.wait()

    def _let_in(self, sock: socket.socket, address: str, nursery: trio.Nursery) -> Arrival | None:
        """Whether a connection is served. If not it is closed, before a byte of it is read."""
        why = ""
        if self._tcp:
            if self._networks and not _allowed(address, self._networks):
                why = CloseReason.NOT_ALLOWED.value
            elif not self._arrivals.door.admits(address):
                why = "no network is listed that it is in"
        arrival = None
        if not why:
            arrival = self._arrivals.come(address, now())
            if arrival is None:
                why = "too many connections from there have not logged in yet"
        if arrival is None:
            self._say_refused(address, why)
            nursery.start_soon(self._doorstep.leave, sock, address)
            return None
        if self._tcp:
            try:
                set_options(sock, self._keepalive)
            except OSError as error:
                # The peer may be gone already. The next one is another matter.
                log.info("dropped %s while it connected: %s", address, error.strerror)
                arrival.over()
                sock.close()
                return None
        return arrival

    def _say_refused(self, address: str, why: str) -> None:
        """A flood is worth a line now and then, and not one for each of its connections."""
        moment = now().monotonic
        if moment < self._said.get((address, why), 0.0):
            return
        if len(self._said) >= SAID:
            self._said.clear()
        self._said[address, why] = moment + SAY_AGAIN
        log.warning("refused %s: %s", address, why)

    async def _serve(self, sock: socket.socket, arrival: Arrival, nursery: trio.Nursery) -> None:
        if self._tls is None:
            self._hub.add(sock, arrival.address, arrival=arrival)
            return
        sock.setblocking(False)
        await self._handshakes.room()
        exempt = self._arrivals.exempts(arrival.address)
        nursery.start_soon(
            partial(self._handshakes.welcome, sock, self._tls, arrival, exempt=exempt)
        )


def _allowed(host: str, networks: Sequence[IPv4Network | IPv6Network]) -> bool:
    peer = ip_address(host.partition("%")[0])
    return any(peer in network for network in networks)


def set_options(sock: socket.socket, keepalive: Keepalive | None) -> None:
    """Set what every TCP connection gets.

    Raises:
        OSError: the system takes it not, or the peer is gone already.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if keepalive is None:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, keepalive.idle),
        (socket.TCP_KEEPINTVL, keepalive.interval),
        (socket.TCP_KEEPCNT, keepalive.count),
        (socket.TCP_USER_TIMEOUT, keepalive.user_timeout and keepalive.user_timeout * 1000),
    ):
        if value is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
