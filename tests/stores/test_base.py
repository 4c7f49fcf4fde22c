"""What a store is given."""

from __future__ import annotations

import pytest

from trigear.stores.base import RECORD_VERSION, Batch, Forget, Keep, Losses, Spoilt

LINE = Keep(
    partition=3,
    sequence=7,
    tenant="red",
    function=b"f",
    unique=b"u",
    handle=b"H:here:1",
    priority=1,
    due=0.0,
    submitted=0.0,
    losses=0,
    reducer=b"",
    workload=b"work",
)


def test_a_record_says_in_which_layout_it_was_written():
    assert LINE.version == RECORD_VERSION == 1


def test_a_record_carries_what_a_later_reader_knows_a_job_by():
    known_by = {"partition", "sequence", "tenant", "function", "unique", "handle", "version"}
    assert known_by <= set(Keep._fields)


@pytest.mark.parametrize(
    ("thing", "field"),
    [
        (LINE, "losses"),
        (Losses(3, 7, 1, 0.0), "losses"),
        (Forget(3, 7), "sequence"),
        (Batch(1, (LINE,)), "lines"),
        (Spoilt(3, 7, "moths"), "why"),
    ],
)
def test_lines_and_batches_cannot_be_changed_on_their_way(thing, field):
    with pytest.raises(AttributeError):
        setattr(thing, field, 9)


def test_the_same_line_twice_is_the_same_line():
    assert LINE._replace() == LINE
    assert {Forget(3, 7), Forget(3, 7)} == {Forget(3, 7)}
