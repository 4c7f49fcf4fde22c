"""Taking a store over when a server starts, and letting go of it at the end."""

from __future__ import annotations

import gc
import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trigear.engine.gate import STALL_SECONDS
from trigear.model import counted
from trigear.runtime.clock import now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from trigear.engine.engine import Engine
    from trigear.engine.records import Kind
    from trigear.stores.base import Owner, Store, Tenure

log: Final = logging.getLogger("trigear.store")

PAGE: Final = 1000
"""Rows that are read at a time."""

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


async def load(
    store: Store, engine: Engine, limiter: trio.CapacityLimiter, *, own_process: bool
) -> int:
    """Give the engine every record and every job that the store holds, a page at a time.

    ``own_process`` says whether garbage collection is this server's own affair: what is loaded
    stays and is never looked at again.

    Returns:
        How many jobs there were.

    Raises:
        StoreUnusable: they cannot be read.
    """
    if own_process:
        gc.disable()
    start = said = trio.current_time()
    for kind in engine.kinds:
        await _load_records(store, engine, kind, limiter)
    jobs = 0
    after = None
    while True:
        rows = await trio.to_thread.run_sync(store.scan, after, PAGE, limiter=limiter)
        jobs += engine.restore(rows, now())
        if len(rows) < PAGE:
            break
        after = rows[-1].partition, rows[-1].sequence
        if trio.current_time() - said >= PROGRESS_SECONDS:
            said = trio.current_time()
            log.info("loading: %s so far", counted(jobs, "job"))
    if own_process:
        gc.freeze()
    if jobs:
        log.info("loaded %s in %.1f s", counted(jobs, "job"), trio.current_time() - start)
    if engine.spoilt:
        log.error(
            "%s",
            counted(
                engine.spoilt,
                "row of the store makes no sense; it stays there",
                "rows of the store make no sense; they stay there",
            ),
        )
    return jobs


async def _load_records(
    store: Store, engine: Engine, kind: Kind, limiter: trio.CapacityLimiter
) -> None:
    after = None
    while True:
        scan = partial(store.records, kind.name, after, PAGE, data=kind.data)
        records = await trio.to_thread.run_sync(scan, limiter=limiter)
        engine.restore_records(records, now())
        if len(records) < PAGE:
            return
        last = records[-1]
        after = last.tenant, last.key, last.partition
