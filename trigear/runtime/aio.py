"""Handlers written for asyncio, on a loop of their own inside the worker's Trio.

The one module that imports trio_asyncio; it is imported when such a handler is registered.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import trio_asyncio

from trigear.model import public
from trigear.runtime.job import JobFace

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from trigear.runtime.job import WorkerJob


@public
class AsyncioJob(JobFace):
    """One job, for a handler written for asyncio.

    The same as :class:`~trigear.runtime.job.WorkerJob`, with calls to be awaited there.
    """

    __slots__ = ()

    async def status(self, numerator: int, denominator: int) -> None:
        """As :meth:`WorkerJob.status`."""
        await trio_asyncio.trio_as_aio(self._job.status)(numerator, denominator)

    async def data(self, data: bytes) -> None:
        """As :meth:`WorkerJob.data`."""
        await trio_asyncio.trio_as_aio(self._job.data)(data)

    async def warning(self, data: bytes) -> None:
        """As :meth:`WorkerJob.warning`."""
        await trio_asyncio.trio_as_aio(self._job.warning)(data)


def open_loop() -> AbstractAsyncContextManager[object]:
    """The loop on which the handlers of one worker run."""
    loop: AbstractAsyncContextManager[object] = trio_asyncio.open_loop()
    return loop


def from_asyncio(
    handler: Callable[[AsyncioJob], Awaitable[bytes | None]],
) -> Callable[[WorkerJob], Awaitable[bytes | None]]:
    """The handler, for Trio. Being cancelled cancels its asyncio task and waits for its end."""

    async def call(job: WorkerJob) -> bytes | None:
        try:
            result: bytes | None = await trio_asyncio.aio_as_trio(handler)(AsyncioJob(job))
        except asyncio.CancelledError as error:
            # Not from us, that would be Trio's exception; and no reason to end the worker.
            raise RuntimeError("the handler's asyncio task was cancelled by the handler") from error
        return result

    return call
