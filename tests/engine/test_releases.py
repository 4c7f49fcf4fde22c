"""Extended mode, packet by packet: who may say what, what is answered, what a plain peer sees."""

from __future__ import annotations

import pytest

from tests.engine.world import Caller, World, packet, spoken
from trigear.broker.assignments import RELEASE_SECONDS
from trigear.engine.config import EngineConfig, FunctionSettings, OnTimeout
from trigear.engine.engine import HEARTBEATS_MISSED
from trigear.model import CloseReason, JobEnd
from trigear.wire.codec import request
from trigear.wire.packets import EXTENSIONS, JOB_RELEASE

UNKNOWN = ("ERROR", b"INVALID_COMMAND", b"Command not expected")

NOT_MINE = ("ERROR", b"JOB_NOT_FOUND", b"Job given in work result not found")


def extended(world: World, *functions: bytes, timeout: bytes | None = None) -> Caller:
    """A connection in extended mode that can do these functions, by default ``f``."""
    caller = world.worker(*functions, timeout=timeout)
    assert caller.ask("OPTION_REQ", b"trigear") == [("OPTION_RES", b"trigear")]
    return caller


# Opening


@pytest.mark.parametrize("option", [b"trigear", b"TriGear", b"trigear\0"])
def test_extended_mode_is_asked_for_by_name(world: World, option: bytes) -> None:
    caller = world.caller()
    assert caller.ask("OPTION_REQ", option) == [("OPTION_RES", option.rstrip(b"\0"))]
    assert caller.ask("JOB_DETACH", b"H:x:1") == []


@pytest.mark.parametrize("option", [b"exceptions", b"trigear2", b""])
def test_nothing_else_opens_extended_mode(world: World, option: bytes) -> None:
    caller = world.caller()
    caller.ask("OPTION_REQ", option)
    assert caller.ask("JOB_DETACH", b"H:x:1") == [UNKNOWN]


def test_what_follows_the_option_at_once_is_heard_in_extended_mode(world: World) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    worker.peer.send(
        packet("OPTION_REQ", b"trigear")
        + packet("JOB_RELEASE", handle, b"drain")
        + packet("ECHO_REQ", b"on")
    )
    assert worker.heard() == [("OPTION_RES", b"trigear"), ("ECHO_RES", b"on")]
    assert world.worker().grab() == handle


def test_extended_mode_belongs_to_one_connection(world: World) -> None:
    extended(world)
    assert world.caller().ask("HEARTBEAT", b"1000") == [UNKNOWN]


@pytest.mark.parametrize("number", [*range(108, 120), *range(128, 140)])
@pytest.mark.parametrize("args", [(), (b"x",), (b"x", b"y"), (b"x", b"y", b"z")], ids=len)
def test_to_a_plain_peer_no_extension_exists_whatever_is_in_it(
    world: World, number: int, args: tuple[bytes, ...]
) -> None:
    """Too few arguments would be the end of a connection that knew the type."""
    peer = world.caller()
    peer.peer.send(request(number, *args) + packet("ECHO_REQ", b"on"))
    assert peer.heard() == [UNKNOWN, ("ECHO_RES", b"on")]
    assert peer.end() is None


@pytest.mark.parametrize("number", sorted({*range(101, 140)} - EXTENSIONS.keys()))
def test_numbers_that_mean_nothing_yet_are_unknown_in_extended_mode_too(
    world: World, number: int
) -> None:
    peer = extended(world)
    peer.peer.send(request(number, b"x", b"y") + packet("ECHO_REQ", b"on"))
    assert peer.heard() == [UNKNOWN, ("ECHO_RES", b"on")]


def test_in_extended_mode_a_release_without_a_reason_is_broken_framing(world: World) -> None:
    peer = extended(world)
    peer.peer.send(request(JOB_RELEASE, b"H:x:1"))
    assert peer.heard() == [("ERROR", b"INVALID_PACKET", b"JOB_RELEASE has too few arguments")]
    assert peer.end() is CloseReason.MALFORMED


# JOB_RELEASE


def test_a_job_is_given_back_to_who_sleeps(world: World) -> None:
    client, worker, sleeper = world.caller(), extended(world), world.worker()
    handle = client.submit()
    worker.grab()
    sleeper.tell("PRE_SLEEP")
    worker.tell("JOB_RELEASE", handle, b"refused")
    assert sleeper.heard() == [("NOOP",)]
    assert sleeper.grab() == handle


def test_a_job_given_back_is_offered_to_the_same_worker_after_a_while(world: World) -> None:
    client, worker = world.caller(), extended(world)
    handle = client.submit()
    worker.grab()
    worker.tell("JOB_RELEASE", handle, b"refused")
    worker.tell("PRE_SLEEP")
    assert worker.heard() == []
    world.pass_time(RELEASE_SECONDS)
    assert worker.heard() == [("NOOP",)]
    assert worker.grab() == handle


def test_a_job_given_back_at_its_deadline_is_offered_to_the_same_worker_after_another(
    world: World,
) -> None:
    client, worker = world.caller(), extended(world, timeout=b"5000")
    handle = client.submit()
    worker.grab()
    world.pass_time(5 - 0.1)
    assert worker.ask("JOB_RELEASE", handle, b"deadline") == []
    world.pass_time(5 - 0.1)
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    world.pass_time(0.2)
    assert worker.grab() == handle


@pytest.mark.parametrize("reason", [b"deadline ", b"Deadline", b"timeout", b"dead\0line"])
def test_only_the_very_word_deadline_counts(reason: bytes) -> None:
    world = World(EngineConfig(attempts=1, on_timeout=OnTimeout.FAIL))
    client, worker = world.caller(), extended(world)
    handle = client.submit()
    worker.grab()
    worker.tell("JOB_RELEASE", handle, reason)
    assert client.heard() == []
    assert world.worker().grab() == handle


def test_the_last_attempt_may_end_with_a_release_at_the_deadline() -> None:
    world = World(EngineConfig(attempts=2))
    client = world.caller()
    handle = client.submit()
    for _ in range(2):
        worker = extended(world)
        assert worker.grab() == handle
        worker.tell("JOB_RELEASE", handle, b"deadline")
    assert client.heard() == [("WORK_FAIL", handle)]
    assert world.engine.statistics().ended[JobEnd.EXHAUSTED] == 1


def test_where_timeouts_fail_only_the_deadline_fails() -> None:
    fails = {b"f": FunctionSettings(on_timeout=OnTimeout.FAIL)}
    world = World(EngineConfig(functions=fails))
    client, worker = world.caller(), extended(world)
    handle = client.submit()
    worker.grab()
    worker.tell("JOB_RELEASE", handle, b"drain")
    assert client.heard() == []
    other = extended(world)
    assert other.grab() == handle
    other.tell("JOB_RELEASE", handle, b"deadline")
    assert client.heard() == [("WORK_FAIL", handle)]


@pytest.mark.parametrize("reason", [b"deadline", b"drain"])
def test_an_unknown_handle_is_not_found(world: World, reason: bytes) -> None:
    worker = extended(world)
    for handle in (b"H:memory:99999999999999999999", b"", b"\xff"):
        assert worker.ask("JOB_RELEASE", handle, reason) == [NOT_MINE]


@pytest.mark.parametrize("reason", [b"deadline", b"drain"])
@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("WORK_STATUS", (b"1", b"2")),
        ("WORK_DATA", (b"part",)),
        ("WORK_WARNING", (b"careful",)),
        ("WORK_COMPLETE", (b"result",)),
        ("WORK_EXCEPTION", (b"oh",)),
        ("WORK_FAIL", ()),
    ],
)
def test_what_a_worker_still_says_of_a_job_it_gave_back_is_dropped_and_not_refused(
    world: World, reason: bytes, name: str, args: tuple[bytes, ...]
) -> None:
    client, worker, other = world.caller(), extended(world), world.worker()
    handle = client.submit()
    worker.grab()
    worker.tell("JOB_RELEASE", handle, reason)
    assert other.grab() == handle
    assert worker.ask(name, handle, *args) == []
    assert client.heard() == []
    other.tell("WORK_COMPLETE", handle, b"mine")
    assert client.heard() == [("WORK_COMPLETE", handle, b"mine")]


def test_a_job_taken_away_is_given_back_once_and_the_late_answer_is_paid(world: World) -> None:
    client, worker, other = world.caller(), extended(world, timeout=b"1000"), world.worker()
    handle = client.submit()
    worker.grab()
    world.pass_time(1)
    assert worker.heard() == [("JOB_CANCELLED", handle, b"timeout")]
    assert other.grab() == handle
    assert worker.ask("JOB_RELEASE", handle, b"deadline") == []
    assert worker.ask("JOB_RELEASE", handle, b"deadline") == [NOT_MINE]
    assert client.command(b"show jobs") == handle + b"\t1\t0\t0\n.\n", "one attempt, not two"


def test_the_last_worker_of_a_draining_server_may_give_its_job_back(world: World) -> None:
    client, worker = world.caller(), extended(world)
    handle = client.submit()
    worker.grab()
    world.engine.drain(world.time())
    world.flush()
    assert not world.engine.drained
    assert worker.ask("JOB_RELEASE", handle, b"drain") == []
    assert world.engine.drained
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    assert client.heard() == []


# JOB_DETACH


def test_a_running_job_goes_on_without_who_waited(world: World) -> None:
    client, worker = extended(world), world.worker()
    handle = client.submit()
    worker.grab()
    assert client.ask("JOB_DETACH", handle) == []
    assert client.ask("GET_STATUS", handle)[0][2:4] == (b"1", b"1")
    assert worker.ask("WORK_DATA", handle, b"part") == []
    assert worker.ask("WORK_COMPLETE", handle, b"result") == []
    assert client.heard() == []
    assert world.engine.statistics().ended[JobEnd.COMPLETED] == 1


def test_every_submission_is_taken_back_by_itself(world: World) -> None:
    client = extended(world)
    handles = {client.submit("SUBMIT_JOB", b"f", b"u", b"w") for _ in range(3)}
    (handle,) = handles
    for known in (b"1", b"1", b"0"):
        assert client.ask("JOB_DETACH", handle) == []
        assert client.ask("GET_STATUS", handle)[0][2] == known
    assert world.engine.statistics().ended[JobEnd.ABANDONED] == 1


def test_a_client_that_waits_for_nothing_any_more_is_sent_away_by_a_draining_server(
    world: World,
) -> None:
    client, worker = extended(world, b"g"), world.worker()
    client.tell("CANT_DO", b"g")
    handle = client.submit()
    worker.grab()
    client.tell("JOB_DETACH", handle)
    world.engine.drain(world.time())
    world.flush()
    assert client.end() is CloseReason.IDLE_DRAIN


# JOB_CANCELLED


def test_a_plain_worker_never_hears_that_its_job_was_taken_away(world: World) -> None:
    client, worker = world.caller(), world.worker(timeout=b"1000")
    late, cancelled = client.submit(), client.submit()
    worker.grab()
    world.pass_time(1)
    assert worker.grab() == cancelled
    client.command(b"cancel job " + cancelled)
    assert worker.heard() == []
    assert worker.ask("WORK_COMPLETE", cancelled, b"r") == []
    assert worker.ask("WORK_COMPLETE", late, b"r") == []


@pytest.mark.parametrize("fails", [False, True])
def test_a_worker_hears_that_its_time_is_over(fails: bool) -> None:
    how = OnTimeout.FAIL if fails else OnTimeout.REASSIGN
    world = World(EngineConfig(on_timeout=how))
    client, worker = world.caller(), extended(world, timeout=b"1000")
    handle = client.submit()
    worker.grab()
    world.pass_time(1)
    assert worker.heard() == [("JOB_CANCELLED", handle, b"timeout")]
    assert worker.ask("WORK_FAIL", handle) == []


def test_a_notice_of_cancelling_is_for_the_holder_alone(world: World) -> None:
    client, holder, idle = extended(world, b"g"), extended(world), extended(world)
    running, queued = client.submit(), client.submit()
    assert holder.grab() == running
    for handle in (queued, running):
        client.peer.send(b"cancel job " + handle + b"\n")
    assert [said[0] for said in spoken(client.peer.take().replace(b"OK\r\n", b""))] == [
        "WORK_FAIL",
        "WORK_FAIL",
    ]
    assert holder.heard() == [("JOB_CANCELLED", running, b"cancelled")]
    assert idle.heard() == []


# HEARTBEAT


def held_and_promised(world: World, interval: bytes = b"1000") -> tuple[Caller, Caller, bytes]:
    """A client, a worker that holds its job and promises heartbeats, and the job's handle."""
    client, worker = world.caller(), extended(world)
    handle = client.submit()
    worker.grab()
    assert worker.ask("HEARTBEAT", interval) == []
    return client, worker, handle


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("WORK_STATUS", (b"1", b"2")),
        ("WORK_DATA", (b"part",)),
        ("WORK_COMPLETE", (b"result",)),
        ("WORK_EXCEPTION", (b"oh",)),
        ("WORK_FAIL", ()),
        ("JOB_RELEASE", (b"drain",)),
    ],
)
@pytest.mark.parametrize("taken", [False, True], ids=["queued", "with another"])
def test_what_comes_after_the_silence_is_dropped_and_not_refused(
    world: World, name: str, args: tuple[bytes, ...], taken: bool
) -> None:
    client, worker, handle = held_and_promised(world)
    other = world.worker()
    world.pass_time(HEARTBEATS_MISSED)
    if taken:
        assert other.grab() == handle
    assert worker.ask(name, handle, *args) == []
    assert client.heard() == []
    if not taken:
        assert other.grab() == handle
    other.tell("WORK_COMPLETE", handle, b"mine")
    assert client.heard() == [("WORK_COMPLETE", handle, b"mine")]


def test_heartbeats_in_time_keep_the_jobs(world: World) -> None:
    client, worker, handle = held_and_promised(world)
    for _ in range(10):
        world.pass_time(HEARTBEATS_MISSED - 0.1)
        worker.tell("HEARTBEAT", b"1000")
    worker.tell("WORK_COMPLETE", handle, b"done")
    assert client.heard() == [("WORK_COMPLETE", handle, b"done")]


def test_nothing_but_a_heartbeat_keeps_the_promise(world: World) -> None:
    _, worker, handle = held_and_promised(world)
    other = world.worker()
    for _ in range(2 * HEARTBEATS_MISSED):
        world.pass_time(0.5)
        worker.tell("WORK_STATUS", handle, b"1", b"2")
    assert other.grab() == handle


def test_the_last_interval_is_the_one_that_counts(world: World) -> None:
    _, worker, handle = held_and_promised(world, b"1000")
    worker.tell("HEARTBEAT", b"10000")
    other = world.worker()
    world.pass_time(10 * HEARTBEATS_MISSED - 1)
    assert other.ask("GRAB_JOB") == [("NO_JOB",)]
    world.pass_time(1)
    assert other.grab() == handle


def test_a_silent_worker_is_no_loss_twice(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """The promise ends with its breaking; the connection stays."""
    _, worker, handle = held_and_promised(world)
    world.pass_time(10 * HEARTBEATS_MISSED)
    assert len(caplog.messages) == 1
    assert worker.end() is None
    assert worker.grab() == handle
    world.pass_time(100)
    assert world.worker().ask("GRAB_JOB") == [("NO_JOB",)]


def test_who_is_heard_again_makes_a_new_promise(world: World) -> None:
    _, worker, handle = held_and_promised(world)
    world.pass_time(HEARTBEATS_MISSED)
    worker.tell("HEARTBEAT", b"1000")
    assert worker.grab() == handle
    other = world.worker()
    world.pass_time(HEARTBEATS_MISSED)
    assert other.grab() == handle
    assert world.caller().command(b"show jobs") == handle + b"\t2\t0\t0\n.\n"


def test_silence_may_use_up_the_attempts() -> None:
    world = World(EngineConfig(attempts=1))
    client, _, handle = held_and_promised(world)
    world.pass_time(HEARTBEATS_MISSED)
    assert client.heard() == [("WORK_FAIL", handle)]


def test_a_worker_that_ends_while_it_is_silent_loses_its_jobs_once(world: World) -> None:
    _, worker, handle = held_and_promised(world)
    world.pass_time(HEARTBEATS_MISSED)
    worker.leave()
    assert world.caller().command(b"show jobs") == handle + b"\t1\t0\t0\n.\n"
    assert world.worker().grab() == handle


def test_heartbeats_leave_nothing_behind(world: World) -> None:
    workers = [extended(world) for _ in range(8)]
    for _ in range(1000):
        for worker in workers:
            worker.tell("HEARTBEAT", b"60000")
    for worker in workers:
        worker.leave()
    assert len(world.engine._beats) == 0
