"""The server's promise: whatever its peers send, no exception escapes and no queue is damaged.

A server in memory with a handful of connections is fed streams made from the tables; some claim
to be workers, some clients, most make little sense. What it answers is made of whole packets and
lines, and it forgets what it was told once it is of no use.
"""

from __future__ import annotations

import gc
import logging
import tracemalloc
from contextlib import contextmanager
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.engine.world import World, packet, spoken
from tests.fuzz.mutation import TABLE, Mutator, first_seed, is_bounded
from trigear.broker.check import charges_wrong, faults_of
from trigear.broker.quotas import Allowance, Quotas
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.model import DEFAULT_TENANT

if TYPE_CHECKING:
    from collections.abc import Iterator

if TYPE_CHECKING:
    from trigear.testing.memory import MemoryPeer

LIFE = 500
"""Streams that one server is fed. Then comes a fresh one: queued jobs and the functions that were
ever named are kept for good reason, and would be taken for a leak."""

PEERS = 6

SLACK = 1 << 20

OPENINGS = (
    b"",
    packet("CAN_DO", b"f") + packet("PRE_SLEEP"),
    packet("CAN_DO_TIMEOUT", b"f", b"1500") + packet("CAN_DO", b"g"),
    packet("SUBMIT_JOB", b"f", b"u", b"w") * 2 + packet("SUBMIT_JOB_BG", b"g", b"", b"w"),
    packet("OPTION_REQ", b"trigear") + packet("CAN_DO", b"f") + packet("HEARTBEAT", b"500"),
    packet("SET_CLIENT_ID", b"x") + packet("OPTION_REQ", b"exceptions"),
)
"""So that the streams meet something."""

SMALL = Quotas(
    max_workers=4,
    max_functions=20,
    max_queued_jobs=60,
    max_queued_bytes=20_000,
    max_job_bytes=2_000,
    max_abilities_per_connection=5,
    max_background_age=600.0,
)
"""What half of the servers grant."""

ANSWERS = {packet.name for packet in TABLE.values() if packet.sent_to} | {"text"}


class Lines(logging.Handler):
    """Reads every line of the log and keeps none."""

    def emit(self, record: logging.LogRecord) -> None:
        assert record.getMessage().isprintable(), record.getMessage()

    def handleError(self, record: logging.LogRecord) -> None:
        raise AssertionError(f"cannot be logged: {record.msg!r} % {record.args!r}")


@contextmanager
def tracing() -> Iterator[None]:
    """Count memory. The log goes nowhere but here meanwhile: pytest would keep it all."""
    log = logging.getLogger("trigear")
    handler, level = Lines(), log.level
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(logging.DEBUG)
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()
        log.removeHandler(handler)
        log.propagate = True
        log.setLevel(level)


class Crowd:
    """A server and its peers; who is closed comes back as somebody new."""

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)
        config = EngineConfig(
            max_packet=100_000,
            attempts=3,
            functions={b"g": FunctionSettings(timeout=2.0)},
        )
        self.world = World(config)
        if self._chance.random() < 0.5:
            self.world.engine.broker.tenant(DEFAULT_TENANT).allowance = Allowance(SMALL)
        self._peers = [self._new() for _ in range(PEERS)]

    def _new(self) -> MemoryPeer:
        peer = self.world.connect()
        peer.session.limit_packets()
        peer.send(self._chance.choice(OPENINGS))
        return peer

    def feed(self, stream: bytes, mutator: Mutator) -> None:
        """Send a stream from one of the peers, and let some time pass."""
        chance = self._chance
        at = chance.randrange(PEERS)
        peer = self._peers[at]
        for piece in mutator.pieces(stream):
            if peer.closed is not None:
                break
            peer.send(piece)
            assert is_bounded(peer.session.decoder)
        if peer.closed is None and chance.random() < 0.1:
            peer.hang_up()
            self._peers[at] = self._new()
        self.world.pass_time(chance.choice((0.0, 0.0, 0.3, 3.0)))
        for at, peer in enumerate(self._peers):
            hear(peer)
            if peer.closed is not None:
                self._peers[at] = self._new()

    def check(self) -> None:
        """The queues' bookkeeping is what counting gives."""
        for tenant in self.world.engine.broker.tenants.values():
            assert list(charges_wrong(tenant)) == []
            for function in tenant.functions.values():
                assert list(faults_of(function)) == []


def hear(peer: MemoryPeer) -> None:
    """What the server said is whole packets of its direction, lines, or a word to HTTP."""
    data = peer.take()
    if data.startswith(b"HTTP/1.1 400") or b"\nHTTP/1.1 400" in data:
        return
    for said, *_ in spoken(data):
        assert said in ANSWERS, (said, data)


@pytest.mark.usefixtures("untraced")
def test_no_stream_breaks_the_server_or_leaves_anything_behind(fuzz_examples: int) -> None:
    seed = first_seed()
    mutator = Mutator(seed)
    early = max(fuzz_examples // 100, 1)
    traced: dict[int, int] = {}
    crowd = Crowd(seed)
    with tracing():
        for example in range(1, fuzz_examples + 1):
            stream = mutator.stream()
            try:
                crowd.feed(stream, mutator)
                if example % 50 == 0:
                    crowd.check()
            except Exception as error:
                error.add_note(f"seed {seed}, input {example}: {stream!r}")
                raise
            if example % LIFE == 0 or example in (early, fuzz_examples):
                crowd = Crowd(seed + example)
            if example in (early, fuzz_examples):
                gc.collect()
                traced[example] = tracemalloc.get_traced_memory()[0]
    print(f"{fuzz_examples} inputs; bytes traced: {traced}")
    assert traced[fuzz_examples] - traced[early] < SLACK


def test_a_connection_leaves_nothing_behind_when_it_ends(fuzz_examples: int) -> None:
    """One server for all: connections come, say something that makes no job, and go."""
    world = World()
    handles = [b"H:nowhere:%d" % number for number in range(100)]
    visits = [
        packet("CAN_DO", b"f") + packet("PRE_SLEEP") + packet("GRAB_JOB"),
        packet("SUBMIT_JOB", b"f", b"u", b"w" * 1000),
        packet("SET_CLIENT_ID", b"x" * 100) + b"status\nworkers\n",
        *(packet("WORK_COMPLETE", handle, b"r") for handle in handles),
        packet("ECHO_REQ", b"x" * 1000)[:-1],
        b"\0XYZ",
        b"GET / HTTP/1.1\r\n",
    ]
    early = max(fuzz_examples // 100, 1)
    traced: dict[int, int] = {}
    with tracing():
        for example in range(1, fuzz_examples + 1):
            peer = world.connect()
            peer.send(visits[example % len(visits)])
            peer.hang_up()
            if example in (early, fuzz_examples):
                del peer
                gc.collect()
                traced[example] = tracemalloc.get_traced_memory()[0]
    print(f"{fuzz_examples} connections; bytes traced: {traced}")
    assert world.engine.statistics().connections == 0
    assert world.engine.statistics().jobs == 0
    assert traced[fuzz_examples] - traced[early] < SLACK
