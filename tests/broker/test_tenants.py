"""Tenants with the same names for everything never meet."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.broker import Late
from trigear.model import JobEnd


@pytest.fixture
def pair(world):
    """A client of each of two tenants."""
    return world.connect("red", "red"), world.connect("blue", "blue")


def test_functions_of_the_same_name_are_two(world):
    assert world.function(b"f", "red") is not world.function(b"f", "blue")


def test_the_same_unique_does_not_coalesce(pair):
    red, blue = pair
    job = red.submit(unique=b"u")
    assert blue.submit(unique=b"u") is not job
    assert red.submit(unique=b"-", workload=b"w") is not blue.submit(unique=b"-", workload=b"w")


def test_a_worker_gets_jobs_of_its_own_tenant_only(world, pair):
    red, _ = pair
    job = red.submit()
    stranger = world.worker(tenant="blue")
    assert stranger.grab() is None
    stranger.sleep()
    assert stranger.noops == 0
    assert world.worker(tenant="red").grab() is job


def test_nobody_is_woken_for_the_job_of_another_tenant(world, pair):
    red, _ = pair
    stranger = world.sleeper(tenant="blue")
    red.submit()
    assert stranger.noops == 0


def test_the_handle_of_another_tenant_s_job_is_unknown(world, pair):
    red, blue = pair
    job = red.submit(unique=b"u")
    assert world.broker.status(blue.peer.tenant, job.handle) is None
    assert world.broker.status_of_unique(blue.peer.tenant, b"u") is None
    assert not blue.cancel(job.handle)
    assert world.status(job) is job


def test_limits_are_the_tenant_s_own(world, pair):
    red, blue = pair
    world.function(b"f", "red").limits = [1, 1, 1]
    red.submit()
    blue.submit()
    blue.submit()


def test_dropping_a_function_leaves_the_other_tenant_s(world, pair):
    red, blue = pair
    job, other = red.submit(), blue.submit()
    assert world.drop(b"f", "red")
    assert world.status(job) is None
    assert world.status(other) is other
    assert [function.tenant.name for function in world.functions] == ["blue"]


def test_a_choked_client_holds_up_nothing_of_the_other_tenant(world, pair):
    red, blue = pair
    red.submit()
    job = blue.submit()
    red.choke()
    assert world.worker(tenant="blue").grab() is job


def test_answers_are_told_to_the_tenant_s_own_client(world, pair):
    red, blue = pair
    job, other = red.submit(unique=b"u"), blue.submit(unique=b"u")
    worker = world.worker(tenant="red")
    assert worker.grab() is job
    worker.complete(job)
    assert red.told(job) == ["complete"]
    assert blue.heard == []
    assert world.status(other) is other


def test_a_worker_is_a_stranger_to_the_other_tenant_s_handle(world, pair):
    red, _ = pair
    job = red.submit()
    assert world.worker(tenant="red").grab() is job
    assert world.worker(tenant="blue").complete(job) is Late.STRANGER
    assert world.ended == {}


def test_losses_and_deadlines_stay_within_the_tenant(world, pair):
    red, blue = pair
    job = red.submit()
    slow = world.worker(timeout=8, tenant="red")
    assert slow.grab() is job
    stranger = world.sleeper(tenant="blue")
    world.pass_time(8)
    assert stranger.noops == 0
    assert stranger.grab() is None
    slow.leave()
    assert stranger.grab() is None
    red.leave()
    assert world.ended == {JobEnd.ABANDONED: 1}
    assert blue.heard == []


def test_a_tenant_is_made_once():
    world = World()
    assert world.broker.tenant("red") is world.broker.tenant("red")
    assert world.broker.tenant("red") is not world.broker.tenant("blue")
