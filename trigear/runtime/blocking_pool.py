"""The servers of a client without Trio: a connection to each that is wanted, made again when it
breaks.

The rules are those of :mod:`trigear.runtime.pool`. But nobody works between two calls here: a
server that is down is tried again by the next call that wants it, once its time has come, which is
drawn by lot and grows with every failure. While another server is up, such an attempt may not hold
a call up for more than a second.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

from trigear.errors import ConfigError, ConnectionLost
from trigear.protocol.choice import walk
from trigear.runtime.backoff import STEADY_SECONDS, Backoff
from trigear.runtime.blocking_link import BlockingLink, Crank, open_socket, why_not
from trigear.runtime.values import again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from trigear.protocol.client import ClientConnection
    from trigear.runtime.address import Address

ATTEMPT_SECONDS: Final = 10.0
"""How long an attempt to connect again may take where the client has no timeout."""

HURRY_SECONDS: Final = 1.0
"""How long it may take while another server is up."""


def lot() -> float:
    """A number from 0 up to 1. (The module for that takes longer to load than many a call.)"""
    return int.from_bytes(os.urandom(6)) / (1 << 48)


class BlockingUpstream:
    """One of a client's servers. ``link`` is the connection to it, perhaps broken by now;
    ``failure`` why there is none; neither, until the first attempt to connect."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.link: BlockingLink | None = None
        self.failure: ConnectionLost | None = None
        self.due = 0.0
        self.began = 0.0
        self.backoff = Backoff(lot)

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

    def failed(self, failure: ConnectionLost, now: float) -> None:
        """There is no connection, or none any more."""
        if self.link is not None and now - self.began >= STEADY_SECONDS:
            self.backoff.reset()
        self.link = None
        self.failure = failure
        self.due = now + self.backoff.next()


class BlockingPool:
    """All servers of a client.

    Args:
        addresses: where they are; the order is that of the list which all clients share.
        greet: what is said first on each new connection.
        patience: seconds that a call waits when all servers are down.
        rng: gives the number by which the first server is drawn.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        greet: Callable[[ClientConnection], None],
        *,
        patience: float,
        rng: Callable[[], float],
    ) -> None:
        if not addresses:
            raise ConfigError("servers", "there is none", "name one, such as localhost:4730")
        for address in addresses:
            if address.tls:
                raise ConfigError(
                    "servers",
                    f"'{address}' asks for TLS, which the client without Trio does not speak",
                    "use trigear.connect",
                )
        self.crank = Crank()
        self.upstreams = [BlockingUpstream(address) for address in addresses]
        self._greet = greet
        self._patience = patience
        self._start = int(rng() * len(addresses))
        self.latest = self.upstreams[self._start]
        """The server that was picked last."""

    def begin(self, timeout: float | None) -> None:
        """Connect to one server, within ``timeout`` seconds for each attempt.

        Raises:
            ConnectionLost: none can be reached.
        """
        for upstream in self.walk(None):
            self._connect(upstream, timeout)
            if upstream.link is not None:
                self.latest = upstream
                return
        raise self.nobody()

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
            if due > deadline:
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
            limits.append(HURRY_SECONDS)
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

    def nobody(self) -> ConnectionLost:
        """Why no server can be reached."""
        failures = [up.failure for up in self.upstreams if up.failure is not None]
        if len(failures) == 1:
            return again(failures[0])
        lost = ConnectionLost(
            f"none of {len(failures)} servers can be reached: {'; '.join(map(str, failures))}"
        )
        lost.__cause__ = failures[-1].__cause__
        return lost

    def _connect(self, upstream: BlockingUpstream, timeout: float | None) -> None:
        address = upstream.address
        try:
            link = BlockingLink(open_socket(address, timeout), address, self.crank)
        except OSError as error:
            lost = ConnectionLost(
                f"no connection to {address}: {why_not(error)}; is a server running there?"
            )
            lost.__cause__ = error
            upstream.failed(lost, time.monotonic())
            return
        self._greet(link.machine)
        upstream.link, upstream.failure, upstream.began = link, None, time.monotonic()
