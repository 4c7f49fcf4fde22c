"""What operators do: pause functions, queue jobs anew, change their priority."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.broker import QueueFull
from trigear.broker.functions import Rules
from trigear.broker.jobs import DELAYED, PARKED, QUEUED, RUNNING
from trigear.model import JobEnd, Priority

NORMAL, HIGH, LOW = Priority.NORMAL, Priority.HIGH, Priority.LOW


def pause(world: World, *names: bytes, paused: bool = True) -> None:
    for name in names:
        world.rules[name] = Rules(paused=paused)
    world.broker.apply_rules(world.now)
    world.check()


def requeue(world: World, job) -> bool:
    found = world.broker.requeue(job.function.tenant, job.handle, world.now)
    world.check()
    return found


def prioritize(world: World, job, priority: int) -> bool:
    found = world.broker.set_priority(job.function.tenant, job.handle, priority)
    world.check()
    return found


# Pausing


def test_a_paused_function_takes_jobs_and_hands_out_none(world):
    client, worker = world.connect(), world.sleeper()
    job = client.submit()
    assert worker.noops == 1
    pause(world, b"f")
    assert worker.grab() is None
    worker.sleep()
    later = client.background()
    assert (worker.noops, job.state, later.state) == (1, QUEUED, QUEUED)
    pause(world, b"f", paused=False)
    assert worker.noops == 2
    assert worker.grab() is job


def test_a_worker_goes_on_with_functions_that_are_not_paused(world):
    client, worker = world.connect(), world.worker(b"f", b"g", b"h")
    pause(world, b"f", b"h")
    client.submit(b"f", priority=HIGH)
    job = client.submit(b"g", priority=LOW)
    assert worker.grab() is job
    assert worker.grab() is None
    pause(world, b"f", paused=False)
    assert worker.grab().function.name == b"f"


def test_a_function_that_is_paused_from_the_start_is_paused(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(paused=True)})
    world.connect().submit()
    worker = world.sleeper()
    world.pass_time(100)
    assert (worker.noops, worker.grab()) == (0, None)


def test_running_jobs_of_a_paused_function_go_on(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    pause(world, b"f")
    assert worker.complete(job) is None
    assert client.told(job) == ["complete"]


def test_jobs_of_a_paused_function_are_cancelled_lost_and_dropped_as_ever(world):
    client, worker = world.connect(), world.worker()
    held, queued, last = client.background(), client.background(), client.background()
    assert worker.grab() is held
    pause(world, b"f")
    assert client.cancel(queued.handle)
    worker.leave()
    assert held.state == QUEUED
    client.cancel(last.handle)
    assert world.drop()
    assert world.status(held) is None
    world.check()


def test_a_pause_without_jobs_changes_nothing_else(world):
    worker = world.sleeper()
    pause(world, b"f")
    pause(world, b"f")
    pause(world, b"f", paused=False)
    assert worker.noops == 0
    job = world.connect().submit()
    assert worker.noops == 1
    assert worker.grab() is job


def test_as_many_wake_up_as_there_are_jobs_when_the_pause_is_over(world):
    pause(world, b"f")
    client = world.connect()
    sleepers = [world.sleeper() for _ in range(4)]
    for _ in range(3):
        client.background()
    pause(world, b"f", paused=False)
    assert [sleeper.noops for sleeper in sleepers] == [1, 1, 1, 0]


# Limits


def test_limits_are_rules_too(world):
    client = world.connect()
    world.rules[b"f"] = Rules(limits=(3, 2, 1))
    world.broker.apply_rules(world.now)
    client.submit(priority=LOW)
    with pytest.raises(QueueFull):
        client.submit(priority=LOW)
    client.submit()
    with pytest.raises(QueueFull):
        client.submit()
    world.rules[b"f"] = Rules()
    world.broker.apply_rules(world.now)
    client.submit(priority=LOW)


# Queueing anew


def test_a_running_job_is_taken_from_its_worker_and_counts_no_attempt(durable):
    client, worker, other = durable.connect(), durable.worker(timeout=30), durable.worker()
    job = client.background()
    durable.store_all()
    client.submit(workload=b"next")
    assert worker.grab() is job
    job.progress = (1, 2)
    assert requeue(durable, job)
    assert worker.notices == [(job.handle, "requeued")]
    assert (job.state, job.losses, job.progress) == (QUEUED, 0, (0, 0))
    assert durable.ledger.losses == {}
    assert other.grab_all() == [b"next", b"work"]


@pytest.mark.parametrize("announced", [0, 30])
def test_who_lost_a_job_to_an_operator_does_not_get_it_back_at_once(world, announced):
    worker = world.worker(timeout=announced)
    job = world.connect().submit()
    assert worker.grab() is job
    requeue(world, job)
    worker.sleep()
    world.pass_time((announced or 60) - 1)
    assert (worker.noops, worker.grab()) == (0, None)
    worker.sleep()
    world.pass_time(1)
    assert worker.noops == 1
    assert worker.grab() is job


def test_a_late_answer_of_who_lost_the_job_counts_while_nobody_has_it(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    requeue(world, job)
    assert worker.complete(job) is None
    assert client.told(job) == ["complete"]


def test_a_worker_that_cannot_do_the_function_any_more_loses_its_job_all_the_same(world):
    worker = world.worker()
    job = world.connect().submit()
    assert worker.grab() is job
    worker.cant_do()
    requeue(world, job)
    assert world.worker().grab() is job


def test_a_queued_job_goes_to_the_end(world):
    client = world.connect()
    first = client.submit(workload=b"1")
    client.submit(workload=b"2")
    assert requeue(world, first)
    assert world.worker().grab_all() == [b"2", b"1"]


def test_a_delayed_job_is_queued_at_once(durable):
    client = durable.connect()
    job = client.background(due=durable.now.wall + 1000)
    durable.store_all()
    sleeper = durable.sleeper()
    assert job.state == DELAYED
    assert requeue(durable, job)
    assert (job.state, job.due, sleeper.noops) == (QUEUED, 0.0, 1)
    assert durable.ledger.dues == {job.record: 0.0}
    assert sleeper.grab() is job
    durable.pass_time(2000)
    assert job.state == RUNNING


def test_a_delayed_job_that_is_not_recorded_is_queued_at_once(world):
    job = world.connect().background(due=world.now.wall + 1000)
    assert requeue(world, job)
    assert world.worker().grab() is job


def test_a_parked_job_goes_to_the_end(world):
    client, other = world.connect(), world.connect()
    job = client.submit(workload=b"1")
    client.choke()
    world.worker().sleep()
    assert job.state == PARKED
    other.submit(workload=b"2")
    requeue(world, job)
    client.unchoke()
    assert world.worker().grab_all() == [b"2", b"1"]


def test_a_job_that_nobody_wants_any_more_ends_instead(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    client.leave()
    assert requeue(world, job)
    assert (world.status(job), world.ended) == (None, {JobEnd.ABANDONED: 1})


def test_a_job_that_is_not_there_is_not_queued(durable):
    client = durable.connect()
    job = client.background()
    assert not requeue(durable, job)
    assert not prioritize(durable, job, HIGH)
    durable.store_all()
    client.cancel(job.handle)
    assert not requeue(durable, job)
    assert not prioritize(durable, job, HIGH)


# Priority


def test_a_queued_job_stands_in_its_new_queue_where_its_age_puts_it(durable):
    client = durable.connect()
    jobs = [
        client.background(workload=b"%d" % number, priority=priority)
        for number, priority in enumerate([HIGH, NORMAL, HIGH])
    ]
    durable.store_all()
    assert prioritize(durable, jobs[1], HIGH)
    assert durable.ledger.rewritten == [(jobs[1].record, HIGH)]
    assert durable.function().waiting == [3, 0, 0]
    assert durable.worker().grab_all() == [b"0", b"1", b"2"]


def test_a_running_job_has_its_new_priority_when_it_is_queued_again(world):
    client, worker = world.connect(), world.worker()
    job = client.submit(workload=b"job")
    assert worker.grab() is job
    assert prioritize(world, job, LOW)
    client.submit(workload=b"other")
    worker.leave()
    assert world.worker().grab_all() == [b"other", b"job"]


def test_jobs_out_of_line_get_another_priority(world):
    client = world.connect()
    delayed = client.background(due=world.now.wall + 5)
    choked = world.connect()
    parked = choked.submit()
    choked.choke()
    world.worker().sleep()
    assert (delayed.state, parked.state) == (DELAYED, PARKED)
    assert prioritize(world, delayed, HIGH)
    assert prioritize(world, parked, LOW)
    assert world.function().waiting == [1, 0, 1]
    choked.unchoke()
    world.pass_time(5)
    worker = world.worker()
    assert worker.grab() is delayed
    assert worker.grab() is parked


def test_the_priority_that_it_has_is_written_nowhere(durable):
    job = durable.connect().background()
    durable.store_all()
    assert prioritize(durable, job, NORMAL)
    assert durable.ledger.rewritten == []
