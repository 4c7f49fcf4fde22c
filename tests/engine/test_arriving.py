"""Connections are served while jobs are still arriving from the store."""

from __future__ import annotations

import pytest

from tests.engine.test_restore import NOW, engine_of_term
from tests.engine.world import packet, spoken
from tests.stores.places import job
from trigear.model import TERM_SHIFT, CloseReason
from trigear.stores.base import Marker

UNKNOWN = [b"0"] * 4


class Serving:
    """An engine that serves while jobs are arriving."""

    def __init__(self) -> None:
        self.engine = engine_of_term(2)
        self.engine.expect_jobs()
        assert self.engine.arriving is not None
        self.arriving = self.engine.arriving
        self._number = 0

    def connect(self):
        self._number += 1
        return self.engine.connection_opened(self._number, "-", NOW)

    def say(self, session, *packets: bytes) -> list:
        """What a connection is answered at once."""
        more = self.engine.receive(session, b"".join(packets), NOW)
        while more:
            more = self.engine.receive(session, b"", NOW)
        return self.heard(session)

    def heard(self, session) -> list:
        """What it was answered meanwhile, as the hub brings it about."""
        if not session.holding:
            while self.engine.receive(session, b"", NOW):
                pass
        return spoken(b"".join(session.take()))

    def learn(self, *jobs) -> None:
        self.arriving.learn(
            Marker(j.partition, j.sequence, j.tenant, j.function, j.unique, j.workload)
            for j in jobs
        )
        self.arriving.learnt()

    def arrive(self, *jobs) -> None:
        self.engine.restore(jobs, NOW)
        self.engine.have_arrived(NOW)


def submission(unique: bytes, workload: bytes = b"w", function: bytes = b"f") -> bytes:
    return packet("SUBMIT_JOB", function, unique, workload)


def test_what_needs_no_job_of_the_store_is_answered_at_once():
    world = Serving()
    session = world.connect()
    world.engine.restore([job(1, b"old")], NOW)
    said = world.say(session, packet("ECHO_REQ", b"?"), submission(b""), packet("CAN_DO", b"f"))
    assert [name for name, *_ in said] == ["ECHO_RES", "JOB_CREATED"]
    assert [args[-1] for _, *args in world.say(session, *[packet("GRAB_JOB")] * 2)] == [
        b"old",
        b"w",
    ]


def test_jobs_that_arrive_late_are_nevertheless_the_first():
    world = Serving()
    session = world.connect()
    world.say(session, submission(b"", b"new"), packet("CAN_DO", b"f"))
    world.arrive(job(1, b"one"), job(2, b"two"))
    said = world.say(session, *[packet("GRAB_JOB")] * 3)
    assert [args[-1] for _, *args in said] == [b"one", b"two", b"new"]


def test_jobs_that_arrive_wake_the_workers_that_sleep():
    world = Serving()
    session = world.connect()
    assert world.say(session, packet("CAN_DO", b"f"), packet("PRE_SLEEP")) == []
    world.engine.restore([job(1)], NOW)
    assert world.heard(session) == [("NOOP",)]


def test_a_unique_waits_until_those_in_the_store_are_known():
    world = Serving()
    session = world.connect()
    assert world.say(session, submission(b"new"), packet("ECHO_REQ", b"behind it")) == []
    world.learn(job(1, unique=b"old"))
    (created, *_), echo = world.heard(session)
    assert (created, echo) == ("JOB_CREATED", ("ECHO_RES", b"behind it"))


def test_a_unique_that_is_in_the_store_waits_for_its_job_and_joins_it():
    world = Serving()
    session = world.connect()
    world.learn(job(1, unique=b"old"))
    assert world.say(session, submission(b"other")) != []
    assert world.say(session, submission(b"old"), packet("ECHO_REQ", b"!")) == []
    world.arrive(job(1, unique=b"old"))
    assert world.heard(session) == [("JOB_CREATED", b"H:test:1"), ("ECHO_RES", b"!")]


def test_a_unique_that_waited_to_be_known_waits_on_if_it_is():
    world = Serving()
    session = world.connect()
    world.say(session, submission(b"old"))
    world.learn(job(1, unique=b"old"))
    assert world.heard(session) == []
    world.arrive(job(1, unique=b"old"))
    assert world.heard(session) == [("JOB_CREATED", b"H:test:1")]


@pytest.mark.parametrize(
    ("function", "unique", "workload", "waits"),
    [
        (b"f", b"old", b"anything", True),
        (b"g", b"old", b"anything", False),
        (b"f", b"-", b"same", True),
        (b"f", b"-", b"other", False),
        (b"f", b"-", b"", False),
    ],
)
def test_only_what_would_coalesce_waits(function, unique, workload, waits):
    world = Serving()
    session = world.connect()
    world.learn(job(1, unique=b"old"), job(2, b"same", unique=b"-"), job(3, b"", unique=b"-"))
    said = world.say(session, submission(unique, workload, function))
    assert (said == []) == waits == session.holding


def test_jobs_may_arrive_before_their_uniques_were_learnt():
    world = Serving()
    session = world.connect()
    world.say(session, submission(b"new"))
    world.arrive(job(1))
    assert [name for name, *_ in world.heard(session)] == ["JOB_CREATED"]


def test_a_question_about_a_job_waits_only_while_it_is_not_there():
    world = Serving()
    session = world.connect()
    world.engine.restore([job(1, unique=b"u")], NOW)
    known = [("STATUS_RES", b"H:test:1", b"1", b"0", b"0", b"0")]
    assert world.say(session, packet("GET_STATUS", b"H:test:1")) == known
    asked = [("STATUS_RES_UNIQUE", b"u", b"1", b"0", b"0", b"0", b"0")]
    assert world.say(session, packet("GET_STATUS_UNIQUE", b"u")) == asked
    assert world.say(session, packet("GET_STATUS", b"H:test:2")) == []
    other = world.connect()
    assert world.say(other, packet("GET_STATUS_UNIQUE", b"v")) == []
    world.arrive(job(2))
    assert world.heard(session) == [("STATUS_RES", b"H:test:2", b"1", b"0", b"0", b"0")]
    assert world.heard(other) == [("STATUS_RES_UNIQUE", b"v", *UNKNOWN, b"0")]


@pytest.mark.parametrize("line", [b"cancel job H:test:2", b"show job H:test:2", b"drop function f"])
def test_a_command_about_a_job_or_against_a_function_waits(line):
    world = Serving()
    session = world.connect()
    world.engine.receive(session, line + b"\n", NOW)
    assert session.take() == []
    world.arrive(job(2))
    world.heard(session)
    assert not session.holding


def test_a_command_that_waited_is_answered():
    world = Serving()
    session = world.connect()
    world.engine.receive(session, b"cancel job H:test:2\nversion\n", NOW)
    world.arrive(job(2))
    world.engine.receive(session, b"", NOW)
    assert b"".join(session.take()).startswith(b"OK\r\nOK ")


@pytest.mark.parametrize("line", [b"status", b"workers", b"nonsense", b"create function g"])
def test_other_commands_are_answered_with_what_is_there(line):
    world = Serving()
    session = world.connect()
    world.engine.receive(session, line + b"\n", NOW)
    assert session.take() != []


def test_whoever_leaves_while_waiting_submits_nothing():
    world = Serving()
    session = world.connect()
    world.say(session, submission(b"new"))
    world.engine.connection_lost(session, CloseReason.PEER_CLOSED, NOW)
    world.arrive()
    assert world.engine.statistics().jobs == 0


def test_what_is_written_meanwhile_is_not_read_back():
    world = Serving()
    session = world.connect()
    ours = (2 << TERM_SHIFT) + 1
    world.say(session, packet("SUBMIT_JOB_BG", b"f", b"", b"w"))
    world.arrive(job(1), job(ours, b"w"))
    assert world.engine.statistics().jobs == 1
    assert world.engine.spoilt == 0


def test_a_server_that_waits_for_nothing_is_told_that_everything_has_arrived():
    engine = engine_of_term()
    engine.have_arrived(NOW)
    assert engine.arriving is None


def test_lists_show_what_is_there_and_a_command_tells_that_this_is_not_all():
    world = Serving()
    session = world.connect()
    asked = b"loading\n", b"status\n"
    assert world.say(session, *asked) == [("text", b"OK yes"), ("text", b".")]
    world.arrive(job(1))
    assert world.say(session, *asked)[0] == ("text", b"OK no")


def test_nobody_is_sent_away_while_waiting():
    world = Serving()
    session = world.connect()
    world.say(session, submission(b"new"))
    idle = world.connect()
    world.engine.drain(NOW)
    assert (session.closing, idle.closing) == (None, CloseReason.IDLE_DRAIN)
    world.arrive()
    assert world.heard(session) == [
        ("ERROR", b"SHUTDOWN_GRACEFUL", b"The server is about to stop"),
    ]


def test_a_connection_that_waits_is_not_read():
    world = Serving()
    session = world.connect()
    assert world.engine.unsent(session, 0, 0, NOW)
    world.say(session, submission(b"new"))
    assert not world.engine.unsent(session, 0, 0, NOW)
