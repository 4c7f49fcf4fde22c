"""Jobs that an earlier owner of the queue recorded, and what is recorded of their attempts."""

from __future__ import annotations

from tests.broker.world import World
from trigear.broker.functions import Rules
from trigear.broker.jobs import DELAYED, QUEUED, Job
from trigear.model import TERM_SHIFT, JobEnd, Priority

TERM = 3


def earlier(term: int = TERM) -> World:
    """A broker with owners before it."""
    return World(durable=True, term=term)


def put_back(world: World, sequence: int, **more: object) -> Job | None:
    """Restore a job of function ``f`` from the term before."""
    values: dict = {
        "name": b"f",
        "unique": b"",
        "handle": b"H:old:%d" % sequence,
        "workload": b"%d" % sequence,
        "priority": Priority.NORMAL,
        **more,
    }
    number = (TERM - 1 << TERM_SHIFT) + sequence
    tenant = world.broker.tenant(values.pop("tenant", "default"))
    job = world.broker.restore(tenant, now=world.now, sequence=number, **values)
    world.check()
    if job is not None:
        assert world.ledger is not None
        world.ledger.records.add(job.record)
    return job


def test_restored_jobs_are_handed_out_in_their_old_order_before_all_new_ones():
    world = earlier()
    for sequence in (1, 2, 3):
        put_back(world, sequence)
    client, worker = world.connect(), world.worker()
    client.submit(workload=b"new")
    assert worker.grab_all() == [b"1", b"2", b"3", b"new"]


def test_priorities_are_kept():
    world = earlier()
    for sequence, priority in enumerate((Priority.LOW, Priority.NORMAL, Priority.HIGH), 1):
        put_back(world, sequence, priority=priority)
    assert world.worker().grab_all() == [b"3", b"2", b"1"]


def test_a_restored_job_has_its_handle_and_everything_else():
    world = earlier()
    job = put_back(world, 1, handle=b"H:x:9", losses=4, reducer=b"r", unique=b"u")
    assert job is not None
    assert world.status(job) is job
    assert (job.handle, job.losses, job.reducer, job.unique) == (b"H:x:9", 4, b"r", b"u")
    assert (job.background, job.gate, job.state) == (True, None, QUEUED)


def test_a_new_submission_joins_a_restored_job_with_its_unique():
    world = earlier()
    job = put_back(world, 1, unique=b"u")
    client = world.connect()
    assert client.submit(unique=b"u") is job
    assert client.background(unique=b"u") is job
    assert world.ledger is not None
    assert world.ledger.kept == []


def test_the_unique_that_stands_for_the_workload_is_found_again():
    world = earlier()
    job = put_back(world, 1, unique=b"-", workload=b"same")
    assert world.connect().background(unique=b"-", workload=b"same") is job


def test_of_several_jobs_with_one_unique_none_is_lost_and_the_first_attracts():
    world = earlier()
    jobs = [put_back(world, sequence, unique=b"u") for sequence in (1, 2, 3)]
    assert world.connect().background(unique=b"u") is jobs[0]
    worker = world.worker()
    for job in jobs:
        assert worker.grab() is job
        worker.complete(job)
    assert world.ended == {JobEnd.COMPLETED: 3}


def test_a_second_job_with_the_same_handle_is_refused():
    world = earlier()
    put_back(world, 1, handle=b"H:x:9")
    assert put_back(world, 2, handle=b"H:x:9") is None
    assert put_back(world, 3, handle=b"H:x:9", name=b"g") is None
    assert put_back(world, 4, handle=b"H:x:9", tenant="red") is not None


def test_limits_do_not_hold_for_what_was_accepted_before():
    world = earlier()
    world.function().limits = [1, 1, 1]
    assert put_back(world, 1) is not None
    assert put_back(world, 2) is not None


def test_a_job_for_later_waits_for_its_time():
    world = earlier()
    job = put_back(world, 1, due=world.now.wall + 30)
    put_back(world, 2, due=world.now.wall - 30)
    worker = world.worker()
    assert job is not None
    assert job.state == DELAYED
    assert worker.grab_all() == [b"2"]
    world.pass_time(30)
    assert worker.grab_all() == [b"1"]


def test_the_record_of_a_restored_job_is_erased_when_it_ends():
    world = earlier()
    job = put_back(world, 1)
    worker = world.worker()
    assert worker.grab() is job
    worker.complete(job)
    assert world.ledger is not None
    assert (world.ledger.records, world.ledger.forgotten) == (set(), [job.record])


def test_a_job_that_has_used_up_its_attempts_but_one_is_given_up_at_the_next_loss():
    world = World(durable=True, term=TERM, rules={b"f": Rules(attempts=3)})
    put_back(world, 1, losses=2)
    worker = world.worker()
    worker.grab()
    worker.leave()
    assert world.ended == {JobEnd.EXHAUSTED: 1}


def test_a_lost_attempt_is_counted_in_the_record():
    world = World(durable=True, rules={b"f": Rules(attempts=3)})
    job = world.connect().background()
    world.store_all()
    assert world.ledger is not None
    for losses in (1, 2):
        worker = world.worker()
        worker.grab()
        worker.leave()
        assert world.ledger.losses == {job.record: losses}
    worker = world.worker()
    worker.grab()
    worker.leave()
    assert world.ledger.losses == {job.record: 2}
    assert world.ledger.forgotten == [job.record]


def test_a_job_without_a_record_has_its_lost_attempts_counted_nowhere():
    world = World(durable=True)
    client, worker = world.connect(), world.worker()
    client.submit(unique=b"u")
    worker.grab()
    # Promoted, and the record is on its way when the worker goes.
    client.background(unique=b"u")
    worker.leave()
    assert world.ledger is not None
    assert world.ledger.losses == {}
    world.store_all()
