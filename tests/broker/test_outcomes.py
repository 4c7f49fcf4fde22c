"""What became of a job is remembered for a while, whoever waited for it."""

from __future__ import annotations

import pytest

from trigear.broker.functions import Rules
from trigear.broker.outcomes import Outcome, Outcomes
from trigear.model import JobEnd


def outcome(world, job):
    return job.function.tenant.outcomes.get(job.handle)


@pytest.mark.parametrize("background", [True, False])
def test_an_outcome_says_how_when_and_after_how_many_attempts(world, background):
    client, worker = world.connect(), world.worker()
    job = client.submit(b"f", unique=b"u", background=background)
    assert outcome(world, job) is None
    worker.grab()
    assert outcome(world, job) is None
    world.pass_time(5)
    worker.complete(job)
    assert outcome(world, job) == Outcome(JobEnd.COMPLETED, 1, world.now.wall, b"f", b"u")


def test_attempts_that_were_lost_count_and_so_does_the_last_one(world):
    client = world.connect()
    job = client.background()
    for _ in range(2):
        worker = world.worker()
        worker.grab()
        worker.leave()
    worker = world.worker()
    worker.grab()
    worker.fail(job)
    assert outcome(world, job)[:2] == (JobEnd.FAILED, 3)


def test_a_late_answer_that_counts_is_the_attempt_that_had_timed_out(world):
    client, worker = world.connect(), world.worker(timeout=1.0)
    job = client.background()
    worker.grab()
    world.pass_time(1.5)
    worker.complete(job)
    assert outcome(world, job)[:2] == (JobEnd.COMPLETED, 1)


def test_a_job_that_may_not_take_too_long_had_one_attempt(world):
    world.rules[b"f"] = Rules(timeout=1.0, fail_on_timeout=True)
    client, worker = world.connect(), world.worker()
    job = client.submit()
    worker.grab()
    world.pass_time(1)
    assert outcome(world, job)[:2] == (JobEnd.TIMED_OUT, 1)


def test_a_job_that_never_began_had_no_attempt(world):
    client = world.connect()
    job = client.background()
    client.cancel(job.handle)
    assert outcome(world, job)[:2] == (JobEnd.CANCELLED, 0)


def test_tenants_remember_their_own(world):
    red, blue = world.connect(tenant="red"), world.connect(tenant="blue")
    job = red.background()
    red.cancel(job.handle)
    assert red.peer.tenant.outcomes.get(job.handle) is not None
    assert blue.peer.tenant.outcomes.get(job.handle) is None


def fill(outcomes: Outcomes, count: int) -> None:
    """As the broker does."""
    for number in range(count):
        outcomes.newest[b"%d" % number] = (JobEnd.FAILED, 0, 0, 0.0, b"f", b"")
        if len(outcomes.newest) >= outcomes.piece:
            outcomes.turn()


@pytest.mark.parametrize("limit", [1, 7, 8, 20, 100, 1000])
def test_at_least_so_many_are_remembered_and_not_many_more(limit):
    outcomes = Outcomes(limit)
    fill(outcomes, 5 * limit)
    assert all(outcomes.get(b"%d" % n) for n in range(4 * limit, 5 * limit))
    assert limit <= len(outcomes) < limit + 2 * outcomes.piece
    assert outcomes.get(b"0") is None


def test_none_are_remembered_where_none_are_wanted():
    outcomes = Outcomes(0)
    fill(outcomes, 3)
    assert len(outcomes) == 0


def test_the_latest_end_of_a_handle_counts():
    outcomes = Outcomes(80)
    for end in JobEnd:
        outcomes.newest[b"h"] = (end, 0, 0, 0.0, b"f", b"")
        outcomes.turn()
        assert outcomes.get(b"h").end is end
