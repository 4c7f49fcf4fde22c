"""Those who wait for what a server says: for one reply, for the end of a job, for all of a job.

The reader of a link hands them events, synchronously; a task waits in them. Whatever happens to
the task, the reader is never made to wait, but for one case: :class:`Job` holds it when its
follower is too far behind.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NoReturn, final

import trio

from trigear.errors import ConnectionLost, JobLost, Refused
from trigear.model import public
from trigear.protocol import events
from trigear.runtime.order import IN_DOUBT
from trigear.runtime.told import Told
from trigear.runtime.values import again, in_doubt

if TYPE_CHECKING:
    from trigear.protocol.client import ClientConnection
    from trigear.runtime.link import Link

UNREAD_LIMIT: Final = 1024 * 1024
"""Bytes of updates that a job keeps for a follower who does not take them."""

OVERHEAD: Final = 256
"""What an update costs beside its data, about, in bytes."""


class Waiting:
    """One who waits for the reply to a request.

    Args:
        doubt: what is unknown if the connection breaks before the reply has come; nothing, if
            that does not matter.
    """

    __slots__ = ("_changed", "_doubt", "_failure", "_reply")

    def __init__(self, doubt: str = "") -> None:
        self._changed = trio.lowlevel.ParkingLot()
        self._doubt = doubt
        self._reply: events.OfRequest | None = None
        self._failure: ConnectionLost | trio.ClosedResourceError | None = None

    def hear(self, event: events.OfRequest) -> bool:
        """Take an event in, and say whether it was the last one."""
        self._reply = event
        self._changed.unpark_all()
        return True

    def lose(self, failure: ConnectionLost | trio.ClosedResourceError) -> None:
        """Hear that there will be no more events."""
        self._failure = failure
        self._changed.unpark_all()

    async def reply(self) -> events.OfRequest:
        """Wait for the reply.

        Raises:
            Refused: the server answered ERROR.
            ConnectionLost: the connection broke before the reply came.
            trio.ClosedResourceError: the client was left.
        """
        await trio.lowlevel.checkpoint()
        while self._reply is None and self._failure is None:
            await self._changed.park()
        return self.answer()

    def answer(self) -> events.OfRequest:
        """The reply that has come, or what came instead; raises as :meth:`reply`."""
        if self._reply is None:
            self._raise_failure()
        if isinstance(self._reply, events.Refused):
            raise Refused(self._reply.code, self._reply.text)
        return self._reply

    def _raise_failure(self) -> NoReturn:
        assert self._failure is not None, "asked before anything came"
        if isinstance(self._failure, ConnectionLost):
            raise in_doubt(self._failure, self._doubt)
        raise trio.ClosedResourceError(*self._failure.args)


class Following(Waiting):
    """One who waits for a job's end.

    Args:
        keep: whether the data it sends on the way are kept for its result.
    """

    __slots__ = ("_told",)

    def __init__(self, *, keep: bool = True) -> None:
        super().__init__(IN_DOUBT)
        self._told = Told(keep=keep)

    @property
    def handle(self) -> bytes:
        """The job's name at the server."""
        return self._told.handle

    @property
    def is_over(self) -> bool:
        """Whether nothing more will be heard of the job."""
        refused = isinstance(self._reply, events.Refused)
        return self._told.end is not None or self._failure is not None or refused

    @property
    def is_in_doubt(self) -> bool:
        """Whether the connection broke before the end was known."""
        return self._told.end is None and isinstance(self._failure, ConnectionLost)

    def hear(self, event: events.OfRequest) -> bool:
        if self._told.hear(event):
            self._changed.unpark_all()
            return True
        if isinstance(event, events.Status | events.Data | events.Warning):
            return False
        return super().hear(event) and not isinstance(event, events.Created)

    async def result(self) -> bytes:
        """Wait for the end of the job; see :meth:`Job.result`."""
        await trio.lowlevel.checkpoint()
        while not self.is_over:
            await self._changed.park()
        return self.outcome()

    def outcome(self) -> bytes:
        """The result of a job that is over; raises as :meth:`result`, and as :meth:`reply` if the
        server never had it."""
        result = self._told.outcome()
        if result is not None:
            return result
        if self._told.known_as is not None and isinstance(self._failure, ConnectionLost):
            raise JobLost(self.handle) from again(self._failure)
        self.answer()
        self._raise_failure()


@public
@final
class Job(Following):
    """A foreground job that the server has accepted; made by :meth:`Client.open_job`.

    Iterate over it for its updates, :class:`Status`, :class:`Data` and :class:`Warning`;
    :meth:`result` waits for its end. Of statuses that follow each other only the newest is kept.
    Data and warnings are kept until they are taken: up to about a megabyte, then nothing more is
    read from the server until some are taken, or :meth:`result` is awaited, or the job is left.
    That stops whatever else the connection carries, too.
    """

    __slots__ = ("_awaited", "_left", "_link", "_unread", "_updates")

    def __init__(self, link: Link[ClientConnection], *, keep: bool) -> None:
        super().__init__(keep=keep)
        self._link = link
        self._updates: deque[events.Update] = deque()
        self._unread = 0
        self._awaited = 0
        self._left = False

    def hear(self, event: events.OfRequest) -> bool:
        last = super().hear(event)
        if isinstance(event, events.Status | events.Data | events.Warning):
            newest = self._updates[-1] if self._updates else None
            if isinstance(event, events.Status) and isinstance(newest, events.Status):
                self._updates[-1] = event
            else:
                self._updates.append(event)
                self._unread += cost(event)
            self._press()
            self._changed.unpark_all()
        return last

    def __aiter__(self) -> Job:
        return self

    async def __anext__(self) -> events.Update:
        """The next Status, Data or Warning, until the job is over, however it ended.

        Raises:
            trio.ClosedResourceError: the job was left before its end.

        Cancellation: nothing is lost: go on iterating.
        """
        await trio.lowlevel.checkpoint()
        while not self._updates:
            if isinstance(self._failure, trio.ClosedResourceError):
                self._raise_failure()
            if self.is_over:
                raise StopAsyncIteration
            await self._changed.park()
        update = self._updates.popleft()
        self._unread -= cost(update)
        self._press()
        return update

    async def result(self) -> bytes:
        """Wait for the end of the job.

        Returns:
            All its data, and what it completed with; without ``keep`` only the latter.

        Raises:
            JobFailed: it failed.
            JobRaised: it raised an exception.
            JobLost: the connection broke before the end was known; the job may still run.
            trio.ClosedResourceError: the job or the client was left before the end.

        Cancellation: nothing is lost: ask again.
        """
        self._awaited += 1
        self._press()
        try:
            return await super().result()
        finally:
            self._awaited -= 1
            self._press()

    def leave(self) -> None:
        """Hear no more: the block around the job has ended."""
        self._left = True
        if not self.is_over:
            self.lose(trio.ClosedResourceError("the block around this job has ended"))
        self._press()

    def _press(self) -> None:
        """Hold the reader while too much is unread; who awaits the result takes everything in."""
        if self._unread > UNREAD_LIMIT and not self._awaited and not self._left:
            self._link.hold(self)
        else:
            self._link.release(self)


def cost(update: events.Update) -> int:
    """Bytes that an update takes up, about."""
    return OVERHEAD + (0 if isinstance(update, events.Status) else len(update.data))
