"""The servers of a client without Trio: a connection to each that is wanted, made again when it
breaks.

The rules are those of :mod:`trigear.runtime.pool`. But nobody works between two calls here: a
server that is down is tried again by the next call that wants it, once its time has come, which is
drawn by lot and grows with every failure, and is longer where the server refuses the login. While
another server is up, such an attempt may not hold a call up for more than a second, or three with a
login.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from trigear.errors import ConfigError, ConnectionLost, LoginFailed, LoginRefused
from trigear.protocol.choice import walk
from trigear.protocol.client import ClientConnection
from trigear.runtime.backoff import STEADY_SECONDS, Backoff, slow
from trigear.runtime.blocking_link import BlockingLink, Crank
from trigear.runtime.blocking_wire import TooLate, open_wire, why_not
from trigear.runtime.values import is_final, nobody

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trigear.runtime.address import Address
    from trigear.runtime.blocking_login import BlockingSession
    from trigear.runtime.blocking_wire import Wire
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientContext, ClientTLS

ATTEMPT_SECONDS: Final = 10.0
"""How long an attempt to connect again may take where the client has no timeout."""

HURRY_SECONDS: Final = 1.0
"""How long it may take while another server is up."""

LOGIN_HURRY_SECONDS: Final = 3.0
"""The same with a login: a server says only after a second or two that it refuses one, and who does
not wait for that asks again too soon."""


def lot() -> float:
    """A number from 0 up to 1. (The module for that takes longer to load than many a call.)"""
    return int.from_bytes(os.urandom(6)) / (1 << 48)


class BlockingUpstream:
    """One of a client's servers. ``link`` is the connection to it, perhaps broken by now;
    ``failure`` why there is none; neither, until the first attempt to connect."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.link: BlockingLink | None = None
        self.failure: ConnectionLost | LoginFailed | None = None
        self.due = 0.0
        self.began = 0.0
        self.backoff = Backoff(lot)
        self.refused = slow(lot)

    @property
    def machine(self) -> ClientConnection:
        """The state of the connection, which must be up."""
        assert self.link is not None, "asked of a server that is not up"
        return self.link.machine

    def is_up(self, now: float) -> bool:
        """Whether there is a connection that lives; notes when one has broken."""
        if self.link is not None and self.link.failure is not None:
            self.failed(self.link.failure, now)
        return self.link is not None

    def failed(self, failure: ConnectionLost | LoginFailed, now: float) -> None:
        """There is no connection, or none any more."""
        if self.link is not None and now - self.began >= STEADY_SECONDS:
            self.backoff.reset()
            self.refused.reset()
        self.link = None
        self.failure = failure
        self.due = now + (self.refused if is_final(failure) else self.backoff).next()


class BlockingPool:
    """All servers of a client.

    Args:
        addresses: where they are; the order is that of the list which all clients share.
        greet: what is said first on each new connection.
        patience: seconds that a call waits when all servers are down.
        rng: gives the number by which the first server is drawn.
        tls: how TLS is spoken, which then is spoken over every TCP connection; None: where the
            address asks for it.
        auth: who to log in as, before anything else is said; None: nobody.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        greet: Callable[[ClientConnection], None],
        *,
        patience: float,
        rng: Callable[[], float],
        tls: ClientTLS | ClientContext | None = None,
        auth: Auth | None = None,
    ) -> None:
        if not addresses:
            raise ConfigError("servers", "there is none", "name one, such as localhost:4730")
        self.crank = Crank()
        self.upstreams = [BlockingUpstream(address) for address in addresses]
        self._greet = greet
        self._patience = patience
        self._tls = tls
        self._auth = auth
        self._start = int(rng() * len(addresses))
        self.latest = self.upstreams[self._start]
        """The server that was picked last."""

    def begin(self, timeout: float | None) -> None:
        """Connect to one server, within ``timeout`` seconds for each attempt.

        Raises:
            ConnectionLost: none can be reached.
            LoginFailed: none lets us in.
        """
        give_up = time.monotonic() + (self._patience if timeout is None else timeout)
        while True:
            for upstream in self.walk(None):
                self._connect(upstream, timeout)
                if upstream.link is not None:
                    self.latest = upstream
                    return
            error = self.nobody()
            due = min(upstream.due for upstream in self.upstreams)
            if not (isinstance(error, LoginRefused) and error.temporary) or due > give_up:
                raise error
            time.sleep(max(due - time.monotonic(), 0.0))

    def pick(
        self, home: int | None, until: float | None, timeout: float | None
    ) -> BlockingUpstream:
        """The server to go to, up at this moment.

        Args:
            home: its number if it is not all the same.
            until: when the call's time is up, by the monotonic clock.
            timeout: seconds for one attempt to connect.

        Raises:
            ConnectionLost: no server could be reached within the patience.
            LoginFailed: none lets us in.
        """
        self.crank.sweep()
        deadline = time.monotonic() + self._patience
        if until is not None:
            deadline = min(deadline, until)
        while True:
            for upstream in self.walk(home):
                if self.settled(upstream, until, timeout):
                    self.latest = upstream
                    return upstream
            due = min(upstream.due for upstream in self.upstreams)
            final = all(is_final(upstream.failure) for upstream in self.upstreams)
            if final or due > deadline:
                raise self.nobody()
            time.sleep(max(due - time.monotonic(), 0.0))

    def settled(
        self, upstream: BlockingUpstream, until: float | None, timeout: float | None
    ) -> bool:
        """Whether a server is up; one that is not is tried, if its time has come."""
        now = time.monotonic()
        if upstream.is_up(now):
            return True
        if upstream.due > now:
            return False
        limits = [ATTEMPT_SECONDS if timeout is None else timeout]
        if upstream.failure is not None and any(other.is_up(now) for other in self.upstreams):
            limits.append(HURRY_SECONDS if self._auth is None else LOGIN_HURRY_SECONDS)
        if until is not None:
            limits.append(max(until - now, 0.001))  # 0 would mean something else
        self._connect(upstream, min(limits))
        return upstream.link is not None

    def walk(self, start: int | None) -> Iterator[BlockingUpstream]:
        """All servers in the order in which to try them."""
        numbers = walk(self._start if start is None else start, len(self.upstreams))
        return (self.upstreams[number] for number in numbers)

    def any_up(self) -> bool:
        """Whether any server is up."""
        now = time.monotonic()
        return any([upstream.is_up(now) for upstream in self.upstreams])

    def nobody(self) -> ConnectionLost | LoginFailed:
        """Why no server can be reached."""
        return nobody([up.failure for up in self.upstreams if up.failure is not None])

    def _connect(self, upstream: BlockingUpstream, timeout: float | None) -> None:
        address = upstream.address
        until = None if timeout is None else time.monotonic() + timeout
        machine = ClientConnection()
        session: BlockingSession | None = None
        wire: Wire | None = None
        try:
            wire = open_wire(address, until, self._tls)
            if self._auth is not None:
                # Only here: it brings what knows passwords.
                from trigear.runtime.blocking_login import log_in

                session = log_in(wire, machine, self._auth, str(address), until, lot)
        except (OSError, ConfigError, ConnectionLost, LoginFailed) as error:
            if wire is not None:
                wire.close()
            upstream.failed(_failure(address, error), time.monotonic())
            return
        except BaseException:
            if wire is not None:
                wire.close()
            raise
        link = BlockingLink(wire, address, self.crank, machine, session)
        self._greet(machine)
        upstream.link, upstream.failure, upstream.began = link, None, time.monotonic()


def _failure(address: Address, error: Exception) -> ConnectionLost | LoginFailed:
    """Why there is no connection to a server."""
    if isinstance(error, ConnectionLost | LoginFailed):
        return error
    if not isinstance(error, OSError):
        # A file of TLS was good when the program began: it may be there again at the next try.
        lost = ConnectionLost(f"no connection to {address}: {error}")
    else:
        # Words of our own say more than that there is nobody.
        ours = isinstance(error, TooLate) or (
            isinstance(error, ConnectionError) and not error.errno
        )
        then = "" if ours else "; is a server running there?"
        lost = ConnectionLost(f"no connection to {address}: {why_not(error)}{then}")
    lost.__cause__ = error
    return lost
