"""Background jobs that have to be stored first."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.broker import FunctionBusy, QueueFull
from trigear.broker.functions import Rules
from trigear.broker.jobs import DELAYED, PARKED, PENDING, QUEUED
from trigear.model import JobEnd


def test_a_background_job_is_answered_and_handed_out_once_it_is_stored(durable):
    client, worker = durable.connect(), durable.worker()
    job = client.background(token="t")
    assert (job.state, client.answers, worker.grab()) == (PENDING, [], None)
    durable.store_all()
    assert client.answers == [("t", job.handle)]
    assert worker.grab() is job


def test_a_foreground_job_is_never_stored(durable):
    client, worker = durable.connect(), durable.worker()
    job = client.submit(token="t")
    assert client.answers == [("t", job.handle)]
    assert worker.grab() is job
    worker.complete(job)
    assert (durable.ledger.kept, durable.ledger.forgotten) == ([], [])


def test_a_job_that_could_not_be_stored_never_was(durable):
    client, worker = durable.connect(), durable.sleeper()
    job = client.background(unique=b"u", token="t")
    durable.lose_all()
    assert client.answers == [("t", None)]
    assert (durable.status(job), worker.noops, worker.grab()) == (None, 0, None)
    assert client.heard == []
    assert durable.ended == {JobEnd.NOT_STORED: 1}
    assert client.background(unique=b"u") is not job


def test_a_pending_job_is_unknown_to_everybody_but_submitters(durable):
    client, worker = durable.connect(), durable.worker()
    job = client.background(unique=b"u")
    worker.sleep()
    assert worker.noops == 0
    assert durable.status(job) is None
    assert durable.broker.status_of_unique(client.peer.tenant, b"u") is None
    assert not client.cancel(job.handle)
    function = durable.function()
    assert (function.pending, function.total, function.waiting) == (1, 0, [0, 0, 0])


def test_a_pending_job_counts_for_the_limit_which_is_given_back_if_it_is_not_stored(durable):
    client = durable.connect()
    durable.function().limits = [1, 1, 1]
    client.background()
    with pytest.raises(QueueFull):
        client.background()
    durable.lose_all()
    client.background()
    durable.store_all()
    with pytest.raises(QueueFull):
        client.background()


def test_a_stored_job_wakes_a_sleeper(durable):
    sleeper = durable.sleeper()
    durable.connect().background()
    assert sleeper.noops == 0
    durable.store_all()
    assert sleeper.noops == 1


def test_jobs_are_handed_out_in_the_order_of_their_submission_however_long_storing_took(durable):
    client, worker = durable.connect(), durable.worker()
    client.background(workload=b"stored")
    client.submit(workload=b"foreground")
    durable.store_all()
    client.submit(workload=b"later")
    assert worker.grab_all() == [b"stored", b"foreground", b"later"]


def test_jobs_of_one_batch_are_handed_out_in_the_order_of_their_submission(durable):
    client, worker = durable.connect(), durable.worker()
    for number in range(3):
        client.background(workload=b"%d" % number)
    durable.store_all()
    assert worker.grab_all() == [b"0", b"1", b"2"]


def test_a_delayed_job_waits_for_its_time_once_it_is_stored(durable):
    client, worker = durable.connect(), durable.worker()
    job = client.background(due=durable.now.wall + 60)
    durable.store_all()
    assert (job.state, worker.grab()) == (DELAYED, None)
    durable.pass_time(60)
    assert worker.grab() is job


def test_a_job_that_is_due_before_it_is_stored_is_handed_out_at_once(durable):
    client, worker = durable.connect(), durable.worker()
    job = client.background(due=durable.now.wall + 4)
    durable.pass_time(4)
    durable.store_all()
    assert worker.grab() is job


def test_the_record_is_erased_when_the_job_ends(durable):
    client, worker = durable.connect(), durable.worker()
    job = client.background()
    durable.store_all()
    assert durable.ledger.records == {job.record}
    assert worker.grab() is job
    assert durable.ledger.forgotten == []
    worker.complete(job)
    assert durable.ledger.records == set()


@pytest.mark.parametrize("end", ["cancelled", "dropped", "given up", "timed out"])
def test_the_record_is_erased_whatever_the_end(partitions, end):
    rules = {b"f": Rules(timeout=8, attempts=1, fail_on_timeout=end == "timed out")}
    world = World(partitions=partitions, durable=True, rules=rules)
    client, worker = world.connect(), world.worker()
    job = client.background()
    world.store_all()
    if end == "cancelled":
        client.cancel(job.handle)
    elif end == "dropped":
        worker.cant_do()
        world.drop()
    else:
        assert worker.grab() is job
        world.pass_time(8)
    assert world.status(job) is None
    assert world.ledger.records == set()


def test_a_job_queued_again_keeps_its_record(durable):
    client, worker = durable.connect(), durable.worker()
    job = client.background()
    durable.store_all()
    record = job.record
    assert worker.grab() is job
    worker.leave()
    assert job.seq > record
    assert job.record == record
    durable.worker().grab_all()
    assert durable.ledger.forgotten == [record]


def test_a_function_with_a_pending_job_is_not_dropped(durable):
    durable.connect().background()
    with pytest.raises(FunctionBusy):
        durable.drop()
    durable.store_all()
    assert durable.drop()


def test_a_pending_job_outlives_its_submitter(durable):
    client, worker = durable.connect(), durable.worker()
    job = client.background()
    client.leave()
    durable.store_all()
    assert worker.grab() is job


# Attaching to a pending job


def test_submissions_onto_a_pending_job_are_answered_with_it_in_their_order(durable):
    first, second = durable.connect(), durable.connect()
    job = first.background(unique=b"u", token=1)
    assert second.submit(unique=b"u", token=2) is job
    assert first.background(unique=b"u", token=3) is job
    assert durable.ledger.kept == [job]
    assert (first.answers, second.answers) == ([], [])
    durable.store_all()
    assert first.answers == [(1, job.handle), (3, job.handle)]
    assert second.answers == [(2, job.handle)]
    durable.worker().grab_all()
    assert (first.heard, second.told(job)) == ([], ["complete"])


def test_all_submissions_onto_a_job_that_could_not_be_stored_are_refused_and_nothing_else(durable):
    first, second = durable.connect(), durable.connect()
    first.background(unique=b"u", token=1)
    second.submit(unique=b"u", token=2)
    durable.lose_all()
    assert (first.answers, second.answers) == ([(1, None)], [(2, None)])
    assert (first.heard, second.heard) == ([], [])
    assert second.peer.waiting == {}


def test_a_client_that_waited_for_a_pending_job_may_leave(durable):
    first, second, worker = durable.connect(), durable.connect(), durable.worker()
    job = first.background(unique=b"u")
    second.submit(unique=b"u")
    second.leave()
    durable.store_all()
    assert worker.grab() is job
    assert not job.waiters


# A background submission onto a foreground job


def promoting(world):
    """A foreground job with a background submission whose record is on its way."""
    client, submitter = world.connect("client"), world.connect("submitter")
    job = client.submit(unique=b"u")
    assert submitter.background(unique=b"u", token="t") is job
    assert (job.background, submitter.answers) == (False, [])
    return client, submitter, job


def test_a_job_is_promoted_when_its_record_is_stored(durable):
    client, submitter, job = promoting(durable)
    durable.store_all()
    assert submitter.answers == [("t", job.handle)]
    client.leave()
    assert durable.worker().grab() is job


def test_a_job_goes_on_while_its_record_is_on_its_way(durable):
    client, _, job = promoting(durable)
    worker = durable.worker()
    assert worker.grab() is job
    worker.complete(job)
    assert client.told(job) == ["complete"]


def test_a_submission_that_could_not_be_stored_leaves_the_foreground_job_as_it_was(durable):
    client, submitter, job = promoting(durable)
    durable.lose_all()
    assert submitter.answers == [("t", None)]
    assert (job.state, job.background, job.record) == (QUEUED, False, 0)
    client.leave()
    assert durable.status(job) is None
    assert durable.ledger.forgotten == []


def test_another_try_to_promote_makes_another_record(durable):
    client, submitter, job = promoting(durable)
    durable.lose_all()
    assert submitter.background(unique=b"u", token="again") is job
    assert durable.ledger.kept == [job]
    durable.store_all()
    client.leave()
    durable.worker().grab_all()
    assert durable.ledger.forgotten == [job.record]


def test_submissions_while_a_record_is_on_its_way(durable):
    """Another in the background waits for the same record; one in the foreground for nothing."""
    _, _, job = promoting(durable)
    other = durable.connect()
    assert other.background(unique=b"u", token="bg") is job
    assert other.submit(unique=b"u", token="fg") is job
    assert other.answers == [("fg", job.handle)]
    assert durable.ledger.kept == [job]
    durable.store_all()
    assert other.answers == [("fg", job.handle), ("bg", job.handle)]


def test_a_job_left_by_its_clients_lives_while_its_record_is_on_its_way(durable):
    client, _, job = promoting(durable)
    client.leave()
    assert job.state == QUEUED
    durable.store_all()
    assert (job.state, job.background) == (QUEUED, True)


def test_a_job_left_by_its_clients_ends_if_its_record_could_not_be_stored(durable):
    client, submitter, job = promoting(durable)
    client.leave()
    durable.lose_all()
    assert submitter.answers == [("t", None)]
    assert durable.status(job) is None
    assert durable.ended == {JobEnd.ABANDONED: 1}


def test_a_running_job_runs_on_if_its_clients_left_and_its_record_could_not_be_stored(durable):
    client, _, job = promoting(durable)
    worker = durable.worker()
    assert worker.grab() is job
    client.leave()
    durable.lose_all()
    assert durable.status(job) is job
    worker.leave()
    assert durable.ended == {JobEnd.ABANDONED: 1}


def test_a_job_lost_by_its_worker_and_left_by_its_clients_lives_while_its_record_is_on_its_way(
    durable,
):
    client, _, job = promoting(durable)
    worker = durable.worker()
    assert worker.grab() is job
    client.leave()
    worker.leave()
    assert job.state == QUEUED
    durable.store_all()
    assert durable.worker().grab() is job


def test_a_job_that_ends_before_its_record_is_stored_is_answered_and_erased(durable):
    client, submitter, job = promoting(durable)
    durable.worker().grab_all()
    assert client.told(job) == ["complete"]
    assert durable.ledger.forgotten == [job.record]
    durable.broker.stored(job, durable.now)
    assert submitter.answers == [("t", job.handle)]
    assert durable.status(job) is None


def test_a_job_that_ends_before_its_record_could_not_be_stored_is_refused(durable):
    _, submitter, job = promoting(durable)
    durable.worker().grab_all()
    durable.broker.not_stored(job, durable.now)
    assert submitter.answers == [("t", None)]


def test_a_parked_job_is_wanted_once_it_is_promoted(durable):
    client, submitter, worker = durable.connect(), durable.connect(), durable.worker()
    job = client.submit(unique=b"u")
    client.choke()
    worker.sleep()
    submitter.background(unique=b"u")
    assert (job.state, worker.noops) == (PARKED, 0)
    durable.store_all()
    assert worker.noops == 1
    assert worker.grab() is job


def test_a_parked_job_is_wanted_while_its_record_is_on_its_way_once_its_client_detached(durable):
    client, _, job = promoting(durable)
    worker = durable.worker()
    client.choke()
    worker.sleep()
    assert (job.state, worker.noops) == (PARKED, 0)
    assert durable.broker.detach(client.peer, job.handle, durable.now)
    assert worker.noops == 1
    assert worker.grab() is job


def test_a_parked_job_is_wanted_while_its_record_is_on_its_way_once_its_client_left(durable):
    client, _, job = promoting(durable)
    worker = durable.worker()
    client.choke()
    worker.sleep()
    assert (job.state, worker.noops) == (PARKED, 0)
    client.leave()
    assert worker.noops == 1
    assert worker.grab() is job


def test_a_promoted_job_given_up_before_it_is_stored_is_reported(partitions):
    world = World(partitions=partitions, durable=True, rules={b"f": Rules(attempts=1)})
    _, submitter, job = promoting(world)
    worker = world.worker()
    assert worker.grab() is job
    worker.leave()
    assert world.given_up_jobs == [(job.handle, JobEnd.EXHAUSTED)]
    world.broker.stored(job, world.now)
    assert submitter.answers == [("t", job.handle)]


def test_pending_jobs_of_two_tenants_with_the_same_unique_are_two(durable):
    red, blue = durable.connect(tenant="red"), durable.connect(tenant="blue")
    jobs = [red.background(unique=b"u"), blue.background(unique=b"u")]
    assert durable.ledger.kept == jobs
    assert jobs[0] is not jobs[1]
