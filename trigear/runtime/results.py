"""Results on their way to a store of their own, and back: one thread, one thing at a time."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import trio

from trigear.engine.gate import STALL_SECONDS
from trigear.engine.outside import DROP, FIND
from trigear.runtime.clock import now
from trigear.runtime.committer import RETRY_LIMIT, RETRY_SECONDS
from trigear.runtime.reader import Reader

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from trigear.engine.engine import Engine
    from trigear.engine.reads import Fetch
    from trigear.stores.results import ResultStore

log: Final = logging.getLogger("trigear.store")


@asynccontextmanager
async def results_opened(store: ResultStore | None) -> AsyncIterator[None]:
    """Have the store ready for the length of the block, if there is one.

    At the end a call that hangs is not waited for longer than ``STALL_SECONDS``.

    Raises:
        StoreUnusable: it can never work like this.
    """
    if store is None:
        yield
        return
    await trio.to_thread.run_sync(store.open)
    try:
        yield
    finally:
        with trio.move_on_after(STALL_SECONDS, shield=True) as scope:
            await trio.to_thread.run_sync(store.close, abandon_on_cancel=True)
        if scope.cancelled_caught:
            log.error("the store of results does not answer and is left open: %s", store.name)


class Keeper:
    """Has a store keep the engine's results, and asks it for them.

    Args:
        engine: whose results.
        store: where they go; called from one thread at a time.
        flush: called when the engine may have something to send, or another deadline.
    """

    def __init__(
        self,
        engine: Engine,
        store: ResultStore,
        flush: Callable[[], None],
    ) -> None:
        outside = engine.results.outside
        assert outside is not None, "the engine keeps its results itself"
        self._engine = engine
        self._outside = outside
        self._store = store
        self._flush = flush
        self._limiter = trio.CapacityLimiter(1)
        self._work = trio.Event()
        self._idle = trio.Event()
        self._failing = ""
        self._reader = Reader(
            engine, outside.reads, self._read, flush, limiter=self._limiter, what="kept result"
        )

    def look(self) -> None:
        """There may be something to do now."""
        if self._outside.has_ticket:
            self._work.set()
        self._reader.look()

    async def finish(self) -> None:
        """Wait until the store has everything."""
        while len(self._outside):
            self._idle = trio.Event()
            await self._idle.wait()

    async def run(self) -> None:
        """Work until cancelled. Cancelling it leaves what is at hand to its thread."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._reader.run)
            nursery.start_soon(self._put)

    async def _put(self) -> None:
        pause = RETRY_SECONDS
        while True:
            ticket = self._outside.next_ticket()
            if ticket is None:
                self._idle.set()
                self._work = trio.Event()
                await self._work.wait()
                continue
            failed = ""
            try:
                await trio.to_thread.run_sync(
                    self._store.put, ticket.results, limiter=self._limiter, abandon_on_cancel=True
                )
            except Exception as error:
                # Whatever it is: a job is not forgotten before its result is known to be there.
                failed = f"{type(error).__name__}: {error}"
            self._tell(failed)
            self._engine.put(now(), kept=not failed)
            self._flush()
            if failed:
                await trio.sleep(pause)
                pause = min(pause * 2, RETRY_LIMIT)
            else:
                pause = RETRY_SECONDS

    def _tell(self, failed: str) -> None:
        """Say it in the log when the store begins to fail, and when it works again."""
        if failed and not self._failing:
            log.error("the store of results takes nothing: %s; trying again", failed)
        elif self._failing and not failed:
            log.warning("the store of results takes results again")
        self._failing = failed

    def _read(self, fetch: Fetch) -> Mapping[Any, object]:
        kind, _tenant = fetch.what
        if kind == DROP:
            self._store.delete(fetch.keys)
            return {}
        if kind == FIND:
            found = self._store.find(fetch.keys)
            return {(each.tenant, each.function, each.unique): each for each in found}
        return {(each.tenant, each.handle): each for each in self._store.get(fetch.keys)}
