"""Rows of a store become jobs in their queues; what is no job is passed over."""

from __future__ import annotations

import logging
import math

import pytest

from tests.engine.world import packet, spoken
from tests.stores.places import job
from trigear.engine.config import EngineConfig
from trigear.engine.engine import SPOILT_LINES, Engine
from trigear.engine.handles import HandleMint
from trigear.model import TERM_SHIFT, CloseReason, Now
from trigear.stores.base import Forget, Keep, Losses, Spoilt

NOW = Now(100.0, 1_800_000_000.0)
KEY = b"k" * 16


def engine_of_term(term: int = 2) -> Engine:
    mint = HandleMint(b"H:here", KEY, term << TERM_SHIFT)
    return Engine(EngineConfig(), mint, NOW, durable=True, term=term)


def say(engine: Engine, *packets: bytes):
    """What a new connection is answered to these packets."""
    session = engine.connection_opened(len(list(engine.broker.tenants)) + 50, "-", NOW)
    more = engine.receive(session, b"".join(packets), NOW)
    while more:
        more = engine.receive(session, b"", NOW)
    return spoken(b"".join(session.take()))


def test_restored_jobs_can_be_seen_and_grabbed():
    engine = engine_of_term()
    assert engine.restore([job(1, b"one", unique=b"u"), job(2, b"two")], NOW) == 2
    assert engine.restore([job(3, b"three", function=b"g")], NOW) == 1
    assert engine.statistics().jobs == 3
    grabs = [packet("GRAB_JOB_UNIQ")] * 3
    assert say(engine, packet("CAN_DO", b"f"), *grabs) == [
        ("JOB_ASSIGN_UNIQ", b"H:test:1", b"f", b"u", b"one"),
        ("JOB_ASSIGN_UNIQ", b"H:test:2", b"f", b"", b"two"),
        ("NO_JOB",),
    ]


def test_a_job_for_later_is_due_when_it_was_to_be():
    engine = engine_of_term()
    engine.restore([job(1, due=NOW.wall + 5)], NOW)
    # Loaded; the wall clock is looked at again by then.
    assert engine.next_deadline() <= NOW.monotonic + 5
    later = Now(NOW.monotonic + 5, NOW.wall + 5)
    engine.tick(later)
    assert engine.broker.tenant("default").functions[b"f"].runnable == 1


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (Spoilt(0, 9, "moths"), "moths"),
        (Spoilt("text", b"bytes", "moths"), "moths"),
        (Spoilt(None, 9.5, "moths"), "moths"),
        (job(9, priority=3), "priority 3 does not exist"),
        (job(9, priority=-1), "priority -1 does not exist"),
        (job(9, due=math.inf), "due at inf"),
        (job(9, due=math.nan), "due at nan"),
        (job(9, submitted=math.nan), "submitted at nan"),
        (job(9, losses=-1), "-1 lost attempts"),
        (job(0), "its number is not above 0"),
        (job(9, handle=b""), "it has no handle"),
        (job(9, handle=b"H:\0"), "a name with a NUL in it"),
        (job(9, function=b"\0"), "a name with a NUL in it"),
        (job(9, unique=b"\0"), "a name with a NUL in it"),
        (job(9, reducer=b"\0"), "a name with a NUL in it"),
        (job(9, partition=1), "does not belong to this partition"),
        (job(9, handle=b"H:test:1"), "another job has the same handle"),
        (job(2 << TERM_SHIFT), "from a term that has not been yet"),
    ],
)
def test_a_row_that_is_no_job_is_logged_and_passed_over(row, why, caplog):
    engine = engine_of_term()
    assert engine.restore([job(1), row, job(5)], NOW) == 2
    assert engine.spoilt == 1
    (record,) = [entry for entry in caplog.records if entry.levelno >= logging.ERROR]
    assert f"row ({row.partition!r}, {row.sequence!r}) of the store is no job" in record.message
    assert why in record.message
    assert engine.statistics().jobs == 2
    assert not engine.has_ticket, "the row stays where it is"


def test_a_row_that_is_no_job_is_passed_over_beside_connections_as_well():
    engine = engine_of_term()
    engine.expect_jobs()
    rows = [job(1), Spoilt("text", "text", "moths"), job(5)]
    assert engine.restore(rows, NOW) == 2
    assert engine.spoilt == 1


def test_many_rows_that_are_no_jobs_do_not_fill_the_log(caplog):
    engine = engine_of_term()
    engine.restore([Spoilt(0, number, "moths") for number in range(1000)], NOW)
    assert engine.spoilt == 1000
    assert len(caplog.records) == SPOILT_LINES


def test_neither_numbers_nor_handles_come_twice_in_two_terms():
    seen: set[bytes] = set()
    numbers: list[int] = []
    for term in (1, 2, 3):
        engine = engine_of_term(term)
        say(engine, *[packet("SUBMIT_JOB_BG", b"f", b"", b"w")] * 40)
        ticket = engine.take_ticket()
        assert ticket is not None
        lines = ticket.batch.lines
        assert len(lines) == 40
        assert all(isinstance(line, Keep) for line in lines)
        numbers += [line.sequence for line in lines]
        seen |= {line.handle for line in lines}
    assert len(seen) == 120
    assert numbers == sorted(set(numbers))
    assert {number >> TERM_SHIFT for number in numbers} == {1, 2, 3}


def test_what_happens_to_a_restored_job_is_written_under_its_old_number():
    engine = engine_of_term()
    engine.restore([job(7)], NOW)
    session = engine.connection_opened(1, "-", NOW)
    engine.receive(session, packet("CAN_DO", b"f") + packet("GRAB_JOB"), NOW)
    engine.receive(session, packet("RESET_ABILITIES"), NOW)
    engine.connection_lost(session, CloseReason.PEER_CLOSED, NOW)
    ticket = engine.take_ticket()
    assert ticket is not None
    assert ticket.batch.lines == (Losses(0, 7, 1, 0.0),)
    engine.done(ticket, None, NOW)
    grabs = packet("CAN_DO", b"f"), packet("GRAB_JOB"), packet("WORK_COMPLETE", b"H:test:7", b"")
    say(engine, *grabs)
    ticket = engine.take_ticket()
    assert ticket is not None
    assert ticket.batch.lines == (Forget(0, 7),)
