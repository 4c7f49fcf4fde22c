"""Fake jobs for handlers written for asyncio. Needs trio-asyncio, as such handlers do."""

from __future__ import annotations

import asyncio

from trigear.runtime.aio import AsyncioJob
from trigear.testing.jobs import HANDLE, FakeJob, Notes, Record


class FakeAsyncioJob(AsyncioJob, Record):
    """A job for a handler written for asyncio; else as :class:`FakeJob`.

    It is a :class:`trigear.AsyncioJob` that needs no Trio: call the handler under ``asyncio.run``.
    """

    __slots__ = ("_fake",)

    def __init__(
        self,
        workload: bytes = b"",
        *,
        function: str | bytes = b"fake",
        unique: str | bytes = b"",
        handle: str | bytes = HANDLE,
    ) -> None:
        self._fake = FakeJob(workload, function=function, unique=unique, handle=handle)
        super().__init__(self._fake)

    def _kept(self) -> Notes:
        return self._fake._kept()

    @property
    def over(self) -> bool:
        return self._fake.over

    @over.setter
    def over(self, over: bool) -> None:
        self._fake.over = over

    async def status(self, numerator: int, denominator: int) -> None:
        self._fake.note_status(numerator, denominator)
        await asyncio.sleep(0)

    async def data(self, data: bytes) -> None:
        self._fake.note_data(data)
        await asyncio.sleep(0)

    async def warning(self, data: bytes) -> None:
        self._fake.note_warning(data)
        await asyncio.sleep(0)
