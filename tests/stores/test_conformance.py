"""What every store does, whatever the database behind it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stores.places import (
    OWNER,
    PLACES,
    content,
    impatience,
    job,
    pages,
    record,
    records,
    sequences,
    write,
)
from trigear.errors import StoreFenced, StoreUnusable
from trigear.stores.base import Batch, Erase, Forget, Keep, Losses, Marker, Owner

EVERY_BYTE = bytes(range(256))


def test_a_new_store_is_empty_and_keeps_the_key_it_was_given(place):
    store = place.store()
    tenure = store.open(OWNER)
    assert (tenure.term, tenure.key) == (1, OWNER.seed)
    assert content(store) == []
    assert place.called in store.name


def test_every_opening_has_a_term_of_its_own_and_the_key_stays(place):
    terms = []
    for seed in (b"a" * 16, b"b" * 16, b"c" * 16):
        store = place.store()
        tenure = store.open(Owner(1, "nowhere", "1", seed))
        assert tenure.key == b"a" * 16
        terms.append(tenure.term)
        store.close()
    assert terms == sorted(set(terms))


@pytest.mark.parametrize(
    "line",
    [
        job(7),
        job(7, b""),
        job(7, EVERY_BYTE, unique=EVERY_BYTE[1:65], reducer=b"r", function=b"\xff f"),
        job(7, b"x" * 3_000_000),
        job(7, partition=1023, tenant="rouge é", priority=2, due=1.75e9 + 0.25, losses=3),
        job(7, submitted=1.75e9 + 0.125),
        job((1 << 62) + 5),
    ],
    ids=["plain", "empty", "every byte", "large", "all fields", "with its time", "far"],
)
def test_a_job_comes_back_as_it_was_kept(place, line):
    store = place.opened()
    write(store, 1, line)
    store.close()
    assert content(place.opened()) == [line]


def test_jobs_come_in_the_order_of_partition_and_sequence_page_by_page(place):
    keys = [(partition, sequence) for partition in (0, 1, 2) for sequence in range(1, 8)]
    store = place.opened()
    shuffled = sorted(keys, key=lambda key: (key[1] * 5 % 7, key[0]))
    write(store, 1, *(job(sequence, partition=partition) for partition, sequence in shuffled))
    for limit in (1, 4, 7, 21, 22):
        found = [[(row.partition, row.sequence) for row in page] for page in pages(store, limit)]
        assert [key for page in found for key in page] == keys
        assert {len(page) for page in found[:-1]} <= {limit}


@pytest.mark.parametrize("limit", [1, 2, 100])
def test_jobs_with_a_unique_leave_markers_and_a_dash_its_workload(place, limit):
    store = place.opened()
    write(
        store,
        1,
        job(1),
        job(2, unique=b"u"),
        job(3, unique=b"-"),
        job(4, b"", unique=b"-", tenant="red", function=b"g"),
        job(1, unique=b"v", partition=1),
    )
    found = []
    after = None
    while page := store.markers(after, limit):
        assert len(page) <= limit
        found += page
        after = page[-1].partition, page[-1].sequence
    assert found == [
        Marker(0, 2, "default", b"f", b"u", b""),
        Marker(0, 3, "default", b"f", b"-", b"work"),
        Marker(0, 4, "red", b"g", b"-", b""),
        Marker(1, 1, "default", b"f", b"v", b""),
    ]


@pytest.mark.parametrize("line", [job(3), job(1), Forget(0, 1), Losses(0, 1, 2, 0.0)])
def test_a_store_says_once_that_a_batch_is_sent(place, line):
    store = place.opened()
    write(store, 1, job(1), job(2))
    said = []
    store.commit(Batch(2, (line, record(b"k"))), lambda: said.append("sent"))
    assert said == ["sent"]


def test_what_is_kept_again_replaces_what_was_there(place):
    store = place.opened()
    write(store, 1, job(1, b"first"), job(2))
    write(store, 2, job(1, b"second"))
    assert content(store) == [job(1, b"second"), job(2)]


def test_what_is_forgotten_is_gone_and_nothing_else(place):
    store = place.opened()
    write(store, 1, job(1), job(2), job(1, partition=1))
    write(store, 2, Forget(0, 1), Forget(0, 9), Forget(5, 2))
    assert content(store) == [job(2), job(1, partition=1)]


def test_lost_attempts_are_counted_in_the_record_and_only_there(place):
    store = place.opened()
    write(store, 1, job(1, b"w"), job(2))
    write(store, 2, Losses(0, 1, 4, 2.5), Losses(0, 3, 9, 0.0))
    assert content(store) == [job(1, b"w", losses=4, due=2.5), job(2)]


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([job(1), Forget(0, 1)], []),
        ([Forget(0, 1), job(1)], [job(1)]),
        ([job(1, b"a"), job(1, b"b")], [job(1, b"b")]),
        ([job(1), Losses(0, 1, 2, 0.0)], [job(1, losses=2)]),
        ([job(1), Losses(0, 1, 2, 0.0), Losses(0, 1, 3, 0.0)], [job(1, losses=3)]),
        ([Losses(0, 1, 2, 0.0), job(1)], [job(1)]),
        ([job(1), Losses(0, 1, 2, 0.0), Forget(0, 1)], []),
        ([job(1), Forget(0, 1), Losses(0, 1, 2, 0.0)], []),
        ([Forget(0, 1), Forget(0, 1)], []),
        ([], [job(1, b"before")]),
    ],
)
def test_lines_of_a_batch_count_in_order(place, lines, left):
    store = place.opened()
    write(store, 1, job(1, b"before"))
    write(store, 2, *lines)
    assert content(store) == left


@pytest.mark.parametrize("size", [1, 7, 8, 9, 64, 511, 512, 513, 4096])
def test_batches_of_every_size_are_written_whole(place, size):
    store = place.opened()
    write(store, 1, *(job(number) for number in range(1, size + 1)))
    assert sequences(content(store)) == list(range(1, size + 1))
    gone = [Forget(0, number) for number in range(1, size + 1)]
    write(store, 2, *gone[1:], job(size + 1))
    assert sequences(content(store)) == [1, size + 1]


@pytest.mark.parametrize(
    "line",
    [
        record(b"k"),
        record(b"", b"", function=b"", about="{}"),
        record(EVERY_BYTE, EVERY_BYTE * 20_000, function=EVERY_BYTE),
        record(b"k", tenant="rouge é", about='{"ö": 1}', expires=1.75e9 + 0.5, partition=1023),
    ],
    ids=["plain", "empty", "every byte", "all fields"],
)
def test_a_record_comes_back_as_it_was_kept(place, line):
    store = place.opened()
    write(store, 1, line)
    store.close()
    store = place.opened()
    assert records(store) == [line]
    assert list(store.fetch(line.kind, line.tenant, [line.key])) == [line]


def test_records_come_kind_by_kind_in_order_page_by_page_with_and_without_data(place):
    lines = [
        record(b"%d" % number, kind=kind, tenant=tenant, partition=partition)
        for kind in ("dead", "schedule")
        for tenant in ("blue", "red")
        for number in range(3)
        for partition in (0, 1)
    ]
    store = place.opened()
    write(store, 1, *reversed(lines))
    for kind in ("dead", "schedule"):
        expected = [line for line in lines if line.kind == kind]
        for limit in (1, 5, 12, 13):
            assert records(store, kind, limit=limit) == expected
        bare = [line._replace(data=b"") for line in expected]
        assert records(store, kind, data=False) == bare
    assert records(store, "setting") == []


def test_records_are_fetched_by_kind_tenant_and_key_only(place):
    store = place.opened()
    ours = [record(b"a"), record(b"b"), record(b"b", partition=1)]
    others = [record(b"a", tenant="red"), record(b"b", kind="result"), record(b"c")]
    write(store, 1, *ours, *others)
    found = store.fetch("dead", "default", [b"a", b"b", b"d"])
    assert sorted(found) == sorted(ours)
    assert list(store.fetch("dead", "default", [])) == []
    many = [b"%d" % number for number in range(700)]
    write(store, 2, *(record(key) for key in many))
    assert len(store.fetch("dead", "default", many)) == 700


def test_a_record_that_is_kept_again_replaces_the_first_and_erasing_ends_it(place):
    store = place.opened()
    write(store, 1, record(b"a", b"1"), record(b"b"), record(b"a", partition=1))
    write(store, 2, record(b"a", b"2"), Erase("dead", "default", b"b", 0))
    assert records(store) == [record(b"a", b"2"), record(b"a", partition=1)]
    write(store, 3, Erase("dead", "default", b"z", 0), Erase("schedule", "default", b"a", 0))
    assert len(records(store)) == 2


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        ([record(b"a", b"1"), record(b"a", b"2")], [record(b"a", b"2")]),
        ([record(b"a", b"1"), Erase("dead", "default", b"a", 0)], []),
        ([Erase("dead", "default", b"a", 0), record(b"a", b"1")], [record(b"a", b"1")]),
        ([Forget(0, 1), record(b"a", b"1")], [record(b"a", b"1")]),
    ],
)
def test_lines_about_records_count_in_order_too(place, lines, left):
    store = place.opened()
    write(store, 1, record(b"a", b"before"), job(1))
    write(store, 2, *lines)
    assert records(store) == left


def test_a_batch_with_jobs_and_records_is_written_once_and_jobs_are_not_records(place):
    store = place.opened()
    batch = write(store, 1, job(1), record(b"a"), Forget(0, 9))
    write(store, 2, Erase("dead", "default", b"a", 0))
    store.commit(batch)
    assert (content(store), records(store)) == ([job(1)], [])


def test_a_batch_written_twice_is_written_once(place):
    store = place.opened()
    batch = write(store, 1, job(1), job(2))
    store.commit(batch)
    assert sequences(content(store)) == [1, 2]


def test_a_batch_that_comes_again_late_does_not_bring_back_what_has_ended(place):
    store = place.opened()
    batch = write(store, 1, job(1), job(2))
    write(store, 2, Forget(0, 1))
    store.commit(batch)
    assert sequences(content(store)) == [2]


def test_a_store_tells_whether_it_holds_a_batch(place):
    store = place.opened()
    batch = write(store, 1, job(1))
    assert store.holds(batch)
    assert not store.holds(Batch(2, (job(2),)))
    assert sequences(content(store)) == [1]
    write(store, 2, job(2))
    assert sequences(content(store)) == [1, 2]


def test_numbers_of_batches_begin_anew_with_every_owner(place):
    store = place.opened()
    write(store, 5, job(1))
    store.close()
    store = place.opened()
    assert not store.holds(Batch(1, (job(2),)))
    write(store, 1, job(2))
    assert sequences(content(store)) == [1, 2]


def test_a_second_owner_is_refused_and_told_who_the_first_is(place):
    first = place.opened()
    told = r"another server \(pid 4711 at 127\.0\.0\.1:4730\)"
    with impatience(), pytest.raises(StoreUnusable, match=told):
        place.opened()
    write(first, 1, job(1))
    first.close()
    assert sequences(content(place.opened())) == [1]


def test_closing_twice_is_closing_once(place):
    store = place.opened()
    store.close()
    store.close()
    place.opened()


def test_a_store_that_never_opened_can_be_closed(place):
    place.store().close()


def test_an_owner_whose_store_was_taken_over_writes_no_more(place):
    store = place.opened()
    write(store, 1, job(1))
    place.usurp()
    with pytest.raises(StoreFenced, match="another server owns it now"):
        write(store, 2, job(2))
    with pytest.raises(StoreFenced, match="another server owns it now"):
        store.holds(Batch(2, (job(2),)))
    store.close()
    assert sequences(content(place.opened())) == [1]


@st.composite
def _line(draw):
    partition, sequence = draw(st.integers(0, 1)), draw(st.integers(1, 6))
    kind = draw(st.sampled_from([Keep, Losses, Forget]))
    if kind is Keep:
        return job(sequence, draw(st.binary(max_size=3)), partition=partition)
    if kind is Losses:
        return Losses(
            partition, sequence, draw(st.integers(0, 9)), draw(st.sampled_from([0.0, 5.5]))
        )
    return Forget(partition, sequence)


@pytest.mark.parametrize("kind", PLACES)
@given(batches=st.lists(st.tuples(st.lists(_line(), max_size=12), st.booleans()), max_size=8))
@settings(max_examples=30)
def test_any_batches_leave_what_doing_their_lines_one_by_one_leaves(kind, batches):
    expected: dict[tuple[int, int], Keep] = {}
    with tempfile.TemporaryDirectory() as folder:
        place = PLACES[kind](Path(folder))
        store = place.opened()
        for number, (lines, reopen) in enumerate(batches, 1):
            for line in lines:
                key = line.partition, line.sequence
                if isinstance(line, Keep):
                    expected[key] = line
                elif isinstance(line, Forget):
                    expected.pop(key, None)
                elif key in expected:
                    expected[key] = expected[key]._replace(losses=line.losses, due=line.due)
            write(store, number, *lines)
            if reopen:
                store.close()
                store = place.opened()
        assert content(store) == [expected[key] for key in sorted(expected)]
        place.clear()
