"""Books: as a dict, but none that moves a great many entries at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.broker.world import World
from trigear.broker.books import Book

KEYS = st.binary(max_size=2)


@pytest.fixture(scope="module")
def job():
    return World().connect().submit(b"f")


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "get"]), KEYS)), st.booleans())
def test_a_book_is_a_dict_whether_it_is_split_or_not(steps, split):
    world = World()
    client = world.connect()
    jobs = [client.submit(b"f"), client.submit(b"f")]
    book, plain = Book(), {}
    if split:
        book._split()
    for number, (step, key) in enumerate(steps):
        job = jobs[number % 2]
        if step == "add":
            book.add(key, job)
            plain[key] = job
        elif key not in plain:
            assert key not in book
            assert book.get(key) is None
            with pytest.raises(KeyError):
                book.remove(key)
        elif step == "get":
            assert key in book
            assert book.get(key) is plain[key]
        else:
            book.remove(key)
            del plain[key]
        assert len(book) == len(plain)
        assert sorted(map(id, book.values())) == sorted(map(id, plain.values()))


def test_a_book_that_was_never_large_is_in_order():
    world = World()
    client = world.connect()
    jobs = [client.submit(b"f") for _ in range(1000)]
    book = Book()
    for job in jobs:
        book.add(job.handle, job)
    assert list(book.values()) == jobs
    for job in jobs[::2]:
        book.remove(job.handle)
    assert list(book.values()) == jobs[1::2]


def test_of_a_great_many_entries_few_are_in_one_dict(job):
    book = Book()
    keys = [b"H:memory:%020d" % number for number in range(100_000)]
    for key in keys:
        book.add(key, job)
    assert len(book) == len(keys)
    assert all(key in book for key in keys)
    assert max(map(len, book._parts)) < 1000
    assert b"H:memory:" not in book


def test_keys_of_one_part_are_not_at_one_place_in_it():
    """A dict finds a place by the last bits of the hash: a part must not be chosen by these."""
    keys = [b"%d" % number for number in range(100_000)]
    book = Book()
    part = [key for key in keys if hash(key) >> 20 & 255 == 7]
    assert len({hash(key) & 1023 for key in part}) > len(part) / 2
    book._split()
    assert len(book._parts) == 256


def test_a_book_that_was_large_keeps_no_room(job):
    book = Book()
    keys = [b"%d" % number for number in range(100_000)]
    for key in keys:
        book.add(key, job)
    grown = sum(part.__sizeof__() for part in book._parts)
    for key in keys:
        book.remove(key)
    assert len(book) == 0
    assert sum(part.__sizeof__() for part in book._parts) < grown / 50
