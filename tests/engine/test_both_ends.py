"""WORK_EXCEPTION and then WORK_FAIL: Perl and Python workers send both, and ERROR ends them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.engine.world import Caller, World
from trigear.engine.config import EngineConfig, OnTimeout

if TYPE_CHECKING:
    from collections.abc import Callable

NOT_MINE = ("ERROR", b"JOB_NOT_FOUND", b"Job given in work result not found")

Situation = tuple[Caller, Caller, bytes]
"""A client, a worker that has lost the client's job, and the job's handle."""


def held(world: World, timeout: bytes | None = b"1000") -> Situation:
    client, worker = world.caller(), world.worker(timeout=timeout)
    handle = client.submit()
    assert worker.grab() == handle
    return client, worker, handle


def queued_again(world: World) -> Situation:
    client, worker, handle = held(world)
    world.pass_time(1)
    return client, worker, handle


def with_another(world: World) -> Situation:
    client, worker, handle = queued_again(world)
    assert world.worker().grab() == handle
    return client, worker, handle


def done_by_another(world: World) -> Situation:
    client, worker, handle = queued_again(world)
    other = world.worker()
    other.grab()
    other.tell("WORK_COMPLETE", handle, b"r")
    client.heard()
    return client, worker, handle


def cancelled(world: World) -> Situation:
    client, worker, handle = held(world)
    client.command(b"cancel job " + handle)
    return client, worker, handle


def cancelled_as_a_ghost(world: World) -> Situation:
    client, worker, handle = queued_again(world)
    client.command(b"cancel job " + handle)
    return client, worker, handle


def failed_at_its_deadline(world: World) -> Situation:
    world.engine.reload(EngineConfig(on_timeout=OnTimeout.FAIL))
    client, worker, handle = queued_again(world)
    assert client.heard() == [("WORK_FAIL", handle)]
    return client, worker, handle


def abandoned(world: World) -> Situation:
    client, worker, handle = queued_again(world)
    client.leave()
    return world.caller(), worker, handle


def silent(world: World) -> Situation:
    client, worker, handle = held(world, timeout=None)
    worker.ask("OPTION_REQ", b"trigear")
    worker.tell("HEARTBEAT", b"1000")
    world.pass_time(3)
    return client, worker, handle


def given_back(world: World) -> Situation:
    client, worker, handle = held(world)
    worker.ask("OPTION_REQ", b"trigear")
    worker.tell("JOB_RELEASE", handle, b"drain")
    assert world.worker().grab() == handle
    return client, worker, handle


@pytest.mark.parametrize(
    "situation",
    [
        queued_again,
        with_another,
        done_by_another,
        cancelled,
        cancelled_as_a_ghost,
        failed_at_its_deadline,
        abandoned,
        silent,
        given_back,
    ],
)
def test_both_ends_of_a_job_that_was_lost_are_let_pass(
    world: World, situation: Callable[[World], Situation]
) -> None:
    client, worker, handle = situation(world)
    client.heard()
    assert worker.ask("WORK_EXCEPTION", handle, b"e") == []
    assert worker.ask("WORK_FAIL", handle) == []
    said = client.heard()
    # Nobody else held it in the first case only: then the late answer counted.
    assert said == ([("WORK_FAIL", handle)] if situation is queued_again else [])
    assert worker.ask("WORK_FAIL", handle) == [NOT_MINE]


def test_a_failure_follows_the_exception_of_its_own_job_only(world: World) -> None:
    client, worker, first = cancelled(world)
    second = client.submit()
    assert worker.grab() == second
    assert worker.ask("WORK_EXCEPTION", first, b"e") == []
    assert worker.ask("WORK_FAIL", second) == []
    assert ("WORK_FAIL", second) in client.heard()
    assert worker.ask("WORK_FAIL", first) == []
    assert worker.ask("WORK_FAIL", second) == [NOT_MINE]


def test_an_exception_for_a_job_never_held_opens_no_door(world: World) -> None:
    _, worker, _ = held(world)
    stranger = world.caller().submit()
    assert [said[:2] for said in worker.ask("WORK_EXCEPTION", stranger, b"e")] == [NOT_MINE[:2]]
    assert worker.ask("WORK_FAIL", stranger) == [NOT_MINE]
