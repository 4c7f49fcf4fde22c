"""Reading from a store what somebody asked for, in a thread of its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

import trio

from trigear.runtime.clock import now

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trigear.engine.engine import Engine
    from trigear.engine.reads import Fetch, Reads
    from trigear.stores.base import Store

log: Final = logging.getLogger("trigear.store")

UNREADABLE: Final = "The store cannot be read now"
"""What peers hear of it; the log says more."""


class Reader:
    """Reads what is asked for.

    Args:
        engine: who asks.
        reads: of which store.
        read: reads it, in a thread, called for one fetch at a time.
        flush: called when the engine may have something to send, or another deadline.
        limiter: held by whoever is with the store, if it can only do one thing at a time.
        what: what is read, for the log.
    """

    def __init__(
        self,
        engine: Engine,
        reads: Reads,
        read: Callable[[Fetch], Mapping[Any, object]],
        flush: Callable[[], None],
        *,
        limiter: trio.CapacityLimiter | None = None,
        what: str = "record",
    ) -> None:
        self._engine = engine
        self._reads = reads
        self._read = read
        self._flush = flush
        self._what = what
        self._limiter = limiter or trio.CapacityLimiter(1)
        self._work = trio.Event()
        self._failing = ""

    def look(self) -> None:
        """There may be something to read now."""
        if self._reads.has_fetch:
            self._work.set()

    async def run(self) -> None:
        """Read until cancelled. Cancelling it leaves a read at hand to its thread."""
        while True:
            fetch = self._reads.next_fetch()
            if fetch is None:
                self._work = trio.Event()
                await self._work.wait()
                continue
            found: Mapping[Any, object] = {}
            failed = ""
            try:
                found = await trio.to_thread.run_sync(
                    self._read, fetch, limiter=self._limiter, abandon_on_cancel=True
                )
            except Exception as error:
                # Whatever it is: those who wait shall hear that they get nothing.
                failed = f"{type(error).__name__}: {error}"
            if failed != self._failing:
                if failed:
                    log.error("a %s that was asked for cannot be read: %s", self._what, failed)
                else:
                    log.warning("a %s can be read again", self._what)
                self._failing = failed
            self._engine.fetched(fetch, found, UNREADABLE if failed else "", now())
            self._flush()


def from_store(store: Store) -> Callable[[Fetch], Mapping[bytes, object]]:
    """How records are read from the store of jobs: by their kind and tenant."""

    def read(fetch: Fetch) -> Mapping[bytes, object]:
        kind, tenant = fetch.what
        return {record.key: record for record in store.fetch(kind, tenant, fetch.keys)}

    return read
