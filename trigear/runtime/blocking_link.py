"""One connection to a server without Trio: a socket, a machine, and a crank.

Whoever waits turns the crank, :meth:`BlockingLink.turn`: send what the socket takes, read what has
come, hand each event to the request it belongs to. So waiting for one answer takes in what arrives
for others, and a peer that stops reading until it is read from never stands against a caller who
does the same.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

from trigear.errors import ConfigError, ConnectionLost, LocalProtocolError, Refused
from trigear.protocol import events
from trigear.protocol.client import ClientConnection, Submission
from trigear.runtime.address import Address, as_address
from trigear.runtime.values import again, breach, words_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from trigear.protocol.asking import Request

CHUNK: Final = 65536
"""Bytes asked of the socket at a time."""

LONGEST: Final = 1e6
"""Seconds that the system can count for us while we wait; eleven days are as good as any time."""

# poll needs no descriptor of its own; where there is none, select has to do.
_Selector: Final[type[selectors.BaseSelector]] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


class Waiting:
    """One who waits for the reply to a request."""

    __slots__ = ("event", "failure")

    def __init__(self) -> None:
        self.event: events.OfRequest | None = None
        self.failure: ConnectionLost | None = None

    def hear(self, event: events.OfRequest) -> bool:
        """Take an event in, and say whether it was the last one."""
        self.event = event
        return True

    def lose(self, failure: ConnectionLost) -> None:
        """Hear that there will be no more events."""
        self.failure = failure


class BlockingLink:
    """A connection to a server, for one thread at a time.

    ``machine`` is the protocol's state: ask it, :meth:`listen`, then :meth:`wait_for` the answer.
    ``address`` is the server's.
    """

    def __init__(self, link: socket.socket, address: Address) -> None:
        self.machine = ClientConnection()
        self.address = address
        self._socket = link
        self._waiting: dict[Request, Waiting] = {}
        self._failure: ConnectionLost | None = None
        self._closed = False
        self._unsent = memoryview(b"")
        self._send_error: OSError | None = None
        self._watched = selectors.EVENT_READ
        self._selector = _Selector()
        self._selector.register(link, self._watched)
        self._turning = threading.Lock()

    def check(self) -> None:
        """Raise the reason if the connection is over.

        Raises:
            ConnectionLost: it broke.
            LocalProtocolError: it was closed.
        """
        if self._closed:
            raise LocalProtocolError("this client is closed: connect again")
        if self._failure is not None:
            raise again(self._failure)

    def listen(self, token: Request, waiting: Waiting) -> None:
        """Hand on what is heard of a request until its last event, or until it is forgotten."""
        self._waiting[token] = waiting

    def forget(self, token: Request) -> None:
        """Drop what is still to come of a request."""
        if self._waiting.pop(token, None) is None:
            return
        if isinstance(token, Submission):
            self.machine.detach(token)
            if not self._closed:
                self._send()
        else:
            self.machine.abandon(token)

    def reply(self, waiting: Waiting, until: float | None, late: str) -> events.OfRequest:
        """Wait for the reply to a request.

        Raises:
            Refused: the server answered ERROR.
            ConnectionLost: the connection broke before the reply came.
            TimeoutError: it did not come in time.
        """

        def told() -> bool:
            return waiting.event is not None or waiting.failure is not None

        self.wait_for(told, until, late)
        if waiting.event is None:
            assert waiting.failure is not None
            raise again(waiting.failure)
        if isinstance(waiting.event, events.Refused):
            raise Refused(waiting.event.code, waiting.event.text)
        return waiting.event

    def wait_for(self, over: Callable[[], bool], until: float | None, late: str) -> None:
        """Turn the crank until it is over.

        Raises:
            TimeoutError: it is not, and the time is up; ``late`` says what did not happen.
        """
        left = None if until is None else until - time.monotonic()
        last = False
        while not over():
            if last:
                raise TimeoutError(f"{late} in time: {self.address}")
            # What has arrived by now counts, however late it is looked at.
            last = left is not None and left <= 0
            self.turn(left)
            left = None if until is None else until - time.monotonic()

    def turn(self, patience: float | None) -> bool:
        """Turn the crank once: send, wait for the socket, receive, deliver.

        Returns:
            Whether anything moved within the patience, in seconds.
        """
        if self._closed:
            raise LocalProtocolError("this client is closed: connect again")
        if not self._turning.acquire(blocking=False):
            raise LocalProtocolError(
                "two threads use this client at once: connect once in each thread"
            )
        try:
            self._send()
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
            if wanted != self._watched:
                self._selector.modify(self._socket, wanted)
                self._watched = wanted
            endless = patience is None or patience > LONGEST
            ready = self._selector.select(None if endless else patience)
            if any(mask & selectors.EVENT_READ for _, mask in ready):
                self._receive()
            return bool(ready)
        finally:
            self._turning.release()

    def close(self) -> None:
        """Hang up."""
        if not self._closed:
            self._closed = True
            self._selector.close()
            self._socket.close()

    def _send(self) -> None:
        try:
            while self._send_error is None and (self._unsent or self.machine.out):
                if not self._unsent:
                    self._unsent = memoryview(b"".join(self.machine.take()))
                self._unsent = self._unsent[self._socket.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError as error:
            # What the server said before it went is worth more than that it went: read on.
            self._send_error = error
            self._unsent = memoryview(b"")

    def _receive(self) -> None:
        try:
            data = self._socket.recv(CHUNK)
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
            assert isinstance(event, events.OfRequest), "all that a client hears is about a request"
            waiting = self._waiting.get(event.token)
            if waiting is not None and waiting.hear(event):
                del self._waiting[event.token]

    def _lose(self, what: str, cause: Exception | None) -> None:
        self._failure = ConnectionLost(what)
        self._failure.__cause__ = cause
        in_doubt = ConnectionLost(what, in_doubt=True)
        in_doubt.__cause__ = cause
        for waiting in self._waiting.values():
            waiting.lose(in_doubt)
        self._waiting.clear()


def open_blocking_link(
    servers: str | Address | Iterable[str | Address], timeout: float | None
) -> BlockingLink:
    """Connect to the first of the servers that answers, within ``timeout`` seconds for each.

    Raises:
        ConnectionLost: none does.
        ConfigError: this is no address.
    """
    several = [servers] if isinstance(servers, str | Address) else list(servers)
    places = [as_address(one) for one in several]
    if not places:
        raise ConfigError("servers", "there is none", "name one, such as localhost:4730")
    failures: list[tuple[Address, OSError]] = []
    for place in places:
        try:
            return BlockingLink(open_socket(place, timeout), place)
        except OSError as error:
            failures.append((place, error))
    tried = ", ".join(f"{place}: {why_not(error)}" for place, error in failures)
    what = f"no connection to {tried}; is a server running there?"
    raise ConnectionLost(what) from failures[-1][1]


def open_socket(address: Address, timeout: float | None) -> socket.socket:
    """Connect within ``timeout`` seconds; the socket never waits from then on.

    Raises:
        OSError: nobody answers there.
    """
    if address.path is not None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(timeout)
            link.connect(address.path)
        except BaseException:
            link.close()
            raise
    else:
        try:
            link = socket.create_connection((address.host, address.port), timeout)
        except UnicodeError as error:
            raise OSError(f"{address.host!r} cannot be the name of a host") from error
        # A request is often one small packet that somebody waits for.
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setblocking(False)
    return link


def why_not(error: OSError) -> str:
    """Why there is no connection."""
    return "no answer in time" if isinstance(error, TimeoutError) else words_for(error)
