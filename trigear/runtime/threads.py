"""Handlers that are plain functions: each job runs in a thread."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import trio

from trigear.runtime.job import ThreadJob, WorkerJob

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


def in_thread(
    handler: Callable[[ThreadJob], bytes | None], limiter: trio.CapacityLimiter
) -> Callable[[WorkerJob], Awaitable[bytes | None]]:
    """The handler, for Trio.

    Being cancelled leaves the thread behind, which cannot be stopped; ``job.left_behind`` tells
    when it has ended.
    """

    async def call(job: WorkerJob) -> bytes | None:
        # From here to the start of the thread nothing can be cancelled, so that the event is set
        # by whoever works on the job, or is not there.
        await trio.lowlevel.checkpoint_if_cancelled()
        job.left_behind = ended = trio.Event()
        token = trio.lowlevel.current_trio_token()

        def run() -> tuple[bytes | None]:
            try:
                # In a tuple, for Trio takes no coroutine from a thread; who answers says it better.
                return (handler(ThreadJob(job)),)
            finally:
                with suppress(trio.RunFinishedError):  # nobody waits any more
                    token.run_sync_soon(ended.set)

        (result,) = await trio.to_thread.run_sync(run, abandon_on_cancel=True, limiter=limiter)
        return result

    return call
