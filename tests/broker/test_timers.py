"""Calls that are due at a time."""

from __future__ import annotations

import random

import pytest

from trigear.broker.timers import TURN, Timers


@pytest.fixture
def calls():
    return []


@pytest.fixture
def timers():
    return Timers()


def test_calls_are_made_in_the_order_of_their_times(timers, calls):
    for when in (3.0, 1.0, 2.0):
        timers.set(when, calls.append, when)
    timers.run(3.0)
    assert calls == [1.0, 2.0, 3.0]


def test_calls_of_one_moment_are_made_in_the_order_they_were_set(timers, calls):
    for name in "abc":
        timers.set(1.0, calls.append, name)
    timers.run(1.0)
    assert calls == ["a", "b", "c"]


def test_a_call_gets_its_own_arguments_and_then_those_of_the_run(timers, calls):
    timers.set(1.0, lambda *args: calls.append(args), "own", 1)
    timers.run(1.0, "now")
    assert calls == [("own", 1, "now")]


def test_what_is_not_due_stays(timers, calls):
    timers.set(1.0, calls.append, 1)
    timers.set(2.0, calls.append, 2)
    timers.run(1.5)
    assert (calls, timers.next(), len(timers)) == ([1], 2.0, 1)


def test_without_timers_the_next_time_is_never(timers):
    assert timers.next() == float("inf")
    assert not timers
    timers.run(1e9)


def test_a_cancelled_timer_is_not_called_and_not_waited_for(timers, calls):
    timers.cancel(timers.set(1.0, calls.append, 1))
    timers.set(2.0, calls.append, 2)
    assert (timers.next(), len(timers)) == (2.0, 1)
    timers.run(3.0)
    assert calls == [2]


def test_cancelling_behind_the_front_is_found_when_its_turn_comes(timers, calls):
    timers.set(1.0, calls.append, 1)
    second = timers.set(2.0, calls.append, 2)
    timers.set(3.0, calls.append, 3)
    timers.cancel(second)
    assert len(timers) == 2
    timers.run(3.0)
    assert (calls, len(timers)) == ([1, 3], 0)


def test_cancelling_twice_or_after_the_call_does_nothing(timers, calls):
    first, second = timers.set(1.0, calls.append, 1), timers.set(2.0, calls.append, 2)
    timers.set(3.0, calls.append, 3)
    timers.run(1.0)
    timers.cancel(first)
    timers.cancel(second)
    timers.cancel(second)
    assert len(timers) == 1
    timers.run(3.0)
    assert calls == [1, 3]


def test_a_timer_lets_go_of_its_call_when_called_or_cancelled(timers, calls):
    """A timer that kept its arguments would tie job and timer into a cycle."""
    called, cancelled = timers.set(1.0, calls.append, 1), timers.set(2.0, calls.append, 2)
    timers.run(1.0)
    timers.cancel(cancelled)
    assert (len(called), len(cancelled)) == (2, 2)


def test_a_call_may_set_a_timer_that_is_due_at_once(timers, calls):
    timers.set(1.0, lambda: timers.set(1.0, calls.append, "second"))
    timers.run(1.0)
    assert calls == ["second"]


def test_a_call_may_cancel_a_timer_of_the_same_moment(timers, calls):
    timers.set(1.0, lambda: timers.cancel(second))
    second = timers.set(1.0, calls.append, 2)
    timers.set(1.0, calls.append, 3)
    timers.run(1.0)
    assert calls == [3]


def test_cancelled_timers_are_thrown_out_once_they_outnumber_the_others(timers, calls):
    kept = 600
    for number in range(kept):
        timers.set(float(number), calls.append, number)
    timers.set(2e6, calls.clear)
    cancelled = [timers.set(1e6, calls.append, -1) for _ in range(kept + 2)]
    for timer in cancelled[:-1]:
        timers.cancel(timer)
    assert len(timers._heap) == 2 * (kept + 1) + 1
    timers.cancel(cancelled[-1])
    assert len(timers._heap) == kept + 1
    assert len(timers) == kept + 1
    while timers.next() <= 1e6:
        timers.run(1e6)
    assert calls == list(range(kept))


def test_a_crowd_of_due_timers_is_called_in_turns(timers, calls):
    for number in range(TURN + 1):
        timers.set(1.0, calls.append, number)
    timers.run(1.0)
    assert calls == list(range(TURN))
    assert timers.next() == 1.0
    timers.run(1.0)
    assert calls == list(range(TURN + 1))


def test_a_few_cancelled_timers_are_not_worth_throwing_out(timers, calls):
    cancelled = [timers.set(1.0, calls.append, 1) for _ in range(513)]
    for timer in cancelled[:512]:
        timers.cancel(timer)
    assert (len(timers._heap), len(timers)) == (513, 1)
    timers.cancel(cancelled[512])
    assert (len(timers._heap), len(timers)) == (0, 0)


def test_a_call_may_cancel_so_many_that_the_heap_is_built_anew(timers, calls):
    many = []
    timers.set(1.0, lambda: [timers.cancel(timer) for timer in many])
    many += [timers.set(2.0, calls.append, "never") for _ in range(600)]
    timers.set(3.0, calls.append, "last")
    timers.run(3.0)
    assert (calls, len(timers)) == (["last"], 0)


def test_any_mixture_of_setting_cancelling_and_running_calls_what_is_due(timers):
    """Against a list that is searched: thousands of steps, so that clean-ups happen inside."""
    chance, called, expected, waiting, now = random.Random(7), [], [], [], 0.0
    for number in range(20_000):
        choice = chance.random()
        if choice < 0.5 or not waiting:
            when = now + chance.randrange(1, 400)
            waiting.append((when, number, timers.set(when, called.append, number)))
        elif choice < 0.96:
            timers.cancel(waiting.pop(chance.randrange(len(waiting)))[2])
        else:
            now += chance.randrange(3)
            due = sorted((item for item in waiting if item[0] <= now), key=lambda item: item[:2])
            waiting = [item for item in waiting if item[0] > now]
            expected += [item[1] for item in due]
            timers.run(now)
        assert len(timers) == len(waiting)
    assert timers.next() == min((item[0] for item in waiting), default=float("inf"))
    assert called == expected
    assert expected
