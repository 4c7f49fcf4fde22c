"""The servers of a client: one connection to each that is wanted, made again when it breaks.

Theory of operation. An :class:`Upstream` is a server and, while it is up, the link to it. It is
*untried* until somebody wants it; then a keeper, a task in the client's hidden nursery, connects,
watches the connection, and when that breaks connects again, after a time with full jitter, and a
longer one where the server refuses the login. Whoever
submits asks :meth:`Pool.pick` for a server: the first in the order of the walk that is up. An
untried one gets its chance on the way; one that is down is passed over. If all are down, the caller
waits until the pool's patience is over, unless all of them refuse the login.

Keepers are shielded: what cancels the client's user shall not take the connections away before he
has left, and what is queued is sent when they are closed.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from trigear.errors import ConnectionLost, LoginFailed, LoginRefused
from trigear.protocol import events
from trigear.protocol.choice import walk
from trigear.protocol.client import ClientConnection, Submission
from trigear.runtime.backoff import STEADY_SECONDS, Backoff, slow
from trigear.runtime.link import Link, open_link
from trigear.runtime.values import is_final, nobody

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from random import Random

    from trigear.protocol.asking import Request
    from trigear.runtime.login import Session
    from trigear.runtime.waiting import Waiting
    from trigear.security.sasl_client import Auth

ATTEMPT_SECONDS: Final = 10.0
"""How long one attempt to connect may take: a machine that is switched off does not answer."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is: its ``name`` in errors, and how to get a stream to it.

    ``open`` raises ConnectionLost. A place that is not ``lasting`` is connected to once.
    """

    name: str
    open: Callable[[], Awaitable[trio.abc.Stream]]
    lasting: bool = True


class Upstream:
    """One of a client's servers. ``link`` is the connection to it, ``failure`` why there is none;
    neither, until the first attempt to connect has ended."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.link: Link[ClientConnection] | None = None
        self.failure: ConnectionLost | LoginFailed | None = None
        self.wanted = False
        self.scope = trio.CancelScope(shield=True)
        self._waiting: dict[Request, Waiting] = {}

    @property
    def machine(self) -> ClientConnection:
        """The state of the connection, which must be up."""
        assert self.link is not None, "asked of a server that is not up"
        return self.link.machine

    @contextmanager
    def listening(self, token: Request, waiting: Waiting) -> Iterator[None]:
        """Send what the machine has queued, tell ``waiting`` of the request while the body runs."""
        self.listen(token, waiting)
        try:
            yield
        finally:
            self.forget(token)

    def listen(self, token: Request, waiting: Waiting) -> None:
        """As :meth:`listening`, until :meth:`forget`."""
        assert self.link is not None, "asked of a server that is not up"
        self._waiting[token] = waiting
        self.link.kick()

    def forget(self, token: Request) -> None:
        """Tell nobody of the request any more. Its reply is absorbed when it comes."""
        if self._waiting.pop(token, None) is None:
            return
        if isinstance(token, Submission):
            self.machine.detach(token)
        else:
            self.machine.abandon(token)
        assert self.link is not None, "who waits is told when a link breaks"
        self.link.kick()

    def close(self) -> None:
        """Tell everybody that the client was left, and have the keeper end."""
        self._lose(trio.ClosedResourceError("this client was left: its block has ended"))
        self.scope.cancel()

    # What the keeper and its link say

    def deliver(self, event: events.Event) -> None:
        """An event from the server."""
        assert isinstance(event, events.OfRequest), "all that a client hears is about a request"
        waiting = self._waiting.get(event.token)
        if waiting is not None and waiting.hear(event):
            del self._waiting[event.token]

    def down(self, failure: ConnectionLost | LoginFailed) -> None:
        """An attempt failed, or the connection broke."""
        self.link = None
        self.failure = failure
        if isinstance(failure, ConnectionLost):
            self._lose(failure)

    def _lose(self, failure: ConnectionLost | trio.ClosedResourceError) -> None:
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            one.lose(failure)


class Pool:
    """All servers of a client.

    Args:
        places: where they are; the order is that of the list which all clients share.
        greet: what is said first on each new connection.
        patience: seconds that a caller waits when all servers are down.
        rng: where the choice of the first server and the jitter come from.
        auth: who to log in as, before anything else is said; None: nobody.
    """

    def __init__(
        self,
        places: Sequence[Place],
        greet: Callable[[ClientConnection], None],
        *,
        patience: float,
        rng: Random,
        auth: Auth | None = None,
    ) -> None:
        self.upstreams = [Upstream(place) for place in places]
        self.closed = False
        self._greet = greet
        self._patience = patience
        self._auth = auth
        self._rng = rng
        self._start = rng.randrange(len(places))
        self._changed = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery

    async def begin(self, nursery: trio.Nursery) -> None:
        """Connect to one server.

        Raises:
            ConnectionLost: none can be reached.
            LoginFailed: none lets us in.
        """
        self._nursery = nursery
        try:
            await self._pick(self._start, 0)
        except LoginRefused as error:
            if not error.temporary:
                raise
            await self._pick(self._start, self._patience)

    def close(self) -> None:
        """Send what is queued, then close all connections; the nursery waits for it."""
        self.closed = True
        for upstream in self.upstreams:
            upstream.close()
        self._changed.unpark_all()

    async def pick(self, home: int | None) -> Upstream:
        """The server to go to, up at this moment.

        Args:
            home: its number if it is not all the same.

        Raises:
            ConnectionLost: no server could be reached within the patience.
            LoginFailed: none lets us in.
            trio.ClosedResourceError: the client was left.

        Cancellation: nothing was sent.
        """
        return await self._pick(self._start if home is None else home, self._patience)

    async def _pick(self, start: int, patience: float) -> Upstream:
        deadline = trio.current_time() + patience
        while True:
            self.check()
            for upstream in self.walk(start):
                if upstream.link is not None:
                    return upstream
                if upstream.failure is None:
                    await self.settled(upstream)
                    break
            else:
                lasting = any(upstream.place.lasting for upstream in self.upstreams)
                if not lasting or all(is_final(upstream.failure) for upstream in self.upstreams):
                    raise self._nobody()
                with trio.move_on_at(deadline) as scope:
                    await self._changed.park()
                if scope.cancelled_caught:
                    raise self._nobody()

    def walk(self, start: int | None) -> Iterator[Upstream]:
        """All servers in the order in which to try them."""
        numbers = walk(self._start if start is None else start, len(self.upstreams))
        return (self.upstreams[number] for number in numbers)

    async def settled(self, upstream: Upstream) -> bool:
        """Whether a server is up; if nobody has tried yet, try now."""
        if not upstream.wanted:
            upstream.wanted = True
            self._nursery.start_soon(self._keep, upstream)
        while upstream.link is None and upstream.failure is None:
            self.check()
            await self._changed.park()
        return upstream.link is not None

    def check(self) -> None:
        """Raise trio.ClosedResourceError if the client was left."""
        if self.closed:
            raise trio.ClosedResourceError("this client was left: its block has ended")

    def _nobody(self) -> ConnectionLost | LoginFailed:
        """Why no server can be reached."""
        return nobody([up.failure for up in self.upstreams if up.failure is not None])

    # The keepers

    async def _keep(self, upstream: Upstream) -> None:
        """Connect, and connect again whenever the connection breaks."""
        backoff, refused = Backoff(self._rng.random), slow(self._rng.random)
        with upstream.scope:
            while True:
                if await self._serve(upstream) >= STEADY_SECONDS:
                    backoff.reset()
                    refused.reset()
                if not upstream.place.lasting:
                    return
                await trio.sleep((refused if is_final(upstream.failure) else backoff).next())

    async def _serve(self, upstream: Upstream) -> float:
        """Connect once. Returns how many seconds the connection lived."""
        place = upstream.place
        machine = ClientConnection()
        session: Session | None = None
        try:
            with trio.fail_after(ATTEMPT_SECONDS):
                stream = await place.open()
                if self._auth is not None:
                    session = await self._log_in(stream, machine, place.name)
        except trio.TooSlowError:
            within = f"no answer within {ATTEMPT_SECONDS:g} s"
            self._ended(upstream, ConnectionLost(f"no connection to {place.name}: {within}"))
            return 0.0
        except (ConnectionLost, LoginFailed) as error:
            self._ended(upstream, error)
            return 0.0
        began = trio.current_time()
        async with open_link(
            stream,
            machine,
            place.name,
            deliver=upstream.deliver,
            ended=lambda failure: self._ended(upstream, failure),
            session=session,
        ) as link:
            self._greet(link.machine)
            link.kick()
            upstream.link, upstream.failure = link, None
            self._changed.unpark_all()
            await link.wait_over()
        return trio.current_time() - began

    async def _log_in(
        self, stream: trio.abc.Stream, machine: ClientConnection, server: str
    ) -> Session:
        # Only here: it brings what knows passwords.
        from trigear.runtime.login import log_in

        assert self._auth is not None, "there is somebody to log in as"
        return await log_in(stream, machine, self._auth, server)

    def _ended(self, upstream: Upstream, failure: ConnectionLost | LoginFailed) -> None:
        upstream.down(failure)
        self._changed.unpark_all()
