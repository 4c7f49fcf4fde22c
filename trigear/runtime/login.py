"""Logging in on Trio: once before anything else is said on a connection, and again in time.

Passwords are stretched in a thread, which nobody waits for who is cancelled. What was stretched is
kept in the :class:`~trigear.security.sasl_client.Auth`, so that connecting again costs nothing.

A login that has an end is made anew on the same connection, beside whatever else goes on there; see
:mod:`trigear.runtime.renewal`.
"""

from __future__ import annotations

import logging
import random
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import trio

from trigear.errors import ConnectionLost, LoginFailed, LoginRefused
from trigear.protocol.events import Broken, Expiring
from trigear.protocol.login import ClientLogin
from trigear.runtime import channel
from trigear.runtime.renewal import Renewal
from trigear.runtime.values import breach

if TYPE_CHECKING:
    from trigear.protocol.asking import AskingConnection
    from trigear.protocol.events import Event
    from trigear.protocol.login import Entry
    from trigear.runtime.link import Link
    from trigear.security.sasl_client import Auth, ClientChannel

log: Final = logging.getLogger("trigear.login")

_READ: Final = 65536


async def log_in(
    stream: trio.abc.Stream, machine: AskingConnection, auth: Auth, server: str
) -> Session:
    """Log in on a fresh connection.

    Args:
        stream: what leads to the server; closed if this fails.
        machine: the state of the connection, on which nothing was said yet.
        auth: who to log in as.
        server: what the server is called in errors.

    Raises:
        LoginFailed: the server does not let us in, or this would not be safe.
        ConnectionLost: the connection broke.

    Cancellation: the stream is closed.
    """
    try:
        where = channel_of(stream)
        login = ClientLogin(machine, channel.mechanisms(auth, server, where), server, auth.tenant)
        while login.done is None:
            if login.work is not None:
                login.worked(await trio.to_thread.run_sync(login.work, abandon_on_cancel=True))
            await stream.send_all(b"".join(machine.take()))
            data = await stream.receive_some(_READ)
            if not data:
                raise ConnectionLost(f"{server} closed the connection during the login")
            machine.receive(bytes(data))
            for event in machine.events():
                if isinstance(event, Broken):
                    lost = ConnectionLost(breach(server, event.error))
                    raise lost from event.error
                login.hear(event)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        from trigear.runtime.link import broken

        await trio.aclose_forcefully(stream)
        raise broken(server, error) from (error.__cause__ or error)
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    log.debug("logged in at %s as %s", server, login.done.identity)
    return Session(auth, where, server, login.done)


def channel_of(stream: trio.abc.Stream) -> ClientChannel:
    """What is known of a connection; of a stream of an unknown kind nothing is."""
    from trigear.runtime.secure import TlsStream
    from trigear.security.sasl_client import ClientChannel

    if isinstance(stream, TlsStream):
        return channel.of_tls(stream.layer)
    if isinstance(stream, trio.SocketStream):
        return channel.of_socket(stream.socket)
    return ClientChannel()


class Session:
    """A login in force on a connection that lives. Made by :func:`log_in`."""

    def __init__(self, auth: Auth, where: ClientChannel, server: str, entry: Entry) -> None:
        self._auth = auth
        self._where = where
        self._server = server
        self._heard: deque[Event] = deque()
        self._more = trio.lowlevel.ParkingLot()
        self._nap = trio.CancelScope()
        self._busy = False
        self.over = False
        """Whether the login has ended, and only what was begun may be finished."""
        self._renewal = Renewal(entry, trio.current_time(), random.random)

    def hear(self, event: Event) -> None:
        """An event of logins."""
        if not isinstance(event, Expiring):
            self._heard.append(event)
            self._more.unpark_all()
        elif not self._busy:
            self._renewal.expiring(event.left, trio.current_time())
            self._nap.deadline = self._next()

    async def keep(self, link: Link[Any]) -> None:
        """Log in again and again, as long as the link lives. Does not raise."""
        while True:
            with trio.CancelScope(deadline=self._next()) as self._nap:
                await trio.sleep_forever()
            if trio.current_time() < self._renewal.due:
                self.over = True
                continue
            try:
                self._busy = True
                entry = await self._again(link)
            except LoginRefused as error:
                self._renewal.refused(error, trio.current_time())
            except LoginFailed as error:
                # It may be anybody by now.
                link.give_up(ConnectionLost(str(error)))
                return
            else:
                self._renewal.entered(entry, trio.current_time())
                self.over = False
                log.debug("logged in again at %s as %s", self._server, entry.identity)
            finally:
                self._busy = False

    def _next(self) -> float:
        """When there is something to do."""
        due, ends = self._renewal.due, self._renewal.ends
        return due if self.over else min(due, ends)

    async def _again(self, link: Link[Any]) -> Entry:
        self._heard.clear()
        mechanisms = channel.mechanisms(self._auth, self._server, self._where)
        await self._living(link)
        login = ClientLogin(link.machine, mechanisms, self._server, self._auth.tenant)
        while login.done is None:
            if login.work is not None:
                answer = await trio.to_thread.run_sync(login.work, abandon_on_cancel=True)
                await self._living(link)
                login.worked(answer)
            link.kick()
            while not self._heard:
                await self._more.park()
            login.hear(self._heard.popleft())
        return login.done

    @staticmethod
    async def _living(link: Link[Any]) -> None:
        """Go on only on a connection that can be spoken to; whoever leaves it cancels this."""
        if link.failure is not None:
            await trio.sleep_forever()
