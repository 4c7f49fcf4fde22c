"""Extended mode: what trigear's own clients and workers say beyond Gearman."""

from __future__ import annotations

import logging

import pytest

from tests.engine.world import Caller, World
from trigear.engine.config import EngineConfig, OnTimeout
from trigear.engine.engine import HEARTBEATS_MISSED
from trigear.wire.packets import EXTENSIONS, Side


def extended(world: World, *functions: bytes) -> Caller:
    caller = world.worker(*functions)
    assert caller.ask("OPTION_REQ", b"trigear") == [("OPTION_RES", b"trigear")]
    return caller


@pytest.mark.parametrize("name", [p.name for p in EXTENSIONS.values()])
def test_a_plain_peer_is_refused_what_only_trigear_knows(world: World, name: str) -> None:
    peer = world.caller()
    assert peer.ask(name, b"x", b"y") == [("ERROR", b"INVALID_COMMAND", b"Command not expected")]
    assert peer.ask("ECHO_REQ", b"on") == [("ECHO_RES", b"on")]


@pytest.mark.parametrize("name", [p.name for p in EXTENSIONS.values() if p.asked_by is Side.NONE])
def test_what_only_a_server_says_is_refused_in_extended_mode_too(world: World, name: str) -> None:
    peer = extended(world)
    assert peer.ask(name, b"x", b"y") == [("ERROR", b"INVALID_COMMAND", b"Command not expected")]


# JOB_RELEASE


@pytest.mark.parametrize("reason", [b"drain", b"refused", b"", b"any"])
def test_a_released_job_goes_to_another_and_counts_no_attempt(reason: bytes) -> None:
    world = World(EngineConfig(attempts=1))
    client, worker, other = world.caller(), extended(world), world.worker()
    handle = client.submit()
    worker.grab()
    assert worker.ask("JOB_RELEASE", handle, reason) == []
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)], "not at once to the one who gave it back"
    assert other.grab() == handle
    assert client.heard() == []
    assert client.command(b"show jobs") == handle + b"\t0\t0\t0\n.\n"


def test_a_release_at_the_deadline_counts_as_a_timeout(world: World) -> None:
    client, worker, other = world.caller(), extended(world), world.worker()
    handle = client.submit()
    worker.grab()
    assert worker.ask("JOB_RELEASE", handle, b"deadline") == []
    assert client.command(b"show jobs") == handle + b"\t1\t0\t0\n.\n"
    assert other.grab() == handle


def test_a_release_at_the_deadline_may_be_the_end(world: World) -> None:
    world = World(EngineConfig(on_timeout=OnTimeout.FAIL))
    client, worker = world.caller(), extended(world)
    handle = client.submit()
    worker.grab()
    assert worker.ask("JOB_RELEASE", handle, b"deadline") == []
    assert client.heard() == [("WORK_FAIL", handle)]


def test_releasing_a_job_never_held_is_refused(world: World) -> None:
    worker = extended(world)
    handle = world.caller().submit()
    assert worker.ask("JOB_RELEASE", handle, b"drain") == [
        ("ERROR", b"JOB_NOT_FOUND", b"Job given in work result not found")
    ]


def test_releasing_a_job_that_was_taken_away_is_the_answer_that_was_owed(world: World) -> None:
    client, worker = world.caller(), extended(world)
    worker.tell("CAN_DO_TIMEOUT", b"f", b"1000")
    handle = client.submit()
    worker.grab()
    world.pass_time(1.5)
    assert worker.ask("JOB_RELEASE", handle, b"deadline") == [("JOB_CANCELLED", handle, b"timeout")]
    assert worker.grab() == handle


# JOB_DETACH


def test_a_client_may_stop_waiting(world: World) -> None:
    client, other, worker = extended(world), world.caller(), world.worker()
    handle = client.submit("SUBMIT_JOB", b"f", b"u", b"w")
    other.submit("SUBMIT_JOB", b"f", b"u", b"w")
    assert client.ask("JOB_DETACH", handle) == []
    worker.grab()
    worker.tell("WORK_COMPLETE", handle, b"r")
    assert client.heard() == []
    assert other.heard() == [("WORK_COMPLETE", handle, b"r")]


def test_one_detach_takes_back_one_submission(world: World) -> None:
    client, worker = extended(world), world.worker()
    handle = client.submit("SUBMIT_JOB", b"f", b"u", b"w")
    client.submit("SUBMIT_JOB", b"f", b"u", b"w")
    client.tell("JOB_DETACH", handle)
    worker.grab()
    worker.tell("WORK_COMPLETE", handle, b"r")
    assert client.heard() == [("WORK_COMPLETE", handle, b"r")]


def test_a_job_that_has_not_started_and_that_nobody_wants_is_dropped(world: World) -> None:
    client = extended(world)
    handle = client.submit()
    client.tell("JOB_DETACH", handle)
    assert client.ask("GET_STATUS", handle)[0][2] == b"0"
    assert world.worker().ask("GRAB_JOB") == [("NO_JOB",)]


def test_detaching_from_what_one_does_not_wait_for_is_ignored_and_counted(world: World) -> None:
    client, other = extended(world), world.caller()
    for handle in (other.submit(), client.submit("SUBMIT_JOB_BG", b"f", b"", b"w"), b"H:no:1"):
        assert client.ask("JOB_DETACH", handle) == []
    assert world.engine.statistics().ignored == 3
    assert world.engine.statistics().jobs == 2


# JOB_CANCELLED


def test_the_worker_hears_that_its_job_was_cancelled(world: World) -> None:
    client, worker, plain = world.caller(), extended(world), world.worker()
    one, two = client.submit(), client.submit()
    assert worker.grab() == one
    assert plain.grab() == two
    for handle in (one, two):
        client.command(b"cancel job " + handle)
    assert worker.heard() == [("JOB_CANCELLED", one, b"cancelled")]
    assert plain.heard() == []
    assert worker.ask("WORK_COMPLETE", one, b"late") == []


# HEARTBEAT


def test_a_worker_that_falls_silent_loses_its_jobs_and_may_still_answer(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    client, worker, other = world.caller(), extended(world), world.worker()
    handle = client.submit()
    worker.grab()
    worker.tell("HEARTBEAT", b"1000")
    world.pass_time(HEARTBEATS_MISSED - 0.1)
    worker.tell("HEARTBEAT", b"1000")
    world.pass_time(HEARTBEATS_MISSED - 0.1)
    assert other.ask("GRAB_JOB") == [("NO_JOB",)]
    world.pass_time(0.2)
    assert caplog.messages == [
        "connection 2 (127.0.0.1): 3 heartbeats are missing, 1 job goes to others"
    ]
    assert other.grab() == handle
    assert client.command(b"show jobs") == handle + b"\t1\t0\t0\n.\n"
    assert [
        said for said in worker.ask("WORK_COMPLETE", handle, b"late") if said[0] == "ERROR"
    ] == []


def test_a_heartbeat_of_nothing_ends_the_promise(world: World) -> None:
    client, worker = world.caller(), extended(world)
    client.submit()
    worker.grab()
    worker.tell("HEARTBEAT", b"1000")
    worker.tell("HEARTBEAT", b"0")
    world.pass_time(100)
    assert world.worker().ask("GRAB_JOB") == [("NO_JOB",)]


@pytest.mark.parametrize(("said", "seconds"), [(b"1", 0.1), (b"-5", None), (b"x", None)])
def test_heartbeats_have_a_least_interval(world: World, said: bytes, seconds: float | None) -> None:
    client, worker = world.caller(), extended(world)
    client.submit()
    worker.grab()
    worker.tell("HEARTBEAT", said)
    if seconds is None:
        world.pass_time(10_000)
        assert world.worker().ask("GRAB_JOB") == [("NO_JOB",)]
        return
    other = world.worker()
    world.pass_time(seconds * HEARTBEATS_MISSED - 0.01)
    assert other.ask("GRAB_JOB") == [("NO_JOB",)]
    world.pass_time(0.02)
    other.grab()


def test_the_heart_of_a_connection_that_has_ended_beats_no_more(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    worker = extended(world)
    worker.tell("HEARTBEAT", b"1000")
    worker.leave()
    caplog.set_level(logging.WARNING)
    world.pass_time(10)
    assert caplog.messages == []
