"""How much of a server a tenant may take up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.broker.test_model import Told
from tests.broker.world import World
from trigear.broker.broker import OverQuota
from trigear.broker.check import charges_wrong
from trigear.broker.functions import IDLE_FUNCTIONS, Rules
from trigear.broker.quotas import Quotas
from trigear.model import JobEnd

RED = "red"


def world_with(rules=None, *, durable=False, partitions=1, **quotas) -> World:
    """Red has these quotas, blue has none."""
    every = {name: 0 for name in Quotas.__dataclass_fields__} | quotas
    return World(quotas={RED: Quotas(**every)}, rules=rules, durable=durable, partitions=partitions)


def refused(world: World, call, *args, **kwargs) -> str:
    """The quota by which the call is refused, which changes nothing and is counted."""
    allowance = world.allowance(RED)
    before = allowance.queued_jobs, allowance.queued_bytes, allowance.workers
    counted = allowance.exceeded.total()
    with pytest.raises(OverQuota) as caught:
        call(*args, **kwargs)
    assert (allowance.queued_jobs, allowance.queued_bytes, allowance.workers) == before
    assert allowance.exceeded.total() == counted + 1
    world.check()
    return caught.value.quota


# Jobs


def test_jobs_are_refused_from_the_quota_on_and_taken_again_below_it():
    world = world_with(max_queued_jobs=2)
    client = world.connect(tenant=RED)
    job = client.submit()
    client.background()
    assert refused(world, client.submit) == "max-queued-jobs"
    assert refused(world, client.background, b"another") == "max-queued-jobs"
    assert client.cancel(job.handle)
    client.submit()


def test_a_job_that_is_joined_is_none_more():
    world = world_with(max_queued_jobs=1)
    client = world.connect(tenant=RED)
    job = client.submit(unique=b"u")
    assert client.submit(unique=b"u") is job
    assert client.background(unique=b"u") is job


def test_bytes_are_those_of_the_workload_and_of_the_names():
    world = world_with(max_queued_bytes=20)
    client = world.connect(tenant=RED)
    client.submit(b"resize", b"work", unique=b"u", reducer=b"sum")
    assert world.allowance(RED).queued_bytes == 6 + 4 + 1 + 3
    assert refused(world, client.submit, b"resize", b"w") == "max-queued-bytes"
    client.submit(b"resize", b"")
    assert world.allowance(RED).queued_bytes == 20


def test_a_job_may_be_too_large_for_itself():
    world = world_with(max_job_bytes=5)
    client = world.connect(tenant=RED)
    client.submit(b"f", b"work")
    assert refused(world, client.submit, b"f", b"works") == "max-job-bytes"


def test_filling_one_tenant_leaves_another_as_it_was():
    world = world_with(max_queued_jobs=1, max_workers=1, max_functions=1, partitions=3)
    red, blue = world.connect("red", RED), world.connect("blue", "blue")
    red.submit(b"f")
    red.can_do(b"f")
    for call in (red.submit, red.background, world.connect("more", RED).can_do):
        refused(world, call)
    refused(world, red.can_do, b"another")
    for number in range(20):
        blue.submit(b"%d" % number)
        world.connect("worker", "blue").can_do(b"%d" % number)
    assert len(blue.grab_all()) == 0
    assert blue.answers
    assert None not in [handle for _, handle in blue.answers]


@pytest.mark.parametrize("others", [0, 50])
def test_what_is_refused_is_the_same_whether_others_are_idle_or_full(others):
    world = world_with(max_queued_jobs=3, max_functions=2)
    other = world.connect("other", "blue")
    for number in range(others):
        other.background(b"%d" % number)
        other.can_do(b"%d" % number)
    client = world.connect("client", RED)
    answers = []
    for name in (b"f", b"g", b"h", b"f", b"g"):
        try:
            client.background(name)
        except OverQuota as error:
            answers.append(error.quota)
        else:
            answers.append("taken")
    assert answers == ["taken", "taken", "max-functions", "taken", "max-queued-jobs"]


def test_no_tenant_without_quotas_is_charged():
    world = world_with(max_queued_jobs=1)
    client = world.connect(tenant="blue")
    client.submit()
    client.submit()
    assert world.broker.tenant("blue").allowance is None


# Giving back


def done(world, client, worker):
    worker.complete(worker.grab())


def failed(world, client, worker):
    worker.fail(worker.grab())


def cancelled(world, client, worker):
    job = worker.grab()
    assert client.cancel(job.handle)


def client_gone(world, client, worker):
    client.leave()


def dropped(world, client, worker):
    worker.cant_do()
    assert world.drop(b"f", RED)


@pytest.mark.parametrize("path", [done, failed, cancelled, client_gone, dropped])
def test_a_foreground_job_is_given_back_when_it_is_over(path):
    world = world_with(max_queued_jobs=1)
    client, worker = world.connect("client", RED), world.worker(tenant=RED)
    client.submit()
    refused(world, world.connect("other", RED).submit)
    path(world, client, worker)
    allowance = world.allowance(RED)
    assert (allowance.queued_jobs, allowance.queued_bytes) == (0, 0)
    world.connect("other", RED).submit()


def test_a_lost_job_is_tried_again_and_stays_charged():
    world = world_with(max_queued_jobs=1)
    client, worker = world.connect("client", RED), world.worker(tenant=RED)
    job = client.background()
    assert worker.grab() is job
    worker.leave()
    assert world.allowance(RED).queued_jobs == 1
    assert world.broker.requeue(client.peer.tenant, job.handle, world.now)
    assert world.allowance(RED).queued_jobs == 1


def test_a_job_behind_the_gate_counts_and_is_given_back_if_it_is_not_stored():
    world = world_with(max_queued_jobs=2, durable=True)
    client = world.connect(tenant=RED)
    client.background()
    client.background()
    assert refused(world, client.background) == "max-queued-jobs"
    world.lose_all()
    assert world.allowance(RED).queued_jobs == world.allowance(RED).queued_bytes == 0
    client.background()
    world.store_all()
    assert world.allowance(RED).queued_jobs == 1


def test_a_dead_letter_is_charged_when_it_is_made_a_job_again():
    rules = {b"f": Rules(attempts=1, dead_letters=True)}
    world = world_with(rules, max_queued_jobs=1)
    client, worker = world.connect("client", RED), world.worker(tenant=RED)
    client.background()
    worker.grab()
    worker.leave()
    (letter,) = world.broker.dead.of(client.peer.tenant)
    assert world.allowance(RED).queued_jobs == 0
    other = client.background()
    revive = world.broker.dead.revive
    assert refused(world, revive, letter, Told(), world.now) == "max-queued-jobs"
    assert world.broker.dead.of(client.peer.tenant) == [letter]
    assert client.cancel(other.handle)
    revive(letter, Told(), world.now)
    assert world.allowance(RED).queued_jobs == 1
    world.check()


def test_a_revived_job_that_is_not_stored_is_given_back():
    rules = {b"f": Rules(attempts=1, dead_letters=True)}
    world = world_with(rules, durable=True, max_queued_jobs=1)
    client, worker = world.connect("client", RED), world.worker(tenant=RED)
    client.background()
    world.store_all()
    worker.grab()
    worker.leave()
    (letter,) = world.broker.dead.of(client.peer.tenant)
    world.broker.dead.revive(letter, Told(), world.now)
    assert world.allowance(RED).queued_jobs == 1
    world.ledger.settle(world.now, written=False)
    assert world.allowance(RED).queued_jobs == 0
    world.check()


def test_runs_of_schedules_count():
    world = world_with(max_queued_jobs=1, durable=True)
    tenant = world.broker.tenant(RED)
    job, made = world.broker.begin_run(tenant, b"f", b"u", b"work", 1, world.now)
    assert made
    world.check()
    run = world.broker.begin_run
    assert refused(world, run, tenant, b"f", b"other", b"", 1, world.now) == "max-queued-jobs"
    world.broker.not_stored(job, world.now)
    assert world.allowance(RED).queued_jobs == 0
    world.check()


def test_restored_jobs_are_charged_and_never_refused():
    world = world_with(max_queued_jobs=1, max_functions=1)
    tenant = world.broker.tenant(RED)
    for number in (1, 2, 3):
        name, handle = b"f%d" % number, b"H:%d" % number
        job = world.broker.restore(tenant, name, b"", handle, b"w", 1, world.now, sequence=number)
        assert job is not None
    assert world.broker.restore(tenant, b"f1", b"", b"H:1", b"", 1, world.now, sequence=4) is None
    world.check()
    assert world.allowance(RED).queued_jobs == 3
    client = world.connect(tenant=RED)
    assert refused(world, client.submit, b"f1") == "max-queued-jobs"
    assert refused(world, client.submit, b"f4") == "max-functions"


# Age


AGE = 10.0


def test_a_background_job_that_is_too_old_is_given_up_however_often_it_was_tried():
    world = world_with({b"f": Rules(oldest=AGE, attempts=0)}, max_background_age=AGE)
    client, worker = world.connect("client", RED), world.worker(tenant=RED)
    client.background()
    world.pass_time(4)
    worker.grab()
    worker.leave()
    world.pass_time(5)
    assert world.allowance(RED).queued_jobs == 1
    world.pass_time(1)
    assert world.ended == {JobEnd.EXPIRED: 1}
    assert world.allowance(RED).queued_jobs == 0


def test_a_job_that_runs_is_left_alone_and_is_not_tried_again_when_it_is_too_old():
    world = world_with({b"f": Rules(oldest=AGE, backoff=8.0, backoff_limit=8.0)})
    client, worker = world.connect("client", RED), world.worker(tenant=RED)
    job = client.background()
    assert worker.grab() is job
    world.pass_time(20)
    assert world.status(job) is job
    worker.leave()
    world.pass_time(7)
    assert world.status(job) is job  # it waits for its second attempt
    world.pass_time(1)
    assert world.ended == {JobEnd.EXPIRED: 1}


def test_foreground_jobs_grow_old_with_their_client():
    world = world_with({b"f": Rules(oldest=AGE)})
    client = world.connect(tenant=RED)
    job = client.submit()
    world.pass_time(20)
    assert world.status(job) is job


def test_a_job_that_is_to_wait_for_longer_is_refused():
    world = world_with(max_background_age=AGE)
    client = world.connect(tenant=RED)
    wall = world.now.wall
    assert refused(world, client.background, due=wall + 11) == "max-background-age"
    client.background(due=wall + 9)


def test_another_age_holds_for_jobs_that_wait():
    world = world_with({b"f": Rules()})
    client = world.connect(tenant=RED)
    client.background()
    world.rules[b"f"] = Rules(oldest=AGE)
    world.broker.apply_rules(world.now)
    world.pass_time(10)
    assert world.ended == {JobEnd.EXPIRED: 1}


# Workers


def test_a_worker_is_a_connection_with_an_ability():
    world = world_with(max_workers=1)
    first, second = world.connect("first", RED), world.connect("second", RED)
    first.can_do(b"f", b"g")
    assert refused(world, second.can_do) == "max-workers"
    first.cant_do(b"f")
    assert refused(world, second.can_do) == "max-workers"
    first.cant_do(b"g")
    second.can_do()
    second.reset()
    first.can_do()
    first.leave()
    second.can_do()


def test_a_connection_has_so_many_abilities_and_may_repeat_them():
    world = world_with(max_abilities_per_connection=2)
    worker = world.connect(tenant=RED)
    worker.can_do(b"f", b"g")
    assert refused(world, worker.can_do, b"h") == "max-abilities-per-connection"
    worker.can_do(b"f", timeout=3.0)
    assert refused(world, worker.can_do, b"h") == "max-abilities-per-connection"
    worker.cant_do(b"g")
    worker.can_do(b"h")


def test_connections_are_charged():
    world = world_with(max_connections=1)
    allowance = world.allowance(RED)
    allowance.connect()
    assert refused(world, allowance.connect) == "max-connections"
    allowance.connections -= 1
    allowance.connect()


# Functions


def test_idle_functions_make_room_the_longest_idle_first():
    world = world_with(max_functions=2)
    client = world.connect(tenant=RED)
    for name in (b"a", b"b"):
        assert client.cancel(client.submit(name).handle)
    assert [function.name for function in world.functions] == [b"a", b"b"]
    job = client.submit(b"a")
    assert client.cancel(job.handle)
    kept = client.submit(b"c")
    assert [function.name for function in world.functions] == [b"a", b"c"]
    client.submit(b"d")
    assert refused(world, client.submit, b"e") == "max-functions"
    assert client.cancel(kept.handle)
    client.submit(b"e")
    assert [function.name for function in world.functions] == [b"d", b"e"]
    assert world.ended == {JobEnd.CANCELLED: 4}


def test_functions_that_somebody_cares_for_are_not_idle():
    world = world_with({b"set": Rules(steered=True)}, max_functions=3)
    client = world.connect(tenant=RED)
    world.function(b"set", RED)
    world.function(b"limited", RED).limits = [1, 1, 1]
    worker = world.worker(b"served", tenant=RED)
    assert refused(world, client.submit, b"new") == "max-functions"
    assert refused(world, worker.can_do, b"new") == "max-functions"
    # What was set is set no more.
    world.rules.clear()
    world.broker.apply_rules(world.now)
    worker.can_do(b"new")
    client.submit(b"new")
    names = {function.name for function in world.functions}
    assert len(names) == 3
    assert {b"served", b"new"} <= names


def test_a_lower_quota_forgets_as_many_as_it_must():
    world = world_with(max_functions=4)
    client = world.connect(tenant=RED)
    for name in (b"a", b"b", b"c", b"d"):
        client.cancel(client.submit(name).handle)
    world.allowance(RED).quotas = Quotas(max_functions=2)
    client.submit(b"e")
    assert [function.name for function in world.functions] == [b"d", b"e"]


@given(
    st.lists(
        st.tuples(st.sampled_from(["submit", "end", "can", "cannot", "leave"]), st.integers(0, 5)),
        max_size=40,
    )
)
def test_only_functions_in_use_count(steps):
    world = world_with(max_functions=3)
    client, worker = world.connect("client", RED), world.connect("worker", RED)
    jobs = []
    for what, number in steps:
        name = b"%d" % number
        live = {job.function.name for job in jobs} | {f.name for f in worker.peer.abilities}
        if what in ("submit", "can"):
            call = client.submit if what == "submit" else worker.can_do
            if name not in live and len(live) >= 3:
                assert refused(world, call, name) == "max-functions"
            elif what == "submit":
                jobs.append(call(name))
            else:
                call(name)
        elif what == "end" and jobs:
            client.cancel(jobs.pop(number % len(jobs)).handle)
        elif what == "cannot":
            worker.cant_do(name)
        elif what == "leave":
            worker.leave()
            worker = world.connect("worker", RED)
        assert len(world.functions) <= 3


def test_names_that_are_used_once_do_not_stay_for_ever_without_quotas():
    world = World()
    client, worker = world.connect(), world.worker(b"kept")
    kept = client.submit(b"queued")
    with world.unchecked():
        for number in range(3 * IDLE_FUNCTIONS):
            client.cancel(client.submit(b"%d" % number).handle)
    assert IDLE_FUNCTIONS // 2 < len(world.functions) <= IDLE_FUNCTIONS
    names = [function.name for function in world.functions]
    assert names[:2] == [b"kept", b"queued"]
    assert names[-1] == b"%d" % (3 * IDLE_FUNCTIONS - 1)
    assert world.status(kept) is kept
    assert worker.grab() is None
    assert world.ended[JobEnd.CANCELLED] == 3 * IDLE_FUNCTIONS


def test_functions_in_use_are_looked_through_less_and_less():
    world = World()
    client = world.connect()
    with world.unchecked():
        for number in range(IDLE_FUNCTIONS + 1):
            client.submit(b"%d" % number)
    assert world.broker.tenant("default").sweep_at == IDLE_FUNCTIONS * 5 // 4


# Other quotas


def test_a_tenant_that_gets_quotas_is_charged_for_what_it_has():
    world = World()
    client = world.connect("client", RED)
    world.worker(b"f", b"g", tenant=RED)
    client.submit()
    client.background(b"g", b"more")
    client.cancel(client.submit(b"idle").handle)
    world.quotas[RED] = Quotas(max_queued_jobs=2)
    world.broker.apply_quotas(lambda tenant: 2)
    allowance = world.allowance(RED)
    assert (allowance.connections, allowance.workers, allowance.queued_jobs) == (2, 1, 2)
    world.check()
    assert refused(world, client.submit) == "max-queued-jobs"
    world.quotas[RED] = Quotas(max_queued_jobs=3)
    world.broker.apply_quotas(lambda tenant: 2)
    assert world.allowance(RED) is allowance
    client.submit()
    del world.quotas[RED]
    world.broker.apply_quotas(lambda tenant: 2)
    client.submit()
    assert world.broker.tenant(RED).allowance is None


def test_the_check_finds_what_is_charged_wrongly():
    world = world_with()
    client = world.connect(tenant=RED)
    client.cancel(client.submit().handle)
    tenant, allowance = client.peer.tenant, world.allowance(RED)
    assert list(charges_wrong(tenant)) == []
    allowance.queued_jobs += 1
    assert list(charges_wrong(tenant)) == ["tenant red: 1 jobs are charged, counted 0"]
    allowance.queued_jobs -= 1
    idle = dict(allowance.idle)
    allowance.idle.clear()
    assert list(charges_wrong(tenant)) == [
        "tenant red: [<Function b'f' of red>] are idle and not known to be"
    ]
    allowance.idle.update(idle)
    tenant.functions.clear()
    assert list(charges_wrong(tenant)) == [
        "tenant red: [<Function b'f' of red>] are idle and not there"
    ]
