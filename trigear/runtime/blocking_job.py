"""A foreground job of a client without Trio."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from trigear.errors import JobLost
from trigear.model import public
from trigear.protocol import events
from trigear.runtime.blocking_link import Waiting
from trigear.runtime.order import IN_DOUBT
from trigear.runtime.told import Told
from trigear.runtime.values import again, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.protocol.asking import Request
    from trigear.runtime.blocking import BlockingClient
    from trigear.runtime.blocking_link import BlockingLink


@public
class BlockingJob(Waiting):
    """A foreground job that the server has accepted; made by :meth:`BlockingClient.job`.

    Iterate over it for its updates; :meth:`result` waits for its end.
    """

    __slots__ = ("_client", "_link", "_token", "_told", "_updates")

    def __init__(
        self, client: BlockingClient, link: BlockingLink, token: Request, *, keep: bool
    ) -> None:
        super().__init__(IN_DOUBT)
        self._client = client
        self._link = link
        self._token = token
        self._told = Told(keep=keep)
        self._updates: deque[events.Update] = deque()

    @property
    def handle(self) -> bytes:
        """The job's name at the server."""
        return self._told.handle

    @property
    def done(self) -> bool:
        """Whether no more will be heard of the job: it ended, or the connection broke."""
        return self._told.end is not None or self.failure is not None

    def hear(self, event: events.OfRequest) -> bool:
        if self._told.hear(event):
            return True
        match event:
            case events.Status():
                # Only the newest is of interest to a reader that is behind.
                if self._updates and isinstance(self._updates[-1], events.Status):
                    self._updates.pop()
                self._updates.append(event)
            case events.Data() | events.Warning():
                self._updates.append(event)
            case _:
                return super().hear(event) and not isinstance(event, events.Created)
        return False

    def __iter__(self) -> BlockingJob:
        return self

    def __next__(self) -> events.Update:
        """The next Status, Data or Warning, until the job is over, however it ended.

        Raises:
            TimeoutError: none came within the client's time. Nothing is lost: go on.
        """
        self._wait_for(
            lambda: bool(self._updates) or self.done,
            self._client.until(),
            f"nothing was heard of job {shown(self.handle)}",
        )
        if not self._updates:
            raise StopIteration
        return self._updates.popleft()

    def arrived(self) -> list[events.Update]:
        """The updates that have come and were not iterated over yet; waits for nothing."""
        found = list(self._updates)
        self._updates.clear()
        return found

    def result(self) -> bytes:
        """Wait for the end of the job.

        Returns:
            All its data, and what it completed with. Without ``keep``, only the latter.

        Raises:
            JobFailed: it failed.
            JobRaised: it raised an exception.
            JobLost: the connection broke before the end was known; the job may still run.
            TimeoutError: it did not end within the client's time. Nothing is lost: ask again.
        """
        return self._result(self._client.until())

    def _result(self, until: float | None) -> bytes:
        self._wait_for(lambda: self.done, until, f"job {shown(self.handle)} did not end")
        result = self._told.outcome()
        if result is None:
            assert self.failure is not None
            raise JobLost(self.handle) from again(self.failure)
        return result

    def forget(self) -> None:
        """Stop waiting for the job: what still comes of it is dropped.

        It may run; a trigear server drops it if it has not started and nobody else waits for it.
        """
        self._link.forget(self._token)

    def _wait_for(self, over: Callable[[], bool], until: float | None, late: str) -> None:
        self._client.crank.wait_for(over, until, late, self._link.address)
