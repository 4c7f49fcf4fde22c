"""Group commit: one batch at a time goes to the store, in a thread of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

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

    def offer(self) -> None:
        """There may be a batch now."""
        self._work.set()

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
        try:
            await trio.to_thread.run_sync(
                self._store.commit, ticket.batch, limiter=self._limiter, abandon_on_cancel=True
            )
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
