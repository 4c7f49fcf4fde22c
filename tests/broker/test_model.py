"""The broker beside a naive model, through any mixture of steps by any number of peers."""

from __future__ import annotations

import faulthandler
import os
from collections import Counter
from contextlib import contextmanager

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.broker.model import Bounds, Busy, Full, Member, Model, Terms
from tests.broker.world import World
from tests.conftest import FUZZ_EXAMPLES, FUZZ_VARIABLE
from trigear.broker.broker import FunctionBusy, Late, OverQuota, QueueFull
from trigear.broker.functions import Rules
from trigear.broker.jobs import PENDING, STATE_NAMES
from trigear.broker.quotas import Quotas
from trigear.broker.wakeups import WAKE_SECONDS
from trigear.model import JobEnd

TERMS = {
    b"f": Terms(attempts=3),
    b"g": Terms(timeout=2.0),
    b"h": Terms(timeout=1.5, attempts=2, fail=True, dead=True, dead_failures=True, keep=4.0),
    b"k": Terms(
        timeout=3.5,
        attempts=4,
        at_once=1,
        delays=(0.5, 1.0, 1.5),
        retry=True,
        expires=5.0,
        dead=True,
    ),
}


def rules_for(terms: Terms, *, paused: bool = False) -> Rules:
    return Rules(
        timeout=terms.timeout,
        attempts=terms.attempts,
        fail_on_timeout=terms.fail,
        at_once=terms.at_once,
        backoff=terms.delays[0],
        backoff_factor=2.0,
        backoff_limit=terms.delays[-1],
        retry_failures=terms.retry,
        expires=terms.expires,
        dead_letters=terms.dead,
        dead_failures=terms.dead_failures,
        dead_keep=terms.keep,
        paused=paused,
    )


TENANTS = ("red", "red", "red", "red", "blue")
"""The tenant of each seat. Who leaves is replaced by a new connection on the same seat."""

BOUNDS = (
    None,
    None,
    Bounds(),
    Bounds(jobs=4, workers=2),
    Bounds(jobs=9, size=14, workers=3, abilities=2),
    Bounds(size=30, job_size=4, delay=2.0),
)
"""What the red tenant may have; without any, nothing is charged. The blue one has no quotas."""


def quotas_for(bounds: Bounds) -> Quotas:
    return Quotas(
        max_workers=bounds.workers,
        max_queued_jobs=bounds.jobs,
        max_queued_bytes=bounds.size,
        max_job_bytes=bounds.job_size,
        max_abilities_per_connection=bounds.abilities,
        # In the model nothing becomes too old: there it is only asked when it comes.
        max_background_age=bounds.delay,
    )


SEATS = st.integers(0, len(TENANTS) - 1)
NAMES = st.sampled_from([b"f", b"f", b"g", b"h", b"h", b"k", b"k", b"k"])
UNIQUES = st.sampled_from([b"", b"", b"u", b"v", b"-"])
TIMEOUTS = st.sampled_from([0.0, 1.0, 3.0])
PICK = st.integers(0, 1000)
WORKED = {"complete": JobEnd.COMPLETED, "fail": JobEnd.FAILED, "raise": JobEnd.RAISED}

STATES = {"parked": "queued", "ended": "over"}
"""The broker's words where the model has others: to it a parked job is one that is not read."""


class Told:
    """Somebody who is to know what became of a dead letter."""

    def __init__(self):
        self.heard = []

    def stored(self, now):
        self.heard.append("stored")

    def not_stored(self, now):
        self.heard.append("not stored")


class Pair:
    """A connection of the broker and its double in the model."""

    def __init__(self, machine, seat):
        self.real = machine.world.connect(f"seat {seat}", TENANTS[seat])
        self.ideal = Member(TENANTS[seat])
        self.waits = Counter()
        """Foreground submissions of this connection that were not refused, by handle, to the job
        that has it now."""
        self.earlier = Counter()
        """Those of them that were told of a failure, or a death, after which the job goes on."""
        self.woken = None
        self.real.wake = self.wake
        self.machine = machine

    def wake(self):
        assert self.machine.falling_asleep is self or self.ideal.asleep, "woken while awake"
        self.ideal.asleep = False
        self.real.noops += 1
        self.woken = self.machine.world.now.monotonic
        self.machine.woken.append(self)


class Beside(RuleBasedStateMachine):
    """The broker and the model take the same steps."""

    @initialize(
        partitions=st.sampled_from([1, 3, 1024]),
        wakeup=st.sampled_from([None, None, 0, 1, 2]),
        durable=st.booleans(),
        abilities=st.lists(st.tuples(SEATS, NAMES, TIMEOUTS), min_size=3, max_size=10),
        bounds=st.sampled_from(BOUNDS),
    )
    def begin(self, partitions, wakeup, durable, abilities, bounds):
        self.world = World(
            partitions=partitions,
            wakeup=wakeup,
            durable=durable,
            rules={name: rules_for(each) for name, each in TERMS.items()},
            quotas={} if bounds is None else {"red": quotas_for(bounds)},
        )
        now = self.world.now
        self.model = Model(
            TERMS,
            durable=durable,
            time=now.monotonic,
            wall=now.wall,
            bounds={} if bounds is None else {"red": bounds},
        )
        self.falling_asleep = None
        self.woken = []
        self.pairs = [Pair(self, seat) for seat in range(len(TENANTS))]
        self.tokens = {}
        self.token = 0
        for seat, name, timeout in abilities:
            self.can_do(seat, name, timeout)

    @contextmanager
    def step(self):
        """Whoever is woken by one step has a job waiting that it could have, if it is read."""
        self.woken = []
        yield
        for pair in self.woken:
            member = pair.ideal
            names = [name for name, _ in member.abilities]
            assert any(
                work.state == "queued"
                and work.function in names
                and work.function not in self.model.paused
                and member not in work.banned
                for work in self.model.alive(member.tenant)
            ), "woken for nothing"

    def duties(self):
        """Who holds or owes which job."""
        return [
            (pair, handle)
            for pair in self.pairs
            for handle in (
                *(work.handle for work in self.model.works if work.holder is pair.ideal),
                *pair.ideal.owes,
            )
        ]

    # Clients

    @rule(
        seat=SEATS,
        name=NAMES,
        unique=UNIQUES,
        workload=st.sampled_from([b"", b"one", b"two"]),
        priority=st.integers(0, 2),
    )
    def foreground(self, seat, name, unique, workload, priority):
        self.submit(self.pairs[seat], name, unique, workload, priority, False, 0.0)

    @rule(
        seat=SEATS,
        name=NAMES,
        unique=UNIQUES,
        workload=st.sampled_from([b"", b"one", b"two"]),
        priority=st.integers(0, 2),
        delay=st.sampled_from([None, None, None, -5, 1, 7]),
    )
    def background(self, seat, name, unique, workload, priority, delay):
        due = 0.0 if delay is None else self.world.now.wall + delay
        self.submit(self.pairs[seat], name, unique, workload, priority, True, due)

    @precondition(lambda self: self.coalescing())
    @rule(seat=SEATS, pick=PICK, background=st.booleans())
    def again(self, seat, pick, background):
        """The same as some job that is there."""
        works = self.coalescing()
        work = works[pick % len(works)]
        unique = b"-" if isinstance(work.key, tuple) else work.key
        pair = self.pairs[seat]
        self.submit(pair, work.function, unique, work.workload, work.priority, background, 0.0)

    def coalescing(self):
        return [work for work in self.model.works if work.key is not None and not work.over]

    def submit(self, pair, name, unique, workload, priority, background, due):
        kind = {"unique": unique, "priority": priority, "background": background, "due": due}
        self.token += 1
        with self.step():
            try:
                work, new = self.model.submit(
                    pair.ideal, name, unique, workload, priority, background, due, self.token
                )
            except Full:
                with pytest.raises((QueueFull, OverQuota)):
                    pair.real.submit(name, workload, **kind)
                return
            job = pair.real.submit(name, workload, token=self.token, **kind)
            if new:
                assert job.handle not in [each.handle for each in self.model.works]
                work.handle = job.handle
                if work.storing is None:
                    pair.ideal.answers.append((self.token, job.handle))
            assert job.handle == work.handle
        self.tokens[self.token] = (pair, job.handle, background)
        if not background:
            pair.waits[job.handle] += 1

    @rule(seat=SEATS, choked=st.booleans())
    def choke(self, seat, choked):
        pair = self.pairs[seat]
        with self.step():
            pair.ideal.choked = choked
            if choked:
                pair.real.choke()
            else:
                pair.real.unchoke()

    # Workers

    @rule(seat=SEATS, name=NAMES, timeout=TIMEOUTS)
    def can_do(self, seat, name, timeout):
        pair = self.pairs[seat]
        with self.step():
            try:
                members = [each.ideal for each in self.pairs]
                self.model.can_do(pair.ideal, name, timeout, members)
            except Full:
                with pytest.raises(OverQuota):
                    pair.real.can_do(name, timeout=timeout)
            else:
                pair.real.can_do(name, timeout=timeout)

    @rule(pick=PICK)
    def grab(self, pick):
        """By somebody for whom there is a job, if there is one."""
        pairs = [pair for pair in self.pairs if self.model.next_for(pair.ideal)] or self.pairs
        self.grab_by(pairs[pick % len(pairs)])

    def grab_by(self, pair):
        with self.step():
            work = self.model.grab(pair.ideal)
            pair.woken = None
            job = pair.real.grab()
        assert (job and job.handle) == (work and work.handle)
        if work is not None:
            assert (job.workload, job.priority) == (work.workload, work.priority)

    @rule(seat=SEATS)
    def sleep(self, seat):
        self.let_sleep(self.pairs[seat])

    @rule()
    def idle_ones_sleep(self):
        for pair in self.pairs:
            if self.model.next_for(pair.ideal) is None:
                self.let_sleep(pair)

    def let_sleep(self, pair):
        before = pair.real.noops
        self.falling_asleep = pair
        with self.step():
            woken = self.model.sleep(pair.ideal)
            pair.woken = None
            pair.real.sleep()
        self.falling_asleep = None
        assert pair.real.noops - before == woken

    @precondition(lambda self: self.duties())
    @rule(pick=PICK, what=st.sampled_from(sorted(WORKED)))
    def finish(self, pick, what):
        duties = self.duties()
        self.finish_by(*duties[pick % len(duties)], what)

    def finish_by(self, pair, handle, what):
        with self.step():
            expected = self.model.finish(pair.ideal, handle, what)
            broker = self.world.broker
            answer = broker.finish if what == "complete" else broker.fail
            waiters = answer(pair.real.peer, handle, WORKED[what], self.world.now)
        if isinstance(waiters, Late):
            assert waiters.name.lower() == expected
            return
        assert expected in ("done", "retried")
        for peer in waiters:
            peer.sink.send((what, handle))
        if expected == "retried":
            self.goes_on(handle)

    def goes_on(self, handle):
        """Who waited for the job has been told, and waits no more; the job lives."""
        for pair in self.pairs:
            pair.earlier[handle] += pair.waits.pop(handle, 0)

    @precondition(lambda self: self.duties())
    @rule(pick=PICK, late=st.booleans())
    def release(self, pick, late):
        duties = self.duties()
        self.release_by(*duties[pick % len(duties)], late)

    def release_by(self, pair, handle, late):
        with self.step():
            expected = self.model.release(pair.ideal, handle, late)
            answer = self.world.broker.release(pair.real.peer, handle, late, self.world.now)
        assert (answer.name.lower() if answer else "done") == expected

    # The store

    @precondition(lambda self: self.world.ledger is not None and self.world.ledger.kept)
    @rule(count=st.integers(1, 4), written=st.sampled_from([True, True, False]))
    def commit(self, count, written):
        ledger = self.world.ledger
        batch, ledger.kept = ledger.kept[:count], ledger.kept[count:]
        with self.step():
            for job in batch:
                (work,) = [
                    each
                    for each in self.model.works
                    if each.handle == job.handle and each.storing is not None
                ]
                if written:
                    self.model.stored(work)
                    self.world.broker.stored(job, self.world.now)
                else:
                    self.was_not_stored(work)
                    self.model.not_stored(work)
                    ledger.records.discard(job.record)
                    self.world.broker.not_stored(job, self.world.now)

    def was_not_stored(self, work):
        """Whoever submitted to this job on its way is refused, and waits for nothing."""
        for _, token in work.storing:
            pair, handle, background = self.tokens[token]
            if not background:
                pair.waits[handle] -= 1

    @precondition(lambda self: self.model.asked)
    @rule(written=st.sampled_from([True, True, False]))
    def commit_dead_letters(self, written):
        with self.step():
            for _, work in self.model.asked:
                if work is not None and not written:
                    self.was_not_stored(work)
            self.model.settle(written=written)
            self.world.ledger.settle(self.world.now, written=written)

    # Operators and time

    @precondition(lambda self: self.model.letters)
    @rule(pick=PICK, again=st.sampled_from([True, True, False]))
    def decide_about_the_dead(self, pick, again):
        ideal = self.model.letters[pick % len(self.model.letters)]
        tenant = self.world.broker.tenant(ideal.work.tenant)
        letter = self.world.broker.dead.get(tenant, ideal.work.handle)
        told = Told()
        with self.step():
            if again:
                try:
                    self.model.revive(ideal)
                except Full:
                    with pytest.raises(OverQuota):
                        self.world.broker.dead.revive(letter, told, self.world.now)
                    return
                self.world.broker.dead.revive(letter, told, self.world.now)
                self.goes_on(ideal.work.handle)
            else:
                self.model.remove(ideal)
                self.world.broker.dead.remove(letter, told, self.world.now)
        assert told.heard == ([] if self.model.durable else ["stored"])

    @rule(
        seat=SEATS,
        name=NAMES,
        pick=PICK,
        what=st.sampled_from(
            [
                "leave",
                "leave",
                "cancel",
                "progress",
                "meddle",
                "give_up",
                "reset",
                "drop",
                "limit",
                "unlimit",
                "grab",
                "requeue",
                "requeue",
                "priority",
                "pause",
            ]
        ),
    )
    def seldom(self, seat, name, pick, what):
        pair, tenant = self.pairs[seat], TENANTS[seat]
        handle = b"H:nobody:0"
        if self.model.works:
            handle = self.model.works[pick % len(self.model.works)].handle
        if what == "leave":
            self.model.leave(pair.ideal)
            pair.real.leave()
            self.pairs[seat] = Pair(self, seat)
        elif what == "drop":
            self.drop(tenant, name)
        elif what == "progress":
            self.progress(*next(iter(self.duties()), (pair, handle)))
            self.progress(pair, handle)
        elif what == "meddle":
            self.finish_by(pair, handle, "complete")
        elif what == "grab":
            self.grab_by(pair)
        elif what == "release":
            self.release_by(pair, handle, False)
        elif what == "detach":
            self.detach(seat, pick)
        elif what == "requeue":
            with self.step():
                found = self.model.requeue(tenant, handle)
                tenant = pair.real.peer.tenant
                assert self.world.broker.requeue(tenant, handle, self.world.now) == found
        elif what == "priority":
            with self.step():
                found = self.model.set_priority(tenant, handle, pick % 3)
                tenant = pair.real.peer.tenant
                assert self.world.broker.set_priority(tenant, handle, pick % 3) == found
        elif what == "pause":
            self.pause(name)
        elif what in ("limit", "unlimit"):
            limits = [3, 2, 1] if what == "limit" else [0, 0, 0]
            self.model.know(tenant, name)
            self.model.limits[tenant, name] = limits
            self.world.function(name, tenant).limits = list(limits)
        else:
            with self.step():
                if what == "cancel":
                    assert self.model.cancel(tenant, handle) == pair.real.cancel(handle)
                elif what == "silence":
                    lost = self.world.broker.lose_jobs(pair.real.peer, self.world.now)
                    assert self.model.fall_silent(pair.ideal) == lost
                elif what == "reset":
                    pair.ideal.abilities = []
                    pair.real.reset()
                else:
                    self.model.cant_do(pair.ideal, name)
                    pair.real.cant_do(name)

    def pause(self, name):
        """A function, or let it go on."""
        with self.step():
            self.model.paused ^= {name}
            for limits in self.model.limits.values():
                limits[:] = [0, 0, 0]
            paused = name in self.model.paused
            self.world.rules[name] = rules_for(TERMS[name], paused=paused)
            self.world.broker.apply_rules(self.world.now)

    def detach(self, seat, pick):
        """From a job that this client has been told of, if there is any."""
        pair = self.pairs[seat]
        works = self.model.alive(TENANTS[seat])
        works = [work for work in works if work.state != "pending"]
        waiting = [work for work in works if pair.ideal in work.waiters] or works
        handle = waiting[pick % len(waiting)].handle if waiting else b"H:nobody:0"
        with self.step():
            waited = self.model.detach(pair.ideal, handle)
            found = self.world.broker.detach(pair.real.peer, handle, self.world.now)
        assert found == waited
        pair.waits[handle] -= waited

    def progress(self, pair, handle):
        expected = self.model.held(pair.ideal, handle)
        answer = self.world.broker.held(pair.real.peer, handle)
        if isinstance(answer, Late):
            assert answer.name.lower() == expected
        else:
            assert (expected, answer.handle) == ("held", handle)

    def drop(self, tenant, name):
        with self.step():
            try:
                known = self.model.drop(tenant, name, [pair.ideal for pair in self.pairs])
            except Busy:
                with pytest.raises(FunctionBusy):
                    self.world.drop(name, tenant)
            else:
                assert self.world.drop(name, tenant) == known

    @rule(quarters=st.sampled_from([1, 2, 4, 4, 6, 8, 12]))
    def pass_time(self, quarters):
        # The model goes first, because connections that are woken look at it.
        seconds = quarters / 4
        now = self.world.now
        self.model.pass_time(now.monotonic + seconds, now.wall + seconds)
        self.world.pass_time(seconds)

    # What must hold after every step

    @invariant()
    def the_same_jobs_are_in_the_same_states(self):
        for tenant in set(TENANTS):
            book = {
                job.handle: job
                for book in self.world.broker.tenant(tenant).books.values()
                for job in book.values()
            }
            works = {work.handle: work for work in self.model.alive(tenant)}
            assert book.keys() == works.keys()
            letters = self.world.broker.dead.of(self.world.broker.tenant(tenant))
            ideals = [each for each in self.model.letters if each.work.tenant == tenant]
            assert {letter.handle: (letter.reason, letter.attempts) for letter in letters} == {
                each.work.handle: (
                    WORKED[each.end] if each.end in WORKED else JobEnd[each.end],
                    each.attempts,
                )
                for each in ideals
            }
            for handle, work in works.items():
                job = book[handle]
                state = STATE_NAMES[job.state]
                assert STATES.get(state, state) == work.state
                assert job.background == work.background
                assert job.losses == work.losses
                assert job.priority == work.priority
                assert work.state != "delayed" or job.due == work.due
                assert len(job.waiters) == len(work.waiters)
                assert len(job.ghosts or ()) == len(work.banned)
                assert (self.world.status(job) is job) == (job.state != PENDING)
                if work.record:
                    assert self.world.ledger.losses.get(job.record) == work.written
                    if work.written is not None:
                        assert self.world.ledger.dues[job.record] == work.due

    @invariant()
    def the_counters_are_right(self):
        for function in self.world.functions:
            works = self.model.alive(function.tenant.name, function.name)
            states = Counter(work.state for work in works)
            assert function.pending == states["pending"]
            assert function.running == states["running"]
            assert function.total == sum(states.values()) - states["pending"]
            for priority in range(3):
                assert function.waiting[priority] == sum(
                    work.priority == priority and work.state in ("queued", "delayed")
                    for work in works
                )
        assert {end.name: count for end, count in self.world.ended.items()} == {
            WORKED[end].name if end in WORKED else end: count
            for end, count in self.model.ended.items()
        }
        assert self.world.broker.late_answers == self.model.late
        assert {handle for handle, _ in self.world.given_up_jobs} == set(self.model.given_up)
        self.world.check()

    @invariant()
    def what_is_charged_is_what_is_there(self):
        allowance = self.world.broker.tenant("red").allowance
        if allowance is not None:
            works = self.model.alive("red")
            assert allowance.queued_jobs == len(works)
            assert allowance.queued_bytes == sum(work.size for work in works)
            assert allowance.workers == sum(
                pair.ideal.tenant == "red" and bool(pair.ideal.abilities) for pair in self.pairs
            )
        assert self.world.broker.tenant("blue").allowance is None

    @invariant()
    def what_became_of_each_job_is_remembered(self):
        # A handle has an outcome for each time that its job was taken out of the dead letters.
        last = {}
        for work in self.model.works:
            last[work.handle] = work.outcome or last.get(work.handle)
        for work in self.model.works:
            outcome = self.world.broker.tenant(work.tenant).outcomes.get(work.handle)
            if last[work.handle] is None:
                assert outcome is None
            else:
                end, attempts = last[work.handle]
                assert outcome[:2] == (WORKED[end] if end in WORKED else JobEnd[end], attempts)
                assert outcome.function == work.function

    @invariant()
    def everybody_was_told_the_same(self):
        for pair in self.pairs:
            assert Counter(pair.real.heard) == Counter(pair.ideal.told)
            assert pair.real.answers == pair.ideal.answers
            assert Counter(pair.real.notices) == Counter(pair.ideal.notices)

    @invariant()
    def each_submission_gets_one_terminal_packet_when_its_job_is_over(self):
        over = {work.handle for work in self.model.works if work.over}
        over -= {work.handle for work in self.model.works if not work.over}
        for pair in self.pairs:
            heard = Counter(handle for _, handle in pair.real.heard)
            assert (
                +heard
                == +Counter(
                    {handle: count for handle, count in pair.waits.items() if handle in over}
                )
                + pair.earlier
            )

    @invariant()
    def no_job_waits_beside_a_worker_that_sleeps_and_could_have_it(self):
        now = self.world.now.monotonic
        for pair in self.pairs:
            assert pair.real.peer.sleeping == pair.ideal.asleep
        for function in self.world.functions:
            sleepers = [pair.ideal for pair in self.pairs if pair.ideal.asleep]
            beside = sum(
                any(self.model.grabbable(member, work) for member in sleepers)
                for work in self.model.alive(function.tenant.name, function.name)
            )
            covered = sum(
                pair.woken is not None
                and now < pair.woken + WAKE_SECONDS
                and pair.real.peer.woken_for is function
                for pair in self.pairs
            )
            assert beside <= covered

    @invariant()
    def what_is_recorded_is_alive_or_on_its_way(self):
        if self.world.ledger is not None:
            records = sum(work.record for work in self.model.works)
            assert len(self.world.ledger.records) == records
            letters = [*self.model.letters, *(letter for letter, _ in self.model.asked)]
            assert self.world.ledger.letters.keys() == {each.work.handle for each in letters}

    def teardown(self):
        """In the end everybody leaves and nothing may be left but background jobs."""
        if not hasattr(self, "world"):
            return
        for pair in self.pairs:
            pair.real.leave()
        for tenant in self.world.broker.tenants.values():
            assert tenant.allowance is None or tenant.allowance.workers == 0
        for function in self.world.functions:
            assert not function.workers
            assert not function.sleepers
            assert function.running == function.ghosted == function.covering == 0
            assert all(
                job.background or job.gate is not None
                for job in function.jobs.values()
                if job.function is function
            )


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_the_broker_does_what_the_model_does():
    # Only a failure takes long: it is made as short as possible, which is no hanging.
    faulthandler.cancel_dump_traceback_later()
    run_state_machine_as_test(
        Beside,
        settings=settings(
            max_examples=int(os.environ.get(FUZZ_VARIABLE, FUZZ_EXAMPLES)) // 20,
            stateful_step_count=80,
            phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
        ),
    )
