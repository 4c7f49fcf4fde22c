"""Taking a store over when a server starts, and letting go of it at the end."""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trigear.engine.gate import STALL_SECONDS
from trigear.engine.views import out_of_reach
from trigear.errors import StoreUnavailable
from trigear.model import counted, printable
from trigear.runtime.clock import now
from trigear.runtime.committer import RETRY_LIMIT, RETRY_SECONDS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from trigear.engine.engine import Engine
    from trigear.engine.records import Kind
    from trigear.model import Thing
    from trigear.stores.base import Owner, Row, Store, Tenure

log: Final = logging.getLogger("trigear.store")

PAGE: Final = 1000
"""Rows that are read at a time."""

MARKERS: Final = 5000
"""Uniques that are read at a time."""

PORTION: Final = 100
"""Jobs that are put into their queues while nothing else is done."""

PATIENCE: Final = 0.5
"""Seconds for which a server does not serve before everything is loaded."""

PROGRESS_SECONDS: Final = 2.0
"""Between two lines in the log that say how far loading is."""


@asynccontextmanager
async def opened(
    store: Store, owner: Owner, limiter: trio.CapacityLimiter
) -> AsyncIterator[Tenure]:
    """Own the store for the length of the block.

    Args:
        store: which.
        owner: who takes it over.
        limiter: held by whoever is with the store. A commit that hangs is not waited for at the
            end for longer than ``STALL_SECONDS``: the store then stays open.

    Raises:
        StoreUnusable: it cannot be had.
    """
    tenure = await trio.to_thread.run_sync(store.open, owner, limiter=limiter)
    try:
        yield tenure
    finally:
        with trio.move_on_after(STALL_SECONDS, shield=True) as scope:
            await trio.to_thread.run_sync(store.close, limiter=limiter, abandon_on_cancel=True)
        if scope.cancelled_caught:
            log.error("the store does not answer and is left open: %s", store.name)


class Loading:
    """Gives the engine what the store holds.

    A small store is read before the server serves. A large one is not waited for longer than
    ``PATIENCE``: the rest comes in small portions beside the connections; what they may ask for
    meanwhile is said in :mod:`trigear.engine.arriving`.

    Args:
        store: open.
        engine: who gets it.
        limiter: held by whoever is with the store.
        own_process: whether garbage collection is this server's own affair: what is loaded
            stays and is never looked at again.
    """

    def __init__(
        self, store: Store, engine: Engine, limiter: trio.CapacityLimiter, *, own_process: bool
    ) -> None:
        self._store = store
        self._engine = engine
        self._limiter = limiter
        self._own_process = own_process
        self._after: tuple[int, int] | None = None
        self._start = self._said = 0.0
        self.jobs = 0
        """Jobs that are there by now."""
        self.done = False
        """Whether all are there."""

    async def begin(self) -> None:
        """Load every record, and jobs until all are there or the patience is over.

        Raises:
            StoreUnusable: they cannot be read.
        """
        if self._own_process:
            gc.disable()
        self._start = self._said = trio.current_time()
        for kind in self._engine.kinds:
            await self._load_records(kind)
        while not self.done and trio.current_time() - self._start < PATIENCE:
            rows = await self._page()
            self.jobs += self._engine.restore(rows, now())
            self.done = len(rows) < PAGE
        if self.done:
            self._finish()
        else:
            self._engine.expect_jobs()

    async def finish(self, flush: Callable[[], None]) -> None:
        """Load the rest while connections are served.

        Args:
            flush: called when the engine may have something to send.

        Raises:
            StoreUnusable: they cannot be read.
        """
        if self.done:
            return
        arriving = self._engine.arriving
        assert arriving is not None
        after = None
        while markers := await self._read(self._store.markers, after, MARKERS):
            arriving.learn(markers)
            after = markers[-1].partition, markers[-1].sequence
        arriving.learnt()
        flush()
        while True:
            rows = await self._page()
            for first in range(0, len(rows), PORTION):
                self.jobs += self._engine.restore(rows[first : first + PORTION], now())
                flush()
                await trio.lowlevel.checkpoint()
            self._tell_progress()
            if len(rows) < PAGE:
                break
        self.done = True
        self._engine.have_arrived(now())
        flush()
        self._finish()

    async def _page(self) -> Sequence[Row]:
        rows = await self._read(self._store.scan, self._after, PAGE)
        if rows:
            self._after = rows[-1].partition, rows[-1].sequence
        return rows

    async def _load_records(self, kind: Kind) -> None:
        after = None
        while True:
            scan = partial(self._store.records, kind.name, after, PAGE, data=kind.data)
            records = await self._read(scan)
            self._engine.restore_records(records, now())
            if len(records) < PAGE:
                return
            last = records[-1]
            after = last.tenant, last.key, last.partition

    async def _read(self, call: Callable[..., Sequence[Thing]], *args: object) -> Sequence[Thing]:
        pause = RETRY_SECONDS
        while True:
            try:
                return await trio.to_thread.run_sync(call, *args, limiter=self._limiter)
            except StoreUnavailable as error:
                # A database that is started anew while it is read is no reason to end.
                log.error("loading: %s; trying again", error)
            await trio.sleep(pause)
            pause = min(pause * 2, RETRY_LIMIT)

    def _tell_progress(self) -> None:
        if trio.current_time() - self._said >= PROGRESS_SECONDS:
            self._said = trio.current_time()
            log.info("loading: %s so far", counted(self.jobs, "job"))

    def _finish(self) -> None:
        if self._own_process:
            gc.freeze()
        if self.jobs:
            seconds = trio.current_time() - self._start
            log.info("loaded %s in %.1f s", counted(self.jobs, "job"), seconds)
        for tenant, jobs in out_of_reach(self._engine).items():
            log.warning(
                "%s of tenant %s, to which nobody belongs: they wait until somebody does",
                counted(jobs, "job is", "jobs are"),
                printable(tenant.encode()),
            )
        spoilt = self._engine.spoilt
        if spoilt:
            log.error(
                "%s",
                counted(
                    spoilt,
                    "row of the store makes no sense; it stays there",
                    "rows of the store make no sense; they stay there",
                ),
            )
