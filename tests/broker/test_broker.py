"""Submissions, the order in which jobs are handed out, and what operators may ask for."""

from __future__ import annotations

import pytest

from tests.broker.world import START, World
from trigear.broker.broker import WALL_CHECK, Broker, FunctionBusy, Late, QueueFull
from trigear.broker.functions import Rules
from trigear.broker.jobs import DELAYED, ENDED, QUEUED
from trigear.broker.peers import Peer
from trigear.model import JobEnd, Now, Priority

# Foreground and background


def test_a_foreground_job_answers_its_client(world):
    client, worker = world.connect(), world.worker()
    job = client.submit(workload=b"in")
    assert worker.grab() is job
    assert (job.workload, job.background) == (b"in", False)
    assert worker.complete(job) is None
    assert client.told(job) == ["complete"]
    assert world.ended == {JobEnd.COMPLETED: 1}


def test_a_background_job_answers_nobody(world):
    client, worker = world.connect(), world.worker()
    job = client.background()
    client.leave()
    assert worker.grab() is job
    assert worker.complete(job) is None
    assert client.heard == []


def test_an_ended_job_is_in_no_book(world):
    client, worker = world.connect(), world.worker()
    job = client.submit(unique=b"u")
    assert worker.grab() is job
    worker.complete(job)
    assert (job.state, job.workload) == (ENDED, b"")
    assert (job.worker, job.timer, len(job.waiters)) == (None, None, 0)
    assert world.status(job) is None
    assert client.peer.waiting == {}
    assert worker.peer.jobs == {}
    assert worker.held(job) is Late.STRANGER
    assert worker.complete(job) is Late.STRANGER
    assert client.told(job) == ["complete"]


def test_a_job_can_be_found_by_its_handle(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert world.status(job) is job
    assert worker.grab() is job
    assert world.status(job) is job
    assert world.broker.status(client.peer.tenant, b"H:nobody:1") is None


def test_a_job_can_be_found_by_its_unique_whatever_its_function(world):
    client = world.connect()
    client.submit(b"f", unique=b"other")
    job = client.submit(b"g", unique=b"u")
    tenant = client.peer.tenant
    assert world.broker.status_of_unique(tenant, b"u") is job
    assert world.broker.status_of_unique(tenant, b"nobody's") is None


def test_data_and_status_are_about_the_job_that_the_connection_holds(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.held(job) is Late.STRANGER
    assert worker.grab() is job
    assert worker.held(job) is job


def test_a_worker_may_hold_several_jobs_and_finish_them_in_any_order(world):
    client, worker = world.connect(), world.worker()
    first, second = client.submit(), client.submit()
    assert [worker.grab(), worker.grab()] == [first, second]
    worker.complete(second)
    worker.complete(first)
    assert client.heard == [("complete", second.handle), ("complete", first.handle)]


def test_a_reducer_travels_with_its_job(world):
    client, worker = world.connect(), world.worker()
    client.submit(reducer=b"sum")
    client.background(reducer=b"max")
    assert [worker.grab().reducer for _ in range(2)] == [b"sum", b"max"]


def test_the_sequence_begins_with_the_term(partitions):
    world = World(partitions=partitions, term=3)
    client = world.connect()
    assert [client.submit().seq, client.submit().seq] == [(3 << 36) + 1, (3 << 36) + 2]


# Order


def test_jobs_of_one_priority_are_handed_out_in_the_order_of_submission(world):
    client, worker = world.connect(), world.worker()
    for number in range(5):
        client.submit(workload=b"%d" % number)
    assert worker.grab_all() == [b"0", b"1", b"2", b"3", b"4"]


def test_high_goes_before_normal_before_low(world):
    client, worker = world.connect(), world.worker()
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH) * 2:
        client.submit(workload=priority.name.encode(), priority=priority)
    assert worker.grab_all() == [b"HIGH"] * 2 + [b"NORMAL"] * 2 + [b"LOW"] * 2


def test_priority_counts_over_all_functions_of_a_worker(world):
    client, worker = world.connect(), world.worker(b"f", b"g")
    client.submit(b"g", b"low", priority=Priority.LOW)
    client.submit(b"f", b"normal")
    client.submit(b"g", b"high", priority=Priority.HIGH)
    assert worker.grab_all() == [b"high", b"normal", b"low"]


def test_the_newest_registration_comes_first_and_functions_take_turns(world):
    """The order that gearmand's own tests ask for."""
    client, worker = world.connect(), world.worker(b"two", b"one")
    for number in range(10):
        client.submit(b"two" if number % 2 == 0 else b"one", b"%d" % number)
    assert b"".join(worker.grab_all()) == b"1032547698"


def test_turns_are_taken_among_functions_with_jobs_only(world):
    client, worker = world.connect(), world.worker(b"a", b"b", b"c")
    for name in (b"a", b"a", b"b", b"b", b"a"):
        client.submit(name, name)
    assert worker.grab_all() == [b"b", b"a", b"b", b"a", b"a"]


def test_each_worker_has_its_own_turns(world):
    client, first, second = world.connect(), world.worker(b"a", b"b"), world.worker(b"a", b"b")
    for name in (b"a", b"b") * 2:
        client.submit(name, name)
    assert [first.grab().workload, second.grab().workload] == [b"b", b"b"]
    assert [first.grab().workload, second.grab().workload] == [b"a", b"a"]


def test_registering_again_brings_the_function_to_the_front(world):
    client, worker = world.connect(), world.worker(b"a", b"b")
    worker.can_do(b"a")
    client.submit(b"b", b"b")
    client.submit(b"a", b"a")
    assert worker.grab_all() == [b"a", b"b"]


def test_a_single_function_takes_no_turn_before_one_registered_later(world):
    client, worker = world.connect(), world.worker(b"a")
    client.submit(b"a", b"a1")
    assert worker.grab_all() == [b"a1"]
    worker.can_do(b"b")
    client.submit(b"a", b"a2")
    client.submit(b"b", b"b")
    assert worker.grab_all() == [b"b", b"a2"]


def test_a_worker_of_few_among_many_functions_gets_what_it_can_do(world):
    client = world.connect()
    for number in range(20):
        client.submit(b"f%d" % number, b"%d" % number)
    few = world.worker(b"f3", b"f7", b"elsewhere")
    assert few.grab_all() == [b"7", b"3"]
    many = world.worker(*(b"f%d" % number for number in range(40)))
    assert many.grab_all() == [b"%d" % n for n in reversed(range(20)) if n not in (3, 7)]


def test_there_is_nothing_for_a_worker_whose_functions_have_no_jobs(world):
    client = world.connect()
    assert world.worker().grab() is None
    client.submit(b"other")
    assert world.worker(b"f").grab() is None
    assert world.worker(b"f", b"g").grab() is None
    assert world.connect().grab() is None


# Coalescing


def test_the_same_unique_and_function_make_one_job(world):
    first, second, worker = world.connect(), world.connect(), world.worker()
    job = first.submit(unique=b"u", workload=b"first")
    assert second.submit(unique=b"u", workload=b"second", priority=Priority.HIGH) is job
    assert (job.workload, job.priority) == (b"first", Priority.NORMAL)
    assert worker.grab_all() == [b"first"]
    assert first.told(job) == second.told(job) == ["complete"]


def test_the_same_unique_in_two_functions_makes_two_jobs(world):
    client = world.connect()
    assert client.submit(b"f", unique=b"u") is not client.submit(b"g", unique=b"u")


def test_submissions_without_unique_never_meet(world):
    client = world.connect()
    assert client.submit() is not client.submit()


def test_a_dash_lets_equal_workloads_meet(world):
    client = world.connect()
    job = client.submit(unique=b"-", workload=b"same")
    assert job.unique == b"-"
    assert client.submit(unique=b"-", workload=b"same") is job
    assert client.submit(unique=b"-", workload=b"other") is not job
    assert client.submit(unique=b"same", workload=b"same") is not job


def test_a_dash_without_workload_meets_nothing(world):
    client = world.connect()
    assert client.submit(unique=b"-", workload=b"") is not client.submit(unique=b"-", workload=b"")


def test_a_submission_joins_a_running_job_and_hears_its_end(world):
    first, second, worker = world.connect(), world.connect(), world.worker()
    job = first.submit(unique=b"u")
    assert worker.grab() is job
    assert second.submit(unique=b"u") is job
    worker.complete(job)
    assert first.told(job) == second.told(job) == ["complete"]


def test_a_client_that_submits_the_same_twice_is_told_twice(world):
    client, worker = world.connect(), world.worker()
    job = client.submit(unique=b"u")
    client.submit(unique=b"u")
    assert worker.grab() is job
    worker.complete(job)
    assert client.told(job) == ["complete", "complete"]


@pytest.mark.parametrize("end", ["complete", "cancel", "abandon"])
def test_a_job_that_is_over_matches_no_unique(world, end):
    client, worker = world.connect(), world.worker()
    job = client.submit(unique=b"u")
    if end == "complete":
        assert worker.grab_all() == [b"work"]
    elif end == "cancel":
        client.cancel(job.handle)
    else:
        client.leave()
    assert world.connect().submit(unique=b"u") is not job


def test_a_foreground_submission_never_changes_a_background_job(world):
    submitter, waiter, worker = world.connect(), world.connect(), world.worker()
    job = submitter.background(unique=b"u")
    assert waiter.submit(unique=b"u") is job
    assert job.background
    waiter.leave()
    assert worker.grab() is job


def test_a_background_submission_makes_a_foreground_job_live_on_without_clients(world):
    client, submitter, worker = world.connect(), world.connect(), world.worker()
    job = client.submit(unique=b"u")
    assert submitter.background(unique=b"u") is job
    client.leave()
    assert job.state == QUEUED
    assert worker.grab() is job


def test_a_background_submission_onto_a_background_job_changes_nothing(world):
    client = world.connect()
    job = client.background(unique=b"u")
    assert client.background(unique=b"u") is job
    assert (job.background, len(job.waiters)) == (True, 0)


# Jobs that wait for their time


def test_a_delayed_job_is_handed_out_when_it_is_due_and_not_before(world):
    client, worker = world.connect(), world.worker()
    job = client.background(due=world.now.wall + 60)
    assert (job.state, worker.grab(), world.status(job)) == (DELAYED, None, job)
    world.pass_time(59.5)
    assert worker.grab() is None
    world.pass_time(0.5)
    assert worker.grab() is job


@pytest.mark.parametrize("due", [0.0, START.wall - 1, START.wall])
def test_a_job_that_is_due_already_is_handed_out_at_once(world, due):
    job = world.connect().background(due=due)
    assert world.worker().grab() is job


def test_a_delayed_job_keeps_its_place_among_later_ones(world):
    client, worker = world.connect(), world.worker()
    client.background(workload=b"before")
    client.background(workload=b"delayed", due=world.now.wall + 60)
    client.background(workload=b"after")
    world.pass_time(60)
    assert worker.grab_all() == [b"before", b"delayed", b"after"]


def test_a_delayed_job_counts_as_waiting(world):
    client = world.connect()
    client.background(due=world.now.wall + 60, priority=Priority.LOW)
    function = world.function()
    assert (function.total, function.waiting, function.runnable) == (1, [0, 0, 1], 0)


def test_attaching_to_a_delayed_job_does_not_change_its_time(world):
    client, worker = world.connect(), world.worker()
    job = client.background(unique=b"u", due=world.now.wall + 60)
    assert client.submit(unique=b"u") is job
    assert worker.grab() is None
    world.pass_time(60)
    assert worker.grab() is job


def test_a_delayed_job_can_be_cancelled(world):
    client = world.connect()
    job = client.background(due=world.now.wall + 60)
    assert client.cancel(job.handle)
    assert world.broker.next_deadline() == float("inf")
    world.pass_time(60)
    assert world.worker().grab() is None


def test_a_far_time_is_looked_at_often_enough_for_a_clock_that_is_set(world):
    client, worker = world.connect(), world.worker()
    job = client.background(due=world.now.wall + 86400)
    assert world.broker.next_deadline() == world.now.monotonic + WALL_CHECK
    world.now = Now(world.now.monotonic + 1, world.now.wall + 86400)  # an operator set the clock
    assert world.broker.next_deadline() <= START.monotonic + WALL_CHECK
    world.pass_time(WALL_CHECK)
    assert worker.grab() is job


def test_a_near_time_is_waited_for_by_the_monotonic_clock(world):
    world.connect().background(due=world.now.wall + 4)
    assert world.broker.next_deadline() == world.now.monotonic + 4


def test_a_clock_set_back_delays_what_waits_for_it(world):
    client, worker = world.connect(), world.worker()
    client.background(due=world.now.wall + 4)
    world.now = Now(world.now.monotonic, world.now.wall - 100)
    world.pass_time(8)
    assert worker.grab() is None
    world.pass_time(96)
    assert worker.grab() is not None


def test_without_anything_to_do_there_is_no_deadline(world):
    client, worker = world.connect(), world.worker()
    client.submit()
    worker.grab_all()
    assert world.broker.next_deadline() == float("inf")


# Limits


def test_a_full_queue_refuses_new_jobs(world):
    client = world.connect()
    world.function().limits = [2, 2, 2]
    client.submit()
    client.background()
    with pytest.raises(QueueFull):
        client.submit()
    with pytest.raises(QueueFull):
        client.background()
    assert world.function().total == 2
    assert len(client.peer.waiting) == 1


def test_limits_of_priorities_are_thresholds_on_the_same_total(world):
    client = world.connect()
    world.function().limits = [3, 2, 1]
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        client.submit(priority=priority)
        with pytest.raises(QueueFull):
            client.submit(priority=priority)


def test_running_and_delayed_jobs_count_for_the_limit(world):
    client, worker = world.connect(), world.worker()
    world.function().limits = [2, 2, 2]
    client.submit()
    assert worker.grab() is not None
    client.background(due=world.now.wall + 60)
    with pytest.raises(QueueFull):
        client.submit()


def test_attaching_is_not_refused_by_a_full_queue(world):
    client = world.connect()
    world.function().limits = [1, 1, 1]
    job = client.submit(unique=b"u")
    assert client.submit(unique=b"u") is job
    assert client.background(unique=b"u") is job


def test_a_job_queued_again_is_not_refused_by_a_full_queue(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    world.function().limits = [1, 1, 1]
    worker.leave()
    assert job.state == QUEUED


def test_no_limit_means_no_limit(world):
    client = world.connect()
    world.function().limits = [1, 0, 1]
    for _ in range(3):
        client.submit()


def test_a_limit_holds_for_its_function_alone(world):
    client = world.connect()
    world.function(b"f").limits = [1, 1, 1]
    client.submit(b"f")
    client.submit(b"g")
    client.submit(b"g")


# Cancelling


def test_cancelling_a_queued_job_tells_every_submission_that_it_failed(world):
    first, second = world.connect(), world.connect()
    job = first.submit(unique=b"u")
    first.submit(unique=b"u")
    second.submit(unique=b"u")
    assert second.cancel(job.handle)
    assert (first.told(job), second.told(job)) == (["failed"] * 2, ["failed"])
    assert world.worker().grab() is None
    assert world.function().total == 0
    assert world.ended == {JobEnd.CANCELLED: 1}


def test_cancelling_a_running_job_drops_its_worker_s_answer(world):
    client, worker = world.connect(), world.worker(timeout=8)
    job = client.submit()
    assert worker.grab() is job
    assert client.cancel(job.handle)
    assert worker.held(job) is Late.GHOST
    assert worker.complete(job) is Late.GHOST
    assert client.told(job) == ["failed"]
    assert world.broker.next_deadline() == float("inf")
    assert worker.peer.jobs == {}


def test_cancelling_what_is_not_there_does_nothing(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    worker.grab_all()
    assert not client.cancel(b"H:nobody:1")
    assert not client.cancel(job.handle)
    assert client.told(job) == ["complete"]


# Functions


def test_a_function_can_be_made_before_anybody_does_it(world):
    function = world.function(b"new")
    assert world.function(b"new") is function
    assert (function.total, function.running, len(function.workers)) == (0, 0, 0)


def test_dropping_a_function_fails_its_waiting_jobs_and_forgets_it(world):
    client = world.connect()
    queued = client.submit(unique=b"u")
    delayed = client.background(due=world.now.wall + 60)
    elsewhere = client.submit(b"g")
    assert world.drop()
    assert client.told(queued) == ["failed"]
    assert world.status(delayed) is None
    assert world.status(elsewhere) is elsewhere
    assert world.ended == {JobEnd.DROPPED: 2}
    assert [function.name for function in world.functions] == [b"g"]
    assert client.peer.tenant.ready == {elsewhere.function: None}
    assert client.submit(unique=b"u") is not queued


def test_dropping_an_unknown_function_says_so(world):
    assert not world.drop(b"nobody's")


def test_a_function_with_workers_is_not_dropped(world):
    worker = world.worker()
    with pytest.raises(FunctionBusy):
        world.drop()
    worker.cant_do()
    assert world.drop()


def test_a_function_with_a_running_job_is_not_dropped(world):
    client, worker = world.connect(), world.worker()
    client.submit()
    job = worker.grab()
    worker.cant_do()
    with pytest.raises(FunctionBusy):
        world.drop()
    worker.complete(job)
    assert world.drop()


def test_a_function_dropped_is_made_anew_when_it_is_mentioned(world):
    client = world.connect()
    old = world.function()
    assert world.drop()
    job = client.submit()
    assert world.function() is not old
    assert world.worker().grab() is job


# Exceptions followed by a failure


def test_one_failure_after_one_s_own_exception_is_forgiven(world):
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    worker.peer.excepted = job.handle
    assert not world.broker.excepted(worker.peer, b"another")
    assert world.broker.excepted(worker.peer, job.handle)
    assert not world.broker.excepted(worker.peer, job.handle)


def test_without_an_exception_nothing_is_forgiven(world):
    assert not world.broker.excepted(world.connect().peer, b"")


# What a broker is given


def test_handles_and_rules_are_made_for_tenant_function_and_unique():
    asked, rules = [], []

    def mint(*what):
        asked.append(what)
        return b"H:%d" % len(asked)

    def rules_of(*what):
        rules.append(what)
        return Rules()

    broker = Broker(mint, rules_of, World())
    peer = Peer(broker.tenant("red"), World().connect())
    broker.submit(peer, b"f", b"u", b"w", Priority.NORMAL, True, START)
    assert asked == [("red", b"f", b"u")]
    broker.apply_rules(START)
    assert rules == [("red", b"f")] * 2


def test_a_submission_without_more_is_due_at_once_and_has_no_reducer():
    world = World()
    peer = world.worker().peer
    broker = world.broker
    job = broker.submit(peer, b"f", b"", b"w", Priority.NORMAL, True, Now(0.0, 0.0))
    assert (job.due, job.reducer, job.state) == (0.0, b"", QUEUED)
    restored = broker.restore(
        peer.tenant, b"f", b"", b"H:old", b"w", Priority.LOW, Now(0.0, 0.0), sequence=7
    )
    assert (restored.due, restored.losses, restored.reducer) == (0.0, 0, b"")
    assert restored.state == QUEUED


# Rules


def test_new_rules_are_asked_for_every_function(world):
    world.function(b"f")
    world.function(b"g", "other")
    world.rules = {b"f": Rules(attempts=1), b"g": Rules(attempts=2)}
    world.broker.apply_rules(world.now)
    assert world.function(b"f").rules.attempts == 1
    assert world.function(b"g", "other").rules.attempts == 2
