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

RETRY_SECONDS: Final = 0.5
"""Between two questions whether a batch of unknown outcome was written."""


class Committer:
    """Writes the engine's batches.

    Args:
        engine: whose batches.
        store: where they go; called from one thread at a time.
        flush: called after the engine was told an outcome.
    """

    def __init__(self, engine: Engine, store: Store, flush: Callable[[], None]) -> None:
        self._engine = engine
        self._store = store
        self._flush = flush
        self._limiter = trio.CapacityLimiter(1)
        self._work = trio.Event()

    def offer(self) -> None:
        """There may be a batch now."""
        self._work.set()

    async def run(self) -> None:
        """Write batches until cancelled. Cancelling waits for the batch at hand."""
        while True:
            ticket = self._engine.take_ticket()
            if ticket is None:
                self._work = trio.Event()
                await self._work.wait()
                continue
            error = await self._commit(ticket)
            self._engine.done(ticket, error, now())
            self._flush()
            if isinstance(error, StoreUnknown):
                self._engine.done(ticket, await self._resolve(ticket), now())
                self._flush()

    async def _commit(self, ticket: Commit) -> StoreError | None:
        try:
            await trio.to_thread.run_sync(self._store.commit, ticket.batch, limiter=self._limiter)
        except StoreError as error:
            log.error("a batch of %d lines was not written: %s", len(ticket.batch.lines), error)
            return error
        return None

    async def _resolve(self, ticket: Commit) -> StoreError | None:
        """Ask until the store says whether it holds a batch."""
        while True:
            try:
                held = await trio.to_thread.run_sync(
                    self._store.holds, ticket.batch, limiter=self._limiter
                )
            except StoreFenced as error:
                return error
            except StoreError as error:
                log.warning("whether a batch was written is still unknown: %s", error)
                await trio.sleep(RETRY_SECONDS)
            else:
                return None if held else StoreUnavailable("the batch was not written")
