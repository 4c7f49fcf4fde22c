"""What a store is given."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields, replace

import pytest

from trigear.stores.base import RECORD_VERSION, Batch, Forget, Keep

LINE = Keep(
    partition=3,
    sequence=7,
    tenant="red",
    function=b"f",
    unique=b"u",
    handle=b"H:here:1",
    priority=1,
    due=0.0,
    losses=0,
    reducer=b"",
    workload=b"work",
)


def test_a_record_says_in_which_layout_it_was_written():
    assert LINE.version == RECORD_VERSION == 1


def test_a_record_carries_what_a_later_reader_knows_a_job_by():
    names = {field.name for field in fields(Keep)}
    assert {"partition", "sequence", "tenant", "function", "unique", "handle", "version"} <= names


@pytest.mark.parametrize("thing", [LINE, Forget(3, 7), Batch(1, (LINE,))])
def test_lines_and_batches_cannot_be_changed_on_their_way(thing):
    with pytest.raises(FrozenInstanceError):
        setattr(thing, fields(thing)[0].name, 9)


def test_the_same_line_twice_is_the_same_line():
    assert replace(LINE) == LINE
    assert {Forget(3, 7), Forget(3, 7)} == {Forget(3, 7)}
