"""Connections to servers without Trio: a socket and a machine each, and one crank for all.

Whoever waits turns the crank, :meth:`Crank.turn`: send what the sockets take, read what has come,
hand each event to the request it belongs to. So waiting for one answer takes in what arrives for
others, and a peer that stops reading until it is read from never stands against a caller who does
the same.
"""

from __future__ import annotations

import contextlib
import selectors
import threading
import time
from typing import TYPE_CHECKING, Final

from trigear.errors import ConnectionLost, LocalProtocolError, LoginFailed, Refused
from trigear.protocol import events
from trigear.protocol.client import ClientConnection, Submission
from trigear.protocol.login import is_of_login
from trigear.runtime.values import breach, dismissal, in_doubt, words_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trigear.protocol.asking import Request
    from trigear.runtime.address import Address
    from trigear.runtime.blocking_login import BlockingSession
    from trigear.runtime.blocking_wire import Wire

SWEEPS: Final = 64
"""Looks before a call, at most, at what has come since the last one."""

LONGEST: Final = 1e6
"""Seconds that the system can count for us while we wait; eleven days are as good as any time."""

# poll needs no descriptor of its own; where there is none, select has to do.
_Selector: Final[type[selectors.BaseSelector]] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


class Waiting:
    """One who waits for the reply to a request.

    Args:
        doubt: what is unknown if the connection breaks before the reply has come; nothing, if
            that does not matter.
    """

    __slots__ = ("doubt", "event", "failure")

    def __init__(self, doubt: str = "") -> None:
        self.doubt = doubt
        self.event: events.OfRequest | None = None
        self.failure: ConnectionLost | None = None

    def hear(self, event: events.OfRequest) -> bool:
        """Take an event in, and say whether it was the last one."""
        self.event = event
        return True

    def lose(self, failure: ConnectionLost) -> None:
        """Hear that there will be no more events."""
        self.failure = failure

    @property
    def told(self) -> bool:
        """Whether there is a reply, or will be none."""
        return self.event is not None or self.failure is not None

    def reply(self) -> events.OfRequest:
        """The reply that has come.

        Raises:
            Refused: the server answered ERROR.
            ConnectionLost: the connection broke before the reply came.
        """
        if self.event is None:
            assert self.failure is not None, "asked before anything came"
            raise in_doubt(self.failure, self.doubt)
        if isinstance(self.event, events.Refused):
            raise Refused(self.event.code, self.event.text)
        return self.event


class Crank:
    """Moves what goes over the connections of one client, when it is turned; for one thread at a
    time."""

    def __init__(self) -> None:
        self.closed = False
        self._links: list[BlockingLink] = []
        self._selector = _Selector()
        self._turning = threading.Lock()

    def check(self) -> None:
        """Raise LocalProtocolError if the client was closed."""
        if self.closed:
            raise LocalProtocolError("this client is closed: connect again")

    def add(self, link: BlockingLink) -> None:
        self._links.append(link)
        self._selector.register(link.socket, link.watched, link)

    def remove(self, link: BlockingLink) -> None:
        self._links.remove(link)
        self._selector.unregister(link.socket)

    def wait_for(
        self, over: Callable[[], bool], until: float | None, late: str, where: Address
    ) -> None:
        """Turn until it is over.

        Raises:
            TimeoutError: it is not, and the time is up; ``late`` says what did not happen.
        """
        left = None if until is None else until - time.monotonic()
        last = False
        while not over():
            if last:
                raise TimeoutError(f"{late} in time: {where}")
            # What has arrived by now counts, however late it is looked at.
            last = left is not None and left <= 0
            self.turn(left)
            left = None if until is None else until - time.monotonic()

    def turn(self, patience: float | None) -> bool:
        """Turn once: send, wait for the sockets, receive, deliver.

        Returns:
            Whether anything moved within the patience, in seconds.
        """
        with self._alone():
            for link in self._links:
                if link.wants_to_be_watched():
                    self._selector.modify(link.socket, link.watched, link)
            endless = patience is None or patience > LONGEST
            return self._receive(None if endless else patience)

    def sweep(self) -> None:
        """Take in what has come since the last turn: it may be that a server hung up."""
        with self._alone():
            for _ in range(SWEEPS):
                if not self._receive(0):
                    break

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        self.check()
        if not self._turning.acquire(blocking=False):
            raise LocalProtocolError(
                "two threads use this client at once: connect once in each thread"
            )
        try:
            yield
        finally:
            self._turning.release()

    def _receive(self, patience: float | None) -> bool:
        ready = self._selector.select(patience)
        for key, mask in ready:
            if mask & selectors.EVENT_READ:
                key.data.receive()
        return bool(ready)

    def close(self) -> None:
        """Hang up everywhere."""
        if not self.closed:
            self.closed = True
            self._selector.close()
            for link in self._links:
                link.wire.close()
            self._links.clear()


class BlockingLink:
    """A connection to a server.

    ``machine`` is the protocol's state: ask it, :meth:`listen`, then turn the crank until the
    answer is there. ``address`` is the server's. ``failure`` says why the connection ended, or is
    None while it lives. ``session`` is the login, to be made anew in time, if there is one.
    """

    def __init__(
        self,
        wire: Wire,
        address: Address,
        crank: Crank,
        machine: ClientConnection,
        session: BlockingSession | None,
    ) -> None:
        self.machine = machine
        self.address = address
        self.wire = wire
        self.socket = wire.socket
        self._session = session
        self.watched = selectors.EVENT_READ
        self.failure: ConnectionLost | None = None
        self._crank = crank
        self._waiting: dict[Request, Waiting] = {}
        self._unsent = memoryview(b"")
        self._send_error: OSError | None = None
        crank.add(self)

    def listen(self, token: Request, waiting: Waiting) -> None:
        """Hand on what is heard of a request until its last event, or until it is forgotten."""
        self._waiting[token] = waiting

    def forget(self, token: Request) -> None:
        """Drop what is still to come of a request."""
        if self._waiting.pop(token, None) is None:
            return
        if isinstance(token, Submission):
            self.machine.detach(token)
            if not self._crank.closed:
                self._send()
        else:
            self.machine.abandon(token)

    def wants_to_be_watched(self) -> bool:
        """Send what the socket takes; whether ``watched`` has changed by that."""
        if self._session is not None:
            self._session.renew()
        self._send()
        wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
        changed = wanted != self.watched
        self.watched = wanted
        return changed

    def _send(self) -> None:
        try:
            while self._send_error is None and (self._unsent or self.machine.out):
                if not self._unsent:
                    self._unsent = memoryview(self.wire.seal(self.machine.take()))
                self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            # What the server said before it went is worth more than that it went: read on.
            self._send_error = error
            self._unsent = memoryview(b"")

    def receive(self) -> None:
        """Take in what has come, and hand it on."""
        try:
            data = self.wire.receive()
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(f"the connection to {self.address} broke: {words_for(error)}", error)
            return
        if not data:
            middle = " in the middle of a packet" if self.machine.decoder.buffered else ""
            self._lose(f"{self.address} closed the connection{middle}", self._send_error)
            return
        self.machine.receive(data)
        for event in self.machine.events():
            if isinstance(event, events.Broken):
                self._lose(breach(str(self.address), event.error), event.error)
                return
            if isinstance(event, events.Dismissed):
                self._lose(dismissal(str(self.address), event), None)
                return
            if is_of_login(event):
                if not self._stay(event):
                    return
                continue
            assert isinstance(event, events.OfRequest), "all that a client hears is about a request"
            waiting = self._waiting.get(event.token)
            if waiting is not None and waiting.hear(event):
                del self._waiting[event.token]

    def _stay(self, event: events.Event) -> bool:
        """Take in an event of logins; whether the connection can still be trusted."""
        if self._session is None:
            return True
        try:
            self._session.hear(event)
        except LoginFailed as error:
            self._lose(str(error), error)
            return False
        return True

    def _lose(self, what: str, cause: Exception | None) -> None:
        self.failure = ConnectionLost(what)
        self.failure.__cause__ = cause
        self._crank.remove(self)
        self.wire.close()
        for waiting in self._waiting.values():
            waiting.lose(self.failure)
        self._waiting.clear()
