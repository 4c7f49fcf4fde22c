"""Who may use a server that lets nobody in without asking: settings, deadlines, and passwords that
wait to be checked.

A password is checked by stretching it, for up to half a second. So what a mechanism hands out as
:class:`~trigear.security.mechs.Verify` becomes a :class:`Check`, which the runtime takes, one at a
time, and answers. Meanwhile the connection is held.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.timers import Timers
from trigear.engine.doors import Arrival, Door, TurnedAway, Way
from trigear.engine.guarded import GuardedSession
from trigear.engine.session import Session
from trigear.model import DEFAULT_TENANT
from trigear.security.mechs import Channel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trigear.engine.engine import Engine
    from trigear.engine.entering import EnteringSession
    from trigear.model import Now
    from trigear.security.mechs import Authenticator
    from trigear.security.policy import Identity
    from trigear.security.users import Users

DELAY: Final = 1.0
"""Seconds after which a failure is answered, give or take a fifth."""

DEADLINE: Final = 15.0
"""Seconds from connecting within which one must have logged in."""

CHECKS: Final = 64
"""Passwords that may wait to be checked."""


class Check:
    """A password to be checked. ``work`` may be called in any thread; what it returns goes to
    :meth:`Logins.checked`."""

    __slots__ = ("session", "work")

    def __init__(self, session: EnteringSession, work: Callable[[], int]) -> None:
        self.session: EnteringSession | None = session
        self.work = work


class Logins:
    """What all connections of a server that asks for logins share.

    Args:
        authenticator: knows the users and the mechanisms.
        ways: how peers may become known at an address that says nothing else; or the whole door.
        deadline: seconds from connecting within which one must have logged in.
        others: the doors of addresses that have one of their own.
        drop_on_password_change: whether connections end whose user gets another password.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        ways: Iterable[Way] | Door,
        *,
        deadline: float = DEADLINE,
        others: Iterable[Door] = (),
        drop_on_password_change: bool = True,
    ) -> None:
        self.authenticator = authenticator
        self.door = ways if isinstance(ways, Door) else Door(frozenset(ways))
        self._doors = (self.door, *others)
        self.deadline = deadline
        self.drop_on_password_change = drop_on_password_change
        self.turned_away = TurnedAway()
        self.timers = Timers()
        self._waiting: deque[Check] = deque()
        self._began = 0.0
        self._seconds = 0.0
        """How long a check takes, as far as is known."""

    def opened(
        self,
        engine: Engine,
        number: int,
        address: str,
        channel: Channel | None,
        arrival: Arrival | None,
    ) -> Session:
        """A connection; see :meth:`trigear.engine.engine.Engine.connection_opened`."""
        if arrival is None:
            arrival = Arrival(self.door, address, engine.now.monotonic, None)
        if arrival.door.open:
            session = Session(engine, number, address)
            if (allowance := session.peer.tenant.allowance) is not None:
                # Who is not asked who it is, is not told that there are too many.
                allowance.connections += 1
            session.limit_packets()
            return session
        channel = channel or Channel(address)
        return GuardedSession(engine, self, number, address, channel, arrival)

    def implicit(self, channel: Channel, door: Door, now: Now) -> Identity | None:
        """Who somebody is without saying so, at this door."""
        found = None
        if Way.MTLS in door.ways:
            found = self.authenticator.by_certificate(channel, now)
        if found is None and Way.PEER in door.ways:
            found = self.authenticator.by_uid(channel, now)
        if found is None and Way.NETWORK in door.ways:
            found = door.networks.find(channel.address)
        return found

    def knows(self, tenant: str) -> bool:
        """Whether somebody may belong to this tenant."""
        if any(user.tenant == tenant for user in self.authenticator.users):
            return True
        return any(
            tenant in door.networks.tenants or (door.open and tenant == DEFAULT_TENANT)
            for door in self._doors
        )

    def renew_users(self, users: Users, sessions: Iterable[Session]) -> int:
        """Put other users into service; returns how many of the connections end with that."""
        changes = self.authenticator.users.changes_to(users)
        self.authenticator.users = users
        return sum(
            session.renew(users, changes)
            for session in sessions
            if isinstance(session, GuardedSession)
        )

    def delay(self) -> float:
        """Seconds until a failure is answered. Chance keeps others from telling by the time what
        else happened."""
        return DELAY * (0.8 + 0.4 * self.authenticator.random(1)[0] / 255)

    # Checks

    def offer(self, session: EnteringSession, work: Callable[[], int]) -> Check | None:
        """Have work done for a session; None if too many wait already."""
        waiting = len(self._waiting)
        if waiting >= CHECKS or waiting * self._seconds > self.deadline / 2:
            return None
        check = Check(session, work)
        self._waiting.append(check)
        return check

    @property
    def has_check(self) -> bool:
        """Whether :meth:`next_check` would return one."""
        while self._waiting and self._waiting[0].session is None:
            self._waiting.popleft()
        return bool(self._waiting)

    def next_check(self, now: Now) -> Check | None:
        """The next password to check, for one thread that does one at a time."""
        if not self.has_check:
            return None
        self._began = now.monotonic
        return self._waiting.popleft()

    def checked(self, check: Check, result: int, now: Now) -> None:
        """A check is over."""
        self._seconds = now.monotonic - self._began
        session, check.session = check.session, None
        if session is not None:
            session.checked(result)

    # Time

    def set(self, seconds: float, call: Callable[[Now], None], now: Now) -> list[Any]:
        """Have something called after so many seconds."""
        return self.timers.set(now.monotonic + seconds, call)
