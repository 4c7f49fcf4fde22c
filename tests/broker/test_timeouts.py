"""Jobs whose worker takes too long: given to others, with the late answer in mind."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.broker import Late
from trigear.broker.functions import Rules
from trigear.broker.jobs import QUEUED, RUNNING
from trigear.broker.peers import GHOST_LIMIT
from trigear.model import JobEnd, Priority


def timed_out(world, timeout=8.0):
    """A foreground job that a worker took too long for: client, worker, job."""
    client, slow = world.connect("client"), world.worker(timeout=timeout)
    job = client.submit()
    assert slow.grab() is job
    world.pass_time(timeout)
    assert job.worker is None
    return client, slow, job


# Deadlines


def test_a_job_is_queued_again_at_its_deadline_and_not_before(world):
    client, slow, other = world.connect(), world.worker(timeout=8), world.worker()
    job = client.submit()
    assert slow.grab() is job
    world.pass_time(7.5)
    assert (job.worker, job.losses) == (slow.peer, 0)
    world.pass_time(0.5)
    assert (job.worker, job.losses) == (None, 1)
    assert other.grab() is job


def test_each_assignment_has_its_own_deadline(world):
    client, slow = world.connect(), world.worker(timeout=8)
    first, second = client.submit(), client.submit()
    assert slow.grab() is first
    world.pass_time(4)
    assert slow.grab() is second
    world.pass_time(4)
    assert (first.state, second.state) == (QUEUED, RUNNING)
    world.pass_time(4)
    assert (first.state, second.state) == (QUEUED, QUEUED)


def test_an_answer_in_time_cancels_the_deadline(world):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert worker.grab() is job
    assert worker.complete(job) is None
    assert world.broker.next_deadline() == float("inf")
    world.pass_time(8)
    assert client.told(job) == ["complete"]


def test_a_worker_without_timeout_may_take_as_long_as_it_likes(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    world.pass_time(1e6)
    assert job.worker is worker.peer


def test_the_default_of_the_function_holds_for_workers_that_announce_no_timeout(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(timeout=8)})
    client, silent, announcing = world.connect(), world.worker(), world.worker(timeout=16)
    first, second = client.submit(), client.submit()
    assert silent.grab() is first
    assert announcing.grab() is second
    world.pass_time(8)
    assert (first.state, second.state) == (QUEUED, RUNNING)
    world.pass_time(8)
    assert second.state == QUEUED


def test_registering_again_replaces_the_timeout_for_the_next_assignments(world):
    client, worker = world.connect(), world.worker(timeout=8)
    first, second = client.submit(), client.submit()
    assert worker.grab() is first
    worker.can_do(timeout=0)
    assert worker.grab() is second
    world.pass_time(64)
    assert (first.state, second.state) == (QUEUED, RUNNING)


def test_new_rules_hold_for_the_next_assignments(world):
    client, worker = world.connect(), world.worker()
    first, second = client.submit(), client.submit()
    assert worker.grab() is first
    world.rules[b"f"] = Rules(timeout=8)
    world.broker.apply_rules(world.now)
    assert worker.grab() is second
    world.pass_time(64)
    assert (first.state, second.state) == (RUNNING, QUEUED)


def test_a_timed_out_job_goes_to_the_end_of_its_queue_and_forgets_its_progress(world):
    client, slow, other = world.connect(), world.worker(timeout=8), world.worker()
    job = client.submit(workload=b"slow")
    assert slow.grab() is job
    job.progress = (1, 2)
    client.submit(workload=b"next")
    client.submit(workload=b"urgent", priority=Priority.HIGH)
    world.pass_time(8)
    assert job.progress == (0, 0)
    assert other.grab_all() == [b"urgent", b"next", b"slow"]


def test_the_clients_of_a_timed_out_job_hear_nothing_and_stay(world):
    client, _, job = timed_out(world)
    other = world.worker()
    assert client.heard == []
    assert other.grab() is job
    other.complete(job)
    assert client.told(job) == ["complete"]


def test_a_timeout_wakes_a_sleeper_but_not_the_one_that_took_too_long(world):
    client, slow = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert slow.grab() is job
    slow.sleep()  # workers with several jobs do that
    other = world.sleeper()
    world.pass_time(8)
    assert (slow.noops, other.noops) == (0, 1)
    assert other.grab() is job


# Ghosts


def test_a_ghost_is_not_offered_to_the_connection_that_took_too_long(world):
    _, slow, job = timed_out(world)
    assert slow.grab() is None
    slow.sleep()
    assert slow.noops == 0
    assert job.state == QUEUED


def test_other_jobs_are_offered_to_a_connection_with_a_ghost_at_the_front(world):
    client, slow, job = timed_out(world)
    client.submit(workload=b"next")
    client.submit(workload=b"after next")
    client.submit(workload=b"low", priority=Priority.LOW)
    assert slow.grab_all() == [b"next", b"after next", b"low"]
    assert world.worker().grab() is job


def test_a_late_answer_counts_while_nobody_holds_the_job(world):
    client, slow, job = timed_out(world)
    assert slow.complete(job) is None
    assert client.told(job) == ["complete"]
    assert world.worker().grab() is None
    assert world.ended == {JobEnd.COMPLETED: 1}
    assert world.broker.late_answers == 0


def test_a_late_failure_counts_while_nobody_holds_the_job(world):
    client, slow, job = timed_out(world)
    assert slow.fail(job) is None
    assert client.told(job) == ["fail"]
    assert world.ended == {JobEnd.FAILED: 1}


def test_a_late_answer_counts_while_the_job_is_parked(world):
    client, slow, job = timed_out(world)
    client.choke()
    assert world.worker().grab() is None
    assert slow.complete(job) is None
    assert client.told(job) == ["complete"]


def test_a_late_answer_is_dropped_and_counted_while_another_holds_the_job(world):
    client, slow, job = timed_out(world)
    other = world.worker()
    assert other.grab() is job
    assert slow.complete(job) is Late.GHOST
    assert world.broker.late_answers == 1
    assert (client.heard, job.worker) == ([], other.peer)
    other.complete(job)
    assert client.told(job) == ["complete"]


def test_a_second_late_answer_is_a_strangers(world):
    _, slow, job = timed_out(world)
    assert world.worker().grab() is job
    assert slow.complete(job) is Late.GHOST
    assert slow.complete(job) is Late.STRANGER


def test_data_and_status_of_a_ghost_are_dropped_and_counted_also_while_nobody_holds_it(world):
    _, slow, job = timed_out(world)
    assert slow.held(job) is Late.GHOST
    assert world.worker().grab() is job
    assert slow.held(job) is Late.GHOST
    assert world.broker.late_answers == 2
    assert slow.complete(job) is Late.GHOST
    assert world.broker.late_answers == 3


def test_who_never_held_a_job_is_a_stranger_to_it(world):
    _, _, job = timed_out(world)
    stranger = world.worker()
    assert stranger.held(job) is Late.STRANGER
    assert stranger.complete(job) is Late.STRANGER
    assert world.broker.late_answers == 0


def test_once_it_has_answered_the_job_may_be_offered_to_the_connection_again(world):
    _, slow, job = timed_out(world)
    other = world.worker()
    assert other.grab() is job
    assert slow.fail(job) is Late.GHOST
    other.leave()
    assert slow.grab() is job


def test_after_one_more_timeout_the_job_may_be_offered_to_the_connection_again(world):
    _, slow, job = timed_out(world, timeout=8)
    world.pass_time(7.5)
    assert slow.grab() is None
    world.pass_time(0.5)
    assert slow.grab() is job


def test_a_ghost_that_rests_wakes_its_sleeping_connection(world):
    _, slow, job = timed_out(world, timeout=8)
    slow.sleep()
    world.pass_time(8)
    assert slow.noops == 1
    assert slow.grab() is job


def test_a_ghost_that_rests_while_another_holds_the_job_changes_nothing(world):
    client, _, job = timed_out(world, timeout=8)
    other = world.worker()
    assert other.grab() is job
    world.pass_time(8)
    assert job.worker is other.peer
    other.complete(job)
    assert client.told(job) == ["complete"]


def test_a_connection_that_gets_its_ghost_again_owes_one_more_answer_that_is_dropped(world):
    client, slow, job = timed_out(world, timeout=8)
    world.pass_time(8)
    assert slow.grab() is job
    assert slow.complete(job) is None
    assert slow.complete(job) is Late.GHOST
    assert client.told(job) == ["complete"]


def test_a_job_may_take_too_long_on_the_same_connection_twice(world):
    client, slow, job = timed_out(world, timeout=8)
    world.pass_time(8)
    assert slow.grab() is job
    world.pass_time(8)
    assert (job.losses, job.state) == (2, QUEUED)
    assert slow.grab() is None
    assert slow.complete(job) is None
    assert client.told(job) == ["complete"]


def test_a_job_may_be_the_ghost_of_several_connections(world):
    client, first, job = timed_out(world, timeout=8)
    second = world.worker(timeout=2)
    assert second.grab() is job
    world.pass_time(2)
    assert first.grab() is None
    assert second.grab() is None
    assert world.function().ghosted == 2
    assert second.complete(job) is None
    assert first.complete(job) is Late.GHOST
    assert client.told(job) == ["complete"]


def test_a_ghost_goes_with_its_connection(world):
    _, slow, job = timed_out(world)
    slow.leave()
    assert world.function().ghosted == 0
    assert world.broker.next_deadline() == float("inf")
    assert world.worker().grab() is job


def test_a_ghost_of_a_connection_that_leaves_while_another_holds_the_job_is_forgotten(world):
    _, slow, job = timed_out(world)
    other = world.worker()
    assert other.grab() is job
    slow.leave()
    assert world.function().ghosted == 0
    assert job.worker is other.peer


def test_a_late_answer_for_a_job_that_another_has_completed_is_dropped(world):
    client, slow, job = timed_out(world)
    other = world.worker()
    assert other.grab() is job
    other.complete(job)
    assert slow.complete(job) is Late.GHOST
    assert client.told(job) == ["complete"]
    assert world.broker.late_answers == 1


def test_a_late_answer_for_a_job_that_another_has_completed_since_is_dropped(world):
    client, slow, job = timed_out(world, timeout=8)
    world.pass_time(8)
    other = world.worker()
    assert other.grab() is job
    assert other.complete(job) is None
    assert slow.complete(job) is Late.GHOST
    assert client.told(job) == ["complete"]
    assert world.ended == {JobEnd.COMPLETED: 1}


def test_a_connection_that_leaves_with_ghosts_of_ended_jobs_disturbs_nothing(world):
    _, slow, job = timed_out(world, timeout=8)
    world.pass_time(8)
    other = world.worker()
    assert other.grab() is job
    other.complete(job)
    slow.leave()
    assert slow.peer.ghosts == {}
    assert world.function().total == 0


def test_a_ghost_whose_clients_left_ends_and_its_late_answer_is_dropped(world):
    client, slow, job = timed_out(world)
    client.leave()
    assert world.status(job) is None
    assert slow.complete(job) is Late.GHOST
    assert world.ended == {JobEnd.ABANDONED: 1}


def test_a_ghost_can_be_cancelled_and_its_late_answer_is_dropped(world):
    client, slow, job = timed_out(world)
    assert client.cancel(job.handle)
    assert slow.complete(job) is Late.GHOST
    assert client.told(job) == ["failed"]


def test_a_function_can_be_dropped_with_its_ghosts(world):
    client, slow, job = timed_out(world)
    slow.cant_do()
    assert world.drop()
    assert client.told(job) == ["failed"]
    assert slow.complete(job) is Late.GHOST
    assert world.broker.next_deadline() == float("inf")


def test_giving_the_function_up_does_not_make_a_ghost_rest(world):
    _, slow, job = timed_out(world)
    slow.cant_do()
    slow.can_do()
    assert slow.grab() is None
    assert world.worker().grab() is job


def test_ghosts_among_jobs_that_came_back_to_the_middle_of_the_queue_are_passed_over(world):
    client, slow = world.connect(), world.worker(timeout=8)
    choked = world.connect()
    jobs = [choked.submit(workload=b"%d" % number) for number in range(3)]
    assert [slow.grab() for _ in jobs] == jobs
    world.pass_time(8)
    choked.choke()
    assert world.worker().grab() is None  # parks all three
    client.submit(workload=b"behind")
    choked.unchoke()
    assert slow.grab().workload == b"behind"
    assert slow.grab() is None
    assert world.worker().grab_all() == [b"0", b"1", b"2"]


def test_a_job_that_came_back_to_the_middle_is_taken_past_ghosts_that_did_too(world):
    slow, choked, other = world.worker(timeout=8), world.connect(), world.worker()
    ghost = choked.submit(workload=b"ghost")
    assert slow.grab() is ghost
    world.pass_time(8)
    for workload in (b"first", b"second"):
        choked.submit(workload=workload)
    choked.choke()
    assert other.grab() is None  # parks all three
    choked.background(workload=b"behind")
    choked.unchoke()
    assert [slow.grab().workload for _ in range(3)] == [b"first", b"second", b"behind"]
    assert other.grab() is ghost


def test_a_ghost_of_high_priority_does_not_keep_its_connection_from_lower_ones(world):
    client, slow = world.connect(), world.worker(b"f", b"g", timeout=8)
    job = client.submit(b"g", priority=Priority.HIGH)
    assert slow.grab() is job
    world.pass_time(8)
    low = client.submit(b"g", priority=Priority.LOW)
    normal = client.submit(b"f")
    assert slow.grab() is normal
    assert slow.grab() is low
    assert slow.grab() is None


# Many ghosts


def holding_most(world):
    """A worker with as many jobs as it can owe answers for, which time out after 1024 seconds."""
    client, slow = world.connect(), world.worker(b"f", timeout=1024)
    with world.unchecked():
        jobs = [client.background() for _ in range(GHOST_LIMIT)]
        assert [slow.grab() for _ in jobs] == jobs
    return client, slow, jobs


def test_the_oldest_ghost_is_forgotten_when_a_timeout_makes_one_too_many(world):
    client, slow, jobs = holding_most(world)
    slow.can_do(b"g", timeout=1026)
    last = client.background(b"g")
    assert slow.grab() is last
    slow.sleep()
    world.pass_time(1024)
    assert (slow.noops, len(slow.peer.ghosts)) == (0, GHOST_LIMIT)
    world.pass_time(2)
    assert (slow.noops, len(slow.peer.ghosts)) == (1, GHOST_LIMIT)
    assert slow.grab() is jobs[0]
    assert slow.complete(jobs[0]) is None
    assert slow.complete(jobs[0]) is Late.STRANGER


@pytest.mark.parametrize("how", ["cancelled", "failed on timeout"])
def test_the_oldest_ghost_is_forgotten_and_offered_when_another_debt_takes_its_place(
    partitions, how
):
    world = World(partitions=partitions, rules={b"g": Rules(timeout=1025, fail_on_timeout=True)})
    client, slow, jobs = holding_most(world)
    slow.can_do(b"g")
    last = client.background(b"g")
    assert slow.grab() is last
    slow.sleep()
    world.pass_time(1024)
    assert slow.noops == 0
    if how == "cancelled":
        client.cancel(last.handle)
    else:
        world.pass_time(1)
    assert slow.noops == 1
    assert slow.grab() is jobs[0]
    assert slow.complete(last) is Late.GHOST


def test_a_debt_for_an_ended_job_is_forgotten_without_ado(world):
    client, worker = world.connect(), world.worker()
    with world.unchecked():
        jobs = [client.submit() for _ in range(GHOST_LIMIT + 1)]
        assert [worker.grab() for _ in jobs] == jobs
        for job in jobs:
            client.cancel(job.handle)
    assert worker.complete(jobs[0]) is Late.STRANGER
    assert worker.complete(jobs[1]) is Late.GHOST


# Attempts and failing at once


def test_timeouts_use_attempts_up(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(timeout=8, attempts=2)})
    client = world.connect()
    job = client.submit()
    for _ in range(2):
        assert client.heard == []
        assert world.worker().grab() is job
        world.pass_time(8)
    assert client.told(job) == ["failed"]
    assert world.ended == {JobEnd.EXHAUSTED: 1}
    assert world.given_up_jobs == []


def test_the_answer_for_a_job_given_up_at_its_deadline_is_dropped(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(timeout=8, attempts=1)})
    client, slow = world.connect(), world.worker()
    job = client.submit()
    assert slow.grab() is job
    world.pass_time(8)
    assert slow.complete(job) is Late.GHOST
    assert client.told(job) == ["failed"]


def test_a_job_fails_at_its_deadline_where_the_rules_say_so(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(timeout=8, fail_on_timeout=True)})
    client, slow, idle = world.connect(), world.worker(), world.sleeper()
    job = client.submit()
    assert idle.noops == 1
    assert slow.grab() is job
    assert idle.grab() is None
    idle.sleep()
    world.pass_time(8)
    assert client.told(job) == ["failed"]
    assert idle.noops == 1
    assert slow.complete(job) is Late.GHOST
    assert world.ended == {JobEnd.TIMED_OUT: 1}
    assert world.given_up_jobs == []


def test_the_observer_hears_of_a_background_job_that_fails_at_its_deadline(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(timeout=8, fail_on_timeout=True)})
    client, slow = world.connect(), world.worker()
    job = client.background()
    assert slow.grab() is job
    world.pass_time(8)
    assert world.given_up_jobs == [(job.handle, JobEnd.TIMED_OUT)]
    assert job.losses == 1


def test_losses_before_the_deadline_are_counted_with_it(partitions):
    world = World(partitions=partitions, rules={b"f": Rules(timeout=8, fail_on_timeout=True)})
    client, first, slow = world.connect(), world.worker(), world.worker()
    job = client.submit()
    assert first.grab() is job
    first.leave()
    assert slow.grab() is job
    world.pass_time(8)
    assert job.losses == 2


def test_a_timed_out_job_that_nobody_waits_for_any_more_ends(world):
    client, slow = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert slow.grab() is job
    client.leave()
    world.pass_time(8)
    assert world.ended == {JobEnd.ABANDONED: 1}
    assert slow.complete(job) is Late.GHOST
