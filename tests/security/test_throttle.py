"""Guessing is slow, and slows nobody else down."""

from __future__ import annotations

import itertools

import pytest

from trigear.errors import ConfigError
from trigear.security.throttle import Throttle

HERE, THERE = "198.51.100.7", "198.51.100.8"


def guess_for(throttle, seconds, *, address=HERE, user=lambda number: "alice", start=0.0):
    """Times at which somebody who tries as soon as possible gets a guess through."""
    now, guesses = start, []
    while (now := now + throttle.wait(address, user(len(guesses)), now)) <= start + seconds:
        guesses.append(now)
        throttle.failed(address, user(len(guesses) - 1), now)
    return guesses


def test_t15_guessing_from_one_address_is_held_to_the_rate_and_nobody_else_is():
    throttle = Throttle()
    guesses = guess_for(throttle, 1200.0, user=lambda number: f"user{number}")
    # Ten at once, then one every six seconds.
    assert len(guesses) == 10 + 200
    assert guesses[:11] == [0.0] * 10 + [pytest.approx(6.0)]
    assert throttle.wait(HERE, "somebody else", 1200.0) > 0
    assert throttle.wait(THERE, "user1", 1200.0) == 0


def test_t15_guessing_one_name_is_slower_still():
    guesses = guess_for(Throttle(), 200.0)
    gaps = [later - sooner for sooner, later in itertools.pairwise(guesses)]
    assert gaps[:10] == [0, 0, 0, 0, 1, 2, 4, 8, 16, 30]
    assert set(gaps[10:]) == {30}


def test_t16_a_thousand_failures_shut_the_user_out_nowhere_else():
    throttle = Throttle()
    for number in range(1000):
        throttle.failed(HERE, "alice", number / 100)
    assert throttle.wait(HERE, "alice", 10.0) > 0
    assert throttle.wait(THERE, "alice", 10.0) == 0


def test_failures_that_were_under_way_together_are_paid_for_later():
    throttle = Throttle()
    for number in range(40):
        throttle.failed(HERE, f"user{number}", 0.0)
    assert throttle.wait(HERE, "another", 0.0) == pytest.approx(31 * 6.0)
    assert throttle.wait(HERE, "another", 31 * 6.0) == pytest.approx(0.0)


def test_success_forgets_the_failures_of_this_name_but_not_those_of_the_place():
    throttle = Throttle()
    for _ in range(9):
        throttle.failed(HERE, "alice", 0.0)
    assert throttle.wait(HERE, "alice", 0.0) == 16
    throttle.succeeded(HERE, "alice")
    assert throttle.wait(HERE, "alice", 0.0) == 0
    throttle.failed(HERE, "alice", 0.0)
    assert throttle.wait(HERE, "alice", 0.0) == 6
    throttle.succeeded(HERE, "nobody has failed with this one")
    throttle.succeeded("127.0.0.1", "alice")


def test_success_alone_costs_nothing_however_often():
    throttle = Throttle()
    for _ in range(2000):
        assert throttle.wait(HERE, "worker", 0.0) == 0
        throttle.succeeded(HERE, "worker")
    assert len(throttle) == 0


def test_a_full_bucket_holds_no_more_however_long_it_stands():
    throttle = Throttle()
    throttle.failed(HERE, "first", 0.0)
    guesses = guess_for(throttle, 0.0, user=lambda number: f"user{number}", start=1e6)
    assert len(guesses) == 10


def test_a_clock_that_stands_or_goes_back_frees_nobody():
    throttle = Throttle()
    for number in range(10):
        throttle.failed(HERE, f"user{number}", 100.0)
    assert throttle.wait(HERE, "x", 50.0) == 6
    assert throttle.wait(HERE, "x", 100.0) == 6


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::1%eth1", True),
        (HERE, "::ffff:198.51.100.7", True),
        (HERE, THERE, False),
    ],
)
def test_an_ipv4_address_and_64_bits_of_ipv6_are_one_place(one, other, same):
    throttle = Throttle()
    for _ in range(20):
        throttle.failed(one, "alice", 0.0)
    assert (throttle.wait(other, "alice", 0.0) > 0) is same


@pytest.mark.parametrize(
    ("exempt", "address", "waits"),
    [
        (None, "127.0.0.1", False),
        (None, "127.9.9.9", False),
        (None, "::1", False),
        (None, "::ffff:127.0.0.1", False),
        (None, "-", False),
        (None, "unix:/run/trigear.sock", False),
        (None, HERE, True),
        ((), "127.0.0.1", True),
        ((), "-", True),
        (("198.51.100.1/24",), HERE, False),
        (("198.51.100.1/24",), "2001:db8::1", True),
        (("2001:db8::/32",), "2001:db8::1", False),
    ],
)
def test_who_is_exempt_never_waits(exempt, address, waits):
    throttle = Throttle() if exempt is None else Throttle(exempt)
    for _ in range(20):
        throttle.failed(address, "alice", 0.0)
    assert (throttle.wait(address, "alice", 0.0) > 0) is waits


def test_what_is_no_network_cannot_be_exempt():
    with pytest.raises(ConfigError, match=r"limit_exempt: 'home' .*; write 10.0.0.0/8, ::1 or un"):
        Throttle(["home"])


def test_the_memory_has_a_limit_and_forgets_who_failed_least_recently():
    throttle = Throttle(remembered=100)
    for number in range(1000):
        throttle.failed("198.51.100.1", "alice", 0.0)  # never the least recent one
        throttle.failed(f"203.0.{number // 250}.{number % 250}", "alice", 0.0)
    assert len(throttle) == 200
    assert throttle.wait("198.51.100.1", "alice", 0.0) > 0
