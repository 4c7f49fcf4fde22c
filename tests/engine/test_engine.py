"""The server as a whole: its ends, its counters, and what it does when it is wrong itself."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.engine.world import Caller, World, packet
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.engine.engine import CENSUS_SECONDS, TURN, Engine
from trigear.engine.gate import STALL_SECONDS
from trigear.engine.session import LONG_ANSWER, Session
from trigear.errors import StoreError, StoreFenced, StoreUnavailable, TrigearInternalError
from trigear.model import CloseReason, JobEnd
from trigear.testing.memory import counting_mint
from trigear.wire.codec import response
from trigear.wire.packets import JOB_CREATED

if TYPE_CHECKING:
    from trigear.broker.functions import Function

MARK = 1000


@pytest.fixture
def small() -> World:
    """A server whose marks are small."""
    return World(EngineConfig(soft_mark=MARK, hard_mark=4 * MARK, max_packet=1024))


def unsent(world: World, caller: Caller, size: int, held: int = 0) -> bool:
    return world.engine.unsent(caller.peer.session, size, held, world.time())


# Turns


def test_a_turn_is_bounded_and_says_whether_there_is_more(world: World) -> None:
    session = world.caller().peer.session
    data = packet("ECHO_REQ", b"x") * (2 * TURN + 1)
    assert world.engine.receive(session, data, world.time())
    assert len(session.take()) == TURN
    assert world.engine.receive(session, b"", world.time())
    assert len(session.take()) == TURN
    assert not world.engine.receive(session, b"", world.time())
    assert len(session.take()) == 1


def test_a_long_answer_to_a_text_command_is_a_turn_of_its_own(world: World) -> None:
    for number in range(LONG_ANSWER // 100):
        world.caller().tell("CAN_DO", b"%0100d" % number)
    session = world.caller().peer.session
    assert world.engine.receive(session, b"status\n" + packet("ECHO_REQ", b"x"), world.time())
    assert len(session.take()) == 1
    assert not world.engine.receive(session, b"", world.time())
    assert len(session.take()) == 1


def test_sessions_with_something_to_send_are_named_once_per_pass(world: World) -> None:
    one, two = world.caller().peer.session, world.caller().peer.session
    world.engine.receive(one, packet("ECHO_REQ", b"x") * 3, world.time())
    assert world.engine.take_touched() == [one]
    assert world.engine.take_touched() == []
    world.engine.receive(two, packet("CAN_DO", b"f"), world.time())
    assert world.engine.take_touched() == []


def test_a_handle_of_any_length_has_its_header(world: World) -> None:
    for handle in (b"H:a:1", b"H:a:10", b"H:a:1"):
        assert world.engine.created_head(handle) + handle == response(JOB_CREATED, handle)


# Back-pressure


def test_a_client_above_the_soft_mark_is_not_read_until_half_of_it_is_gone(small: World) -> None:
    client = small.caller()
    assert unsent(small, client, MARK)
    assert not unsent(small, client, MARK + 1)
    assert not unsent(small, client, MARK)
    assert not unsent(small, client, MARK // 2 + 1)
    assert unsent(small, client, MARK // 2)
    assert unsent(small, client, MARK)


def test_the_jobs_of_a_client_that_does_not_read_are_passed_over(small: World) -> None:
    slow, other, worker = small.caller(), small.caller(), small.worker()
    first = slow.submit()
    second = other.submit()
    background = slow.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    unsent(small, slow, MARK + 1)
    assert worker.grab() == second
    assert worker.grab() == background
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    worker.tell("PRE_SLEEP")
    unsent(small, slow, 0)
    small.flush()
    assert worker.heard() == [("NOOP",)]
    assert worker.grab() == first


def test_a_worker_is_not_kept_from_answering_a_client_that_does_not_read(small: World) -> None:
    slow, worker = small.caller(), small.worker()
    handle = slow.submit()
    worker.grab()
    unsent(small, slow, MARK + 1)
    assert unsent(small, worker, 0)
    assert worker.ask("WORK_COMPLETE", handle, b"r") == []
    assert slow.heard() == [("WORK_COMPLETE", handle, b"r")]


def test_above_the_hard_mark_and_a_packet_the_client_is_closed(small: World) -> None:
    slow = small.caller()
    assert not unsent(small, slow, 4 * MARK + 1024)
    assert slow.peer.session.closing is None
    assert not unsent(small, slow, 4 * MARK + 1024 + 1)
    assert slow.peer.session.closing is CloseReason.SLOW_CONSUMER


def test_bytes_behind_a_commit_stop_the_reading_and_never_close(small: World) -> None:
    client, worker = small.caller(), small.worker()
    handle = client.submit()
    assert unsent(small, client, 0, held=MARK)
    assert not unsent(small, client, 0, held=MARK + 1)
    assert not unsent(small, client, 0, held=100 * MARK)
    assert client.peer.session.closing is None
    assert worker.grab() == handle, "it does read; its jobs are served"
    assert unsent(small, client, 0, held=0)


def test_who_leaves_while_not_reading_leaves_no_trace(small: World) -> None:
    slow, worker = small.caller(), small.worker()
    slow.submit()
    unsent(small, slow, MARK + 1)
    slow.leave()
    handle = small.caller().submit()
    assert worker.grab() == handle


# Ends


def test_an_end_is_logged_with_its_reason_and_what_hung_on_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client, worker = world.caller("10.0.0.1"), world.worker()
    for _ in range(3):
        client.submit()
    worker.grab()
    worker.peer.hang_up(CloseReason.PEER_RESET)
    client.leave()
    client.peer.hang_up()
    world.caller().peer.send(b"\0XYZ")
    world.caller().peer.send(b"GET / HTTP/1.1\r\n")
    world.caller().peer.send(b"\x16\x03\x01")
    assert [(r.levelname, r.getMessage()) for r in caplog.records] == [
        (
            "WARNING",
            "connection 2 (127.0.0.1) closed: peer reset the connection, "
            "1 running job goes to others",
        ),
        ("INFO", "connection 1 (10.0.0.1) closed: peer closed, 3 jobs waited for"),
        (
            "WARNING",
            "connection 3 (127.0.0.1) closed: bytes that are neither a packet nor text",
        ),
        ("WARNING", "connection 4 (127.0.0.1) closed: peer speaks HTTP"),
        ("WARNING", "connection 5 (127.0.0.1) closed: peer speaks TLS to a plain port"),
    ]


def test_an_end_counts_once(world: World) -> None:
    caller = world.caller()
    session = caller.peer.session
    world.engine.connection_lost(session, CloseReason.PEER_CLOSED, world.time())
    world.engine.connection_lost(session, CloseReason.FAULT, world.time())
    assert world.engine.statistics().closed == {CloseReason.PEER_CLOSED: 1}
    assert not world.engine.receive(session, packet("ECHO_REQ", b"x"), world.time())
    assert session.take() == []


# Statistics


def test_statistics_count_what_is_and_what_was(world: World) -> None:
    client, worker = world.caller(), world.worker()
    handles = [client.submit() for _ in range(6)]
    for _ in range(5):
        worker.grab()
    worker.tell("WORK_COMPLETE", handles[0], b"")
    worker.tell("WORK_FAIL", handles[1])
    worker.tell("WORK_EXCEPTION", handles[2], b"")
    client.command(b"cancel job " + handles[3])
    worker.tell("WORK_COMPLETE", handles[3], b"late")
    worker.tell("NOOP")
    client.command(b"schedule add f @daily")
    statistics = world.engine.statistics()
    assert statistics.connections == 2
    assert statistics.schedules == 1
    assert statistics.functions == 1
    assert statistics.jobs == 2
    assert statistics.running == 1
    assert {end: count for end, count in statistics.ended.items() if count} == {
        JobEnd.COMPLETED: 1,
        JobEnd.FAILED: 1,
        JobEnd.RAISED: 1,
        JobEnd.CANCELLED: 1,
    }
    assert statistics.closed == {}
    assert statistics.late_answers == 1
    assert statistics.ignored == 2
    assert statistics.faults == 0
    client.leave()
    assert world.engine.statistics().ended[JobEnd.ABANDONED] == 1
    assert statistics.jobs == 2, "a statistic does not change after it was taken"
    assert statistics.closed == {}


# Census


def test_a_queue_without_workers_is_told_of_once_a_minute(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    client = world.caller()
    client.submit("SUBMIT_JOB_BG", b"lonely\r", b"", b"secret")
    client.submit("SUBMIT_JOB_BG", b"lonely\r", b"", b"secret")
    client.submit("SUBMIT_JOB_BG", b"served", b"", b"w")
    client.submit("SUBMIT_JOB_EPOCH", b"later", b"", b"99999999999", b"w")
    client.command(b"create function idle")
    world.worker(b"served")
    world.pass_time(CENSUS_SECONDS - 1)
    assert caplog.messages == []
    line = "function lonely\\x0d: 2 jobs and no worker"
    world.pass_time(2)
    assert caplog.messages == [line]
    world.pass_time(CENSUS_SECONDS)
    assert caplog.messages == [line] * 2
    world.worker(b"lonely\r")
    world.pass_time(CENSUS_SECONDS)
    assert caplog.messages == [line] * 2


def test_no_name_in_the_log_ends_a_line_or_speaks_to_a_terminal(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    name = "caf\u00e9 \x1b[2J\u009b2J\u2028".encode() + b"\xff"
    world.caller().submit("SUBMIT_JOB_BG", name, b"", b"w")
    world.pass_time(CENSUS_SECONDS + 1)
    assert caplog.messages == [
        "function caf\u00e9\\x20\\x1b[2J\\u009b2J\\u2028\\xff: 1 job and no worker"
    ]


def test_the_next_deadline_is_the_census_when_nothing_else_is_due(world: World) -> None:
    assert world.engine.next_deadline() == world.time().monotonic + CENSUS_SECONDS
    world.worker(timeout=b"2000")
    world.caller().submit()
    assert world.engine.next_deadline() == world.time().monotonic + CENSUS_SECONDS
    world.worker(timeout=b"2000").grab()
    assert world.engine.next_deadline() == world.time().monotonic + 2


# Faults


def broken(monkeypatch: pytest.MonkeyPatch, data: bytes = b"trigger") -> None:
    """A server that has a bug: echoing these bytes raises."""
    echo = Session.on_echo_req

    def on_echo_req(self: Session, got: bytes) -> None:
        if got == data:
            raise LookupError("a bug")
        echo(self, got)

    monkeypatch.setattr(Session, "on_echo_req", on_echo_req)
    rows = list(Session.rows)
    row = rows[16]
    assert row is not None
    rows[16] = (*row[:3], on_echo_req)
    monkeypatch.setattr(Session, "rows", tuple(rows))


def hit(world: World, caller: Caller, data: bytes) -> None:
    """What the hub does with a slice of input that raises."""
    with pytest.raises(LookupError) as caught:
        world.engine.receive(caller.peer.session, data, world.time())
    world.engine.fault(caller.peer.session, caught.value)
    world.flush()


def test_a_fault_closes_its_connection_and_no_other(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken(monkeypatch)
    victim, client = world.worker(), world.caller()
    handle = client.submit()
    victim.grab()
    waiting = victim.submit("SUBMIT_JOB", b"g", b"", b"w")
    data = packet("CAN_DO", b"g") + packet("ECHO_REQ", b"trigger") + packet("GRAB_JOB")
    hit(world, victim, data)
    assert victim.end() is CloseReason.FAULT
    assert world.engine.statistics().faults == 1
    assert world.engine.statistics().closed == {CloseReason.FAULT: 1}
    fault, closed = caplog.records
    assert fault.levelname == "ERROR"
    assert fault.getMessage() == (
        "connection 1 (127.0.0.1): fault in the server, the connection is closed; "
        "last packets: CAN_DO, ECHO_REQ"
    )
    assert fault.exc_info is not None
    assert fault.exc_info[0] is LookupError
    assert "1 running job goes to others, 1 job waited for" in closed.getMessage()
    assert client.ask("ECHO_REQ", b"on") == [("ECHO_RES", b"on")]
    assert client.ask("GET_STATUS", waiting)[0][2] == b"0"
    assert world.worker().grab() == handle


@pytest.mark.pure
def test_a_fault_in_a_text_command_has_no_packets_to_name(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def on_command(self: Session, line: bytes) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr(Session, "on_command", on_command)
    hit(world, world.caller(), b"status\n")
    assert caplog.messages[0].endswith("last packets: none")


@pytest.mark.parametrize("role", ["worker", "holder", "waiter", "bystander"])
def test_damaged_queues_stop_the_server(
    world: World, monkeypatch: pytest.MonkeyPatch, role: str
) -> None:
    broken(monkeypatch)
    client = world.caller()
    if role == "worker":
        victim = world.worker()
    elif role == "holder":
        victim = world.worker()
        client.submit()
        victim.grab()
        victim.tell("CANT_DO", b"f")
    elif role == "waiter":
        victim = world.caller()
        victim.submit()
        world.worker().grab()
    else:
        victim = world.caller()
        client.submit()
    function: Function = victim.peer.session.peer.tenant.functions[b"f"]
    function.running += 1
    session = victim.peer.session
    with pytest.raises(LookupError) as caught:
        world.engine.receive(session, packet("ECHO_REQ", b"trigger"), world.time())
    with pytest.raises(TrigearInternalError, match=r"queues are damaged.*running is") as stop:
        world.engine.fault(session, caught.value)
    assert stop.value.__cause__ is caught.value


# Drain


def drained(world: World) -> bool:
    return world.engine.drained


def test_a_server_without_jobs_is_drained_at_once(world: World) -> None:
    world.engine.drain(world.time())
    assert world.engine.drained
    assert world.engine.draining


def test_a_draining_server_lets_what_runs_end_and_begins_nothing(world: World) -> None:
    client, worker, sleeper = world.caller(), world.worker(), world.worker()
    sleeper.tell("PRE_SLEEP")
    running = client.submit()
    worker.grab()
    queued = client.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    sleeper.heard()
    world.engine.drain(world.time())
    world.flush()
    assert not drained(world)
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    assert sleeper.ask("PRE_SLEEP") == [], "else it would wake, get nothing and ask again"
    refusal = [("ERROR", b"SHUTDOWN_GRACEFUL", b"The server is about to stop")]
    assert client.ask("SUBMIT_JOB", b"f", b"", b"w") == refusal
    assert client.ask("SUBMIT_JOB_BG", b"f", b"", b"w") == refusal
    assert client.ask("SUBMIT_JOB_EPOCH", b"f", b"", b"0", b"w") == refusal
    assert client.ask("GET_STATUS", queued)[0][2:4] == (b"1", b"0")
    worker.tell("WORK_COMPLETE", running, b"r")
    assert client.heard() == [("WORK_COMPLETE", running, b"r")]
    assert drained(world)


def test_a_job_lost_while_the_server_drains_wakes_nobody(world: World) -> None:
    client, worker, sleeper = world.caller(), world.worker(), world.worker()
    client.submit()
    worker.grab()
    sleeper.tell("PRE_SLEEP")
    world.engine.drain(world.time())
    worker.leave()
    assert sleeper.heard() == []
    assert drained(world)


def test_a_draining_server_sends_away_who_neither_works_nor_waits(world: World) -> None:
    idle, admin, waiting, worker = (world.caller() for _ in range(4))
    worker.tell("CAN_DO", b"f")
    handle = waiting.submit("SUBMIT_JOB", b"f", b"", b"w")
    worker.grab()
    world.engine.drain(world.time())
    world.flush()
    assert idle.end() is CloseReason.IDLE_DRAIN
    assert admin.end() is CloseReason.IDLE_DRAIN
    assert waiting.end() is None
    assert worker.end() is None
    worker.tell("WORK_COMPLETE", handle, b"r")
    world.engine.dismiss_idle()
    world.flush()
    assert waiting.heard() == [("WORK_COMPLETE", handle, b"r")]
    assert waiting.end() is CloseReason.IDLE_DRAIN
    assert worker.end() is None


def test_who_has_something_coming_is_not_sent_away_before_it_is_sent(world: World) -> None:
    client = world.caller()
    world.engine.receive(client.peer.session, packet("ECHO_REQ", b"x"), world.time())
    world.engine.drain(world.time())
    assert CloseReason.IDLE_DRAIN not in world.engine.statistics().closed
    world.flush()
    world.engine.dismiss_idle()
    world.flush()
    assert client.heard() == [("ECHO_RES", b"x")]
    assert client.end() is CloseReason.IDLE_DRAIN


def test_gearmands_way_to_drain_serves_on_until_no_job_is_left() -> None:
    world = World(EngineConfig(drain_refuses=False))
    client, worker = world.caller(), world.worker()
    world.engine.drain(world.time())
    world.flush()
    assert drained(world)
    later = client.submit("SUBMIT_JOB_EPOCH", b"f", b"", b"99999999999", b"w")
    assert not drained(world)
    client.command(b"cancel job " + later)
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert not drained(world)
    assert worker.ask("PRE_SLEEP") == [("NOOP",)]
    assert worker.grab() == handle
    assert not drained(world)
    worker.tell("WORK_COMPLETE", handle, b"")
    assert drained(world)
    assert client.end() is None


# Settings


def test_new_settings_hold_for_jobs_that_are_there_already(world: World) -> None:
    client = world.caller()
    handle = client.submit()
    settings = FunctionSettings(timeout=3.0, attempts=1)
    world.engine.reload(replace(world.engine.config, functions={b"f": settings}, version="2"))
    assert client.command(b"version") == b"OK 2\n"
    assert world.worker().grab() == handle
    world.pass_time(3.1)
    assert client.heard() == [("WORK_FAIL", handle)]


def test_new_settings_leave_running_assignments_their_deadline() -> None:
    world = World(EngineConfig(functions={b"f": FunctionSettings(timeout=5.0)}))
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    world.engine.reload(EngineConfig())
    other = world.worker()
    world.pass_time(4)
    assert other.ask("GRAB_JOB") == [("NO_JOB",)]
    world.pass_time(1.1)
    assert other.grab() == handle
    world.pass_time(10_000)
    assert world.worker().ask("GRAB_JOB") == [("NO_JOB",)]


def test_a_timeout_of_zero_switches_the_default_off() -> None:
    world = World(
        EngineConfig(
            functions={b"f": FunctionSettings(timeout=0.0, attempts=0)}, attempts=1, backoff=0.0
        )
    )
    client = world.caller()
    handle = client.submit()
    for _ in range(5):
        worker = world.worker()
        assert worker.grab() == handle
        worker.leave()
    assert client.heard() == []


# With and without a store


def test_a_server_without_a_store_has_no_tickets(world: World) -> None:
    world.caller().submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert not world.engine.has_ticket
    assert world.engine.take_ticket() is None
    assert not world.engine.refuses_durable
    assert not world.engine.fenced


@pytest.fixture
def durable(world: World) -> World:
    """A server whose background jobs are recorded, by the test itself."""
    world.engine = Engine(world.engine.config, counting_mint(), world.time(), durable=True)
    return world


def commit(world: World, error: StoreError | None = None) -> None:
    """Take the next batch and say how it ended."""
    assert world.engine.has_ticket
    ticket = world.engine.take_ticket()
    assert ticket is not None
    world.engine.done(ticket, error, world.time())
    world.flush()


def test_a_recorded_submission_is_answered_after_its_commit_and_before_what_followed(
    durable: World,
) -> None:
    client, worker = durable.caller(), durable.worker()
    worker.tell("PRE_SLEEP")
    client.tell("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert client.ask("ECHO_REQ", b"behind") == []
    assert worker.heard() == []
    commit(durable)
    created, echo = client.heard()
    assert created[0] == "JOB_CREATED"
    assert echo == ("ECHO_RES", b"behind")
    assert worker.heard() == [("NOOP",)]
    assert worker.grab() == created[1]


def test_a_submission_that_is_not_recorded_is_refused(durable: World) -> None:
    client = durable.caller()
    client.tell("SUBMIT_JOB_BG", b"f", b"", b"w")
    commit(durable, StoreUnavailable("disk full"))
    assert client.heard() == [("ERROR", b"QUEUE_ERROR", b"The job could not be stored")]
    assert durable.engine.statistics().ended[JobEnd.NOT_STORED] == 1


@pytest.mark.parametrize("error", [None, StoreUnavailable("disk full")])
def test_an_answer_for_who_has_left_meanwhile_goes_nowhere(
    durable: World, error: StoreError | None
) -> None:
    client = durable.caller()
    client.tell("SUBMIT_JOB_BG", b"f", b"", b"w")
    client.leave()
    commit(durable, error)
    assert client.heard() == []
    assert durable.engine.statistics().jobs == (error is None)


def test_a_store_that_does_not_answer_is_due_to_count_as_stalled(durable: World) -> None:
    client, worker = durable.caller(), durable.worker()
    client.tell("SUBMIT_JOB_BG", b"f", b"", b"w")
    durable.engine.take_ticket()
    assert durable.engine.next_deadline() == durable.time().monotonic + STALL_SECONDS
    durable.pass_time(STALL_SECONDS + 0.1)
    other = durable.caller()
    assert other.ask("SUBMIT_JOB_BG", b"f", b"", b"w") == [
        ("ERROR", b"QUEUE_ERROR", b"The store does not answer")
    ]
    handle = other.submit()
    assert worker.grab() == handle, "foreground work goes on"


def test_a_drain_waits_for_the_store_and_for_who_waits_for_it(durable: World) -> None:
    client = durable.caller()
    client.tell("SUBMIT_JOB_BG", b"f", b"", b"w")
    durable.engine.drain(durable.time())
    durable.flush()
    assert not drained(durable)
    assert client.end() is None, "its answer is still to come"
    commit(durable)
    assert drained(durable)
    assert [said[0] for said in client.heard()] == ["JOB_CREATED"]
    durable.engine.dismiss_idle()
    durable.flush()
    assert client.end() is CloseReason.IDLE_DRAIN


def test_a_server_whose_store_has_another_owner_answers_nobody(durable: World) -> None:
    client = durable.caller()
    client.tell("SUBMIT_JOB_BG", b"f", b"", b"w")
    commit(durable, StoreFenced("another owner"))
    assert durable.engine.fenced
    assert client.heard() == []
    assert not durable.engine.has_ticket
