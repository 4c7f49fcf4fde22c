"""Logging in without Trio: once before anything else is said on a connection, and again in time.

Who has no Trio waits while a password is stretched, for half a second at worst. What was stretched
is kept in the :class:`~trigear.security.sasl_client.Auth`, so that connecting again costs nothing.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from trigear.errors import ConnectionLost, LoginRefused
from trigear.protocol.events import Broken, Expiring
from trigear.protocol.login import ClientLogin
from trigear.runtime import channel
from trigear.runtime.blocking_wire import TlsWire, TooLate, wait
from trigear.runtime.renewal import Renewal
from trigear.runtime.values import breach

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.protocol.asking import AskingConnection
    from trigear.protocol.events import Event
    from trigear.protocol.login import Entry
    from trigear.runtime.blocking_wire import Wire
    from trigear.security.sasl_client import Auth

LOGIN_SECONDS: Final = 20.0
"""How long a server may take to let us in, where nobody says how long."""


class BlockingSession:
    """A login in force on a connection that lives. Made by :func:`log_in`.

    Whoever has the connection hands it the events of logins, and asks it to :meth:`renew` before
    anything is sent.
    """

    def __init__(
        self,
        machine: AskingConnection,
        start: Callable[[], ClientLogin],
        entry: Entry,
        random: Callable[[], float],
    ) -> None:
        self._machine = machine
        self._start = start
        self._login: ClientLogin | None = None
        self._renewal = Renewal(entry, time.monotonic(), random)

    def hear(self, event: Event) -> None:
        """An event of logins.

        Raises:
            LoginFailed: the connection cannot be trusted any more.
        """
        now = time.monotonic()
        if isinstance(event, Expiring):
            if self._login is None:
                self._renewal.expiring(event.left, now)
            return
        if self._login is None:
            return
        try:
            advance(self._login, event)
        except LoginRefused as error:
            self._login = None
            self._renewal.refused(error, now)
            return
        if self._login.done is not None:
            self._renewal.entered(self._login.done, now)
            self._login = None

    def renew(self) -> None:
        """Log in again, if it is time for that."""
        due = self._login is None and time.monotonic() >= self._renewal.due
        if due and self._machine.closing is None:
            self._login = self._start()


def log_in(
    wire: Wire,
    machine: AskingConnection,
    auth: Auth,
    server: str,
    until: float | None,
    random: Callable[[], float],
) -> BlockingSession:
    """Log in on a fresh connection.

    Args:
        wire: what leads to the server.
        machine: the state of the connection, on which nothing was said yet.
        auth: who to log in as.
        server: what the server is called in errors.
        until: when the time is up, by the monotonic clock.
        random: gives numbers from 0 up to 1.

    Raises:
        LoginFailed: the server does not let us in, or this would not be safe.
        ConnectionLost: it does not speak as it should.
        OSError: the connection broke.
    """
    where = (
        channel.of_tls(wire.layer) if isinstance(wire, TlsWire) else channel.of_socket(wire.socket)
    )

    def start() -> ClientLogin:
        return ClientLogin(machine, channel.mechanisms(auth, server, where), server, auth.tenant)

    if until is None:
        until = time.monotonic() + LOGIN_SECONDS
    login = start()
    while login.done is None:
        try:
            wait(wire.socket, until)
            wire.socket.sendall(wire.seal(machine.take()))
            wait(wire.socket, until)
            data = wire.receive()
        except TimeoutError as error:
            raise TooLate("no answer to the login in time") from error
        except BlockingIOError:
            continue
        except ConnectionError as error:
            raise wire.explained(error) from None
        if not data:
            raise ConnectionError("it closed the connection during the login")
        machine.receive(data)
        for event in machine.events():
            if isinstance(event, Broken):
                raise ConnectionLost(breach(server, event.error)) from event.error
            advance(login, event)
    wire.socket.setblocking(False)
    return BlockingSession(machine, start, login.done, random)


def advance(login: ClientLogin, event: Event) -> None:
    """Take in an event, and do what has to be done."""
    login.hear(event)
    if login.work is not None:
        login.worked(login.work())
