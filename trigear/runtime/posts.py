"""Where a worker works: its servers, and one post for each lane at each of them.

A post keeps a connection: it connects, logs in if that is wanted, works until the connection ends,
and does so again, until the worker drains. Where a connection carries one job at a time, it opens
others beside it.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from trigear.errors import ConnectionLost, LoginFailed
from trigear.protocol.worker import WorkerConnection
from trigear.runtime.address import Address, as_address
from trigear.runtime.backoff import STEADY_SECONDS, Backoff, delay, slow
from trigear.runtime.link import hidden_nursery, open_link, open_stream
from trigear.runtime.shift import Shift
from trigear.runtime.telling import watched
from trigear.runtime.values import is_final

if TYPE_CHECKING:
    from trigear.runtime.crew import Crew, Lane
    from trigear.runtime.login import Session
    from trigear.security.sasl_client import Auth
    from trigear.security.tls import ClientContext, ClientTLS

log: Final = logging.getLogger("trigear.worker")

PATIENCE: Final = 10.0
"""Seconds that a server may take to let us in, and to answer the first question."""

CLEANUP_GRACE: Final = 2.0
"""Seconds that handlers which were cancelled may take to answer, before their connection closes."""

Opener = Callable[[], Awaitable[trio.abc.Stream]]
"""Opens a stream to a server, or raises ConnectionLost."""

Server = str | Address | Opener


@dataclass(frozen=True, slots=True)
class Place:
    """A server: how to get there, and what it is called."""

    name: str
    open: Opener


def places_of(
    servers: Server | Sequence[Server], tls: ClientTLS | ClientContext | None = None
) -> list[Place]:
    """The servers, each to be connected to.

    Raises:
        ConfigError: an address is none.
        ValueError: there is none at all.
    """
    several = [servers] if isinstance(servers, str | Address) or callable(servers) else servers
    if not several:
        raise ValueError("no server to work for")
    return [place_of(server, tls) for server in several]


def place_of(server: Server, tls: ClientTLS | ClientContext | None) -> Place:
    if callable(server):
        return Place("the server", server)
    address = as_address(server)
    return Place(str(address), lambda: open_stream(address, tls))


async def work(
    crew: Crew, places: list[Place], auth: Auth | None, task_status: trio.TaskStatus[None]
) -> None:
    """Work everywhere, until the crew is over.

    Args:
        crew: who works.
        places: where.
        auth: who to log in as; None: nobody.
        task_status: told when the functions are announced at one of the places.

    Cancellation: handlers are cancelled, and their jobs go to others.
    """
    lanes = crew.lanes()
    started = False

    def announced(place: Place) -> None:
        nonlocal started
        if not started and all(post.announced for post in posts if post.place is place):
            started = True
            task_status.started()

    with watched(crew.stood_still) as watch:
        crew.busy = watch.busy
        async with hidden_nursery() as crew.jobs:
            async with hidden_nursery() as nursery:
                posts = [
                    Post(crew, place, lane, nursery, announced, auth)
                    for place in places
                    for lane in lanes
                ]
                crew.keepers = len(posts)
                nursery.start_soon(crew.look_for_strays)
                for post in posts:
                    nursery.start_soon(post.keep)
                await crew.over.wait()
                nursery.cancel_scope.cancel()
            # What is left are threads that cannot be stopped.
            crew.jobs.cancel_scope.cancel()


@dataclass(eq=False, slots=True)
class Post:
    """One lane at one server: keeps a connection, and more where each carries only one job."""

    crew: Crew
    place: Place
    lane: Lane
    nursery: trio.Nursery
    on_announced: Callable[[Place], object]
    auth: Auth | None = None
    announced: bool = False
    opening: bool = False
    shifts: list[Shift] = field(default_factory=list)
    backoff: Backoff = field(default_factory=lambda: Backoff(random.random))
    refused: Backoff = field(default_factory=lambda: slow(random.random))

    async def keep(self) -> None:
        """Work here, again after every loss, until the worker drains."""
        while not self.crew.draining.is_set():
            lost = await self._connect()
            if lost is None or self.crew.draining.is_set():
                continue
            if isinstance(lost, LoginFailed) and is_final(lost) and not self.announced:
                self.crew.fail(lost)
                return
            wait = self._wait_after(lost)
            log.warning("%s (trying again in %s)", lost, delay(wait))
            with trio.move_on_after(wait):
                await self.crew.draining.wait()
        self.crew.keepers -= 1
        if not self.crew.keepers:
            self.crew.over.set()

    async def _help(self) -> None:
        """Work here on one more connection, as long as it lasts."""
        lost = await self._connect()
        if lost is not None:
            wait = self._wait_after(lost)
            log.info("%s (it was one of several, another one in %s if needed)", lost, delay(wait))
            self.opening = True  # nobody else opens one meanwhile
            with trio.move_on_after(wait):
                await self.crew.draining.wait()
        self.opening = False
        self.grow()
        self.crew.keepers -= 1
        if not self.crew.keepers:
            self.crew.over.set()

    def _wait_after(self, lost: ConnectionLost | LoginFailed) -> float:
        """Seconds until the next attempt."""
        return (self.refused if is_final(lost) else self.backoff).next()

    def grow(self) -> None:
        """Open another connection if those there are all busy."""
        at_work = self.shifts and all(shift.alone and shift.busy for shift in self.shifts)
        wanted = not (self.opening or self.crew.draining.is_set())
        if at_work and wanted and len(self.shifts) < self.lane.limit:
            self.opening = True
            self.crew.keepers += 1
            self.nursery.start_soon(self._help)

    async def _connect(self) -> ConnectionLost | LoginFailed | None:
        """Connect and work until the connection ends; why it was lost, if it was."""
        patience = trio.CancelScope(deadline=trio.current_time() + PATIENCE)
        machine = WorkerConnection()
        session: Session | None = None
        with self.crew.until_drained() as waiting, patience:
            try:
                stream = await self.place.open()
                if self.auth is not None:
                    from trigear.runtime.login import log_in

                    session = await log_in(stream, machine, self.auth, self.place.name)
            except (ConnectionLost, LoginFailed) as error:
                return error
        if patience.cancelled_caught:
            return ConnectionLost(f"no connection to {self.place.name} within {PATIENCE:g} s")
        if waiting.cancelled_caught:
            return None
        return await self._work_over(stream, machine, session)

    async def _work_over(
        self, stream: trio.abc.Stream, machine: WorkerConnection, session: Session | None
    ) -> ConnectionLost | None:
        crew = self.crew
        name = self.place.name
        shift = Shift(crew, self.lane, self.grow)
        async with (
            open_link(
                stream, machine, name, deliver=shift.deliver, ended=shift.end, session=session
            ) as link,
            hidden_nursery() as heart,
        ):
            shift.greet(link)
            with crew.until_drained(), trio.move_on_after(PATIENCE) as patience:
                await shift.greeted.wait()
            if patience.cancelled_caught:
                return ConnectionLost(f"{name} does not answer; is it a Gearman server?")
            if link.failure is not None or crew.draining.is_set():
                return link.failure
            self.shifts.append(shift)
            self.opening = False
            began = trio.current_time()
            try:
                shift.begin(asks=session is not None)
                heart.start_soon(shift.beat)
                await shift.heard.wait()
                if crew.over.is_set():
                    return None
                log.info("at work for %s", name)
                self.announced = True
                self.on_announced(self.place)
                await shift.over.wait()
                if trio.current_time() - began >= STEADY_SECONDS:
                    self.backoff.reset()
                    self.refused.reset()
            finally:
                self.shifts.remove(shift)
                shift.leave()
                # Handlers that clean up under a shield may still answer, as long as there is
                # somebody to answer. But their jobs go to others only when the link is closed.
                if link.failure is None:
                    with trio.move_on_after(CLEANUP_GRACE, shield=True):
                        await shift.idle.wait()
                heart.cancel_scope.cancel()
        return link.failure
