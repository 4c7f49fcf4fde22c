"""Jobs that workers give back, that clients stop waiting for, and that silent workers lose."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.assignments import RELEASE_SECONDS
from trigear.broker.broker import Late
from trigear.broker.functions import Rules
from trigear.broker.jobs import DELAYED, PARKED, PENDING, QUEUED, RUNNING
from trigear.broker.peers import GHOST_LIMIT
from trigear.model import JobEnd, Priority


def release(worker, job, *, late=False):
    world = worker.world
    answer = world.broker.release(worker.peer, job.handle, late, world.now)
    world.check()
    return answer


def detach(client, job):
    found = client.world.broker.detach(client.peer, job.handle, client.world.now)
    client.world.check()
    return found


def fall_silent(worker):
    lost = worker.world.broker.lose_jobs(worker.peer, worker.world.now)
    worker.world.check()
    return lost


def given_back(world, *, late=False, timeout=8.0):
    """A foreground job that a worker gave back: client, worker, job."""
    client, worker = world.connect("client"), world.worker(timeout=timeout)
    job = client.submit()
    assert worker.grab() is job
    assert release(worker, job, late=late) is None
    assert (job.worker, job.state) == (None, QUEUED)
    return client, worker, job


LATE = pytest.mark.parametrize("late", [False, True], ids=["drain", "deadline"])


# Giving a job back


def test_a_job_given_back_has_lost_no_attempt(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(attempts=1)})
    client, _, job = given_back(world)
    other = world.worker()
    assert other.grab() is job
    assert job.losses == 0
    other.complete(job)
    assert client.told(job) == ["complete"]


@LATE
def test_a_job_given_back_goes_to_the_end_of_its_queue_and_forgets_its_progress(world, late):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit(workload=b"back")
    assert worker.grab() is job
    job.progress = (1, 2)
    client.submit(workload=b"next")
    client.submit(workload=b"urgent", priority=Priority.HIGH)
    release(worker, job, late=late)
    assert job.progress == (0, 0)
    assert world.worker().grab_all() == [b"urgent", b"next", b"back"]


@LATE
def test_the_clients_of_a_job_given_back_hear_nothing_and_stay(world, late):
    client, _, job = given_back(world, late=late)
    assert client.heard == []
    other = world.worker()
    assert other.grab() is job
    other.complete(job)
    assert client.told(job) == ["complete"]


@LATE
def test_who_gives_a_job_back_is_not_told_that_it_lost_it(world, late):
    _, worker, _ = given_back(world, late=late)
    assert worker.notices == []


@LATE
def test_a_job_given_back_is_not_offered_to_the_same_worker_for_its_timeout(world, late):
    _, worker, job = given_back(world, late=late, timeout=8)
    worker.sleep()
    world.pass_time(7.5)
    assert (worker.grab(), worker.noops) == (None, 0)
    worker.sleep()
    world.pass_time(0.5)
    assert worker.noops == 1
    assert worker.grab() is job


@LATE
@pytest.mark.parametrize(
    ("rules", "seconds"), [(Rules(timeout=32), 32), (Rules(), RELEASE_SECONDS)]
)
def test_without_a_timeout_of_the_workers_another_one_serves(partitions, late, rules, seconds):
    world = World(partitions=partitions, rules={b"f": rules})
    _, worker, job = given_back(world, late=late, timeout=0)
    world.pass_time(seconds - 0.5)
    assert worker.grab() is None
    world.pass_time(0.5)
    assert worker.grab() is job


def test_a_worker_that_has_taken_its_function_back_can_still_give_its_job_back(world):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert worker.grab() is job
    worker.cant_do()
    assert release(worker, job) is None
    worker.can_do()
    world.pass_time(RELEASE_SECONDS - 0.5)
    assert worker.grab() is None
    world.pass_time(0.5)
    assert worker.grab() is job


@LATE
def test_a_job_given_back_wakes_a_sleeper_but_not_who_gave_it_back(world, late):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert worker.grab() is job
    worker.sleep()
    other = world.sleeper()
    release(worker, job, late=late)
    assert (worker.noops, other.noops) == (0, 1)
    assert other.grab() is job


@LATE
def test_other_jobs_are_offered_to_who_gave_one_back(world, late):
    client, worker, job = given_back(world, late=late)
    client.submit(workload=b"next")
    assert worker.grab_all() == [b"next"]
    assert world.worker().grab() is job


@LATE
def test_a_job_given_back_has_no_deadline_any_more(world, late):
    client, _, job = given_back(world, late=late, timeout=8)
    other = world.worker()
    assert other.grab() is job
    world.pass_time(1000)
    assert job.worker is other.peer
    assert client.heard == []


@LATE
def test_a_job_given_back_that_nobody_waits_for_any_more_ends(world, late):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert worker.grab() is job
    client.leave()
    assert release(worker, job, late=late) is None
    assert world.ended == {JobEnd.ABANDONED: 1}
    assert world.broker.next_deadline() == float("inf")


@LATE
def test_who_never_held_a_job_cannot_give_it_back(world, late):
    client, stranger = world.connect(), world.worker()
    job = client.submit()
    assert release(stranger, job, late=late) is Late.STRANGER
    assert world.worker().grab() is job
    assert release(stranger, job, late=late) is Late.STRANGER
    assert job.state == RUNNING


@LATE
def test_what_else_is_said_of_a_job_given_back_is_as_late_as_a_ghosts(world, late):
    client, worker, job = given_back(world, late=late)
    assert worker.held(job) is Late.GHOST
    other = world.worker()
    assert other.grab() is job
    assert worker.complete(job) is Late.GHOST
    assert worker.complete(job) is Late.STRANGER
    other.complete(job)
    assert client.told(job) == ["complete"]


@LATE
def test_a_job_given_back_leaves_no_trace_once_it_has_ended_and_its_worker_left(world, late):
    _, worker, job = given_back(world, late=late)
    other = world.worker()
    assert other.grab() is job
    other.complete(job)
    worker.leave()
    assert (worker.peer.ghosts, world.function().ghosted) == ({}, 0)
    assert world.broker.next_deadline() == float("inf")


def test_who_leaves_after_giving_a_job_back_leaves_no_ghost(world):
    _, worker, job = given_back(world)
    worker.leave()
    assert (job.ghosts, world.function().ghosted) == (None, 0)
    assert world.worker().grab() is job


def test_a_worker_that_gives_everything_back_is_offered_the_oldest_again_at_last(world):
    """What is remembered of a worker has its limit, and so has the time to look for its next
    job."""
    client, worker = world.connect(), world.worker()
    with world.unchecked():
        jobs = [client.background() for _ in range(GHOST_LIMIT + 1)]
        for job in jobs:
            assert worker.grab() is job
            world.broker.release(worker.peer, job.handle, False, world.now)
    assert len(worker.peer.ghosts) == GHOST_LIMIT
    assert worker.grab() is jobs[0]
    assert worker.grab() is None


def test_a_job_given_back_makes_the_oldest_of_too_many_ghosts_rest(world):
    client, slow = world.connect(), world.worker(timeout=1024)
    with world.unchecked():
        jobs = [client.background() for _ in range(GHOST_LIMIT)]
        assert [slow.grab() for _ in jobs] == jobs
    slow.can_do(b"g")
    last = client.background(b"g")
    assert slow.grab() is last
    slow.sleep()
    world.pass_time(1024)
    assert slow.noops == 0
    release(slow, last)
    assert slow.noops == 1
    assert slow.grab() is jobs[0]


# Giving a job back because it took too long


def test_giving_back_at_the_deadline_uses_an_attempt(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(timeout=8, attempts=2)})
    client = world.connect()
    job = client.submit()
    for losses in (1, 2):
        worker = world.worker()
        assert worker.grab() is job
        release(worker, job, late=True)
        assert job.losses == losses
    assert client.told(job) == ["failed"]
    assert world.ended == {JobEnd.EXHAUSTED: 1}


def test_giving_back_at_the_deadline_fails_where_timeouts_do(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(fail_on_timeout=True)})
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.background()
    assert worker.grab() is job
    assert release(worker, job, late=True) is None
    assert world.ended == {JobEnd.TIMED_OUT: 1}
    assert world.given_up_jobs == [(job.handle, JobEnd.TIMED_OUT)]
    assert worker.complete(job) is Late.GHOST
    assert world.broker.next_deadline() == float("inf")


def test_giving_back_for_other_reasons_never_fails(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(attempts=1, fail_on_timeout=True)})
    _, _, job = given_back(world)
    assert world.worker().grab() is job
    assert world.ended == {}


# Giving back what was taken away


@LATE
def test_giving_a_ghost_back_ends_it(world, late):
    client, slow = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert slow.grab() is job
    slow.sleep()
    world.pass_time(8)
    assert (slow.noops, job.losses) == (0, 1)
    assert release(slow, job, late=late) is None
    assert (slow.noops, job.losses) == (1, 1)
    assert slow.grab() is job


@LATE
def test_giving_a_ghost_back_while_another_holds_the_job_changes_nothing_for_it(world, late):
    client, slow, other = world.connect(), world.worker(timeout=8), world.worker()
    job = client.submit()
    assert slow.grab() is job
    world.pass_time(8)
    assert other.grab() is job
    assert release(slow, job, late=late) is None
    assert (job.worker, job.losses) == (other.peer, 1)
    other.leave()
    assert slow.grab() is job


@LATE
def test_a_job_that_has_ended_elsewhere_can_be_given_back_once(world, late):
    client, slow, other = world.connect(), world.worker(timeout=8), world.worker()
    job = client.submit()
    assert slow.grab() is job
    world.pass_time(8)
    assert other.grab() is job
    other.complete(job)
    assert release(slow, job, late=late) is None
    assert release(slow, job, late=late) is Late.STRANGER
    assert client.told(job) == ["complete"]


@LATE
def test_a_cancelled_job_can_be_given_back_once(world, late):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    client.cancel(job.handle)
    assert worker.notices == [(job.handle, "cancelled")]
    assert release(worker, job, late=late) is None
    assert release(worker, job, late=late) is Late.STRANGER
    assert world.ended == {JobEnd.CANCELLED: 1}


def test_the_server_tells_the_worker_whose_time_is_over(world):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert worker.grab() is job
    world.pass_time(8)
    assert worker.notices == [(job.handle, "timeout")]


def test_a_job_that_ends_well_is_no_news_to_its_worker(world):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert worker.grab() is job
    worker.complete(job)
    world.pass_time(100)
    assert worker.notices == []


# Falling silent


def test_the_jobs_of_a_silent_worker_wake_sleepers(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    sleeper = world.sleeper()
    assert fall_silent(worker) == 1
    assert sleeper.noops == 1
    assert sleeper.grab() is job
    assert worker.complete(job) is Late.GHOST


def test_a_silent_worker_with_too_many_ghosts_is_offered_the_oldest_when_it_sleeps(world):
    client, background, slow = world.connect(), world.connect(), world.worker(timeout=1024)
    with world.unchecked():
        jobs = [background.background() for _ in range(GHOST_LIMIT)]
        assert [slow.grab() for _ in jobs] == jobs
    slow.can_do(b"g")
    last = client.submit(b"g")
    assert slow.grab() is last
    client.leave()
    slow.sleep()
    world.pass_time(1024)
    assert slow.noops == 0
    assert fall_silent(slow) == 1
    assert slow.noops == 1
    assert slow.grab() is jobs[0]


# Records


def stored_and_held(world):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.background()
    world.store_all()
    assert worker.grab() is job
    return worker, job


def test_giving_back_writes_nothing(durable):
    worker, job = stored_and_held(durable)
    release(worker, job)
    assert (durable.ledger.records, durable.ledger.losses) == ({job.record}, {})


def test_giving_back_at_the_deadline_writes_the_lost_attempt(durable):
    worker, job = stored_and_held(durable)
    release(worker, job, late=True)
    assert durable.ledger.losses == {job.record: 1}


# No longer waiting


def test_a_job_that_nobody_waits_for_any_more_is_dropped_if_it_has_not_started(world):
    client = world.connect()
    job = client.submit()
    assert detach(client, job)
    assert world.ended == {JobEnd.ABANDONED: 1}
    assert (client.peer.waiting, world.worker().grab()) == ({}, None)
    assert client.heard == []


def test_a_parked_job_that_nobody_waits_for_any_more_is_dropped(world):
    client = world.connect()
    job = client.submit()
    client.choke()
    assert world.worker().grab() is None
    assert job.state == PARKED
    assert detach(client, job)
    assert world.ended == {JobEnd.ABANDONED: 1}


def test_a_running_job_goes_on_without_its_client(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    assert detach(client, job)
    assert job.state == RUNNING
    assert worker.complete(job) is None
    assert client.heard == []
    assert world.ended == {JobEnd.COMPLETED: 1}


def test_a_running_job_without_clients_ends_when_its_attempt_does(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    detach(client, job)
    worker.leave()
    assert world.ended == {JobEnd.ABANDONED: 1}


def test_each_submission_is_taken_back_by_itself(world):
    client, worker = world.connect(), world.worker()
    job, same, again = (client.submit(unique=b"u") for _ in range(3))
    assert job is same is again
    assert detach(client, job)
    assert job in client.peer.waiting
    assert worker.grab() is job
    worker.complete(job)
    assert client.told(job) == ["complete", "complete"]
    assert not detach(client, job)


def test_others_go_on_waiting(world):
    client, other, worker = world.connect(), world.connect(), world.worker()
    job = client.submit(unique=b"u")
    assert other.submit(unique=b"u") is job
    assert detach(client, job)
    assert not detach(client, job)
    assert worker.grab() is job
    worker.complete(job)
    assert (client.told(job), other.told(job)) == ([], ["complete"])


def test_a_background_job_needs_nobody_who_waits(world):
    client, worker = world.connect(), world.worker()
    job = client.background(unique=b"u")
    assert client.submit(unique=b"u") is job
    assert detach(client, job)
    assert not detach(client, job)
    assert worker.grab() is job


def test_a_delayed_job_lives_on_without_who_waits_for_it(world):
    client = world.connect()
    job = client.background(unique=b"u", due=world.now.wall + 100)
    client.submit(unique=b"u")
    assert job.state == DELAYED
    assert detach(client, job)
    assert job.state == DELAYED


def test_a_job_on_its_way_to_the_store_lives_on_without_who_waits_for_it(durable):
    client = durable.connect()
    job = client.background(unique=b"u", token=1)
    client.submit(unique=b"u", token=2)
    assert job.state == PENDING
    assert detach(client, job)
    durable.store_all()
    assert client.answers == [(1, job.handle), (2, job.handle)]
    assert durable.worker().grab() is job


def test_a_job_that_is_being_promoted_lives_on_until_its_record_is_not_stored(durable):
    client = durable.connect()
    job = client.submit(unique=b"u")
    client.background(unique=b"u", token=1)
    assert detach(client, job)
    assert job.state == QUEUED
    durable.lose_all()
    assert client.answers[-1] == (1, None)
    assert durable.ended == {JobEnd.ABANDONED: 1}


def test_who_does_not_wait_cannot_stop_waiting(world):
    client, stranger, elsewhere = world.connect(), world.connect(), world.connect(tenant="t")
    job = client.submit()
    assert not detach(stranger, job)
    assert not detach(elsewhere, job)
    assert not world.broker.detach(client.peer, b"H:unknown", world.now)
    assert world.worker().grab() is job


def test_who_stops_waiting_while_all_are_told_disturbs_nobody_who_is_still_to_be_told(world):
    """A sink may close its connection, or do anything else, when it is told."""
    first, second, worker = world.connect(), world.connect(), world.worker()
    job = first.submit(unique=b"u")
    second.submit(unique=b"u")

    def close(handle: bytes) -> None:
        detach(first, job)

    first.failed = close
    assert worker.grab() is job
    first.cancel(job.handle)
    assert second.told(job) == ["failed"]


# Silence


def test_the_jobs_of_a_silent_worker_go_to_others(world):
    client, silent, other = world.connect(), world.worker(timeout=8), world.worker()
    jobs = [client.submit() for _ in range(2)]
    assert [silent.grab() for _ in jobs] == jobs
    assert fall_silent(silent) == 2
    assert [other.grab() for _ in jobs] == jobs
    assert [job.losses for job in jobs] == [1, 1]
    world.pass_time(100)
    assert [job.worker for job in jobs] == [other.peer] * 2


def test_what_a_silent_worker_says_at_last_is_dropped(world):
    client, silent = world.connect(), world.worker()
    job = client.submit()
    assert silent.grab() is job
    fall_silent(silent)
    assert silent.held(job) is Late.GHOST
    assert silent.complete(job) is Late.GHOST
    assert (client.heard, job.state) == ([], QUEUED)


def test_who_speaks_again_gets_jobs_again(world):
    client, silent = world.connect(), world.worker()
    job = client.submit()
    assert silent.grab() is job
    fall_silent(silent)
    assert silent.grab() is job
    silent.complete(job)
    assert client.told(job) == ["complete"]


def test_silence_uses_attempts_up(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(attempts=1)})
    client, silent = world.connect(), world.worker()
    job = client.submit()
    assert silent.grab() is job
    fall_silent(silent)
    assert client.told(job) == ["failed"]
    assert world.ended == {JobEnd.EXHAUSTED: 1}


def test_a_worker_that_holds_nothing_loses_nothing_by_its_silence(world):
    assert fall_silent(world.worker()) == 0
