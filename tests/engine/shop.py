"""A server with a store in a dictionary, a clock that is set by hand, and crashes at will."""

from __future__ import annotations

import itertools
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.engine.world import packet, spoken
from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.model import TERM_SHIFT, Now
from trigear.stores.base import Batch, Erase, Keep, Record, effect_of

if TYPE_CHECKING:
    from trigear.broker.schedules import Schedule
    from trigear.engine.session import Session
    from trigear.errors import StoreError

NOON = "2026-11-23T12:00:00+00:00"


def moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class Shop:
    """One server after the other on the same store.

    Args:
        start: what the clock on the wall shows.
        durable: whether there is a store.
        config: how the servers behave.
    """

    def __init__(
        self, start: str = NOON, *, durable: bool = True, config: EngineConfig | None = None
    ) -> None:
        self.now = Now(1000.0, moment(start))
        self.config = config or EngineConfig()
        self.durable = durable
        self.term = 0
        self.rows: dict[tuple[int, int], Keep] = {}
        self.records: dict[Erase, Record] = {}
        self.flying: Any = None
        self.open()

    def open(self) -> None:
        """Start a server on what the store holds."""
        self.term += 1
        term = self.term
        handles = (b"H:%d:%d" % (term, number) for number in itertools.count(1))
        self.engine = Engine(
            self.config,
            lambda *_: next(handles),
            self.now,
            durable=self.durable,
            term=term,
        )
        self.engine.restore_records(list(self.records.values()), self.now)
        self.engine.restore([self.rows[key] for key in sorted(self.rows)], self.now)
        assert all(key[1] >> TERM_SHIFT < term for key in self.rows)
        self.connections = itertools.count(1)
        self.client = self.connect()
        self.flying = None

    def restart(self, seconds: float = 0.0) -> None:
        """The server is killed, and another one starts after a while."""
        self.now = Now(self.now.monotonic + seconds, self.now.wall + seconds)
        self.open()

    # Peers

    def connect(self) -> Session:
        return self.engine.connection_opened(next(self.connections), "-", self.now)

    def tell(self, data: bytes, session: Session | None = None) -> bytes:
        """Send bytes; what comes back at once."""
        session = session or self.client
        more = self.engine.receive(session, data, self.now)
        while more:
            more = self.engine.receive(session, b"", self.now)
        return self.heard(session)

    def heard(self, session: Session | None = None) -> bytes:
        return b"".join((session or self.client).take())

    def ask(self, name: str, *args: bytes, session: Session | None = None) -> list:
        """Send a packet, have everything written, and what came back."""
        said = self.tell(packet(name, *args), session)
        self.write()
        return spoken(said + self.heard(session))

    def command(self, line: str) -> str:
        """Give a text command, have everything written, and the answer."""
        said = self.tell(line.encode() + b"\n")
        self.write()
        return (said + self.heard()).decode("utf-8", "surrogateescape")

    def add(self, words: str = "f * * * * *") -> bytes:
        """Add a schedule by its words; the handle."""
        said = self.command(f"schedule add {words}")
        assert said.startswith("OK "), said
        return said.split()[1].encode()

    # Schedules and jobs

    def schedule(self, handle: bytes) -> Schedule:
        found = self.engine.scheduler.get("default", handle)
        assert found is not None
        return found

    def job_list(self) -> list[bytes]:
        """The handles of all jobs."""
        lines = self.command("show jobs").splitlines()
        return [line.split("\t")[0].encode() for line in lines[:-1]]

    def work_off(self, function: bytes = b"f") -> list[bytes]:
        """Do all jobs of a function; their workloads."""
        worker = self.connect()
        self.tell(packet("CAN_DO", function), worker)
        done = []
        while True:
            ((said, *args),) = spoken(self.tell(packet("GRAB_JOB_UNIQ"), worker))
            if said == "NO_JOB":
                return done
            done.append(args[3])
            self.tell(packet("WORK_COMPLETE", args[0], b""), worker)
            self.write()

    # Time

    def pass_time(self, seconds: float, *, write: bool = True) -> None:
        """Let time pass, and whatever falls due happen on time."""
        end = self.now.monotonic + seconds
        while (deadline := self.engine.next_deadline()) <= end:
            self.step(max(deadline - self.now.monotonic, 0.0))
            self.engine.tick(self.now)
            if write:
                self.write()
        self.step(end - self.now.monotonic)

    def step(self, seconds: float) -> None:
        self.now = Now(self.now.monotonic + seconds, self.now.wall + seconds)

    def pass_until(self, text: str) -> None:
        self.pass_time(moment(text) - self.now.wall)

    def set_clock(self, text: str) -> None:
        """Set the wall clock. No time passes; the engine notices when it looks next."""
        self.now = Now(self.now.monotonic, moment(text))

    # The store

    def take(self) -> list:
        """The lines of the next batch, which is with the store now."""
        self.flying = self.engine.take_ticket()
        return [] if self.flying is None else list(self.flying.batch.lines)

    def keep(self) -> None:
        """The store writes the batch that is with it, and says nothing yet."""
        batch: Batch = self.flying.batch
        kept, _, gone, records, erased = effect_of(batch)
        self.rows.update({(row.partition, row.sequence): row for row in kept})
        for key in gone:
            self.rows.pop(key, None)
        for record in records:
            place = Erase(record.kind, record.tenant, record.key, record.partition)
            self.records[place] = record
        for place in erased:
            self.records.pop(place, None)

    def answer(self, error: StoreError | None = None) -> None:
        self.engine.done(self.flying, error, self.now)
        self.flying = None

    def write(self) -> None:
        """Have everything written, and what had to wait for that done."""
        while True:
            while self.take():
                self.keep()
                self.answer()
            if self.engine.scheduler.at_rest:
                return
            self.engine.tick(self.now)
