"""What waits behind a reply that is not known yet, and how lines make batches."""

from __future__ import annotations

import pytest

from tests.engine.test_gate import UNSTORED, Durable, workloads
from tests.engine.world import packet
from trigear.engine.engine import Engine
from trigear.engine.gate import BATCH_BYTES, BATCH_LINES
from trigear.errors import StoreFenced, StoreUnavailable, StoreUnknown

LINE = 128
"""What a line counts beside its workload."""


@pytest.fixture
def durable() -> Durable:
    return Durable()


def busy(durable):
    """A connection in both roles whose first reply waits for the store; and its batch flies."""
    both = durable.connect()
    assert durable.submit(both, b"stored") == []
    assert workloads(durable.take()) == [b"stored"]
    return both


def test_everything_but_a_wake_up_waits_behind_a_reply_that_is_not_known(durable):
    both, other = busy(durable), durable.connect()
    ((_, handle),) = durable.tell(other, packet("SUBMIT_JOB", b"theirs", b"", b"work"))
    asked = [
        packet("ECHO_REQ", b"x"),
        packet("SUBMIT_JOB", b"mine", b"", b"work"),
        packet("GET_STATUS", handle),
        b"version\n",
        packet("OPTION_REQ", b"exceptions"),
        packet("OPTION_REQ", b"nonsense"),
        packet("CAN_DO", b"theirs"),
        packet("GRAB_JOB"),
        packet("GRAB_JOB"),
        packet("WORK_COMPLETE", b"H:nobody", b""),
        packet("CAN_DO", b"f"),
        packet("PRE_SLEEP"),
    ]
    assert durable.tell(both, *asked) == []
    durable.tell(other, packet("CAN_DO", b"mine"))
    ((_, mine, _, _),) = durable.tell(other, packet("GRAB_JOB"))
    durable.tell(other, packet("WORK_DATA", mine, b"data"), packet("WORK_COMPLETE", mine, b"ok"))
    durable.tell(other, packet("SUBMIT_JOB", b"theirs", b"", b"more"))
    assert durable.heard(both) == [("NOOP",)]
    durable.answer()
    created, *rest = durable.heard(both)
    assert created == ("JOB_CREATED", b"H:1")
    assert [said[0] for said in rest] == [
        "ECHO_RES",
        "JOB_CREATED",
        "STATUS_RES",
        "text",
        "OPTION_RES",
        "ERROR",
        "JOB_ASSIGN",
        "NO_JOB",
        "ERROR",
        "WORK_DATA",
        "WORK_COMPLETE",
    ]
    assert durable.tell(both, packet("ECHO_REQ", b"y")) == [("ECHO_RES", b"y")]


def test_replies_of_several_batches_leave_as_their_batches_are_written(durable):
    client = busy(durable)
    durable.submit(client, b"second")
    durable.tell(client, packet("ECHO_REQ", b"behind"))
    durable.answer()
    assert durable.heard(client) == [("JOB_CREATED", b"H:1")]
    durable.take()
    assert durable.tell(client, packet("ECHO_REQ", b"last")) == []
    durable.answer()
    assert durable.heard(client) == [
        ("JOB_CREATED", b"H:2"),
        ("ECHO_RES", b"behind"),
        ("ECHO_RES", b"last"),
    ]


def test_a_refusal_lets_go_what_waits_behind_it(durable):
    client = busy(durable)
    durable.tell(client, packet("ECHO_REQ", b"behind"))
    durable.answer(StoreUnavailable("no"))
    assert durable.heard(client) == [UNSTORED, ("ECHO_RES", b"behind")]


def test_connections_without_a_waiting_reply_wait_for_nobody(durable):
    busy(durable)
    other = durable.connect()
    assert durable.tell(other, packet("ECHO_REQ", b"x")) == [("ECHO_RES", b"x")]


def test_who_joins_a_job_on_its_way_waits_with_it(durable):
    first, second = durable.connect(), durable.connect()
    durable.submit(first, b"work", b"u")
    asked = [packet("SUBMIT_JOB", b"f", b"u", b"work"), packet("ECHO_REQ", b"x")]
    assert durable.tell(second, *asked) == []
    assert len(durable.take()) == 1
    durable.answer()
    assert durable.heard(second) == [("JOB_CREATED", b"H:1"), ("ECHO_RES", b"x")]


def test_who_joins_a_running_foreground_job_is_answered_at_once_while_it_is_promoted(durable):
    first, second, third = durable.connect(), durable.connect(), durable.connect()
    durable.tell(first, packet("SUBMIT_JOB", b"f", b"u", b"work"))
    durable.submit(second, b"work", b"u")
    durable.take()
    asked = packet("SUBMIT_JOB", b"f", b"u", b"work")
    assert durable.tell(third, asked) == [("JOB_CREATED", b"H:1")]
    assert durable.heard(second) == []


@pytest.mark.parametrize("error", [StoreUnknown("perhaps"), StoreFenced("gone")])
def test_as_long_as_the_store_does_not_know_only_wake_ups_leave(durable, error):
    both, other = busy(durable), durable.connect()
    durable.answer(error)
    asked = [packet("ECHO_REQ", b"x"), packet("CAN_DO", b"g"), packet("PRE_SLEEP")]
    assert durable.tell(both, *asked) == []
    durable.tell(other, packet("SUBMIT_JOB", b"g", b"", b"work"))
    assert durable.heard(both) == [("NOOP",)]
    durable.pass_time(1000)
    assert durable.heard(both) == []


def test_an_outcome_that_was_unknown_may_turn_out_as_not_written_or_fenced(durable):
    client = busy(durable)
    durable.answer(StoreUnknown("perhaps"))
    durable.answer(StoreUnavailable("no"))
    assert durable.heard(client) == [UNSTORED]
    durable.submit(client, b"next")
    durable.take()
    durable.answer(StoreUnknown("perhaps"))
    durable.answer(StoreFenced("gone"))
    assert durable.heard(client) == []
    assert durable.engine.fenced


# Batches


def test_a_batch_has_at_most_4096_lines(durable):
    client = durable.connect()
    for _ in range(BATCH_LINES + 1):
        durable.submit(client, b"")
    assert (BATCH_LINES, len(durable.take())) == (4096, 4096)
    durable.answer()
    assert len(durable.heard(client)) == 4096
    assert len(durable.take()) == 1


def test_a_batch_has_at_most_4_mib(durable):
    client = durable.connect()
    quarter = bytes(BATCH_BYTES // 4 - LINE)
    for _ in range(5):
        durable.submit(client, quarter)
    durable.submit(client, b"behind")
    assert BATCH_BYTES == 4 * 1024 * 1024
    assert len(durable.take()) == 4
    durable.answer()
    assert len(durable.take()) == 2


def test_a_line_beyond_the_measure_makes_a_batch_of_its_own(durable):
    client = durable.connect()
    large = bytes(BATCH_BYTES)
    for workload in (b"before", large, b"after", b"last"):
        durable.submit(client, workload)
    batches = []
    while lines := durable.take():
        batches.append(workloads(lines))
        durable.answer()
    assert batches == [[b"before"], [large], [b"after", b"last"]]


@pytest.mark.pure
def test_a_tenant_whose_line_did_not_fit_is_the_first_of_the_next_batch(durable, monkeypatch):
    names = iter(["red", "blue"])
    monkeypatch.setattr(Engine, "tenant_of", lambda *_: next(names))
    red, blue = durable.connect(), durable.connect()
    half = bytes(BATCH_BYTES // 2)
    for number in range(3):
        durable.submit(red, b"r%d" % number + half)
    for number in range(2):
        durable.submit(blue, b"b%d" % number + half)
    order = []
    while lines := durable.take():
        order += [workload[:2] for workload in workloads(lines)]
        durable.answer()
    assert order == [b"r0", b"b0", b"r1", b"b1", b"r2"]


@pytest.mark.pure
def test_erasures_put_back_count_with_their_tenant(durable, monkeypatch):
    """After a failure, one tenant's erasures are no reason to let the other wait."""
    names = iter(["red", "blue", "red"])
    monkeypatch.setattr(Engine, "tenant_of", lambda *_: next(names))
    red, blue, worker = durable.connect(), durable.connect(), durable.connect()
    for number in range(3):
        durable.submit(red, b"r%d" % number)
    durable.take()
    durable.answer()
    durable.tell(worker, packet("CAN_DO", b"f"))
    for _ in range(3):
        ((_, handle, _, _),) = durable.tell(worker, packet("GRAB_JOB"))
        durable.tell(worker, packet("WORK_COMPLETE", handle, b""))
    erasures = durable.take()
    assert len(erasures) == 3
    durable.answer(StoreUnavailable("no"))
    durable.submit(blue, b"b0")
    first, second, *rest = durable.take()
    assert (first, second.workload, rest) == (erasures[0], b"b0", erasures[1:])
