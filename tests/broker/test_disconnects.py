"""Every way in which a connection can go away."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.functions import Rules
from trigear.broker.jobs import QUEUED, RUNNING
from trigear.model import JobEnd

# Clients


def test_a_queued_foreground_job_ends_with_its_client(world):
    client = world.connect()
    job = client.submit()
    client.leave()
    assert world.status(job) is None
    assert (world.function().total, world.function().runnable) == (0, 0)
    assert world.worker().grab() is None
    assert world.ended == {JobEnd.ABANDONED: 1}


def test_a_running_foreground_job_runs_on_when_its_client_leaves(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    client.leave()
    assert (job.state, world.status(job)) == (RUNNING, job)
    assert worker.complete(job) is None
    assert client.heard == []
    assert world.ended == {JobEnd.COMPLETED: 1}


def test_an_abandoned_running_job_is_adopted_by_who_submits_the_same(world):
    client, worker, other = world.connect(), world.worker(), world.connect()
    job = client.submit(unique=b"u")
    assert worker.grab() is job
    client.leave()
    assert other.submit(unique=b"u") is job
    worker.leave()
    assert world.worker().grab_all() == [b"work"]
    assert other.told(job) == ["complete"]


def test_a_job_stays_while_another_client_waits_for_it(world):
    first, second, worker = world.connect(), world.connect(), world.worker()
    job = first.submit(unique=b"u")
    second.submit(unique=b"u")
    first.leave()
    assert worker.grab() is job
    worker.complete(job)
    assert (first.heard, second.told(job)) == ([], ["complete"])


def test_all_submissions_of_a_client_end_with_it(world):
    client = world.connect()
    job = client.submit(unique=b"u")
    client.submit(unique=b"u")
    others = [client.submit() for _ in range(3)]
    client.leave()
    assert [world.status(each) for each in (job, *others)] == [None] * 4


def test_background_jobs_stay_when_their_client_leaves(world):
    client = world.connect()
    queued = client.background()
    delayed = client.background(due=world.now.wall + 60)
    client.leave()
    assert world.status(queued) is queued
    assert world.status(delayed) is delayed


def test_a_background_job_loses_a_waiting_client_and_nothing_else(world):
    client, waiter, worker = world.connect(), world.connect(), world.worker()
    job = client.background(unique=b"u")
    waiter.submit(unique=b"u")
    waiter.leave()
    assert worker.grab() is job
    worker.complete(job)
    assert waiter.heard == []


# Workers


def test_a_job_is_queued_again_when_its_worker_leaves(world):
    client, worker, other = world.connect(), world.worker(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    job.progress = (1, 2)
    worker.leave()
    assert (job.state, job.losses, job.worker) == (QUEUED, 1, None)
    assert job.progress == (0, 0)
    assert client.heard == []
    assert other.grab() is job
    other.complete(job)
    assert client.told(job) == ["complete"]


def test_a_lost_job_goes_to_the_end_of_its_queue(world):
    client, worker = world.connect(), world.worker()
    client.submit(workload=b"lost")
    client.submit(workload=b"next")
    assert worker.grab() is not None
    worker.leave()
    assert world.worker().grab_all() == [b"next", b"lost"]


def test_all_jobs_of_a_worker_are_queued_again_in_their_order(world):
    client, worker = world.connect(), world.worker()
    for number in range(3):
        client.submit(workload=b"%d" % number)
        assert worker.grab() is not None
    worker.leave()
    assert world.worker().grab_all() == [b"0", b"1", b"2"]


def test_a_lost_job_wakes_a_sleeper(world):
    client, worker, sleeper = world.connect(), world.worker(), world.sleeper()
    client.submit()
    assert worker.grab() is not None
    assert sleeper.grab() is None
    sleeper.sleep()
    before = sleeper.noops
    worker.leave()
    assert sleeper.noops == before + 1


def test_the_deadline_goes_with_the_worker(world):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert worker.grab() is job
    worker.leave()
    world.pass_time(8)
    assert job.losses == 1


def test_a_lost_job_that_nobody_waits_for_any_more_ends(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    client.leave()
    worker.leave()
    assert world.status(job) is None
    assert world.ended == {JobEnd.ABANDONED: 1}
    assert world.function().total == 0


@pytest.mark.parametrize("asleep", [True, False])
def test_a_worker_that_leaves_is_in_nobody_s_list(world, asleep):
    worker = world.sleeper(b"f", b"g") if asleep else world.worker(b"f", b"g")
    worker.leave()
    for name in (b"f", b"g"):
        function = world.function(name)
        assert (len(function.workers), len(function.sleepers), function.covering) == (0, 0, 0)
    world.connect().submit()
    assert worker.noops == 0


def test_a_connection_that_left_is_neither_asleep_nor_choked(world):
    both = world.sleeper()
    both.choke()
    both.leave()
    assert (both.peer.sleeping, both.peer.choked) == (False, False)


def test_a_connection_that_never_did_anything_may_leave(world):
    world.connect().leave()


def test_a_worker_that_owes_the_answer_for_a_cancelled_job_may_leave(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    client.cancel(job.handle)
    worker.leave()
    assert worker.peer.ghosts == {}


# Attempts


def test_a_job_lost_often_enough_fails(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(attempts=3)})
    client = world.connect()
    job = client.submit()
    for _ in range(3):
        assert client.heard == []
        worker = world.worker()
        assert worker.grab() is job
        worker.leave()
    assert client.told(job) == ["failed"]
    assert world.status(job) is None
    assert world.ended == {JobEnd.EXHAUSTED: 1}
    assert world.given_up_jobs == []


def test_a_background_job_lost_often_enough_is_dropped_and_reported(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(attempts=1)})
    client, waiter, worker = world.connect(), world.connect(), world.worker()
    job = client.background(unique=b"u")
    waiter.submit(unique=b"u")
    assert worker.grab() is job
    worker.leave()
    assert world.given_up_jobs == [(job.handle, JobEnd.EXHAUSTED)]
    assert waiter.told(job) == ["failed"]
    assert client.heard == []


def test_without_a_limit_a_job_may_be_lost_for_ever(world):
    client = world.connect()
    job = client.submit()
    for _ in range(300):
        worker = world.worker()
        assert worker.grab() is job
        worker.leave()
    assert (job.state, job.losses) == (QUEUED, 300)


def test_losses_are_counted_whatever_caused_them(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(attempts=2)})
    client = world.connect()
    job = client.submit()
    first, second = world.worker(timeout=8), world.worker()
    assert first.grab() is job
    world.pass_time(8)
    assert second.grab() is job
    second.leave()
    assert client.told(job) == ["failed"]


# Both roles on one connection


def test_a_job_that_a_connection_does_for_itself_ends_with_it(world):
    both = world.worker()
    job = both.submit()
    assert both.grab() is job
    both.leave()
    assert world.status(job) is None
    assert world.ended == {JobEnd.ABANDONED: 1}
    assert both.heard == []


def test_a_job_that_a_connection_does_for_itself_and_another_goes_on_for_the_other(world):
    both, other, worker = world.worker(), world.connect(), world.worker()
    job = both.submit(unique=b"u")
    other.submit(unique=b"u")
    assert both.grab() is job
    both.leave()
    assert worker.grab() is job
    worker.complete(job)
    assert (both.heard, other.told(job)) == ([], ["complete"])


def test_a_background_job_that_a_connection_does_for_itself_goes_to_another(world):
    both, worker = world.worker(), world.worker()
    job = both.background()
    assert both.grab() is job
    both.leave()
    assert worker.grab() is job


def test_a_connection_with_a_ghost_of_its_own_job_takes_both_away(world):
    both = world.worker(timeout=8)
    job = both.submit()
    assert both.grab() is job
    world.pass_time(8)
    both.leave()
    assert world.status(job) is None
    assert world.function().ghosted == 0
    assert both.peer.ghosts == {}


def test_everything_at_once(world):
    """Holds a job, waits for one, owes an answer, is choked, has been woken."""
    both, other = world.worker(b"f", b"g", timeout=8), world.worker(b"g")
    lost = other.submit(b"f")
    assert both.grab() is lost
    world.pass_time(8)
    held, waited = other.submit(b"f"), both.submit(b"f")
    assert both.grab() is held
    both.choke()
    both.sleep()
    waiting = other.submit(b"g")
    assert both.noops == 1
    both.leave()
    assert [job.state for job in (lost, held, waiting)] == [QUEUED] * 3
    assert world.status(waited) is None
    assert other.peer.tenant.choked == 0
    assert world.broker.next_deadline() == float("inf")
    assert world.worker(b"f", b"g").grab_all() == [b"work"] * 3
