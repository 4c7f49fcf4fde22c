"""A whole server in memory with a store that remembers it when it is started again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.engine.world import World
from trigear.engine.engine import Engine
from trigear.stores.base import Erase, Forget, Keep, Losses, Record
from trigear.testing.memory import counting_mint

if TYPE_CHECKING:
    from trigear.engine.config import EngineConfig
    from trigear.engine.reads import Fetch
    from trigear.errors import StoreError
    from trigear.stores.base import Line
    from trigear.testing.clock import SettableClock


class Cabinet:
    """What is on the disk."""

    def __init__(self) -> None:
        self.term = 0
        self.mint = counting_mint()
        self.jobs: dict[tuple[int, int], Keep] = {}
        self.records: dict[tuple[str, str, bytes, int], Record] = {}

    def write(self, lines: tuple[Line, ...]) -> None:
        for line in lines:
            if isinstance(line, Record):
                self.records[line[:4]] = line
            elif isinstance(line, Erase):
                self.records.pop(line[:4], None)
            elif isinstance(line, Keep):
                self.jobs[line[:2]] = line
            elif isinstance(line, Forget):
                self.jobs.pop(line[:2], None)
            elif isinstance(line, Losses) and line[:2] in self.jobs:
                self.jobs[line[:2]] = self.jobs[line[:2]]._replace(losses=line.losses, due=line.due)

    def of(self, kind: str) -> list[Record]:
        """The records of a kind."""
        return [record for key, record in sorted(self.records.items()) if key[0] == kind]

    def read(self, fetch: Fetch) -> dict[bytes, Record]:
        kind, tenant = fetch.what
        return {
            record.key: record
            for record in self.of(kind)
            if record.tenant == tenant and record.key in fetch.keys
        }


class StoringWorld(World):
    """A server on a cabinet. While ``writing`` is false batches stay with the store, while
    ``reading`` is false fetches do; ``failing`` is what becomes of batches instead."""

    elsewhere = False

    def __init__(
        self,
        config: EngineConfig | None = None,
        cabinet: Cabinet | None = None,
        time: SettableClock | None = None,
    ) -> None:
        super().__init__(config)
        if time is not None:
            self.time = self.clock = time
        self.cabinet = cabinet or Cabinet()
        self.cabinet.term += 1
        self.writing = True
        self.reading = True
        self.failing: StoreError | None = None
        self.trouble = ""
        self.batches: list[tuple[Line, ...]] = []
        self.fetches: list[Fetch] = []
        self._open()

    def _open(self) -> None:
        cabinet = self.cabinet
        self.engine = Engine(
            self.engine.config,
            cabinet.mint,
            self.time(),
            durable=True,
            term=cabinet.term,
            results_elsewhere=self.elsewhere,
        )
        for kind in self.engine.kinds:
            self.engine.restore_records(
                [r if kind.data else r._replace(data=b"") for r in cabinet.of(kind.name)],
                self.time(),
            )
        self.engine.restore([cabinet.jobs[key] for key in sorted(cabinet.jobs)], self.time())

    def killed(self, config: EngineConfig | None = None) -> StoringWorld:
        """The server that is started after this one was killed, on what was written."""
        return StoringWorld(config or self.engine.config, self.cabinet, self.time)

    def flush(self) -> None:
        super().flush()
        while self.writing and (ticket := self.engine.take_ticket()) is not None:
            if self.failing is None:
                self.batches.append(ticket.batch.lines)
                self.cabinet.write(ticket.batch.lines)
            self.engine.done(ticket, self.failing, self.time())
            super().flush()
            if self.failing is not None:
                break
        while self.reading and (fetch := self.engine.reads.next_fetch()) is not None:
            self.fetches.append(fetch)
            self.engine.fetched(fetch, self.cabinet.read(fetch), self.trouble, self.time())
            super().flush()

    def job(self, name: str = "SUBMIT_JOB_BG", *args: bytes) -> bytes:
        """Submit a job, by default one in the background of function ``f``; the handle."""
        return self.caller().submit(name, *(args or (b"f", b"", b"work")))
