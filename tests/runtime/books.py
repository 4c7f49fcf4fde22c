"""Stores in memory that do what a test says: hang, fail, or write down."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import trio

from trigear.stores.base import Erase, Forget, Keep, Losses, Marker, Record, Tenure, nothing

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trigear.stores.base import Batch, Owner

PATIENCE = 60.0
"""Seconds after which a thread that nobody lets go on gives up, so that no test leaves one."""


class Book:
    """Writes down what it is given.

    ``trouble`` is raised by every commit until it is None; ``doubt`` by every question whether a
    batch was written. While ``shut``, a commit does not return. Without ``sends`` it does not say
    that a batch is sent.
    """

    name = "a book"

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], Keep] = {}
        self.noted: dict[tuple[str, str, bytes, int], Record] = {}
        self.batches: list[Batch] = []
        self.term = 0
        self.trouble: Exception | None = None
        self.doubt: Exception | None = None
        self.sends = True
        self.commits = 0
        self.questions = 0
        self.called = trio.Event()
        """Set when the next commit begins; take a new one each time, see :meth:`next_call`."""
        self._failed: Batch | None = None
        self._open = threading.Event()
        self._open.set()

    def open(self, owner: Owner) -> Tenure:
        self.term += 1
        return Tenure(self.term, owner.seed)

    def scan(self, after: tuple[int, int] | None, limit: int) -> Sequence[Keep]:
        behind = (key for key in sorted(self.kept) if after is None or key > after)
        return [self.kept[key] for key in behind][:limit]

    def markers(self, after: tuple[int, int] | None, limit: int) -> Sequence[Marker]:
        behind = (key for key in sorted(self.kept) if after is None or key > after)
        jobs = [job for key in behind if (job := self.kept[key]).unique]
        return [
            Marker(j.partition, j.sequence, j.tenant, j.function, j.unique, j.workload)
            for j in jobs[:limit]
        ]

    def records(
        self, kind: str, after: tuple[str, bytes, int] | None, limit: int, *, data: bool = True
    ) -> Sequence[Record]:
        found = [
            record if data else record._replace(data=b"")
            for (its, *key), record in sorted(self.noted.items())
            if its == kind and (after is None or tuple(key) > after)
        ]
        return found[:limit]

    def fetch(self, kind: str, tenant: str, keys: Sequence[bytes]) -> Sequence[Record]:
        noted = self.noted.values()
        return [r for r in noted if r.kind == kind and r.tenant == tenant and r.key in keys]

    def close(self) -> None:
        pass

    def commit(self, batch: Batch, sent: Callable[[], None] = nothing) -> None:
        self.commits += 1
        if self.sends:
            sent()
        trio.from_thread.run_sync(self._note)
        assert self._open.wait(PATIENCE), "nobody let this commit go on"
        if self.trouble is not None:
            self._failed = batch
            raise self.trouble
        self._write(batch)

    def holds(self, batch: Batch) -> bool:
        self.questions += 1
        if self.doubt is not None:
            raise self.doubt
        return batch in self.batches

    def _write(self, batch: Batch) -> None:
        self.batches.append(batch)
        for line in batch.lines:
            if isinstance(line, Record):
                self.noted[line[:4]] = line
                continue
            if isinstance(line, Erase):
                self.noted.pop(line, None)
                continue
            key = line.partition, line.sequence
            if isinstance(line, Forget):
                self.kept.pop(key, None)
            elif isinstance(line, Losses):
                if key in self.kept:
                    kept = self.kept[key]
                    self.kept[key] = kept._replace(losses=line.losses, due=line.due)
            else:
                self.kept[key] = line

    def _note(self) -> None:
        self.called.set()

    # For the test

    def write_after_all(self) -> None:
        """The last batch whose commit failed was written, as it turns out."""
        assert self._failed is not None
        self._write(self._failed)

    def shut(self) -> None:
        """Let no commit return from now on."""
        self._open.clear()

    def reopen(self) -> None:
        """Let commits return again."""
        self._open.set()

    async def begun(self) -> None:
        """Wait until a commit has begun since the last call of this."""
        await self.called.wait()
        self.called = trio.Event()

    @property
    def workloads(self) -> list[bytes]:
        """What is written down now."""
        return [line.workload for line in self.kept.values()]
