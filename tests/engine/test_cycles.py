"""The core makes no reference cycles: what is over is freed at once, without a collector.

A server with a million queued jobs switches the automatic collector off, because a full collection
takes it a fifth of a second; so nothing may depend on it.
"""

from __future__ import annotations

import gc
import logging
import struct
from random import Random
from typing import TYPE_CHECKING

import pytest

from trigear.engine.config import EngineConfig, FunctionSettings, OnTimeout
from trigear.engine.engine import Engine
from trigear.errors import StoreUnavailable
from trigear.model import CloseReason, Now
from trigear.testing.memory import counting_mint
from trigear.wire.codec import request
from trigear.wire.packets import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ECHO_REQ,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    HEARTBEAT,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_DETACH,
    JOB_RELEASE,
    OPTION_REQ,
    PRE_SLEEP,
    RESET_ABILITIES,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_REDUCE_JOB,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)

if TYPE_CHECKING:
    from trigear.engine.session import Session

JOBS = 100_000
ASSIGNS = frozenset({JOB_ASSIGN, JOB_ASSIGN_ALL, JOB_ASSIGN_UNIQ})
FUNCTIONS = [b"f", b"g", b"slow", b"strict", b"again", b"harsh"]
CONFIG = EngineConfig(
    attempts=3,
    soft_mark=1 << 12,
    functions={
        b"slow": FunctionSettings(timeout=1.0),
        b"strict": FunctionSettings(timeout=1.0, on_timeout=OnTimeout.FAIL),
        b"again": FunctionSettings(retry_failures=True, backoff=0.5, expires=2.0, dead_keep=3.0),
        b"harsh": FunctionSettings(dead_failures=True, timeout=2.0),
    },
)


class Traffic:
    """A server and everything that happens to one, all of it by chance from a fixed number."""

    def __init__(self, *, durable: bool) -> None:
        self.chance = Random(1)
        self.now = Now(0.0, 1_800_000_000.0)
        self.engine = Engine(CONFIG, counting_mint(), self.now, durable=durable)
        self.numbers = 0
        self.jobs = 0
        self.clients = [self.connect() for _ in range(8)]
        self.workers = [self.connect() for _ in range(8)]
        self.handles: list[bytes] = []

    def connect(self) -> Session:
        self.numbers += 1
        session = self.engine.connection_opened(self.numbers, "-", self.now)
        self.tell(session, request(OPTION_REQ, b"trigear"))
        return session

    def tell(self, session: Session, *packets: bytes) -> None:
        while self.engine.receive(session, b"".join(packets), self.now):
            packets = ()

    def read(self) -> None:
        """Everybody reads, remembers the jobs it was given, and some read slowly."""
        for session in self.engine.take_touched():
            stream, start = b"".join(session.take()), 0
            unsent = len(stream) if self.chance.random() < 0.1 else 0
            self.engine.unsent(session, unsent, session.held_size, self.now)
            while stream[start : start + 1] == b"\0":
                _, number, size = struct.unpack_from(">4sII", stream, start)
                start += 12 + size
                if number in ASSIGNS:
                    self.handles.append(stream[start - size : start].partition(b"\0")[0])
        del self.handles[:-50]

    def submit(self) -> None:
        chance, client = self.chance, self.chance.choice(self.clients)
        name, unique = chance.choice(FUNCTIONS), chance.choice([b"", b"", b"-", b"u%d" % self.jobs])
        work = chance.randbytes(chance.choice([0, 10, 300]))
        if chance.random() < 0.1:
            unique = b"shared"
        kind = chance.choice(
            (
                *(SUBMIT_JOB, SUBMIT_JOB_HIGH, SUBMIT_REDUCE_JOB),
                *(SUBMIT_JOB_BG, SUBMIT_JOB_LOW_BG, SUBMIT_JOB_EPOCH),
            )
        )
        middle = {
            SUBMIT_JOB_EPOCH: (b"%d" % (self.now.wall + chance.randrange(4)),),
            SUBMIT_REDUCE_JOB: (b"reduce", b""),
        }
        self.tell(client, request(kind, name, unique, *middle.get(kind, ()), work))
        self.jobs += 1

    def work(self) -> None:
        chance, worker = self.chance, self.chance.choice(self.workers)
        what = chance.choice([CAN_DO, CAN_DO_TIMEOUT, PRE_SLEEP, *[GRAB_JOB] * 8, 0, GRAB_JOB_ALL])
        if what == CAN_DO:
            self.tell(worker, request(CAN_DO, chance.choice(FUNCTIONS)))
        elif what == CAN_DO_TIMEOUT:
            self.tell(worker, request(CAN_DO_TIMEOUT, chance.choice(FUNCTIONS), b"1500"))
        elif what:
            self.tell(worker, request(what))
        else:
            self.tell(worker, request(GRAB_JOB_UNIQ), request(GRAB_JOB), request(PRE_SLEEP))

    def answer(self) -> None:
        """For some job, by whoever holds it or by somebody else."""
        if not self.handles:
            return
        chance, handle = self.chance, self.chance.choice(self.handles)
        holder = chance.choice(self.workers)
        for worker in self.workers:
            if handle in worker.peer.jobs:
                holder = worker
        end = [(WORK_COMPLETE, b"ok"), (WORK_FAIL,), (WORK_EXCEPTION, b"no"), (WORK_COMPLETE, b"")]
        self.tell(
            holder,
            request(WORK_DATA, handle, b"some"),
            request(WORK_WARNING, handle, b"hm"),
            request(WORK_STATUS, handle, b"1", b"2"),
            *(request(number, handle, *rest) for number, *rest in [chance.choice(end)]),
        )

    def meddle(self) -> None:
        chance, client = self.chance, self.chance.choice(self.clients)
        worker = chance.choice(self.workers)
        handle = chance.choice(self.handles or [b"H:nobody:1"])
        what = chance.randrange(12)
        if what == 0:
            self.tell(client, b"cancel job %s\n" % handle, b"status\nworkers\njobs\nshow jobs\n")
        elif what == 1:
            self.tell(client, request(GET_STATUS, handle), request(GET_STATUS_UNIQUE, b"shared"))
        elif what == 2:
            self.tell(client, request(JOB_DETACH, handle))
        elif what == 3:
            self.tell(worker, request(JOB_RELEASE, handle, chance.choice([b"drain", b"deadline"])))
        elif what == 4:
            self.tell(worker, request(HEARTBEAT, b"%d" % chance.choice([0, 300])))
        elif what == 5:
            self.tell(worker, request(CANT_DO, b"f"), request(RESET_ABILITIES))
        elif what == 6:
            self.tell(client, b"maxqueue f %d\n" % chance.choice([0, 100]))
            unwanted = request(SUBMIT_JOB, b"undone", b"", b"")
            self.tell(client, unwanted, unwanted, b"drop function undone\n")
        elif what == 7:
            self.tell(client, request(ECHO_REQ, b"x"), request(OPTION_REQ, b"what"), b"\0RES....")
        elif what == 8:
            self.tell(client, b"requeue %s\npriority %s high\n" % (handle, handle))
            self.tell(client, b"pause g\n", b"set again expires 1s\n", b"functions\n")
        elif what == 9:
            self.tell(client, b"resume g\nreset again\ndead list\n")
            change = chance.choice([b"retry all", b"delete all", b"show " + handle])
            self.tell(client, b"dead %s\n" % change)
        else:
            group = chance.choice([self.clients, self.workers])
            place = chance.randrange(len(group))
            self.engine.connection_lost(group[place], CloseReason.PEER_CLOSED, self.now)
            group[place] = self.connect()

    def pass_time(self) -> None:
        seconds = self.chance.random()
        self.now = Now(self.now.monotonic + seconds, self.now.wall + seconds)
        self.engine.tick(self.now)

    def commit(self) -> None:
        while (ticket := self.engine.take_ticket()) is not None:
            error = StoreUnavailable("no") if self.chance.random() < 0.1 else None
            self.engine.done(ticket, error, self.now)

    def run(self) -> None:
        steps = [self.submit] * 40 + [self.work] * 60 + [self.answer] * 40 + [self.meddle] * 4
        steps += [self.pass_time] * 2 + [self.commit] * 8
        while self.jobs < JOBS:
            self.chance.choice(steps)()
            self.read()


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
@pytest.mark.parametrize("durable", [False, True], ids=["memory", "durable"])
def test_a_hundred_thousand_jobs_of_all_kinds_leave_no_cycle(durable, caplog):
    caplog.set_level(logging.CRITICAL, "trigear")
    traffic = Traffic(durable=durable)
    gc.collect()
    gc.disable()
    try:
        traffic.run()
        gc.set_debug(gc.DEBUG_SAVEALL)
        found = gc.collect()
        kinds = {type(thing).__qualname__ for thing in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert (found, kinds) == (0, set())
    ended = traffic.engine.statistics().ended
    assert all(ended[end] for end in ended if durable or end.name != "NOT_STORED")
    assert traffic.engine.statistics().faults == 0
