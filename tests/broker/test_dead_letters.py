"""What is left of background jobs that were given up, and what becomes of that."""

from __future__ import annotations

import pytest

from tests.broker.world import World
from trigear.broker.dead import NOTE_LIMIT, DeadLetter
from trigear.broker.functions import Rules
from trigear.broker.jobs import PENDING, QUEUED
from trigear.model import JobEnd, Priority

DEADLY = Rules(attempts=1, dead_letters=True)


class Told:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def stored(self, now: object) -> None:
        self.heard.append("stored")

    def not_stored(self, now: object) -> None:
        self.heard.append("not stored")


@pytest.fixture
def make(partitions):
    """A world with these rules for ``f``."""
    return lambda rules, **more: World(partitions=partitions, rules={b"f": rules}, **more)


def letters(world: World, function: bytes | None = None) -> list[DeadLetter]:
    return world.broker.dead.of(world.broker.tenant("default"), function)


def die(world: World, **more) -> DeadLetter:
    """A background job that was lost as often as it may be."""
    job = world.connect().background(**more)
    if world.ledger is not None:
        world.store_all()
    worker = world.worker()
    assert worker.grab() is job
    worker.leave()
    return letters(world)[-1]


# Dying


def test_a_background_job_whose_attempts_are_used_up_leaves_all_that_is_known_of_it(make):
    world = make(DEADLY, durable=True)
    born = world.now.wall
    client = world.connect()
    job = client.background(workload=b"load", unique=b"u", priority=Priority.HIGH, reducer=b"add")
    world.store_all()
    worker = world.worker()
    assert worker.grab() is job
    job.note = "10.0.0.9", b"hot"
    world.pass_time(3)
    worker.leave()
    (letter,) = letters(world)
    assert (letter.function, letter.handle, letter.unique) == (b"f", job.handle, b"u")
    assert (letter.workload, letter.priority, letter.reducer) == (b"load", Priority.HIGH, b"add")
    assert (letter.reason, letter.attempts) == (JobEnd.EXHAUSTED, 1)
    assert (letter.submitted, letter.died) == (born, born + 3)
    assert (letter.worker, letter.text) == ("10.0.0.7", b"hot")
    assert world.given_up_jobs == [(job.handle, JobEnd.EXHAUSTED)]
    # One line for both: the letter is there when the job is not.
    assert (world.ledger.records, list(world.ledger.letters)) == (set(), [job.handle])


def test_a_foreground_job_leaves_nothing(make):
    world = make(DEADLY)
    client, worker = world.connect(), world.worker()
    job = client.submit()
    assert worker.grab() is job
    worker.leave()
    assert (client.told(job), letters(world)) == (["failed"], [])


def test_without_the_rule_nothing_is_left(make):
    world = make(Rules(attempts=1))
    worker = world.worker()
    assert worker.grab() is None
    world.connect().background()
    worker.grab()
    worker.leave()
    assert (letters(world), world.ended) == ([], {JobEnd.EXHAUSTED: 1})


def test_who_waits_for_a_job_that_dies_is_told_that_it_failed(make):
    world = make(DEADLY)
    client, worker = world.connect(), world.worker()
    job = client.background(unique=b"u")
    client.submit(unique=b"u")
    assert worker.grab() is job
    worker.leave()
    assert client.told(job) == ["failed"]


def test_a_dead_job_is_unknown_and_matches_no_unique(make):
    world = make(DEADLY)
    letter = die(world, unique=b"u")
    client = world.connect()
    job = client.background(unique=b"u")
    assert job.handle != letter.handle
    assert world.broker.status(client.peer.tenant, letter.handle) is None
    assert not client.cancel(letter.handle)


def test_a_job_that_may_not_take_too_long_dies_of_that(make):
    world = make(Rules(timeout=2, fail_on_timeout=True, dead_letters=True))
    worker = world.worker()
    assert world.connect().background() is worker.grab()
    world.pass_time(2)
    assert [(letter.reason, letter.attempts) for letter in letters(world)] == [
        (JobEnd.TIMED_OUT, 1)
    ]
    assert letters(world)[0].worker == "10.0.0.7"


def test_an_expired_job_dies_without_an_attempt(make):
    world = make(Rules(expires=5, dead_letters=True))
    world.connect().background()
    world.pass_time(5)
    (letter,) = letters(world)
    assert (letter.reason, letter.attempts, letter.worker) == (JobEnd.EXPIRED, 0, "")


@pytest.mark.parametrize("text", [b"", b"out of paper"])
def test_a_failure_kills_where_the_function_says_so(make, text):
    world = make(Rules(dead_letters=True, dead_failures=True))
    client, worker = world.connect(), world.worker()
    job = client.background(unique=b"u")
    client.submit(unique=b"u")
    assert worker.grab() is job
    assert worker.fail(job, text) is None
    assert client.told(job) == ["fail"]
    (letter,) = letters(world)
    assert letter.reason == (JobEnd.RAISED if text else JobEnd.FAILED)
    assert (letter.attempts, letter.text) == (1, text)


def test_a_failure_that_comes_late_kills_as_well(make):
    world = make(Rules(timeout=2, dead_letters=True, dead_failures=True))
    worker = world.worker()
    job = world.connect().background()
    assert worker.grab() is job
    world.pass_time(2)
    assert job.state == QUEUED
    assert worker.fail(job) is None
    assert [(letter.reason, letter.attempts) for letter in letters(world)] == [(JobEnd.FAILED, 1)]
    assert worker.grab() is None


def test_failures_kill_only_where_there_are_dead_letters(make):
    world = make(Rules(dead_failures=True))
    worker = world.worker()
    job = world.connect().background()
    assert worker.grab() is job
    worker.fail(job)
    assert (letters(world), world.ended) == ([], {JobEnd.FAILED: 1})


def test_the_last_words_are_kept_as_far_as_they_are_short(make):
    world = make(Rules(attempts=2, retry_failures=True, dead_letters=True))
    worker = world.worker()
    job = world.connect().background()
    assert worker.grab() is job
    worker.fail(job, b"x" * (NOTE_LIMIT + 1))
    assert worker.grab() is job
    worker.fail(job)
    (letter,) = letters(world)
    assert letter.text == b"x" * NOTE_LIMIT


def test_a_foreground_job_whose_way_to_the_background_is_being_stored_dies_too(make):
    world = make(DEADLY, durable=True)
    client, worker = world.connect(), world.worker()
    job = client.submit(unique=b"u")
    client.background(unique=b"u", token="t")
    assert worker.grab() is job
    worker.leave()
    world.store_all()
    assert client.answers[-1] == ("t", job.handle)
    assert [letter.handle for letter in letters(world)] == [job.handle]


# Looking


def test_dead_letters_are_told_by_tenant_and_function(make):
    world = make(DEADLY)
    world.rules[b"g"] = DEADLY
    one = die(world)
    stranger = world.worker(b"g", tenant="other")
    theirs = world.connect("peer", "other").background(b"g")
    assert stranger.grab() is theirs
    stranger.leave()
    assert letters(world) == letters(world, b"f") == [one]
    assert letters(world, b"g") == []
    other = world.broker.tenant("other")
    assert [letter.handle for letter in world.broker.dead.of(other)] == [theirs.handle]
    assert world.broker.dead.get(other, one.handle) is None
    assert world.broker.dead.get(world.broker.tenant("default"), one.handle) is one


def test_a_function_can_be_dropped_beside_its_dead_letters(make):
    world = make(DEADLY)
    letter = die(world)
    assert world.drop()
    assert letters(world) == [letter]
    world.broker.dead.revive(letter, Told(), world.now)
    assert world.worker().grab().handle == letter.handle


# Living again


def test_a_dead_letter_becomes_a_job_with_its_handle_and_all_its_attempts(make):
    world = make(Rules(attempts=2, dead_letters=True))
    client = world.connect()
    job = client.background(workload=b"load", priority=Priority.LOW, reducer=b"add", unique=b"u")
    for _ in range(2):
        worker = world.worker()
        assert worker.grab() is job
        worker.leave()
    (letter,) = letters(world)
    told = Told()
    world.pass_time(100)
    world.broker.dead.revive(letter, told, world.now)
    assert (told.heard, letters(world)) == (["stored"], [])
    again = client.submit(unique=b"u")
    assert (again.handle, again.losses, again.background) == (job.handle, 0, True)
    assert (again.workload, again.priority, again.reducer) == (b"load", Priority.LOW, b"add")
    assert again.submitted == world.now.wall
    worker = world.worker()
    assert worker.grab() is again
    worker.leave()
    assert again.state == QUEUED


def test_a_dead_letter_is_a_job_again_once_that_is_stored(make):
    world = make(DEADLY, durable=True)
    letter = die(world, unique=b"u")
    told, client, worker = Told(), world.connect(), world.sleeper()
    world.broker.dead.revive(letter, told, world.now)
    assert (letters(world), told.heard, worker.grab()) == ([], [], None)
    worker.sleep()
    # Meanwhile it is there for submitters.
    job = client.background(unique=b"u", token="t")
    assert (job.handle, job.state) == (letter.handle, PENDING)
    world.ledger.settle(world.now, written=True)
    world.check()
    assert (told.heard, client.answers) == (["stored"], [("t", job.handle)])
    assert worker.noops == 1
    assert worker.grab() is job
    worker.complete(job)
    assert (world.ledger.records, world.ledger.letters) == (set(), {})


def test_a_dead_letter_stays_dead_if_its_life_cannot_be_stored(make):
    world = make(DEADLY, durable=True)
    letter = die(world, unique=b"u")
    told, client = Told(), world.connect()
    world.broker.dead.revive(letter, told, world.now)
    client.background(unique=b"u", token="t")
    world.ledger.settle(world.now, written=False)
    world.check()
    assert (told.heard, letters(world)) == (["not stored"], [letter])
    assert client.answers == [("t", None)]
    assert client.background(unique=b"u").handle != letter.handle


def test_the_unique_of_a_dead_letter_may_be_taken(make):
    world = make(DEADLY)
    letter = die(world, unique=b"u")
    client = world.connect()
    job = client.background(unique=b"u")
    world.broker.dead.revive(letter, Told(), world.now)
    world.check()
    assert client.submit(unique=b"u") is job
    assert sorted(world.worker().grab_all()) == [b"work", b"work"]


def test_a_job_without_a_unique_lives_again(make):
    world = make(DEADLY)
    world.broker.dead.revive(die(world), Told(), world.now)
    assert world.worker().grab_all() == [b"work"]


def test_a_job_that_expired_has_its_time_anew(make):
    world = make(Rules(expires=5, dead_letters=True))
    job = world.connect().background()
    world.pass_time(50)
    world.broker.dead.revive(letters(world)[0], Told(), world.now)
    world.pass_time(4)
    assert world.worker().grab().handle == job.handle


# Going


@pytest.mark.parametrize("durable", [False, True])
def test_a_dead_letter_can_be_removed(make, durable):
    world = make(DEADLY, durable=durable)
    letter = die(world)
    told = Told()
    world.broker.dead.remove(letter, told, world.now)
    if durable:
        assert told.heard == []
        world.ledger.settle(world.now, written=True)
        assert world.ledger.letters == {}
    assert (told.heard, letters(world)) == (["stored"], [])


def test_a_dead_letter_whose_removal_cannot_be_stored_is_there_again(make):
    world = make(DEADLY, durable=True)
    letter = die(world)
    told = Told()
    world.broker.dead.remove(letter, told, world.now)
    world.ledger.settle(world.now, written=False)
    assert (told.heard, letters(world)) == (["not stored"], [letter])


@pytest.mark.parametrize("durable", [False, True])
def test_dead_letters_are_kept_for_as_long_as_the_function_says(make, durable):
    world = make(Rules(attempts=1, dead_letters=True, dead_keep=100), durable=durable)
    die(world)
    world.pass_time(10)
    second = die(world)
    world.pass_time(89)
    assert len(letters(world)) == 2
    world.pass_time(1)
    assert letters(world) == [second]
    if durable:
        assert list(world.ledger.letters) == [second.handle]
    world.pass_time(10)
    assert letters(world) == []


def test_new_rules_say_how_long_dead_letters_are_kept(make):
    world = make(DEADLY)
    world.rules[b"g"] = DEADLY
    letter = die(world)
    worker = world.worker(b"g")
    world.connect().background(b"g")
    worker.grab()
    worker.leave()
    world.pass_time(1000)
    world.rules[b"f"] = Rules(dead_keep=2000)
    world.broker.apply_rules(world.now)
    world.pass_time(999)
    assert letters(world, b"f") == [letter]
    world.pass_time(1)
    assert (letters(world, b"f"), len(letters(world, b"g"))) == ([], 1)


def test_a_dead_letter_that_lives_again_is_not_forgotten_when_its_time_comes(make):
    world = make(Rules(attempts=1, dead_letters=True, dead_keep=100))
    letter = die(world)
    world.broker.dead.revive(letter, Told(), world.now)
    world.pass_time(200)
    assert world.worker().grab_all() == [b"work"]


# Restoring


def test_a_restored_dead_letter_is_there_for_the_rest_of_its_time(make):
    world = make(Rules(dead_keep=100))
    function = world.function()
    letter = DeadLetter(
        *("default", function.partition.number, b"f", b"H:9", b"u", Priority.LOW, b"", b"w"),
        *(JobEnd.EXHAUSTED, 3, 0.0, world.now.wall - 40),
    )
    assert world.broker.dead.restore(letter, world.now)
    assert letters(world) == [letter]
    world.pass_time(60)
    assert letters(world) == []
    letter.partition += 1
    assert not world.broker.dead.restore(letter, world.now)
