"""Group commit: one batch at a time goes to the store, in a thread of its own.

That thread and everything else share an interpreter, and the one that works off what connections
have sent gives it away for a moment with each system call, and has it again before a thread wakes
up. The store would get it when there is nothing else to do, and the disk wait for that. So while a
batch is handed to the store, the rest of the server holds still: see :meth:`Committer.give_way`.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final, cast

import trio

from trigear.errors import StoreError, StoreFenced, StoreUnavailable, StoreUnknown
from trigear.runtime.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.engine.engine import Engine
    from trigear.engine.gate import Commit
    from trigear.stores.base import Store

log: Final = logging.getLogger("trigear.store")

RETRY_SECONDS: Final = 0.1
"""Before the store is asked again after it could not answer; doubled each time."""

RETRY_LIMIT: Final = 5.0
"""Longest time before the store is asked again, in seconds."""

HEAD_LINES: Final = 32
"""A batch of so many lines gets the interpreter for itself until it is with the store. A smaller
one has little to do, in a server that has little to do."""

HEAD_START: Final = 0.002
"""Seconds for which it does, at most: everybody else waits meanwhile."""

MOST_DENIALS: Final = 63
"""So many batches in a row do not get it, at most, because that has not been enough."""


class _AtOnce:
    """Passes the limiter without giving anybody else a turn, if nobody is in it.

    The hub's turn takes as long as what all connections have sent to be worked off, and the store
    would wait for that before each batch.

    Args:
        limiter: which.
        passed: called when nobody was in it.
    """

    def __init__(self, limiter: trio.CapacityLimiter, passed: Callable[[], None]) -> None:
        self._limiter = limiter
        self._passed = passed

    async def acquire_on_behalf_of(self, borrower: object) -> None:
        try:
            self._limiter.acquire_on_behalf_of_nowait(borrower)
        except trio.WouldBlock:
            await self._limiter.acquire_on_behalf_of(borrower)
        else:
            self._passed()

    def release_on_behalf_of(self, borrower: object) -> None:
        self._limiter.release_on_behalf_of(borrower)


class Committer:
    """Writes the engine's batches.

    Args:
        engine: whose batches.
        store: where they go; called from one thread at a time.
        flush: called when the engine may have something to send, or another deadline.
        limiter: held by whoever is with the store.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        flush: Callable[[], None],
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._flush = flush
        self._limiter = limiter or trio.CapacityLimiter(1)
        self._work = trio.Event()
        self._idle = trio.Event()
        self._failing = False
        self._ahead: threading.Event | None = None
        self._last_denials = 0
        self.denials = 0
        """How many batches will not get the interpreter for themselves."""

    def offer(self) -> None:
        """There may be a batch now."""
        self._work.set()

    def give_way(self) -> None:
        """Hold still until the batch that was just taken is with the store: to be called before
        what connections have sent is worked off, where a server has a process of its own.

        A store that needs longer, because its database is far away, does not get that again for
        the next batch, then for the next three, and so on.
        """
        ahead, self._ahead = self._ahead, None
        if ahead is None:
            return
        if self.denials:
            self.denials -= 1
        elif ahead.wait(HEAD_START):
            self._last_denials = 0
        else:
            self.denials = self._last_denials = min(self._last_denials * 2 + 1, MOST_DENIALS)

    async def finish(self) -> None:
        """Wait until everything that was to be written is written."""
        while self._engine.unwritten:
            self._idle = trio.Event()
            await self._idle.wait()

    async def run(self) -> None:
        """Write batches until cancelled.

        Cancelling it leaves a batch at hand to its thread: what becomes of it is unknown, as with
        a loss of power, and nobody is answered.
        """
        pause = RETRY_SECONDS
        while True:
            ticket = self._engine.take_ticket()
            if ticket is None:
                self._idle.set()
                self._work = trio.Event()
                await self._work.wait()
                continue
            # From now on there is a time by which the store has to answer.
            self._flush()
            error = await self._commit(ticket)
            self._engine.done(ticket, error, now())
            self._flush()
            if isinstance(error, StoreUnknown):
                self._engine.done(ticket, await self._resolve(ticket), now())
                self._flush()
            if error is None:
                pause = RETRY_SECONDS
            else:
                await trio.sleep(pause)
                pause = min(pause * 2, RETRY_LIMIT)

    async def _commit(self, ticket: Commit) -> StoreError | None:
        error: StoreError | None = None
        sent = threading.Event()

        def go_ahead() -> None:
            if len(ticket.batch.lines) >= HEAD_LINES:
                self._ahead = sent

        def commit() -> None:
            try:
                self._store.commit(ticket.batch, sent.set)
            finally:
                sent.set()

        limiter = cast("trio.CapacityLimiter", _AtOnce(self._limiter, go_ahead))
        try:
            await trio.to_thread.run_sync(commit, limiter=limiter, abandon_on_cancel=True)
        except (StoreUnavailable, StoreUnknown, StoreFenced) as found:
            error = found
        except Exception as found:
            # A store that fails in a way it did not promise may have written the batch.
            error = StoreUnknown(f"unexpected {type(found).__name__}: {found}")
            error.__cause__ = found
        if (error is not None) != self._failing:
            self._failing = error is not None
            if error is not None:
                log.error("the store does not take what is to be kept: %s", error)
            else:
                log.warning("the store works again")
        return error

    async def _resolve(self, ticket: Commit) -> StoreError | None:
        """Ask until the store says whether it holds a batch."""
        pause = RETRY_SECONDS
        said = ""
        while True:
            await trio.sleep(pause)
            pause = min(pause * 2, RETRY_LIMIT)
            try:
                held = await trio.to_thread.run_sync(
                    self._store.holds, ticket.batch, limiter=self._limiter, abandon_on_cancel=True
                )
            except StoreFenced as error:
                return error
            except Exception as error:
                # Whatever it is: nobody may be answered before the store has.
                if str(error) != said:
                    said = str(error)
                    log.info("whether a batch was written is still unknown: %s", error)
            else:
                return None if held else StoreUnavailable("the batch was not written")
