"""Who is woken when there is a job."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.wakeups import WAKE_SECONDS
from trigear.model import Priority


def noops(*workers):
    return [worker.noops for worker in workers]


def gearmand(partitions, wakeup):
    return World(partitions=partitions, wakeup=wakeup)


# As many sleepers as there are runnable jobs not yet covered, the longest asleep first


def test_one_job_wakes_the_worker_that_has_slept_longest(world):
    sleepers = [world.sleeper() for _ in range(3)]
    world.connect().submit()
    assert noops(*sleepers) == [1, 0, 0]


def test_each_further_job_wakes_one_more(world):
    sleepers = [world.sleeper() for _ in range(3)]
    client = world.connect()
    for expected in ([1, 0, 0], [1, 1, 0], [1, 1, 1], [1, 1, 1]):
        client.submit()
        assert noops(*sleepers) == expected


def test_who_slept_again_is_woken_after_those_that_slept_on(world):
    first, second = world.sleeper(), world.sleeper()
    client = world.connect()
    client.submit()
    assert first.grab_all() == [b"work"]
    first.sleep()
    client.submit()
    assert noops(first, second) == [1, 1]


def test_sleeping_twice_keeps_the_place(world):
    first, second = world.sleeper(), world.sleeper()
    first.sleep()
    world.connect().submit()
    assert noops(first, second) == [1, 0]


def test_nobody_is_woken_for_a_function_it_cannot_do(world):
    other = world.sleeper(b"g")
    world.connect().submit(b"f")
    assert other.noops == 0


def test_who_is_awake_is_not_woken(world):
    awake = world.worker()
    world.connect().submit()
    assert awake.noops == 0


def test_a_worker_of_several_functions_is_woken_once(world):
    worker = world.sleeper(b"f", b"g")
    client = world.connect()
    client.submit(b"f")
    client.submit(b"g")
    assert worker.noops == 1
    assert worker.grab() is not None
    assert worker.grab() is not None


def test_jobs_that_came_before_the_sleepers_wake_them_when_they_come_back(world):
    """A delayed job, a parked job and a lost job are all runnable again."""
    client, worker, sleeper = world.connect(), world.worker(), world.sleeper()
    client.background(due=world.now.wall + 10)
    assert sleeper.noops == 0
    world.pass_time(10)
    assert sleeper.noops == 1
    assert worker.grab() is not None
    sleeper.sleep()
    worker.leave()
    assert sleeper.noops == 2


def test_registering_while_asleep_wakes_if_there_is_a_job(world):
    world.connect().submit(b"g")
    worker = world.sleeper(b"f")
    worker.can_do(b"h")
    assert worker.noops == 0
    worker.can_do(b"g")
    assert worker.noops == 1


def test_registering_while_awake_wakes_nobody(world):
    world.connect().submit()
    worker = world.worker()
    assert worker.noops == 0


def test_registering_the_same_function_again_while_asleep_wakes_nobody(world):
    worker = world.sleeper()
    worker.can_do()
    assert worker.noops == 0
    world.connect().submit()
    assert worker.noops == 1


# A woken worker that does not grab hands its wake-up on


def test_a_wake_up_that_nobody_follows_is_handed_on_after_a_second(world):
    first, second, third = world.sleeper(), world.sleeper(), world.sleeper()
    world.connect().submit()
    assert world.broker.next_deadline() == world.now.monotonic + WAKE_SECONDS
    world.pass_time(WAKE_SECONDS - 1 / 1024)
    assert noops(first, second, third) == [1, 0, 0]
    world.pass_time(1 / 1024)
    assert noops(first, second, third) == [1, 1, 0]
    world.pass_time(WAKE_SECONDS)
    assert noops(first, second, third) == [1, 1, 1]
    world.pass_time(WAKE_SECONDS)
    assert noops(first, second, third) == [1, 1, 1]
    assert world.broker.next_deadline() == float("inf")


def test_a_wake_up_handed_on_after_a_second_covers_for_a_second(world):
    first, second = world.sleeper(), world.sleeper()
    client = world.connect()
    client.submit()
    world.pass_time(WAKE_SECONDS)
    assert noops(first, second) == [1, 1]
    assert world.function().covering == 1
    world.pass_time(WAKE_SECONDS)
    assert world.function().covering == 0


def test_a_worker_that_sleeps_again_is_woken_at_once_while_its_job_is_there(world):
    first, second = world.sleeper(), world.sleeper()
    world.connect().submit()
    first.sleep()
    assert noops(first, second) == [2, 0]


def test_a_worker_that_sleeps_again_hands_its_wake_up_on_if_the_job_is_not_for_it(world):
    client, slow = world.connect(), world.worker(timeout=1024)
    ghost = client.submit()
    assert slow.grab() is ghost
    world.pass_time(1024)  # not offered to the slow one now
    slow.sleep()
    other = client.submit()
    assert slow.noops == 1
    idle = world.worker()
    assert idle.grab() is ghost
    assert idle.grab() is other
    slow.sleep()
    assert slow.noops == 1
    helper = world.sleeper()
    idle.leave()  # both jobs come back: one of them may go to either, one only to the helper
    assert noops(slow, helper) == [2, 1]


def test_a_worker_that_sleeps_beside_its_ghost_hands_its_wake_up_on(world):
    """It was woken for a job that another took; what is there now is not for it."""
    client, slow, other = world.connect(), world.worker(timeout=2), world.worker()
    ghost = client.submit()
    assert slow.grab() is ghost
    slow.sleep()
    helper = world.sleeper()
    world.pass_time(1.5)
    client.submit(priority=Priority.HIGH)
    assert noops(slow, helper) == [1, 0]
    assert other.grab() is not None
    world.pass_time(0.5)  # what the slow one holds is queued again, beside its wake-up
    assert noops(slow, helper) == [1, 0]
    slow.sleep()
    assert noops(slow, helper) == [1, 1]
    assert helper.grab() is ghost


def test_a_worker_that_leaves_hands_its_wake_up_on(world):
    first, second = world.sleeper(), world.sleeper()
    world.connect().submit()
    first.leave()
    assert second.noops == 1


def test_a_worker_that_gives_the_function_up_hands_its_wake_up_on(world):
    first, second, third = world.sleeper(b"f", b"g"), world.sleeper(b"f"), world.sleeper(b"f")
    client = world.connect()
    client.submit()
    first.cant_do(b"g")
    assert second.noops == 0
    first.cant_do(b"f")
    assert second.noops == 1
    second.reset()
    assert third.noops == 1


def test_a_worker_that_takes_another_function_s_job_hands_its_wake_up_on(world):
    both, only_f = world.sleeper(b"f", b"g"), world.sleeper(b"f")
    client = world.connect()
    client.submit(b"f")
    urgent = client.submit(b"g", priority=Priority.HIGH)
    assert noops(both, only_f) == [1, 0]
    assert both.grab() is urgent
    assert only_f.noops == 1


def test_a_worker_that_takes_the_job_it_was_woken_for_wakes_nobody(world):
    first, second = world.sleeper(), world.sleeper()
    world.connect().submit()
    assert first.grab() is not None
    world.pass_time(10)
    assert second.noops == 0


def test_a_woken_worker_that_finds_its_job_gone_covers_nothing_any_more(world):
    client, first, second = world.connect(), world.sleeper(), world.sleeper()
    job = client.submit()
    client.cancel(job.handle)
    assert first.grab() is None
    assert world.function().covering == 0
    client.submit()
    assert noops(first, second) == [1, 1]


def test_a_wake_up_on_its_way_covers_a_job_that_takes_the_place_of_another(world):
    client, first, second = world.connect(), world.sleeper(), world.sleeper()
    job = client.submit()
    client.cancel(job.handle)
    client.submit()
    assert noops(first, second) == [1, 0]
    assert first.grab() is not None


def test_a_wake_up_followed_in_time_is_not_handed_on_when_the_second_is_over(world):
    client, first, second = world.connect(), world.sleeper(), world.sleeper()
    client.submit()
    assert first.grab() is not None
    client.submit()
    assert second.grab() is not None
    third = world.sleeper()
    world.pass_time(10)
    assert noops(first, second, third) == [1, 1, 0]


def test_a_worker_woken_twice_within_a_second_has_a_second_from_the_last_time(world):
    client, first = world.connect(), world.sleeper()
    client.submit()
    world.pass_time(0.5)
    assert first.grab() is not None
    first.sleep()
    client.submit()
    world.pass_time(0.75)
    assert world.function().covering == 1
    world.pass_time(0.25)
    assert world.function().covering == 0


def test_wake_ups_that_were_followed_do_not_pile_up(world):
    client, worker = world.connect(), world.worker()
    with world.unchecked():
        for _ in range(100):
            worker.sleep()
            client.submit()
            worker.grab_all()
    assert len(world.broker._wakeups._sent) <= 1
    assert world.broker.next_deadline() == float("inf")


def test_a_grab_without_a_wake_up_takes_the_worker_out_of_the_sleepers(world):
    early, late = world.sleeper(), world.sleeper()
    assert early.grab() is None
    world.connect().submit()
    assert noops(early, late) == [0, 1]


# PRE_SLEEP asks the very predicate of GRAB


def test_a_worker_with_a_job_to_grab_is_woken_instead_of_sleeping(world):
    world.connect().submit()
    worker = world.worker()
    worker.sleep()
    assert worker.noops == 1
    assert worker.grab() is not None


def test_a_worker_with_nothing_to_grab_sleeps(world):
    world.connect().submit(b"other")
    worker = world.worker()
    worker.sleep()
    assert worker.noops == 0
    assert worker.peer.sleeping


def test_a_worker_sleeps_beside_a_job_that_is_only_its_ghost(world):
    client, slow = world.connect(), world.worker(timeout=8)
    client.submit()
    assert slow.grab() is not None
    world.pass_time(8)
    slow.sleep()
    assert slow.noops == 0


def test_a_worker_woken_at_once_covers_the_job_it_was_woken_for(world):
    client, sleeper = world.connect(), world.worker()
    client.submit()
    sleeper.sleep()
    other = world.worker()
    other.sleep()  # there is a job that it could grab: it is told so
    assert noops(sleeper, other) == [1, 1]
    assert world.function().covering == 2
    assert sleeper.grab() is not None
    assert other.grab() is None
    assert world.function().covering == 0


def test_a_sleeper_that_says_so_again_with_a_job_there_is_woken_and_no_sleeper(world):
    """A job may be runnable beside a sleeper for a moment: while another's wake-up covers it."""
    first, second = world.sleeper(), world.sleeper()
    world.connect().submit()
    second.sleep()
    assert noops(first, second) == [1, 1]
    assert not second.peer.sleeping


def test_a_worker_without_functions_sleeps_and_can_be_woken_later(world):
    worker = world.connect()
    worker.sleep()
    assert worker.grab() is None
    worker.sleep()
    worker.can_do()
    world.connect().submit()
    assert worker.noops == 1


# The number of workers to wake, as gearmand has it


@pytest.mark.parametrize(("wakeup", "woken"), [(0, 5), (1, 1), (3, 3), (9, 5), (None, 1)])
def test_one_job_wakes_as_many_as_the_policy_says(partitions, wakeup, woken):
    world = gearmand(partitions, wakeup)
    sleepers = [world.sleeper() for _ in range(5)]
    world.connect().submit()
    assert sum(noops(*sleepers)) == woken
    assert noops(*sleepers) == [1] * woken + [0] * (5 - woken)


def test_the_policy_counts_for_every_job_queued(partitions):
    world = gearmand(partitions, 2)
    sleepers = [world.sleeper() for _ in range(5)]
    client = world.connect()
    client.submit()
    client.submit()
    assert noops(*sleepers) == [1, 1, 1, 1, 0]


def test_a_policy_of_few_still_covers_every_job(partitions):
    world = gearmand(partitions, 1)
    sleepers = [world.sleeper() for _ in range(3)]
    client = world.connect()
    for _ in range(3):
        client.submit()
    assert noops(*sleepers) == [1, 1, 1]


@pytest.mark.parametrize("how", ["lost", "due", "timed out"])
def test_a_job_queued_again_wakes_all_under_a_policy_of_all(partitions, how):
    world = gearmand(partitions, 0)
    client, worker = world.connect(), world.worker(timeout=16)
    if how == "due":
        client.background(due=world.now.wall + 16)
    else:
        client.submit()
        assert worker.grab() is not None
    sleepers = [world.sleeper() for _ in range(3)]
    if how == "lost":
        worker.leave()
    else:
        world.pass_time(16)
    assert noops(*sleepers) == [1, 1, 1]


def test_a_wake_up_handed_on_wakes_no_more_than_are_needed_under_any_policy(partitions):
    world = gearmand(partitions, 2)
    sleepers = [world.sleeper() for _ in range(5)]
    world.connect().submit()
    world.pass_time(WAKE_SECONDS)
    assert noops(*sleepers) == [1, 1, 1, 0, 0]


def test_the_policy_wakes_nobody_for_a_ghost(partitions):
    world = gearmand(partitions, 0)
    client, slow = world.connect(), world.worker(timeout=16)
    client.submit()
    assert slow.grab() is not None
    slow.sleep()
    others = [world.sleeper() for _ in range(2)]
    world.pass_time(16)
    assert noops(slow, *others) == [0, 1, 1]
