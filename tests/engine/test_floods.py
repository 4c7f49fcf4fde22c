"""Much at once: it costs no memory and no log, and nobody else a turn."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from trigear.broker.timers import TURN
from trigear.engine.engine import TURN as PACKETS_A_TURN
from trigear.engine.session import LONG_ANSWER
from trigear.model import JobEnd, Priority
from trigear.wire.codec import request
from trigear.wire.packets import EXTENSIONS, PACKETS

if TYPE_CHECKING:
    from tests.engine.world import World

# Types that do not exist


def test_unknown_types_leave_one_line_and_one_counter_however_many_there_are(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    peer = world.caller()
    kinds = [7_000_000 + number for number in range(20_000)]
    peer.peer.send(b"".join(request(number, b"x") for number in kinds))
    assert set(peer.heard()) == {("ERROR", b"INVALID_COMMAND", b"Command not expected")}
    assert world.engine.statistics().ignored == len(kinds)
    assert len(world.engine._ignored) == 1
    assert caplog.messages == [
        "connection 1 (127.0.0.1): ignored a nameless packet, which is no request here "
        "(said once per connection)"
    ]


def test_every_type_there_is_leaves_at_most_a_line_of_its_own(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    peer = world.caller()
    unserved = [number for number in range(200) if not (p := PACKETS.get(number)) or not p.asked_by]
    for _ in range(10):
        peer.peer.send(b"".join(request(number, b"x") for number in unserved))
    assert len(caplog.messages) <= len(PACKETS) + len(EXTENSIONS)
    assert len(set(caplog.messages)) == len(caplog.messages)


# Numbers without end

DIGITS = b"7" * 5_000


@pytest.mark.parametrize("times", [1, 3])
def test_a_limit_of_thousands_of_digits_is_none_that_is_ever_reached(
    world: World, times: int
) -> None:
    client = world.caller()
    client.submit()
    line = b" ".join([b"maxqueue f", *[b"9" * (5_000 // times)] * times])
    assert client.command(line) == b"OK\r\n"
    client.submit()
    assert client.command(b"maxqueue f 0") == b"OK\r\n"
    client.submit()


def test_numbers_of_thousands_of_digits_in_packets_harm_nobody(world: World) -> None:
    client, worker = world.caller(), world.caller()
    worker.ask("OPTION_REQ", b"trigear")
    worker.tell("CAN_DO_TIMEOUT", b"f", DIGITS)
    worker.tell("HEARTBEAT", DIGITS)
    later = client.submit("SUBMIT_JOB_EPOCH", b"f", b"", DIGITS, b"w")
    assert world.engine.next_deadline() > world.time().monotonic
    handle = client.submit()
    assert worker.grab() == handle
    worker.tell("WORK_STATUS", handle, DIGITS, DIGITS)
    assert client.heard() == [("WORK_STATUS", handle, DIGITS, DIGITS)]
    status = client.ask("GET_STATUS", handle)
    assert status == [("STATUS_RES", handle, b"1", b"1", b"4294967295", b"4294967295")]
    assert client.ask("GET_STATUS", later)[0][2] == b"1"


# Long answers


def with_many_jobs(world: World) -> None:
    client = world.caller()
    for _ in range(2_000):
        client.tell("SUBMIT_JOB_BG", b"f", b"", b"")


def test_a_long_answer_to_a_text_command_is_work_enough_for_one_turn(world: World) -> None:
    with_many_jobs(world)
    asking = world.caller()
    assert len(asking.command(b"show jobs")) > LONG_ANSWER
    session = asking.peer.session
    more = world.engine.receive(session, b"show jobs\nversion\n" * 3, world.time())
    answers = []
    while more:
        answers.append(b"".join(session.take()))
        more = world.engine.receive(session, b"", world.time())
    answers.append(b"".join(session.take()))
    assert [answer.count(b"\n.\n") for answer in answers] == [1, 1, 1, 0]
    assert [answer.count(b"OK ") for answer in answers] == [0, 1, 1, 1]


def test_after_the_last_long_answer_there_is_no_more(world: World) -> None:
    with_many_jobs(world)
    session = world.caller().peer.session
    assert not world.engine.receive(session, b"show jobs\n", world.time())
    assert not world.engine.receive(session, b"", world.time())


def test_short_answers_are_handled_many_to_a_turn(world: World) -> None:
    session = world.caller().peer.session
    world.engine.receive(session, b"version\n" * 100, world.time())
    assert b"".join(session.take()).count(b"OK") == PACKETS_A_TURN


def test_a_long_answer_and_bad_framing_end_in_this_order(world: World) -> None:
    with_many_jobs(world)
    peer = world.caller()
    peer.peer.send(b"show jobs\n\0bad!")
    answer = peer.peer.take()
    assert b"\n.\n\0RES" in answer
    assert peer.end() is not None


# Many things due at one moment


@pytest.mark.usefixtures("untraced")
def test_a_hundred_thousand_jobs_that_are_due_at_once_are_queued_in_turns(world: World) -> None:
    many = 100_000
    peer = world.caller().peer.session.peer
    broker, now = world.engine.broker, world.time()
    due = now.wall + 3600
    for _ in range(many):
        broker.submit(peer, b"f", b"", b"", Priority.NORMAL, True, now, due=due)
    function = peer.tenant.functions[b"f"]
    echoing = world.caller()
    world.time.advance(3600)
    before = 0
    while world.engine.next_deadline() <= world.time().monotonic:
        world.tick()
        assert 0 < function.runnable - before <= TURN
        before = function.runnable
        assert echoing.ask("ECHO_REQ", b"x") == [("ECHO_RES", b"x")]
    assert before == many
    worker = world.worker().peer.session.peer
    done = 0
    while (job := broker.grab(worker, world.time())) is not None:
        broker.finish(worker, job.handle, JobEnd.COMPLETED, world.time())
        done += 1
    assert done == many


def test_many_assignments_that_time_out_at_once_are_lost_in_turns(world: World) -> None:
    client, worker = world.caller(), world.worker(timeout=b"5000")
    many = 3 * TURN
    for _ in range(many):
        client.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
        worker.grab()
    world.time.advance(5)
    held = [many]
    while world.engine.next_deadline() <= world.time().monotonic:
        world.tick()
        held.append(world.engine.statistics().running)
    assert held == [many, 2 * TURN, TURN, 0]
    assert sum(1 for _ in range(many) if world.worker().grab()) == many
