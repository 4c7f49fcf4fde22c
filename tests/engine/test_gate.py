"""Replies that wait for the store, and what each of its answers brings."""

from __future__ import annotations

import itertools

import pytest

from tests.engine.world import packet, spoken
from tests.stores.places import job
from trigear.engine import gate
from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.errors import StoreFenced, StoreUnavailable, StoreUnknown
from trigear.model import CloseReason, Now
from trigear.stores.base import Erase, Forget, Keep, Losses, Record

UNSTORED = ("ERROR", b"QUEUE_ERROR", b"The job could not be stored")
STALLED = ("ERROR", b"QUEUE_ERROR", b"The store does not answer")


class Durable:
    """An engine with a store that answers when the test says so."""

    def __init__(self) -> None:
        self.now = Now(100.0, 1_800_000_000.0)
        numbers = itertools.count(1)
        self.engine = Engine(
            EngineConfig(attempts=0), lambda *_: b"H:%d" % next(numbers), self.now, durable=True
        )
        self._connections = itertools.count(1)
        self.flying = None

    def connect(self):
        return self.engine.connection_opened(next(self._connections), "-", self.now)

    def tell(self, session, *packets: bytes) -> list:
        more = self.engine.receive(session, b"".join(packets), self.now)
        while more:
            more = self.engine.receive(session, b"", self.now)
        return self.heard(session)

    def heard(self, session) -> list:
        return spoken(b"".join(session.take()))

    def submit(self, session, workload: bytes, unique: bytes = b"") -> list:
        return self.tell(session, packet("SUBMIT_JOB_BG", b"f", unique, workload))

    def take(self) -> list:
        """The lines of the next batch, which is now with the store."""
        self.flying = self.engine.take_ticket()
        return [] if self.flying is None else list(self.flying.batch.lines)

    def answer(self, error=None) -> None:
        self.engine.done(self.flying, error, self.now)

    def pass_time(self, seconds: float) -> None:
        self.now = Now(self.now.monotonic + seconds, self.now.wall + seconds)
        self.engine.tick(self.now)


@pytest.fixture
def durable() -> Durable:
    return Durable()


def workloads(lines: list) -> list[bytes]:
    return [line.workload for line in lines]


def test_a_reply_waits_until_its_job_is_written(durable):
    client = durable.connect()
    assert durable.submit(client, b"w") == []
    (line,) = durable.take()
    assert isinstance(line, Keep)
    assert (line.tenant, line.function, line.handle, line.workload) == (
        *("default", b"f", b"H:1", b"w"),
    )
    assert durable.heard(client) == []
    durable.answer()
    assert durable.heard(client) == [("JOB_CREATED", b"H:1")]


def test_what_comes_while_the_store_is_busy_makes_the_next_batch(durable):
    client = durable.connect()
    durable.submit(client, b"1")
    assert workloads(durable.take()) == [b"1"]
    first = durable.flying
    durable.submit(client, b"2")
    durable.submit(client, b"3")
    assert not durable.engine.has_ticket
    assert durable.engine.take_ticket() is None
    durable.answer()
    assert durable.engine.has_ticket
    assert workloads(durable.take()) == [b"2", b"3"]
    assert durable.flying.batch.number > first.batch.number


def test_replies_keep_their_order_whoever_waits(durable):
    client = durable.connect()
    asked = [packet("SUBMIT_JOB_BG", b"f", b"", b"w"), packet("ECHO_REQ", b"x")]
    assert durable.tell(client, *asked) == []
    durable.take()
    durable.answer()
    assert durable.heard(client) == [("JOB_CREATED", b"H:1"), ("ECHO_RES", b"x")]


@pytest.mark.pure
@pytest.mark.parametrize(
    ("limit", "value"), [("BATCH_LINES", 3), ("BATCH_BYTES", 700), ("BATCH_BYTES", 684)]
)
def test_a_batch_has_its_limits(durable, limit, value, monkeypatch):
    monkeypatch.setattr(gate, limit, value)
    client = durable.connect()
    for number in range(5):
        durable.submit(client, b"%d" % number * 100)
    sizes = []
    while lines := durable.take():
        sizes.append(len(lines))
        durable.answer()
    assert sizes == [3, 2]


@pytest.mark.pure
def test_tenants_take_turns_in_a_batch(durable, monkeypatch):
    monkeypatch.setattr(gate, "BATCH_LINES", 4)
    names = iter(["red", "blue"])
    monkeypatch.setattr(Engine, "tenant_of", lambda *_: next(names))
    red, blue = durable.connect(), durable.connect()
    for number in range(6):
        durable.submit(red, b"red %d" % number)
    for number in range(2):
        durable.submit(blue, b"blue %d" % number)
    assert workloads(durable.take()) == [b"red 0", b"blue 0", b"red 1", b"blue 1"]
    durable.answer()
    assert workloads(durable.take()) == [b"red 2", b"red 3", b"red 4", b"red 5"]


def test_who_cannot_be_stored_is_told_and_what_ended_is_tried_again(durable):
    client, worker = durable.connect(), durable.connect()
    durable.submit(client, b"1")
    durable.take()
    durable.answer()
    durable.heard(client)
    durable.tell(worker, packet("CAN_DO", b"f"), packet("GRAB_JOB"))
    durable.tell(worker, packet("WORK_COMPLETE", b"H:1", b""))
    durable.submit(client, b"2")
    forget, keep = durable.take()
    assert isinstance(forget, Forget)
    assert keep.workload == b"2"
    durable.answer(StoreUnavailable("no"))
    assert durable.heard(client) == [UNSTORED]
    durable.submit(client, b"3")
    again, keep = durable.take()
    assert (again, keep.workload) == (forget, b"3")
    durable.answer()
    assert durable.heard(client) == [("JOB_CREATED", b"H:3")]
    assert not durable.engine.unwritten


def test_lost_attempts_are_written_and_tried_again_in_order(durable):
    client, worker = durable.connect(), durable.connect()
    durable.submit(client, b"1")
    (keep,) = durable.take()
    durable.answer()
    durable.tell(worker, packet("CAN_DO", b"f"), packet("GRAB_JOB"))
    durable.engine.connection_lost(worker, CloseReason.PEER_CLOSED, durable.now)
    worker = durable.connect()
    durable.tell(worker, packet("CAN_DO", b"f"), packet("GRAB_JOB"))
    durable.tell(worker, packet("WORK_COMPLETE", b"H:1", b""))
    lines = [Losses(0, keep.sequence, 1, 0.0), Forget(0, keep.sequence)]
    assert durable.take() == lines
    durable.answer(StoreUnavailable("no"))
    assert durable.take() == lines


def test_nobody_is_answered_before_the_store_knows(durable):
    client = durable.connect()
    durable.submit(client, b"1")
    durable.take()
    durable.answer(StoreUnknown("perhaps"))
    assert durable.heard(client) == []
    assert durable.submit(client, b"2") == []
    assert durable.engine.refuses_durable
    assert durable.engine.take_ticket() is None
    durable.answer()
    # The refusal waited behind the first reply.
    assert durable.heard(client) == [("JOB_CREATED", b"H:1"), STALLED]
    assert not durable.engine.refuses_durable


def test_a_store_that_does_not_answer_in_time_stalls_durable_work_only(durable):
    client = durable.connect()
    other = durable.connect()
    durable.submit(client, b"1")
    durable.take()
    assert durable.engine.next_deadline() <= durable.now.monotonic + gate.STALL_SECONDS
    durable.pass_time(gate.STALL_SECONDS - 0.1)
    assert not durable.engine.refuses_durable
    durable.pass_time(0.1)
    assert durable.engine.refuses_durable
    assert durable.submit(other, b"2") == [STALLED]
    (said,) = durable.tell(other, packet("SUBMIT_JOB", b"f", b"", b"foreground"))
    assert said[0] == "JOB_CREATED"
    durable.answer()
    assert durable.heard(client) == [("JOB_CREATED", b"H:1")]
    assert durable.submit(other, b"3") == []


def test_a_server_whose_store_was_taken_over_answers_nobody_any_more(durable):
    client = durable.connect()
    durable.submit(client, b"1")
    durable.take()
    durable.answer(StoreFenced("gone"))
    assert durable.engine.fenced
    assert durable.heard(client) == []
    other = durable.connect()
    assert durable.submit(other, b"2") == [STALLED]
    assert not durable.engine.has_ticket
    durable.pass_time(1000)
    assert durable.heard(client) == []


def test_time_alone_stalls_nothing(durable):
    durable.pass_time(1000)
    assert not durable.engine.refuses_durable


# Lines about no job


class Hears:
    """Is told what became of a line."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def stored(self, now: Now) -> None:
        self.heard.append("stored")

    def not_stored(self, now: Now) -> None:
        self.heard.append("not stored")


RECORD = Record("dead", "default", b"k", 0, b"f", "{}", b"data", 0.0)
ERASE = Erase("dead", "default", b"k", 0)


def test_who_left_a_line_hears_what_became_of_it():
    durable = Durable()
    who = Hears()
    durable.engine.record("default", RECORD, who)
    assert durable.take() == [RECORD]
    assert who.heard == []
    durable.answer()
    durable.engine.record("default", ERASE, who)
    durable.take()
    durable.answer(StoreUnavailable("no"))
    assert who.heard == ["stored", "not stored"]
    assert durable.take() == []


def test_a_line_of_nobody_s_is_tried_until_it_is_written():
    durable = Durable()
    durable.engine.record("default", RECORD)
    for _ in range(2):
        assert durable.take() == [RECORD]
        durable.answer(StoreUnavailable("no"))
    assert durable.take() == [RECORD]
    durable.answer()
    assert durable.take() == []


@pytest.mark.pure
def test_lines_that_belong_together_are_never_in_two_batches(monkeypatch):
    monkeypatch.setattr(gate, "BATCH_BYTES", 1000)
    durable = Durable()
    large = RECORD._replace(data=b"x" * 600)
    durable.engine.record("default", RECORD)
    durable.engine.record("default", gate.Together((large, ERASE, job(1))))
    assert durable.take() == [RECORD]
    durable.answer()
    assert durable.take() == [large, ERASE, job(1)]
    durable.answer(StoreUnavailable("no"))
    assert durable.take() == [large, ERASE, job(1)]


def test_a_server_that_keeps_nothing_says_at_once_that_a_line_is_written():
    engine = Engine(EngineConfig(), lambda *_: b"H:1", Now(0.0, 0.0))
    who = Hears()
    engine.record("default", RECORD, who)
    engine.record("default", RECORD)
    assert who.heard == ["stored"]
