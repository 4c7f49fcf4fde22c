"""Queues from the inside: where a job stands, what ended jobs leave behind, and partitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.broker.world import World, spread
from trigear.broker.functions import Rules
from trigear.broker.jobs import QUEUED
from trigear.model import JobEnd, Priority

HUSKS = 64
"""Ended jobs that a queue may keep beside as many living ones."""


def standing(function):
    """Entries in a function's queues, husks included."""
    return sum(map(len, function.queues)) + sum(map(len, function.late))


def test_an_ended_job_stays_in_its_queue_without_its_workload(world):
    client = world.connect()
    jobs = [client.submit(workload=b"big" * 1000) for _ in range(3)]
    client.cancel(jobs[1].handle)
    assert standing(world.function()) == 3
    assert jobs[1].workload == b""
    assert world.worker().grab_all() == [b"big" * 1000] * 2


def test_ended_jobs_leave_the_queue_when_they_reach_the_front(world):
    client, worker = world.connect(), world.worker()
    jobs = [client.submit(workload=b"%d" % number) for number in range(4)]
    client.cancel(jobs[0].handle)
    client.cancel(jobs[1].handle)
    assert worker.grab() is jobs[2]
    assert (standing(world.function()), world.function().husks) == (1, 0)


def test_ended_jobs_are_thrown_out_once_they_outnumber_the_living(world):
    client, living = world.connect(), 100
    jobs = [client.submit(workload=b"%d" % number) for number in range(2 * living + 1)]
    with world.unchecked():
        for job in jobs[1::2]:
            client.cancel(job.handle)
    function = world.function()
    assert standing(function) == 2 * living + 1
    client.cancel(jobs[0].handle)
    assert (standing(function), function.husks) == (living, 0)
    assert world.worker().grab_all() == [b"%d" % number for number in range(2, 2 * living + 1, 2)]


def test_a_few_ended_jobs_are_not_worth_throwing_out(world):
    client = world.connect()
    jobs = [client.submit() for _ in range(HUSKS + 1)]
    for job in jobs[:HUSKS]:
        client.cancel(job.handle)
    function = world.function()
    assert (standing(function), function.husks) == (HUSKS + 1, HUSKS)
    client.cancel(jobs[HUSKS].handle)
    assert (standing(function), function.husks) == (0, 0)


def test_ended_jobs_of_every_priority_and_in_the_middle_are_thrown_out(world):
    client, worker = world.connect(), world.worker()
    choked = world.connect()
    middle = [choked.submit(workload=b"middle %d" % number) for number in range(80)]
    choked.choke()
    assert worker.grab() is None
    last = client.submit(workload=b"last")
    choked.unchoke()  # 80 jobs come back to the middle
    function = world.function()
    assert len(function.late[Priority.NORMAL]) == 80
    high = [client.submit(priority=Priority.HIGH) for _ in range(20)]
    low = [client.submit(priority=Priority.LOW) for _ in range(20)]
    for job in (*high, *low, *middle[:40]):
        client.cancel(job.handle)
    assert standing(function) == function.runnable + function.husks
    assert function.husks < 40
    assert worker.grab_all() == [b"middle %d" % n for n in range(40, 80)] + [
        last.workload or b"last"
    ]


def test_a_job_cancelled_in_the_middle_is_passed_over(world):
    choked, client, worker = world.connect(), world.connect(), world.worker()
    jobs = [choked.submit(workload=b"%d" % number) for number in range(3)]
    choked.choke()
    assert worker.grab() is None
    client.submit(workload=b"behind")
    choked.unchoke()
    client.cancel(jobs[0].handle)
    assert worker.grab_all() == [b"1", b"2", b"behind"]
    assert (standing(world.function()), world.function().husks) == (0, 0)


def test_a_job_in_the_middle_of_a_choked_client_is_parked_again(world):
    choked, client, worker = world.connect(), world.connect(), world.worker()
    choked.submit(workload=b"parked")
    choked.choke()
    assert worker.grab() is None
    client.submit(workload=b"behind")
    choked.unchoke()
    choked.choke()
    assert worker.grab_all() == [b"behind"]
    choked.unchoke()
    assert worker.grab_all() == [b"parked"]


def test_a_job_in_the_middle_is_handed_out_while_another_client_is_choked(world):
    parked, choked, worker = world.connect(), world.connect(), world.worker()
    job = parked.submit()
    parked.choke()
    assert worker.grab() is None
    world.connect().background()
    parked.unchoke()
    choked.choke()
    assert worker.grab() is job


def test_unread_jobs_of_high_priority_hide_none_of_lower_priority(world):
    choked, client, worker = world.connect(), world.connect(), world.worker()
    choked.submit(priority=Priority.HIGH)
    choked.choke()
    job = client.submit(priority=Priority.LOW)
    assert worker.grab() is job


def test_a_job_taken_from_behind_a_ghost_leaves_the_queue_whatever_stands_in_the_middle(world):
    choked, client, slow = world.connect(), world.connect(), world.worker(timeout=1024)
    ghosts = [choked.submit(workload=b"ghost %d" % number) for number in range(2)]
    assert [slow.grab(), slow.grab()] == ghosts
    world.pass_time(1024)
    choked.choke()
    assert world.worker().grab() is None  # parks both ghosts
    jobs = [client.submit(workload=b"%d" % number) for number in range(3)]
    choked.unchoke()  # both go to the middle
    function = world.function()
    assert (len(function.late[Priority.NORMAL]), standing(function)) == (2, 5)
    assert slow.grab() is jobs[0]
    assert (len(function.late[Priority.NORMAL]), standing(function)) == (2, 4)
    slow.leave()
    assert world.worker().grab_all() == [b"ghost 0", b"ghost 1", b"1", b"2", b"0"]


def test_a_job_taken_from_between_ghosts_in_the_middle_leaves_the_middle(world):
    choked, slow, other = world.connect(), world.worker(timeout=1024), world.worker()
    ghost = choked.submit(workload=b"ghost")
    assert slow.grab() is ghost
    world.pass_time(1024)
    jobs = [choked.submit(workload=b"%d" % number) for number in range(2)]
    choked.choke()
    assert other.grab() is None
    world.connect().background(workload=b"behind")
    choked.unchoke()
    function = world.function()
    assert len(function.late[Priority.NORMAL]) == 3
    assert slow.grab() is jobs[0]
    assert (len(function.late[Priority.NORMAL]), standing(function)) == (2, 3)
    assert other.grab() is ghost
    assert other.grab() is jobs[1]


@given(
    st.lists(st.sampled_from(["submit", "delayed", "due", "cancel", "choke", "unchoke", "grab"]))
)
def test_jobs_of_a_priority_are_always_handed_out_by_their_sequence(steps):
    world = World()
    choked, client, worker = world.connect(), world.connect(), world.worker()
    jobs = []
    for number, step in enumerate(steps):
        if step == "submit":
            jobs.append((choked if number % 2 else client).submit())
        elif step == "delayed":
            jobs.append(client.background(due=world.now.wall + 4))
        elif step == "due":
            world.pass_time(4)
        elif step == "cancel" and jobs:
            client.cancel(jobs.pop(number % len(jobs)).handle)
        elif step == "choke":
            choked.choke()
        elif step == "unchoke":
            choked.unchoke()
        elif step == "grab" and (job := worker.grab()) is not None:
            assert job.seq == min(
                each.seq
                for each in jobs
                if each.due <= world.now.wall
                and not (choked.peer.choked and choked.peer in each.waiters)
            )
            worker.complete(job)
            jobs.remove(job)
    choked.unchoke()
    world.pass_time(4)
    order = []
    while (job := worker.grab()) is not None:
        order.append(job.seq)
        worker.complete(job)
    assert order == sorted(job.seq for job in jobs)


def test_the_best_priority_is_the_most_urgent_one_with_a_job(world):
    client, function = world.connect(), world.function()
    for priority in (Priority.LOW, Priority.NORMAL, Priority.HIGH):
        client.submit(priority=priority)
        assert function.best() == priority


def test_a_function_shows_itself_by_name_and_tenant(world):
    assert repr(world.function(b"resize", "blue")) == "<Function b'resize' of blue>"


def test_rules_are_none_unless_given():
    assert Rules() == Rules(timeout=0.0, attempts=0, fail_on_timeout=False)


# Partitions


def test_a_server_of_one_machine_has_a_single_partition():
    world = World()
    world.worker(b"f", b"g", b"h")
    assert list(world.broker.partitions) == [0]


def test_functions_are_spread_over_partitions_and_each_hangs_on_one():
    world = World(partitions=1024)
    names = [b"f%d" % number for number in range(200)]
    world.worker(*names)
    where = spread(1024)
    for name in names:
        function = world.function(name)
        number = where("default", name)
        assert function.partition is world.broker.partitions[number]
        assert function.partition.number == number
        assert function.partition.functions["default", name] is function
    assert len(world.broker.partitions) > 100


def test_partitions_keep_books_and_counters_of_their_own():
    world = World(partitions=1024)
    client, worker = world.connect(), world.worker(b"f", b"g")
    first, second = client.submit(b"f"), client.submit(b"g")
    assert first.function.partition is not second.function.partition
    assert list(first.function.jobs.values()) == [first]
    assert list(second.function.jobs.values()) == [second]
    worker.grab_all()
    assert first.function.partition.ended[JobEnd.COMPLETED] == 1
    assert second.function.partition.ended[JobEnd.COMPLETED] == 1


def test_ends_are_counted_by_function_and_outlive_it_in_its_partition():
    world = World()
    client, worker = world.connect(), world.worker(b"f")
    client.submit(b"f")
    client.background(b"g")
    worker.grab_all()
    f, g = world.function(b"f"), world.function(b"g")
    assert f.ended[JobEnd.COMPLETED] == 1
    assert not any(g.ended.values())
    assert world.drop(b"g")
    assert world.ended == {JobEnd.COMPLETED: 1, JobEnd.DROPPED: 1}


def test_the_first_in_line_tells_how_long_jobs_wait():
    world = World()
    client, worker = world.connect(), world.worker()
    start = world.now.wall
    function = world.function()
    assert function.queued_since() is None
    later = client.background(due=world.now.wall + 5)
    assert function.queued_since() is None
    first = client.background()
    world.pass_time(3)
    client.background(priority=Priority.HIGH)
    assert function.queued_since() == start
    client.cancel(first.handle)
    assert function.queued_since() == start + 3
    assert worker.grab() is not None
    assert function.queued_since() is None
    world.pass_time(2)
    assert later.state == QUEUED
    assert function.queued_since() == start + 5


def test_a_job_that_queues_again_has_waited_since_it_came():
    world = World()
    client, worker = world.connect(), world.worker()
    start = world.now.wall
    client.background()
    world.pass_time(3)
    assert worker.grab() is not None
    worker.leave()
    assert world.function().queued_since() == start


def test_a_dropped_function_leaves_its_partition():
    world = World(partitions=1024)
    partition = world.function().partition
    assert world.drop()
    assert partition.functions == {}


def test_deadlines_of_all_partitions_are_kept():
    world = World(partitions=1024)
    client = world.connect()
    for number, name in enumerate((b"f", b"g", b"h")):
        client.submit(name)
        worker = world.worker(name, timeout=8 - number)
        assert worker.grab() is not None
        client.background(name, due=world.now.wall + 20 - number)
    assert world.broker.next_deadline() == world.now.monotonic + 6
    world.pass_time(8)
    assert [world.function(name).running for name in (b"f", b"g", b"h")] == [0, 0, 0]
    world.pass_time(12)
    assert [world.function(name).runnable for name in (b"f", b"g", b"h")] == [2, 2, 2]
