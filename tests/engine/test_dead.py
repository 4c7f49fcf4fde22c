"""Dead letters on their way into the store and back."""

from __future__ import annotations

import itertools
import json
import logging

import pytest

from tests.engine.test_gate import Durable
from tests.engine.world import packet
from trigear.broker.dead import DeadLetter
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.engine.dead import REASONS, letter_of, place_of, record_of
from trigear.engine.engine import Engine
from trigear.engine.gate import Together
from trigear.errors import StoreUnavailable
from trigear.model import CloseReason, JobEnd, Now, Priority
from trigear.stores.base import Erase, Forget, Keep, Record

NOW = Now(100.0, 1_800_000_000.0)

LETTER = DeadLetter(
    *("default", 0, b"f", b"H:7", b"u\xff", Priority.LOW, b"add", b"\0load\xff"),
    *(JobEnd.RAISED, 3, 1_700_000_000.5, 1_700_000_009.0, "10.0.0.1", b"out of \xffpaper\n"),
)


class Deadly(Durable):
    """A durable engine whose jobs die of their first loss."""

    def __init__(self, **settings) -> None:
        super().__init__()
        numbers = itertools.count(1)
        self.engine = Engine(
            EngineConfig(attempts=1, **settings),
            lambda *_: b"H:%d" % next(numbers),
            self.now,
            durable=True,
        )

    def die(self, workload: bytes = b"load", unique: bytes = b"") -> None:
        """A job comes to its end; what is to be written of that is left."""
        client, worker = self.connect(), self.connect()
        self.submit(client, workload, unique)
        self.take()
        self.answer()
        self.tell(worker, packet("CAN_DO", b"f"), packet("GRAB_JOB"))
        self.engine.connection_lost(worker, CloseReason.PEER_CLOSED, self.now)


@pytest.fixture
def deadly() -> Deadly:
    return Deadly()


def letters(engine: Engine) -> list[DeadLetter]:
    return engine.broker.dead.of(engine.broker.tenant("default"))


class Told:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def stored(self, now: Now) -> None:
        self.heard.append("stored")

    def not_stored(self, now: Now) -> None:
        self.heard.append("not stored")


def same(one: DeadLetter, two: DeadLetter) -> bool:
    return record_of(one) == record_of(two)


def test_a_record_has_all_of_a_dead_letter():
    record = record_of(LETTER)
    assert (record.kind, record.tenant, record.key) == ("dead", "default", b"H:7")
    assert (record.function, record.data, record.expires) == (b"f", b"\0load\xff", 0.0)
    record.about.encode("ascii")
    again = letter_of(record, json.loads(record.about))
    for name in DeadLetter.__slots__:
        assert getattr(again, name) == getattr(LETTER, name), name
    assert place_of(LETTER) == Erase("dead", "default", b"H:7", 0)


def test_every_end_that_leaves_a_dead_letter_has_its_word():
    assert len(set(REASONS.values())) == len(REASONS)
    assert all(word.isalpha() for word in REASONS.values())


@pytest.mark.parametrize(
    ("record", "about"),
    [
        ({}, {"reason": None}),
        ({}, {"reason": "boredom"}),
        ({}, {"unique": 7}),
        ({}, {"unique": "a\0b"}),
        ({}, {"priority": 3}),
        ({}, {"attempts": "many"}),
        ({}, {"died": float("nan")}),
        ({}, {"submitted": float("inf")}),
        ({"key": b""}, {}),
        ({"partition": 1}, {}),
    ],
)
def test_a_record_that_is_no_dead_letter_is_passed_over(record, about, caplog):
    engine = Engine(EngineConfig(), lambda *_: b"H:1", NOW, durable=True)
    good = record_of(LETTER)
    bad = good._replace(about=json.dumps({**json.loads(good.about), **about}), **record)
    with caplog.at_level(logging.ERROR):
        engine.restore_records([bad, good._replace(key=b"H:8")], NOW)
    assert [letter.handle for letter in letters(engine)] == [b"H:8"]
    assert engine.spoilt == 1
    assert "makes no sense and stays there" in caplog.text


def test_a_death_is_one_line_that_writes_the_letter_and_erases_the_job(deadly):
    deadly.die()
    record, forget = deadly.take()
    assert isinstance(record, Record)
    (letter,) = letters(deadly.engine)
    assert record == record_of(letter)
    assert isinstance(forget, Forget)
    # Until it is written it is tried again, as a whole.
    deadly.answer(StoreUnavailable("full"))
    assert deadly.take() == [record, forget]
    deadly.answer()
    assert not deadly.engine.has_ticket


def test_a_job_that_was_never_recorded_leaves_a_letter_alone():
    deadly = Deadly(dead_failures=True)
    client, worker = deadly.connect(), deadly.connect()
    deadly.engine.broker.dead.restore(LETTER, NOW)
    deadly.tell(client, packet("SUBMIT_JOB", b"f", b"u", b"w"))
    deadly.tell(worker, packet("CAN_DO", b"f"), packet("GRAB_JOB"))
    (job,) = deadly.engine.broker.tenant("default").books[0].values()
    job.background = True
    deadly.tell(worker, packet("WORK_FAIL", job.handle))
    assert [type(line) for line in deadly.take()] == [Record]


def test_a_dead_letter_becomes_a_job_in_one_transaction(deadly):
    deadly.die(unique=b"u")
    deadly.take()
    deadly.answer()
    (letter,) = letters(deadly.engine)
    told = Told()
    deadly.engine.broker.dead.revive(letter, told, NOW)
    keep, erase = deadly.take()
    assert isinstance(keep, Keep)
    assert (keep.handle, keep.unique, keep.losses, keep.workload) == (b"H:1", b"u", 0, b"load")
    assert erase == place_of(letter)
    deadly.answer(StoreUnavailable("full"))
    assert (told.heard, letters(deadly.engine)) == (["not stored"], [letter])
    deadly.engine.broker.dead.revive(letter, told, NOW)
    (entry,) = deadly.engine._gate._queues["default"]
    assert isinstance(entry[0], Together)
    deadly.take()
    deadly.answer()
    assert told.heard == ["not stored", "stored"]
    worker = deadly.connect()
    assert deadly.tell(worker, packet("CAN_DO", b"f"), packet("GRAB_JOB")) == [
        ("JOB_ASSIGN", b"H:1", b"f", b"load")
    ]


def test_a_dead_letter_is_erased(deadly):
    deadly.die()
    deadly.take()
    deadly.answer()
    (letter,) = letters(deadly.engine)
    told = Told()
    deadly.engine.broker.dead.remove(letter, told, NOW)
    assert deadly.take() == [place_of(letter)]
    deadly.answer()
    assert told.heard == ["stored"]


def test_a_dead_letter_is_erased_when_its_time_is_up():
    deadly = Deadly(dead_keep=100.0)
    deadly.die()
    deadly.take()
    deadly.answer()
    (letter,) = letters(deadly.engine)
    assert deadly.engine.next_deadline() <= NOW.monotonic + 100
    deadly.pass_time(100)
    assert letters(deadly.engine) == []
    assert deadly.take() == [place_of(letter)]
    deadly.answer(StoreUnavailable("full"))
    assert deadly.take() == [place_of(letter)]


def test_dead_letters_are_restored_by_the_rules_of_their_function():
    config = EngineConfig(functions={b"f": FunctionSettings(dead_keep=50.0)})
    engine = Engine(config, lambda *_: b"H:1", NOW, durable=True)
    about = {**json.loads(record_of(LETTER).about), "died": NOW.wall - 20}
    engine.restore_records([record_of(LETTER)._replace(about=json.dumps(about))], NOW)
    engine.tick(Now(NOW.monotonic + 29, NOW.wall + 29))
    assert len(letters(engine)) == 1
    engine.tick(Now(NOW.monotonic + 30, NOW.wall + 30))
    assert letters(engine) == []


def test_another_priority_is_written_with_all_of_the_record(deadly):
    client = deadly.connect()
    deadly.submit(client, b"load")
    (before,) = deadly.take()
    deadly.answer()
    tenant = deadly.engine.broker.tenant("default")
    assert deadly.engine.broker.set_priority(tenant, b"H:1", Priority.HIGH)
    assert deadly.take() == [before._replace(priority=Priority.HIGH)]


# What workers say


def test_the_last_words_of_a_worker_are_in_the_dead_letter():
    deadly = Deadly(dead_failures=True)
    client, worker = deadly.connect(), deadly.connect()
    for number, packets in enumerate(
        (
            [("WORK_WARNING", b"hot"), ("WORK_FAIL",)],
            [("WORK_WARNING", b"hot"), ("WORK_EXCEPTION", b"burnt")],
            [("WORK_EXCEPTION", b"burnt"), ("WORK_FAIL",)],
            [("WORK_FAIL",)],
        ),
        1,
    ):
        deadly.submit(client, b"load")
        deadly.take()
        deadly.answer()
        deadly.tell(worker, packet("CAN_DO", b"f"), packet("GRAB_JOB"))
        for name, *text in packets:
            assert deadly.tell(worker, packet(name, b"H:%d" % number, *text)) == []
        deadly.take()
        deadly.answer()
    assert [(letter.reason, letter.text) for letter in letters(deadly.engine)] == [
        (JobEnd.FAILED, b"hot"),
        (JobEnd.RAISED, b"burnt"),
        (JobEnd.RAISED, b"burnt"),
        (JobEnd.FAILED, b""),
    ]
    assert {letter.worker for letter in letters(deadly.engine)} == {"-"}
