"""The hub: one task that serves all of a server's sockets.

A task per connection costs a Trio server two to four times the CPU of the work itself. So the
sockets are registered, edge-triggered, with an epoll instance of the hub's own, and Trio waits only
for that instance to become readable. Each round of :meth:`Hub.run`:

1. poll, after events for up to ``patience`` seconds (see :mod:`trigear.runtime.poller`); hand over
   to Trio if nothing is ready and no connection has undecoded packets; wait for whoever has to be
   waited for (``before_pass``);
2. read each newly readable connection once, in turn those on which large packets come, and handle
   a bounded number of its packets; if some are left the connection is *heavy* and is not read until
   they are handled;
3. serve the heavy connections for at most ``SLICE`` seconds in all, in turn over the tenants and
   then over a tenant's connections;
4. flush every connection that was touched, with one send each;
5. let other tasks run whenever ``SLICE`` seconds have passed since they last could, or somebody
   wants to be let in.

Patience. Going to sleep in Trio and being woken costs several system calls and a pass of its
scheduler, as much as handling a packet. A program that is nothing but a server may be patient:
answers to what was just sent mostly come within the millisecond. Other tasks are then late by that
much, so while one of them is waited for (a commit), there is no patience.

By time and not by count, because 200 connections that flood the server made a timer seconds late
when the hub yielded every so many rounds.

Edges. A readable event comes once, so a link remembers that it may have more to read until a read
comes back short. Writability is only asked for after a send that did not fit. A hang-up comes once
as well and is remembered; what can still be read is handled first, also when the connection is not
being read because it takes no output. Events name descriptors, which are reused; a descriptor is
looked up when its event is handled, in the same stretch of code that polled, and accepting happens
in other tasks, so an event never reaches a later connection with the same descriptor.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import socket
import ssl
import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final

import trio

from trigear.model import NEVER, CloseReason
from trigear.runtime.clock import clock, now
from trigear.runtime.poller import Poller

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.engine.doors import Arrival
    from trigear.engine.engine import Engine
    from trigear.engine.session import Session
    from trigear.security.layer import TlsLayer
    from trigear.security.mechs import Channel
    from trigear.wire.codec import Decoder

log: Final = logging.getLogger("trigear.server")

SLICE: Final = 0.002
READ_SIZE: Final = 65536
READ_LARGE: Final = 1048576
"""Bytes read at once at most where a packet that was begun lacks more than ``READ_SIZE``: the fewer
and larger the pieces, the less a large workload costs. What was allocated for more than has come is
given back right away. Not with TLS, whose buffers would keep that size."""

READ_ROUND: Final = READ_LARGE
"""Once so many bytes of large packets were read in a round, the others that send some have their
turn in the next: nobody waits long for those who send much."""

PEEK: Final = 4096
"""Bytes looked at before they are read where a large packet may begin: its workload is then read
apart from what is before it."""

EVENTS: Final = 128
"""Events handled per poll; more wait for the next."""

JOIN_LIMIT: Final = 262144
"""Output up to this size is joined into one piece; more goes out with a gathering send."""

GATHER: Final = 64
"""Pieces in one gathering send."""

LINGER: Final = 10.0
"""Seconds a connection that is to be closed may go without taking any of its last output."""

DISCARD: Final = 2.0
"""Seconds for which a connection that we end is read and its input dropped: closing it with input
unread would make the system reset it, and the peer would lose our last words."""

DISCARD_READS: Final = 16

_IN: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET
_INOUT: Final = _IN | select.EPOLLOUT
_ENDS: Final = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_GONE: Final = select.EPOLLHUP | select.EPOLLERR
_perf: Final = time.perf_counter


class Link:
    """A socket and its session."""

    __slots__ = (
        "closing",
        "deadline",
        "deferred",
        "ending",
        "fd",
        "heavy",
        "hung",
        "layer",
        "paused",
        "pending",
        "readable",
        "session",
        "sock",
        "unsent",
        "writing",
    )

    def __init__(
        self, sock: socket.socket, session: Session, layer: TlsLayer | None = None
    ) -> None:
        self.sock = sock
        self.layer = layer
        """Between the socket and the session; None where plain bytes go over the socket."""
        self.fd = sock.fileno()
        self.session = session
        self.pending: list[bytes | memoryview] = []
        """Output the socket did not take yet."""
        self.unsent = 0
        self.readable = False
        self.ending = False
        """The peer closed its side: read until the end is seen."""
        self.hung = False
        """Both directions are dead: what is left is to read what came before."""
        self.heavy = False
        """In the queue of connections with undecoded packets."""
        self.deferred = False
        """Will be read first thing in the next round, and not before."""
        self.paused = False
        """Not read, because the peer does not take its output."""
        self.writing = False
        """Waiting for the socket to become writable."""
        self.closing: CloseReason | None = None
        """The engine knows the connection as lost; its last output is on the way."""
        self.deadline = 0.0


class Hub:
    """Serves sockets for an engine.

    Args:
        engine: decides everything.
        idle: called when there is nothing to do, before waiting.
    """

    def __init__(self, engine: Engine, idle: Callable[[], None] = lambda: None) -> None:
        self._engine = engine
        self._idle = idle
        self._links: dict[int, Link] = {}
        self._by_number: dict[int, Link] = {}
        self._again: list[Link] = []
        self._heavy: OrderedDict[str, deque[Link]] = OrderedDict()
        self._closing: set[Link] = set()
        self._close_at = NEVER
        self._number = 0
        self._moment = now()
        self._deferred: list[Link] = []
        self._room = 0
        self._epoll = select.epoll()
        self._nudge = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._nudge, select.EPOLLIN | select.EPOLLET)
        self.before_pass: Callable[[], None] | None = None
        """Called before what has come is worked off, for whoever has to be waited for."""
        self.after_pass: Callable[[], None] = lambda: None
        """Called after each flush, for whoever waits for what the engine did."""
        self.channel_of: Callable[[socket.socket, str, TlsLayer | None], Channel | None]
        self.channel_of = lambda sock, address, layer: None
        """What is known of a connection without asking, where that matters."""
        self._doors: set[int] = set()
        """Descriptors of sockets on which others wait for connections."""
        self.patience = 0.0
        """Seconds to wait for more, before other tasks are let run, when events came just now."""

    # Connections

    def add(
        self,
        sock: socket.socket,
        address: str,
        layer: TlsLayer | None = None,
        arrival: Arrival | None = None,
    ) -> None:
        """Serve a connected socket; the hub owns it from here on.

        Args:
            sock: the socket.
            address: the peer's address as text.
            layer: TLS, whose handshake is done; None for none.
            arrival: by which door it came, and when, where peers have to say who they are.
        """
        sock.setblocking(False)
        self._number += 1
        channel = self.channel_of(sock, address, layer)
        session = self._engine.connection_opened(self._number, address, now(), channel, arrival)
        link = Link(sock, session, layer)
        self._links[link.fd] = link
        self._by_number[session.number] = link
        self._epoll.register(link.fd, _IN)
        log.debug("%r opened", session)
        if layer is not None:
            # What came behind the handshake is in the layer already and raises no event.
            link.readable = True
            self._moment = now()
            self._open(link, b"")
        # It may have been refused already, and when it must have logged in is to be known at once.
        self.nudge()

    def __len__(self) -> int:
        return len(self._links)

    def _lose(self, link: Link, reason: CloseReason) -> None:
        """The connection is over, except that its last output may still be on the way."""
        session = link.session
        if session.number in self._by_number:
            if session.closing is not None and reason is CloseReason.PEER_CLOSED:
                reason = session.closing
            out = session.take()
            if link.layer is not None:
                out = [link.layer.seal(out) + link.layer.farewell()]
            link.pending.extend(out)
            link.closing = reason
            del self._by_number[session.number]
            try:
                self._engine.connection_lost(session, reason, now())
            except Exception as error:
                # See _receive.
                self._engine.fault(session, error)
            link.unsent = sum(len(piece) for piece in link.pending)
            link.paused = False
            self._close_by(link, LINGER)
        if reason is CloseReason.SLOW_CONSUMER:
            # All that waits for it in memory is what it would not read.
            self._close(link)
        elif link.unsent and not link.hung:
            self._push(link)
        else:
            self._bid_farewell(link)

    def _bid_farewell(self, link: Link) -> None:
        """Everything is sent: close, but let a peer that still writes read our last words."""
        if link.hung:
            self._close(link)
            return
        try:
            link.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(link)
            return
        self._close_by(link, DISCARD)
        self._discard(link)

    def _close_by(self, link: Link, seconds: float) -> None:
        link.deadline = trio.current_time() + seconds
        self._closing.add(link)
        self._close_at = min(self._close_at, link.deadline)

    def _discard(self, link: Link) -> None:
        """Read and drop what still comes from a peer whose connection is over."""
        try:
            for _ in range(DISCARD_READS):
                if not link.sock.recv(READ_SIZE):
                    self._close(link)
                    return
        except BlockingIOError:
            link.readable = False
        except OSError:
            self._close(link)
        else:
            link.readable = True
            self._again.append(link)
            self.nudge()

    def _close(self, link: Link) -> None:
        if self._links.get(link.fd) is not link:
            # Closed before; what is left of it in our lists may meet its descriptor in new hands.
            return
        del self._links[link.fd]
        self._closing.discard(link)
        self._epoll.unregister(link.fd)
        link.sock.close()

    def next_deadline(self) -> float:
        """When :meth:`close_overdue` has something to do, by Trio's clock."""
        return self._close_at

    def close_overdue(self) -> None:
        """Close the connections that linger too long."""
        moment = trio.current_time()
        if moment >= self._close_at:
            for link in [link for link in self._closing if link.deadline <= moment]:
                self._close(link)
            self._close_at = min((link.deadline for link in self._closing), default=NEVER)

    @property
    def quiet(self) -> bool:
        """Whether every peer has been given everything there is for it."""
        return not self._closing and not self.unsent

    @property
    def unsent(self) -> int:
        """How many bytes peers have not taken yet."""
        return sum(link.unsent for link in self._links.values())

    def close_all(self, reason: CloseReason) -> None:
        """End every connection, after one try to send what waits.

        The engine is not told: the end of a server is no loss of a worker, and fails no job.
        """
        for link in list(self._links.values()):
            out = link.session.take()
            if link.layer is not None and link.closing is None:
                out = [link.layer.seal(out) + link.layer.farewell()]
            link.closing = reason
            link.pending.extend(out)
            link.unsent = sum(len(piece) for piece in link.pending)
            if link.unsent:
                self._push(link)
            self._close(link)
        self._engine.take_touched()
        self._epoll.close()
        os.close(self._nudge)

    def watch(self, listener: socket.socket) -> None:
        """Let other tasks run as soon as somebody is at a door, which is theirs to open: a patient
        hub would keep them from it."""
        self._doors.add(listener.fileno())
        self._epoll.register(listener.fileno(), select.EPOLLIN | select.EPOLLET)

    def unwatch(self, listener: socket.socket) -> None:
        """The door is about to be closed."""
        self._doors.discard(listener.fileno())
        self._epoll.unregister(listener.fileno())

    # The loop

    def nudge(self) -> None:
        """Make a waiting hub look at its connections again."""
        os.eventfd_write(self._nudge, 1)

    async def run(self) -> None:
        """Serve until cancelled.

        Raises:
            TrigearInternalError: the engine must not go on.
        """
        poller = Poller(self._epoll, EVENTS)
        links = self._links
        engine = self._engine
        moment = clock()
        last = _perf()
        patience = 0.0
        while True:
            busy = self._again or self._heavy or self._deferred
            events = poller.wait(0.0 if busy else patience)
            if not events and not busy:
                self._idle()
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                last = _perf()
                events = poller.wait(0.0)
            if self.before_pass is not None:
                self.before_pass()
            knocked = False
            self._moment = moment()
            self._room = READ_ROUND
            if self._deferred:
                self._read_deferred()
            for fd, mask in events:
                link = links.get(fd)
                if link is None:
                    knocked = knocked or fd in self._doors
                    continue
                if mask & select.EPOLLOUT and link.writing:
                    self._push(link)
                if mask & ~select.EPOLLOUT:
                    link.readable = True
                    if mask & _ENDS:
                        link.ending = True
                    if mask & _GONE:
                        link.hung = True
                        link.paused = False
                    if not link.heavy and not link.paused:
                        self._read(link)
            if self._again:
                again, self._again = self._again, []
                for link in again:
                    if link.readable and not link.heavy and not link.paused:
                        self._read(link)
            if self._heavy:
                self._serve_heavy(engine)
            self.flush()
            patience = 0.0 if knocked else self.patience
            if knocked or _perf() - last > SLICE:
                await trio.lowlevel.checkpoint()
                last = _perf()

    def _read(self, link: Link) -> None:
        """Read a connection once."""
        if link.deferred:
            return
        if link.closing is not None:
            if link.hung:
                self._close(link)
            elif link.unsent:
                # Its last output comes first; nothing that it still says matters.
                link.readable = False
            else:
                self._discard(link)
            return
        layer = link.layer
        size = READ_SIZE
        try:
            if layer is None and link.session.decoder.expects_large:
                size = self._size(link.sock, link.session.decoder)
                if not size:
                    link.deferred = True
                    self._deferred.append(link)
                    return
            data = b"" if layer is not None and layer.over else link.sock.recv(size)
        except BlockingIOError:
            link.readable = False
            return
        except OSError as error:
            silent = error.errno in (errno.ETIMEDOUT, errno.EHOSTUNREACH)
            link.hung = link.ending = True
            self._lose(link, CloseReason.PEER_SILENT if silent else CloseReason.PEER_RESET)
            return
        if size > READ_SIZE:
            self._room -= len(data)
        if not data:
            link.ending = True
            session = link.session
            waits = session.waits or session.holding
            if waits and not session.peer.jobs and not link.hung:
                # It may only have stopped talking, and a reply is on its way from the store.
                link.paused = True
                return
            partial = session.decoder.buffered
            self._lose(link, CloseReason.MID_PACKET if partial else CloseReason.PEER_CLOSED)
            return
        if len(data) < size and not link.ending:
            link.readable = False
        if layer is None:
            self._receive(link, data)
        else:
            self._open(link, data)

    def _read_deferred(self) -> None:
        """Read those that had to wait for this round."""
        deferred, self._deferred = self._deferred, []
        for link in deferred:
            link.deferred = False
            if link.readable and not link.heavy and not link.paused:
                self._read(link)

    def _size(self, sock: socket.socket, decoder: Decoder) -> int:
        """How much to read of a connection on which large packets come; 0: nothing in this round.

        Raises:
            OSError: from the socket.
        """
        if (wanted := decoder.wanted) > READ_SIZE:
            return min(wanted, READ_LARGE) if self._room > 0 else 0
        if decoder.buffered:
            return READ_SIZE
        return decoder.start_of_large(sock.recv(PEEK, socket.MSG_PEEK)) or READ_SIZE

    def _open(self, link: Link, data: bytes) -> None:
        """Hand on what is in the records that came."""
        layer = link.layer
        assert layer is not None
        try:
            plain = layer.open(data)
        except ssl.SSLError as error:
            log.info("%r: TLS broken: %s", link.session, error.reason or error)
            self._lose(link, CloseReason.TLS_BROKEN)
            return
        if layer.over:
            # Like the end of a plain connection, only that it comes before the socket's own.
            link.ending = link.readable = True
        if plain:
            self._receive(link, plain)
        elif link.readable and not link.heavy:
            self._again.append(link)

    def _receive(self, link: Link, data: bytes) -> None:
        session = link.session
        try:
            more = self._engine.receive(session, data, self._moment)
        except Exception as error:
            # The one place where a fault is caught: it stays with its connection, unless the
            # engine says that the queues are damaged.
            self._engine.fault(session, error)
            return
        if more:
            link.heavy = True
            tenant = session.peer.tenant.name
            queue = self._heavy.get(tenant)
            if queue is None:
                self._heavy[tenant] = deque((link,))
            else:
                queue.append(link)
        elif link.readable:
            self._again.append(link)

    def _serve_heavy(self, engine: Engine) -> None:
        """Give connections with undecoded packets their turns."""
        heavy = self._heavy
        end = _perf() + SLICE
        while heavy and _perf() < end:
            tenant, queue = heavy.popitem(last=False)
            link = queue.popleft()
            if queue:
                heavy[tenant] = queue
            link.heavy = False
            if link.closing is None and not link.paused:
                self._receive(link, b"")

    # Output

    def flush(self) -> None:
        """Send what the engine left in the sessions it touched."""
        engine = self._engine
        while touched := engine.take_touched():
            for session in touched:
                link = self._by_number.get(session.number)
                if link is not None:
                    self._flush(link, session)
        self.after_pass()

    def _flush(self, link: Link, session: Session) -> None:
        out = session.out
        if out:
            session.out = []
            if link.layer is not None:
                out = [link.layer.seal(out)]
            if link.writing:
                link.pending += out
                link.unsent += sum(map(len, out))
            else:
                self._send(link, out)
        held = session.held_size > self._engine.config.soft_mark
        if held or link.unsent or link.paused or session.holding:
            self._press(link, session)
        if session.closing is not None and session.number in self._by_number:
            self._lose(link, session.closing)

    def _send(self, link: Link, out: list[bytes]) -> None:
        """Try to send everything at once; what does not fit waits for writability."""
        data = out[0] if len(out) == 1 else b"".join(out) if _fits(out) else None
        try:
            if data is not None:
                sent = link.sock.send(data)
                if sent == len(data):
                    return
                link.pending = [memoryview(data)[sent:]]
                link.unsent = len(data) - sent
            else:
                link.pending = list(out)
                link.unsent = sum(map(len, out))
                self._push(link)
                return
        except BlockingIOError:
            link.pending = list(out)
            link.unsent = sum(map(len, out))
        except OSError:
            # The end shows itself as an event, after what can still be read.
            return
        self._want_writable(link)

    def _want_writable(self, link: Link) -> None:
        if not link.writing and self._links.get(link.fd) is link:
            link.writing = True
            self._epoll.modify(link.fd, _INOUT)

    def _push(self, link: Link) -> None:
        """Send what waits, until it is gone or the socket is full again."""
        pending = link.pending
        done = 0
        if link.closing is not None:
            # It still takes something, or this is the first try.
            self._close_by(link, LINGER)
        try:
            while done < len(pending):
                pieces = pending[done : done + GATHER]
                sent = link.sock.sendmsg(pieces)
                link.unsent -= sent
                for piece in pieces:
                    if sent < len(piece):
                        pending[done] = memoryview(piece)[sent:]
                        break
                    sent -= len(piece)
                    done += 1
        except BlockingIOError:
            pass
        except OSError:
            done = len(pending)
            link.unsent = 0
        del pending[:done]
        if pending:
            self._want_writable(link)
        elif link.writing:
            link.writing = False
            self._epoll.modify(link.fd, _IN)
        if link.closing is not None:
            if not pending:
                self._bid_farewell(link)
        elif link.paused:
            self._press(link, link.session)

    def _press(self, link: Link, session: Session) -> None:
        """Back-pressure: stop or go on reading a connection by what it has not taken."""
        goes_on = self._engine.unsent(session, link.unsent, session.held_size, now())
        if not goes_on and not link.hung:
            link.paused = True
        elif link.paused:
            link.paused = False
            self._moment = now()
            if link.session.decoder.buffered and not link.heavy:
                self._receive(link, b"")
            if link.readable and not link.heavy:
                self._again.append(link)
            self.nudge()


def _fits(out: list[bytes]) -> bool:
    return sum(map(len, out)) <= JOIN_LIMIT
