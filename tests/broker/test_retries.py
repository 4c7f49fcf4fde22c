"""Jobs that are tried again: when, how often, and what becomes of those who wait."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.broker import Late
from trigear.broker.functions import Rules
from trigear.broker.jobs import DELAYED, PARKED, QUEUED, RUNNING
from trigear.model import JobEnd, Priority

SLOW = Rules(at_once=1, backoff=4, backoff_factor=2, backoff_limit=10)


@pytest.fixture
def make(partitions):
    """A world with these rules for ``f``."""
    return lambda rules, **more: World(partitions=partitions, rules={b"f": rules}, **more)


def lose(world: World, job) -> None:
    worker = world.worker()
    assert worker.grab() is job
    worker.leave()


# Delays


@pytest.mark.parametrize(
    ("rules", "failed", "delays"),
    [
        (Rules(), False, [0, 0, 0, 0]),
        (SLOW, False, [0, 4, 8, 10]),
        (SLOW, True, [4, 8, 10, 10]),
        (Rules(backoff=4, backoff_limit=3), False, [3, 3, 3, 3]),
        (Rules(backoff=4, backoff_limit=300), False, [4, 4, 4, 4]),
        (Rules(at_once=2, backoff=1, backoff_factor=3, backoff_limit=300), False, [0, 0, 1, 3]),
    ],
)
def test_delays_grow_up_to_their_limit(rules, failed, delays):
    assert [rules.delay(losses, failed=failed) for losses in (1, 2, 3, 4)] == delays


def test_the_limit_holds_for_delays_that_no_number_can_tell():
    rules = Rules(backoff=1, backoff_factor=1e300, backoff_limit=60)
    assert rules.delay(1000, failed=False) == 60


def test_a_lost_job_is_queued_at_once_the_first_time_and_waits_later(make):
    world = make(SLOW)
    job = world.connect().submit()
    lose(world, job)
    assert job.state == QUEUED
    for delay in (4, 8, 10, 10):
        lose(world, job)
        assert (job.state, job.due) == (DELAYED, world.now.wall + delay)
        world.pass_time(delay - 1)
        assert world.worker().grab() is None
        world.pass_time(1)
        assert job.state == QUEUED


def test_chance_takes_up_to_half_of_the_delay(make):
    for chance, delay in ((0.0, 2), (0.5, 3), (1.0, 4)):
        world = make(SLOW, chance=chance)
        job = world.connect().submit()
        lose(world, job)
        lose(world, job)
        assert job.due == world.now.wall + delay


def test_a_job_that_timed_out_waits_as_well(make):
    world = make(Rules(timeout=2, backoff=4, backoff_limit=60))
    job = world.connect().submit()
    worker = world.worker()
    assert worker.grab() is job
    other = world.sleeper()
    world.pass_time(2)
    assert (job.state, worker.notices) == (DELAYED, [(job.handle, "timeout")])
    world.pass_time(4)
    assert (job.state, other.noops) == (QUEUED, 1)
    assert other.grab() is job


def test_a_late_answer_counts_while_the_job_waits(make):
    world = make(Rules(timeout=2, backoff=4, backoff_limit=60))
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    world.pass_time(2)
    assert worker.complete(job) is None
    assert client.told(job) == ["complete"]
    world.pass_time(60)
    assert world.worker().grab() is None


def test_who_waits_hears_nothing_of_losses_and_goes_on_waiting(make):
    world = make(Rules(timeout=2, backoff=4, backoff_limit=60))
    client = world.connect()
    job = client.submit()
    for _ in range(3):
        lose(world, job)
        world.pass_time(4)
        assert world.worker().grab() is job
        world.pass_time(2 + 4)
    assert client.heard == []
    worker = world.worker()
    assert worker.grab() is job
    worker.complete(job)
    assert client.told(job) == ["complete"]


def test_a_job_that_waits_attracts_submissions_and_ends_when_it_is_wanted_no_more(make):
    world = make(Rules(backoff=4, backoff_limit=60))
    one, two = world.connect(), world.connect()
    job = one.submit(unique=b"u")
    lose(world, job)
    assert two.submit(unique=b"u") is job
    one.leave()
    assert job.state == DELAYED
    two.leave()
    assert world.status(job) is None
    assert world.ended == {JobEnd.ABANDONED: 1}
    world.pass_time(60)


def test_a_job_that_waits_can_be_cancelled(make):
    world = make(Rules(backoff=4, backoff_limit=60))
    client = world.connect()
    job = client.submit()
    lose(world, job)
    assert client.cancel(job.handle)
    assert client.told(job) == ["failed"]
    world.pass_time(60)
    assert world.worker().grab() is None


def test_attempts_and_the_due_time_are_written_down(make):
    world = make(SLOW, durable=True)
    job = world.connect().background()
    world.store_all()
    lose(world, job)
    assert (world.ledger.losses, world.ledger.dues) == ({job.record: 1}, {job.record: 0.0})
    lose(world, job)
    assert world.ledger.losses == {job.record: 2}
    assert world.ledger.dues == {job.record: world.now.wall + 4}


def test_a_restored_job_waits_until_it_is_due_and_has_the_attempts_it_had(make):
    world = make(Rules(attempts=3, backoff=4, backoff_limit=60), term=2, durable=True)
    world.ledger.records.add(7)
    tenant = world.broker.tenant("default")
    job = world.broker.restore(
        *(tenant, b"f", b"", b"H:1", b"w", Priority.NORMAL, world.now),
        sequence=7,
        due=world.now.wall + 3,
        submitted=world.now.wall - 60,
        losses=2,
    )
    assert job.state == DELAYED
    world.pass_time(3)
    lose(world, job)
    assert world.status(job) is None
    assert world.given_up_jobs == [(b"H:1", JobEnd.EXHAUSTED)]


# Failures


@pytest.mark.parametrize("text", [b"", b"out of paper"])
def test_a_failure_ends_a_job_unless_its_function_says_otherwise(make, text):
    world = make(Rules(attempts=5))
    client, worker = world.connect(), world.worker()
    job = client.background()
    assert worker.grab() is job
    assert worker.fail(job, text) is None
    assert world.status(job) is None
    assert world.ended == {JobEnd.RAISED if text else JobEnd.FAILED: 1}


def test_a_background_job_that_failed_is_tried_again_and_who_waits_is_told(make):
    world = make(Rules(attempts=5, retry_failures=True, backoff=4, backoff_limit=60, at_once=1))
    one, two, worker = world.connect(), world.connect(), world.worker()
    job = one.background(unique=b"u")
    assert one.submit(unique=b"u") is one.submit(unique=b"u") is two.submit(unique=b"u") is job
    assert worker.grab() is job
    job.progress = (1, 2)
    assert worker.fail(job) is None
    assert (one.told(job), two.told(job)) == (["fail", "fail"], ["fail"])
    assert (one.peer.waiting, two.peer.waiting, len(job.waiters)) == ({}, {}, 0)
    # The first failure waits already: it is no worker that starts again.
    assert (job.state, job.due, job.losses) == (DELAYED, world.now.wall + 4, 1)
    assert job.progress == (0, 0)
    one.leave()
    world.pass_time(4)
    assert worker.grab() is job
    worker.complete(job)
    assert (two.told(job), world.ended) == (["fail"], {JobEnd.COMPLETED: 1})


def test_losses_and_failures_count_together(make):
    world = make(Rules(attempts=2, retry_failures=True))
    job = world.connect().background()
    lose(world, job)
    worker = world.worker()
    assert worker.grab() is job
    worker.fail(job)
    assert world.given_up_jobs == [(job.handle, JobEnd.EXHAUSTED)]


def test_a_foreground_job_that_failed_is_over(make):
    world = make(Rules(attempts=5, retry_failures=True, dead_letters=True, dead_failures=True))
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    assert worker.fail(job) is None
    assert (client.told(job), world.ended) == (["fail"], {JobEnd.FAILED: 1})


def test_a_late_failure_of_a_job_that_waits_for_its_next_attempt_counts_none(make):
    world = make(Rules(timeout=2, attempts=3, retry_failures=True))
    client, worker = world.connect(), world.worker()
    job = client.background(unique=b"u")
    client.submit(unique=b"u")
    assert worker.grab() is job
    world.pass_time(2)
    worker.sleep()
    assert worker.fail(job) is None
    assert client.told(job) == ["fail"]
    assert (job.state, job.losses) == (QUEUED, 1)
    # It owes nothing any more, and may have the job.
    assert worker.noops == 1
    assert worker.grab() is job


def test_a_late_failure_of_a_delayed_job_lets_it_wait(make):
    world = make(Rules(timeout=2, attempts=3, retry_failures=True, backoff=8, backoff_limit=60))
    worker = world.worker()
    job = world.connect().background()
    assert worker.grab() is job
    world.pass_time(2)
    assert worker.fail(job) is None
    assert (job.state, job.losses, job.ghosts) == (DELAYED, 1, None)


def test_a_late_failure_of_a_job_that_others_hold_is_dropped(make):
    world = make(Rules(timeout=2, attempts=3, retry_failures=True))
    slow, other = world.worker(), world.worker()
    job = world.connect().background()
    assert slow.grab() is job
    world.pass_time(2)
    assert other.grab() is job
    assert slow.fail(job) is Late.GHOST
    assert (job.state, job.worker) == (RUNNING, other.peer)


def test_a_failure_of_a_job_that_was_never_held_is_a_strangers(make):
    world = make(Rules(retry_failures=True))
    worker, stranger = world.worker(), world.worker()
    job = world.connect().background()
    assert worker.grab() is job
    assert stranger.fail(job) is Late.STRANGER


def test_a_failure_of_a_job_that_has_ended_is_dropped(make):
    world = make(Rules(retry_failures=True))
    client, worker = world.connect(), world.worker()
    job = client.background()
    assert worker.grab() is job
    client.cancel(job.handle)
    assert worker.fail(job) is Late.GHOST


def test_a_second_answer_of_who_had_the_job_twice_is_dropped(make):
    world = make(Rules(timeout=2, retry_failures=True))
    worker = world.worker()
    job = world.connect().background()
    assert worker.grab() is job
    world.pass_time(4)
    # It still owes an answer for the first time, but may have the job again.
    assert worker.grab() is job
    assert worker.complete(job) is None
    assert worker.fail(job) is Late.GHOST
    assert world.ended == {JobEnd.COMPLETED: 1}


# Expiry


def test_a_background_job_that_nobody_takes_expires(make):
    world = make(Rules(expires=10), durable=True)
    client = world.connect()
    job = client.background(unique=b"u")
    world.store_all()
    client.submit(unique=b"u")
    world.pass_time(9)
    assert job.state == QUEUED
    world.pass_time(1)
    assert (client.told(job), world.ended) == (["failed"], {JobEnd.EXPIRED: 1})
    assert world.given_up_jobs == [(job.handle, JobEnd.EXPIRED)]
    assert world.ledger.records == set()


def test_a_foreground_job_does_not_expire(make):
    world = make(Rules(expires=10))
    job = world.connect().submit()
    world.pass_time(100)
    assert job.state == QUEUED


@pytest.mark.parametrize("durable", [False, True])
def test_a_foreground_job_that_goes_to_the_background_expires_as_if_it_always_was(make, durable):
    world = make(Rules(expires=10), durable=durable)
    client = world.connect()
    job = client.submit(unique=b"u")
    world.pass_time(5)
    client.background(unique=b"u")
    if durable:
        world.store_all()
    world.pass_time(4)
    assert job.state == QUEUED
    world.pass_time(1)
    assert world.ended == {JobEnd.EXPIRED: 1}


def test_a_running_job_that_goes_to_the_background_does_not_expire(make):
    world = make(Rules(expires=10))
    client, worker = world.connect(), world.worker()
    job = client.submit(unique=b"u")
    assert worker.grab() is job
    client.background(unique=b"u")
    world.pass_time(100)
    assert job.state == RUNNING


def test_a_parked_job_that_goes_to_the_background_expires(make):
    world = make(Rules(expires=10))
    client = world.connect()
    job = client.submit(unique=b"u")
    client.choke()
    world.worker().sleep()
    assert job.state == PARKED
    world.connect().background(unique=b"u")
    world.pass_time(10)
    assert world.ended == {JobEnd.EXPIRED: 1}


def test_a_job_that_was_taken_once_does_not_expire_any_more(make):
    world = make(Rules(expires=10))
    client = world.connect()
    job = client.background()
    world.pass_time(5)
    lose(world, job)
    world.pass_time(100)
    assert job.state == QUEUED
    worker = world.worker()
    assert worker.grab() is job
    world.broker.release(worker.peer, job.handle, False, world.now)
    world.pass_time(100)
    assert job.state == QUEUED


def test_a_job_with_a_timeout_keeps_its_deadline_beside_the_expiry(make):
    world = make(Rules(expires=10, timeout=20, attempts=1))
    worker = world.worker()
    job = world.connect().background()
    assert worker.grab() is job
    world.pass_time(19)
    assert job.state == RUNNING
    world.pass_time(1)
    assert world.ended == {JobEnd.EXHAUSTED: 1}


def test_a_job_for_later_expires_after_its_time(make):
    world = make(Rules(expires=10))
    job = world.connect().background(due=world.now.wall + 50)
    world.pass_time(59)
    assert job.state == QUEUED
    world.pass_time(1)
    assert world.ended == {JobEnd.EXPIRED: 1}


def test_a_restored_job_expires_by_the_time_of_its_submission(make):
    world = make(Rules(expires=10), term=2, durable=True)
    world.ledger.records |= {1, 2, 3}
    tenant = world.broker.tenant("default")
    jobs = [
        world.broker.restore(
            *(tenant, b"f", b"", b"H:%d" % number, b"w", Priority.NORMAL, world.now),
            sequence=number,
            submitted=submitted,
            losses=losses,
        )
        for number, submitted, losses in (
            (1, world.now.wall - 8, 0),
            (2, 0.0, 0),
            (3, world.now.wall - 8, 1),
        )
    ]
    world.pass_time(2)
    assert [world.status(job) is job for job in jobs] == [False, True, True]
    world.pass_time(8)
    assert [world.status(job) is job for job in jobs] == [False, False, True]


def test_an_expired_job_that_ends_before_leaves_no_timer(make):
    world = make(Rules(expires=10))
    client = world.connect()
    for _ in range(3):
        client.cancel(client.background().handle)
    assert not any(partition.delayed for partition in world.broker.partitions.values())


def test_new_rules_say_when_queued_jobs_expire(make):
    world = make(Rules())
    client = world.connect()
    job, later = client.background(), client.background(due=world.now.wall + 100)
    world.pass_time(20)
    world.rules[b"f"] = Rules(expires=30)
    world.broker.apply_rules(world.now)
    world.rules[b"f"] = Rules(expires=60)
    world.broker.apply_rules(world.now)
    world.pass_time(39)
    assert job.state == QUEUED
    world.pass_time(1)
    assert (world.status(job), later.state) == (None, DELAYED)
    world.rules[b"f"] = Rules()
    world.broker.apply_rules(world.now)
    world.pass_time(1000)
    assert later.state == QUEUED
