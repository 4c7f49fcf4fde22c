"""The check of the books finds each kind of damage."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.check import faults_of


@pytest.fixture
def scene():
    """One function with a job in every state, a worker, a woken one and a sleeper."""
    world = World(durable=True)
    client, worker = world.connect(), world.worker(timeout=8)
    haunted = client.submit(workload=b"haunted")
    assert worker.grab() is haunted
    world.pass_time(8)
    running = client.submit(unique=b"u")
    other = world.worker()
    assert other.grab() is haunted
    assert worker.grab() is running
    other.leave()
    client.background()
    world.store_all()
    client.background(due=world.now.wall + 60)
    world.store_all()
    client.background()
    world.worker().sleep()  # woken at once
    world.connect("sleeper").can_do()
    world.running = running
    world.haunted = haunted
    assert faults(world) == []
    return world


def faults(world):
    return list(faults_of(world.function()))


@pytest.mark.parametrize(
    "counter", ["runnable", "running", "pending", "total", "ghosted", "covering"]
)
@pytest.mark.parametrize("by", [1, -1])
def test_a_wrong_counter_is_found(scene, counter, by):
    function = scene.function()
    value = getattr(function, counter)
    setattr(function, counter, value + by)
    assert faults(scene) == [f"{function!r}: {counter} is {value + by}, counted {value}"]


@pytest.mark.parametrize(("name", "what"), [("ready", "queued"), ("waiting", "waiting")])
@pytest.mark.parametrize("priority", range(3))
def test_a_wrong_counter_of_a_priority_is_found(scene, name, what, priority):
    function = scene.function()
    getattr(function, name)[priority] += 1
    (fault,) = faults(scene)
    assert fault.startswith(f"{function!r}: {what} is ")


def test_a_function_with_jobs_that_its_tenant_does_not_know_of_is_found(scene):
    function = scene.function()
    del function.tenant.ready[function]
    assert faults(scene) == [f"{function!r}: ready is False, counted True"]


def test_a_function_without_jobs_among_those_with_some_is_found(scene):
    function = scene.function(b"empty")
    function.tenant.ready[function] = None
    assert list(faults_of(function)) == [f"{function!r}: ready is True, counted False"]


def test_a_running_job_without_worker_is_found(scene):
    job = scene.running
    job.worker = None
    assert faults(scene) == [f"{job!r} has worker None"]


def test_a_queued_job_with_a_worker_is_found(scene):
    job = scene.haunted
    job.worker = scene.running.worker
    assert faults(scene) == [f"{job!r} has worker {job.worker!r}"]


def test_a_running_job_that_its_worker_knows_nothing_of_is_found(scene):
    job = scene.running
    del job.worker.jobs[job.handle]
    assert faults(scene) == [f"{job!r} is not held by its worker"]


def test_a_job_that_its_unique_does_not_lead_to_is_found(scene):
    job = scene.running
    job.function.uniques.remove(b"u")
    assert faults(scene) == [f"{job!r} cannot be found by its unique"]


def test_a_worker_asleep_and_not_among_the_sleepers_is_found(scene):
    function = scene.function()
    awake = next(peer for peer in function.workers if not peer.sleeping)
    awake.sleeping = True
    message = f"{function!r}: a worker is asleep and not among the sleepers, or the reverse"
    assert faults(scene) == [message]
    awake.sleeping = False
    function.sleepers[awake] = None
    assert faults(scene) == [message]


def test_a_lost_ghost_is_found(scene):
    scene.haunted.ghosts = None
    assert faults(scene) == [f"{scene.function()!r}: ghosted is 1, counted 0"]


def test_the_books_of_one_function_are_not_those_of_another_in_the_same_partition(scene):
    scene.connect().submit(b"g")
    assert faults(scene) == []
    scene.function(b"g").total += 1
    assert faults(scene) == []
