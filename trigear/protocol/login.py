"""The client's side of a login: the steps, whoever moves the bytes and whatever the mechanism.

Theory of operation. A :class:`ClientLogin` stands beside the machine of a connection, queues
packets in it and is told the events that come of them:

=========================  =====================================================================
what comes                 what it does
=========================  =====================================================================
(the beginning)            asks for logins, and for an echo, in one write
the echo, and an offer     chooses a mechanism and begins with it
before that
the echo, and none; ERROR  there are no logins here: gives up. Nothing was sent that is secret
a challenge                has ``work`` for whoever moves the bytes, in a thread perhaps: a password
                           is stretched. Its outcome is the answer
the end                    is :attr:`done`, if the mechanism agrees that this is the end; who acts
                           for a tenant says so first, and is done when that is answered
ERROR                      is refused
=========================  =====================================================================

What is not there cannot be forged: a login that did not come to its end leaves nothing but an
exception, and whoever asked for one has no way to go on without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from trigear.errors import LoginFailed, LoginRefused
from trigear.model import printable
from trigear.protocol.asking import LAST_WORDS, LoginRequest
from trigear.protocol.events import (
    Challenged,
    Dismissed,
    Echoed,
    Event,
    Expiring,
    LoggedIn,
    Offered,
    OfRequest,
    OptionSet,
    Refused,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trigear.protocol.asking import AskingConnection

MOST_STEPS: Final = 16
"""Challenges that a server may have for us; no mechanism has so many."""

RENEW_AT: Final = 0.8
"""The part of a login's time after which another login is due."""


class Mechanisms(Protocol):
    """What knows the password: see :class:`trigear.security.sasl_client.TrigearSASL`. Its methods
    raise :class:`~trigear.errors.LoginFailed`."""

    mechanism: str | None

    @property
    def complete(self) -> bool:
        """Whether there is nothing left to say and to prove."""

    def choose_mechanism(self, offered: Iterable[str]) -> None:
        """Take one of those that are offered."""

    def process(self, challenge: bytes | None = None) -> bytes:
        """The first message, or the answer to a challenge."""

    def finish(self, data: bytes) -> None:
        """See whether the end that the server speaks of is one."""


class Entry(NamedTuple):
    """A login that succeeded: as whom, in which tenant, with which roles, and for how many seconds;
    None for no end."""

    identity: str
    tenant: str
    roles: tuple[str, ...]
    lifetime: float | None


class ClientLogin:
    """One login on one connection.

    Args:
        machine: the state of the connection.
        mechanisms: what knows the password, for this login alone.
        server: what the server is called in errors.
        tenant: what an operator acts for; empty: nothing.
    """

    def __init__(
        self, machine: AskingConnection, mechanisms: Mechanisms, server: str, tenant: str = ""
    ) -> None:
        self.work: Callable[[], bytes] | None = None
        """What has to be done before it goes on; hand what it returns to :meth:`worked`."""
        self.done: Entry | None = None
        self._machine = machine
        self._mechanisms = mechanisms
        self._server = server
        self._tenant = tenant
        self._entry: Entry | None = None
        self._offered: tuple[str, ...] | None = None
        self._steps = 0
        self._option, self._fence = machine.ask_for_logins()
        self._said: LoginRequest | None = None

    def hear(self, event: Event) -> None:
        """Take in an event of the connection; those that are of no login are passed over.

        Raises:
            LoginFailed: this login comes to nothing.
        """
        match event:
            case Offered():
                self._offered = event.mechanisms
            case Echoed() if event.token is self._fence:
                self._begin()
            case Challenged() if event.token is self._said:
                self._challenged(event.data)
            case LoggedIn() if event.token is self._said:
                self._mechanisms.finish(event.data)
                self._entered(event)
            case OptionSet() if self._entry is not None and event.token is self._said:
                self.done = self._entry
            case Refused() if event.token is self._option and event.code not in LAST_WORDS:
                raise self._unknown(f"it says '{event.text or event.code}'")
            case Refused() if event.token in (self._option, self._said):
                raise LoginRefused(self._server, event.code, event.text)
            case Dismissed():
                raise LoginRefused(self._server, event.code, event.text)
            case _:
                pass

    def worked(self, answer: bytes) -> None:
        """The work is done."""
        self.work = None
        self._said = self._machine.answer_login(answer)

    def _unknown(self, why: str) -> LoginFailed:
        harmless = printable(why.encode("utf-8", "backslashreplace"))
        return LoginFailed(
            f"{self._server} knows no logins: {harmless}; name another server, or go there without"
            " a login"
        )

    def _entered(self, event: LoggedIn) -> None:
        entry = Entry(
            printable(event.identity.encode()),
            self._tenant or printable(event.tenant.encode()),
            event.roles,
            event.lifetime,
        )
        if self._tenant:
            # Nothing else may be said before it is answered: it would be about another tenant.
            self._entry = entry
            self._said = self._machine.act_for(self._tenant.encode())
        else:
            self.done = entry

    def _begin(self) -> None:
        if self._offered is None:
            raise self._unknown("it does not say how to log in")
        self._mechanisms.choose_mechanism(self._offered)
        name = self._mechanisms.mechanism
        assert name is not None, "one was chosen"
        self._said = self._machine.start_login(name.encode(), self._mechanisms.process())

    def _challenged(self, data: bytes) -> None:
        self._steps += 1
        if self._mechanisms.complete or self._steps > MOST_STEPS:
            raise LoginFailed(f"{self._server} asks on, although everything is said")
        self.work = lambda: self._mechanisms.process(data)


# By class, because this is asked about every event of a client.
_REPLIES: Final = frozenset({Echoed, OptionSet, Refused})
_WORDS: Final = frozenset({Offered, Challenged, LoggedIn, Expiring})


def is_of_login(event: Event) -> bool:
    """Whether an event belongs to logins, and to nothing else on the connection."""
    kind = event.__class__
    if kind in _REPLIES:
        assert isinstance(event, OfRequest)
        return event.token.__class__ is LoginRequest
    return kind in _WORDS
