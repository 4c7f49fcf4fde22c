"""One connection to a server: a stream, a machine, and the two tasks between them.

The *reader* takes bytes from the stream, feeds the machine and hands its events on, in one
uninterrupted stretch of synchronous code. The *writer* sends everything that waits in the machine
with one call, again and again. Only they touch the stream, so that whoever uses the link can be
cancelled at any moment without leaving half a packet on the wire.

They live in a hidden nursery and never raise. When the connection breaks they store the reason in
:attr:`Link.failure` and end; those who wait raise it. A user of :func:`open_link` therefore sees
his own exceptions and cancellations, bare, and never a group.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, Generic, NoReturn, TypeVar

import trio

from trigear.errors import ConfigError, ConnectionLost, TrigearInternalError
from trigear.protocol.events import Broken, Dismissed, Expiring
from trigear.protocol.login import is_of_login
from trigear.runtime.backoff import delay
from trigear.runtime.values import again, breach, dismissal, words_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from trigear.protocol.asking import AskingConnection
    from trigear.protocol.events import Event
    from trigear.runtime.address import Address
    from trigear.runtime.login import Session
    from trigear.security.tls import ClientContext, ClientTLS

log: Final = logging.getLogger("trigear.login")

CHUNK: Final = 65536
"""Bytes asked of the stream at a time."""

FLUSH_GRACE: Final = 2.0
"""Seconds that a link which is being left may take to send what is queued. A peer that does not
read shall not hold up the end of a program."""

Column = TypeVar("Column", bound="AskingConnection")


class Link(Generic[Column]):
    """A connection to a server. Made by :func:`open_link` only.

    ``machine`` is the protocol's state: ask it, then call :meth:`kick`. ``failure`` says why the
    connection ended, or is None while it lives.
    """

    def __init__(
        self,
        stream: trio.abc.Stream,
        machine: Column,
        name: str,
        deliver: Callable[[Event], None],
        ended: Callable[[ConnectionLost], None],
        session: Session | None,
    ) -> None:
        self.machine = machine
        self.failure: ConnectionLost | None = None
        self._stream = stream
        self._name = name
        self._deliver = deliver
        self._ended = ended
        self._session = session
        self._queued = trio.lowlevel.ParkingLot()
        self._taken = trio.lowlevel.ParkingLot()
        self._finishing = False
        self._holders: set[object] = set()
        self._released = trio.lowlevel.ParkingLot()
        self._over = trio.Event()
        self._written = trio.Event()
        self._scope = trio.CancelScope(shield=True)

    @property
    def name(self) -> str:
        """What the peer is called in errors."""
        return self._name

    @property
    def expired(self) -> bool:
        """Whether the login has ended: the server hears nothing but the ends of what was begun."""
        return self._session is not None and self._session.over

    @property
    def open(self) -> bool:
        """Whether it lives, and was not left."""
        return self.failure is None and not self._finishing

    def check(self) -> None:
        """Raise the reason if the connection is over.

        Raises:
            ConnectionLost: the connection broke.
            trio.ClosedResourceError: the link was left.
        """
        if self._finishing:
            raise trio.ClosedResourceError("this connection was closed by its own side")
        if self.failure is not None:
            raise again(self.failure)

    def kick(self) -> None:
        """Have the writer send what the machine has queued."""
        self._queued.unpark_all()

    async def taken(self) -> None:
        """Wait until everything queued so far is on its way to the peer.

        Whoever produces much waits here: for a peer that reads slowly one helping is on its way,
        and no more than one waits behind it.

        Raises:
            ConnectionLost: the connection broke, or the link was left meanwhile.

        Cancellation: what is queued stays queued.
        """
        await trio.lowlevel.checkpoint()
        while self.machine.out and self.failure is None:
            # Nobody cancels a thread that waits here for a peer that does not read.
            if self._finishing:
                raise ConnectionLost(f"the connection to {self._name} was closed by its own side")
            await self._taken.park()
        self.check()

    def hold(self, holder: object) -> None:
        """Read no more from the peer until ``holder`` lets go: it has more than it can take."""
        self._holders.add(holder)

    def release(self, holder: object) -> None:
        """Let go of the reader; nothing happens if ``holder`` does not hold it."""
        self._holders.discard(holder)
        if not self._holders:
            self._released.unpark_all()

    def give_up(self, failure: ConnectionLost) -> None:
        """Take the connection for broken."""
        self._lose(failure)

    async def wait_over(self) -> ConnectionLost:
        """Wait until the connection breaks, and return why."""
        await self._over.wait()
        assert self.failure is not None
        return self.failure

    # The tasks

    async def _serve(self) -> None:
        # Shielded: what cancels the user of the link shall not cancel the writer in the middle of
        # a packet, nor before it has sent what is queued. Leaving ends it.
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read)
                nursery.start_soon(self._write)
                if self._session is not None:
                    nursery.start_soon(self._session.keep, self)

    async def _read(self) -> None:
        try:
            while True:
                data = await self._stream.receive_some(CHUNK)
                if not data:
                    middle = " in the middle of a packet" if self.machine.decoder.buffered else ""
                    self._lose(ConnectionLost(f"{self._name} closed the connection{middle}"))
                    return
                self.machine.receive(bytes(data))
                for event in self.machine.events():
                    if isinstance(event, Broken):
                        lost = ConnectionLost(breach(self._name, event.error))
                        lost.__cause__ = event.error
                        self._lose(lost)
                        return
                    if isinstance(event, Dismissed):
                        self._lose(ConnectionLost(dismissal(self._name, event)))
                        return
                    if is_of_login(event):
                        if self._session is not None:
                            self._session.hear(event)
                        elif isinstance(event, Expiring):
                            log.warning(
                                "%s: this connection ends in %s: so does what says who this is, a"
                                " certificate perhaps",
                                self._name,
                                delay(event.left),
                            )
                    elif not self._finishing:
                        self._deliver(event)
                if self.machine.out:
                    self.kick()
                while self._holders and not self._finishing:
                    await self._released.park()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._lose(broken(self._name, error))

    async def _write(self) -> None:
        try:
            while self.machine.out or not self._finishing:
                if not self.machine.out:
                    await self._queued.park()
                    continue
                chunks = self.machine.take()
                self._taken.unpark_all()
                for chunk in joined(chunks):
                    await self._stream.send_all(chunk)
            # A socket that is closed with unread bytes in it is reset, and a reset takes with it
            # what the peer has not read yet. So say first that this was all, and let it close.
            if isinstance(self._stream, trio.abc.HalfCloseableStream):
                await self._stream.send_eof()
                await self._over.wait()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            # What the peer said before it went is worth more than that it went: let the reader
            # find it, and then the end.
            with trio.move_on_after(FLUSH_GRACE):
                await self._over.wait()
            self._lose(broken(self._name, error))
        finally:
            self._written.set()

    async def _leave(self) -> None:
        """Send what is queued, then close, both within the grace."""
        self._finishing = True
        self._released.unpark_all()
        self._taken.unpark_all()
        self.kick()
        with trio.CancelScope(shield=True):
            with trio.move_on_after(FLUSH_GRACE):
                if self.failure is None:
                    await self._written.wait()
            self._scope.cancel()
            with trio.move_on_after(FLUSH_GRACE), suppress(trio.BrokenResourceError):
                # Closes in any case; within its time it closes politely.
                await self._stream.aclose()

    def _lose(self, failure: ConnectionLost) -> None:
        if self.failure is None:
            self.failure = failure
            self._over.set()
            self._taken.unpark_all()
            self._ended(failure)


@asynccontextmanager
async def open_link(
    stream: trio.abc.Stream,
    machine: Column,
    name: str,
    *,
    deliver: Callable[[Event], None],
    ended: Callable[[ConnectionLost], None],
    session: Session | None = None,
) -> AsyncIterator[Link[Column]]:
    """Serve a stream with a machine while the body runs; closes the stream.

    Args:
        stream: what leads to the server. The link owns it from now on.
        machine: the protocol's state, fresh, or logged in.
        name: what the peer is called in errors.
        deliver: called with every event but the last; must not raise.
        ended: called once, when the connection breaks; must not raise.
        session: the login, to be made anew in time; None: there is none.

    Raises:
        What the body raises, and nothing else.

    Cancellation: the body is cancelled; then what was queued is sent within :data:`FLUSH_GRACE`.
    """
    link = Link(stream, machine, name, deliver, ended, session)
    async with hidden_nursery() as nursery:
        nursery.start_soon(link._serve)
        try:
            yield link
        finally:
            await link._leave()


async def open_stream(
    address: Address, tls: ClientTLS | ClientContext | None = None
) -> trio.abc.Stream:
    """Connect.

    Args:
        address: to whom.
        tls: how TLS is spoken, which then is spoken over every TCP connection; None: where the
            address asks for it, as is usual.

    Raises:
        ConnectionLost: nobody answers there, or TLS failed; the error says why.

    Cancellation: the attempt is given up.
    """
    try:
        if address.path is not None:
            return await trio.open_unix_socket(address.path)
        stream = await trio.open_tcp_stream(address.number or address.host, address.port)
    except OSError as error:
        # Where several addresses were tried, Trio wraps a group; the first failure says enough.
        first = None if error.__cause__ is None else next(leaves(error.__cause__))
        reason = first if isinstance(first, OSError) else error
        raise ConnectionLost(
            f"no connection to {address}: {words_for(reason)}; is a server running there?"
        ) from reason
    except UnicodeError as error:
        raise ConnectionLost(f"no connection to {address}: no machine has such a name") from error
    if tls is None and not address.tls:
        return stream
    # Only here: it brings what reads certificates.
    from trigear.runtime.secure import secured
    from trigear.security.tls import ClientTLS, build_client

    try:
        context = build_client(tls or ClientTLS())
    except ConfigError as error:
        # It was good when the program began: the file may be there again at the next try.
        await trio.aclose_forcefully(stream)
        raise ConnectionLost(f"no connection to {address}: {error}") from error
    return await secured(stream, context, address.host, str(address))


def joined(chunks: list[bytes]) -> Iterator[bytes]:
    """The chunks, small neighbours joined: one call sends many packets, and no large one is
    copied."""
    small: list[bytes] = []
    for chunk in chunks:
        if len(chunk) < CHUNK:
            small.append(chunk)
        else:
            if small:
                yield b"".join(small)
                small = []
            yield chunk
    if small:
        yield b"".join(small)


def broken(name: str, error: Exception) -> ConnectionLost:
    """The error for a stream that broke."""
    cause = error.__cause__ or error
    why = words_for(cause) if isinstance(cause, OSError) else str(cause)
    lost = ConnectionLost(f"the connection to {name} broke" + (f": {why}" if why else ""))
    lost.__cause__ = cause
    return lost


# One exception, not a group


@asynccontextmanager
async def hidden_nursery() -> AsyncIterator[trio.Nursery]:
    """A nursery of which the users of the body know nothing.

    Its tasks are expected not to raise. Whatever the body raises leaves as it is, cancellation
    included; an exception out of a task leaves as :class:`TrigearInternalError`, or as itself if
    it is meant to end the program.
    """
    body: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            try:
                yield nursery
            except BaseException as error:
                # Held back, cancellation too, only until the tasks are gone: inside the nursery it
                # would be packed into a group.
                body = error
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        reraise(the_one(group, body))
    if body is not None:
        reraise(body)


def the_one(group: BaseExceptionGroup[BaseException], body: BaseException | None) -> BaseException:
    """The exception that stands for what came out of a hidden nursery's tasks, and of the body."""
    found = list(leaves(group))
    bugs = [error for error in found if not isinstance(error, trio.Cancelled)]
    for error in bugs:
        if not isinstance(error, Exception):
            return error
    if bugs and isinstance(bugs[0], TrigearInternalError):
        return bugs[0]
    if bugs:
        bug = TrigearInternalError(f"a background task failed: {bugs[0]!r}")
        bug.__cause__ = group
        return bug
    # Nothing but cancellations from outside, which stays in force: if the body has anything to
    # say, that matters more.
    return found[0] if body is None else body


def leaves(error: BaseException) -> Iterator[BaseException]:
    """The exceptions in a group, however deep."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from leaves(part)
    else:
        yield error


def reraise(error: BaseException) -> NoReturn:
    """Raise, without adding the exception at hand to what the error says of its origin."""
    context = error.__context__
    try:
        raise error
    finally:
        error.__context__ = context
