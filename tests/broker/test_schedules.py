"""Schedules as a model: when they are due, what was missed, which clock they go by; and the jobs
that are their runs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.broker.world import START, World
from trigear.broker.broker import QueueFull
from trigear.broker.schedules import (
    AHEAD_SECONDS,
    FAR_AHEAD_SECONDS,
    MISSED_SECONDS,
    TURN,
    Missed,
    Schedule,
    Schedules,
    distinction,
)
from trigear.broker.timing import timing_of
from trigear.model import NEVER, JobEnd, Now, Priority

WALL = START.wall


def schedule(handle: bytes = b"H:1", **changes: object) -> Schedule:
    """One that is due every minute, beginning a minute from now."""
    plain = Schedule(
        tenant="default",
        partition=0,
        function=b"f",
        unique=b"u",
        handle=handle,
        workload=b"w",
        priority=Priority.NORMAL,
        timing=timing_of("@every 60"),
        missed=Missed.ONCE,
        since=WALL,
        settled=WALL,
    )
    return replace(plain, **changes)


def at(seconds: float) -> Now:
    return Now(START.monotonic + seconds, WALL + seconds)


# One schedule


def test_the_next_run_is_due_behind_what_is_settled():
    one = schedule()
    assert one.due == WALL + 60
    assert one.settle(at(60)).due == WALL + 120
    assert one.settle(at(1000)).due == WALL + 1020
    assert replace(one, paused=True).due == NEVER


def test_a_run_leaves_its_mark_and_settles_nothing():
    one = schedule().ran_as(b"H:5", at(7)).ran_as(b"H:6", at(8))
    assert (one.runs, one.run, one.ran, one.settled) == (2, b"H:6", WALL + 8, WALL)


@pytest.mark.parametrize(
    ("late", "once", "skip"),
    [
        (0.0, True, True),
        (MISSED_SECONDS - 0.1, True, True),
        (MISSED_SECONDS, True, False),
        (86340.0, True, False),
        (86400.0, True, True),
        (86400.0 + MISSED_SECONDS - 0.1, True, True),
    ],
)
def test_what_is_late_by_more_than_a_minute_is_missed(late: float, once: bool, skip: bool):
    daily = schedule(timing=timing_of("@every 1d"))
    now = at(86400 + late)
    assert daily.wants_run(now) is once
    assert replace(daily, missed=Missed.SKIP).wants_run(now) is skip


def test_what_was_settled_is_not_made_up_for_within_the_minute():
    one = schedule(timing=timing_of("@every 10"), missed=Missed.SKIP).settle(at(55))
    assert not one.wants_run(at(59))
    assert one.wants_run(at(60))


@pytest.mark.parametrize(("text", "most"), [("@every 60", 60), ("5 5 * * *", 3 * 3600)])
def test_a_clock_that_was_set_back_by_much_is_gone_by(text: str, most: float):
    assert most in (AHEAD_SECONDS, FAR_AHEAD_SECONDS)
    one = schedule(timing=timing_of(text))
    assert one.follow(at(-most)) is one
    assert one.follow(at(-most - 1)) == one.settle(at(-most - 1))
    assert one.follow(at(5)) is one


def test_function_and_unique_tell_schedules_apart_and_without_a_unique_the_workload():
    assert schedule().key == ("default", b"f", b"u")
    assert schedule(workload=b"other").key == schedule().key
    assert schedule(unique=b"v").key != schedule().key
    plain = distinction(b"", b"w")
    assert plain == distinction(b"-", b"w")
    assert plain != distinction(b"", b"v")
    assert plain.startswith(b"-\0")
    assert len(plain) == 26


# The book


def test_schedules_are_found_by_key_and_by_handle_and_are_listed_in_order():
    book = Schedules()
    first, second = schedule(b"H:1"), schedule(b"H:2", unique=b"v")
    other = schedule(b"H:3", tenant="acme")
    for one in (first, second, other):
        book.put(one)
    assert len(book) == 3
    assert list(book) == [first, second, other]
    assert book.get(second.key) is second
    assert book.of("default") == {b"H:1": first, b"H:2": second}
    assert book.of("acme") == {b"H:3": other}
    assert book.of("nobody") == {}
    book.drop(other.key)
    book.drop(first.key)
    assert book.get(first.key) is None
    assert book.of("acme") == {}
    assert book.of("default") == {b"H:2": second}


def test_what_is_due_waits_until_it_is_put_back():
    book = Schedules()
    assert book.next() == NEVER
    one, two = schedule(b"H:1"), schedule(b"H:2", unique=b"v", since=WALL + 1, settled=WALL + 1)
    book.put(two)
    book.put(one)
    assert book.next() == WALL + 60
    assert book.take_due(WALL + 59) == []
    assert book.take_due(WALL + 60) == [one.key]
    assert book.next() == WALL + 61
    assert book.take_due(WALL + 100) == [two.key]
    assert book.next() == NEVER
    book.put(one.settle(at(100)))
    assert book.next() == WALL + 120


def test_of_many_that_are_due_some_are_taken_at_a_time():
    book = Schedules()
    for number in range(TURN + 5):
        book.put(schedule(b"H:%d" % number, unique=b"%d" % number))
    assert len(book.take_due(WALL + 60)) == TURN
    assert book.next() == WALL + 60
    assert len(book.take_due(WALL + 60)) == 5
    assert book.next() == NEVER


def test_a_schedule_in_place_of_another_is_due_at_its_own_time():
    book = Schedules()
    one = schedule()
    book.put(one)
    book.put(replace(one, timing=timing_of("@every 90")))
    assert len(book) == 1
    assert book.take_due(WALL + 89) == []
    assert book.take_due(WALL + 90) == [one.key]


def test_one_that_is_paused_held_dropped_or_put_off_is_not_due():
    book = Schedules()
    one = schedule()
    book.put(replace(one, paused=True))
    assert book.next() == NEVER
    book.put(one)
    book.hold(one.key)
    book.hold(one.key)
    assert book.next() == NEVER
    assert book.get(one.key) is one
    book.put(one, WALL + 75)
    assert book.next() == WALL + 75
    book.drop(one.key)
    assert book.next() == NEVER


# Runs


def begin(world: World, *, unique: bytes = b"", workload: bytes = b"w"):
    job, made = world.broker.begin_run(
        world.broker.tenant("default"), b"f", unique, workload, Priority.HIGH, world.now
    )
    world.check()
    return job, made


def test_a_run_is_a_background_job_that_waits_for_its_record(durable):
    worker = durable.sleeper()
    job, made = begin(durable, unique=b"u")
    assert made
    assert (job.unique, job.workload, job.priority, job.background) == (b"u", b"w", 0, True)
    assert job.submitted == durable.now.wall
    assert job.record == job.seq > 0
    assert durable.status(job) is None
    assert durable.ledger.kept == []  # that is up to who made it
    durable.ledger.records.add(job.record)
    durable.broker.stored(job, durable.now)
    durable.check()
    assert worker.noops == 1
    assert worker.grab() is job
    worker.complete(job)
    assert durable.ledger.forgotten == [job.seq]


def test_a_run_that_is_not_stored_leaves_nothing(durable):
    job, _ = begin(durable, unique=b"u")
    durable.broker.not_stored(job, durable.now)
    durable.check()
    assert durable.ended == {JobEnd.NOT_STORED: 1}
    assert begin(durable, unique=b"u")[1]
    assert durable.ledger.forgotten == []


def test_without_a_store_a_run_has_no_record(world):
    job, made = begin(world)
    assert made
    assert job.record == 0
    world.broker.stored(job, world.now)
    world.check()
    assert world.worker().grab() is job


def test_a_run_joins_a_job_with_its_unique(world):
    client = world.connect()
    job = client.submit(unique=b"u")
    assert begin(world, unique=b"u") == (job, False)
    assert job.background
    assert begin(world, unique=b"-", workload=b"x")[1]
    assert not begin(world, unique=b"-", workload=b"x")[1]
    assert begin(world)[1]
    assert begin(world)[1]


def test_a_run_that_joins_a_foreground_job_has_it_recorded(durable):
    client = durable.connect()
    job = client.submit(unique=b"u")
    assert begin(durable, unique=b"u") == (job, False)
    assert durable.ledger.kept == [job]
    assert job.gate == []
    durable.store_all()
    client.leave()
    assert durable.worker().grab() is job


def test_a_full_queue_takes_no_run(world):
    client = world.connect()
    client.background(unique=b"u")
    world.function().limits[Priority.HIGH] = 1
    with pytest.raises(QueueFull):
        begin(world)
    assert not begin(world, unique=b"u")[1]
    world.function().limits[Priority.HIGH] = 2
    begin(world)
    with pytest.raises(QueueFull):
        begin(world)  # the one on its way counts


def test_a_partition_is_there_before_its_functions(partitions):
    world = World(partitions=partitions)
    partition = world.broker.partition("default", b"f")
    assert world.broker.tenants == {}
    assert world.function().partition is partition
    assert len(partition.schedules) == 0
