"""Job handles: of one width, never twice the same, and no measure of anybody's volume."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trigear.engine.config import HANDLE_NAME_LIMIT, EngineConfig
from trigear.engine.handles import HandleMint

KEY = bytes(range(16))


def handles(count: int, key: bytes = KEY, first: int = 0, prefix: bytes = b"H:here") -> list[bytes]:
    mint = HandleMint(prefix, key, first)
    return [mint("default", b"f", b"u") for _ in range(count)]


def numbers(count: int, key: bytes = KEY, first: int = 0) -> list[int]:
    return [int(handle.rpartition(b":")[2]) for handle in handles(count, key, first)]


def test_a_handle_is_a_prefix_and_twenty_digits() -> None:
    for handle in handles(3000):
        prefix, colon, digits = handle.rpartition(b":")
        assert (prefix, colon) == (b"H:here", b":")
        assert len(digits) == 20
        assert digits.isdigit()
        assert int(digits) < 1 << 64


def test_the_longest_prefix_leaves_room_for_the_digits() -> None:
    """Programs in use keep handles in 64 bytes with a NUL at the end."""
    prefix = b"H:" + b"n" * HANDLE_NAME_LIMIT
    EngineConfig(handle_prefix=prefix)
    (handle,) = handles(1, prefix=prefix)
    assert len(handle) == 63


@pytest.mark.usefixtures("untraced")
@pytest.mark.slow
def test_a_million_handles_are_all_different_and_none_begins_another() -> None:
    made = handles(1_000_000)
    assert len(set(made)) == len(made)
    assert {len(handle) for handle in made} == {len(made[0])}, "of one width: no prefixes"


def test_the_same_key_makes_the_same_handles_from_any_number_on() -> None:
    made = handles(5000)
    assert handles(5000) == made
    for first in (1, 1023, 1024, 2500):
        assert handles(100, first=first) == made[first : first + 100]
    assert not set(handles(5000, key=bytes(16))) & set(made)


@given(
    st.integers(0, (1 << 64) - 4096),
    st.integers(0, (1 << 64) - 4096),
    st.binary(min_size=16, max_size=16),
)
def test_numbers_anywhere_in_the_counter_keep_apart(one: int, other: int, key: bytes) -> None:
    made = numbers(10, key, one) + numbers(10, key, other)
    apart = min(10, abs(one - other))
    assert len(set(made)) == 10 + apart


def test_neighbours_do_not_show_that_they_are() -> None:
    """Of 64 bits, half change from one to the next, wherever they stand."""
    made = numbers(4001)
    changes = [one ^ other for one, other in itertools.pairwise(made)]
    mean = sum(change.bit_count() for change in changes) / len(changes)
    assert 31 < mean < 33
    for bit in range(64):
        flips = sum(change >> bit & 1 for change in changes)
        assert 1800 < flips < 2200
    rises = sum(one < other for one, other in itertools.pairwise(made))
    assert 1800 < rises < 2200


def test_what_a_job_is_for_does_not_show_in_its_handle() -> None:
    mint, other = HandleMint(b"H:a", KEY), HandleMint(b"H:a", KEY)
    assert mint("one", b"f", b"u") == other("two", b"g", b"")
