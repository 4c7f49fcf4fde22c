"""The client's column: submissions, and the dealing of updates among those with one handle."""

from __future__ import annotations

import pytest

from trigear.errors import LocalProtocolError
from trigear.model import Priority
from trigear.protocol.client import ClientConnection, Submission
from trigear.protocol.events import (
    Completed,
    Created,
    Data,
    Failed,
    Raised,
    Refused,
    Status,
    StatusResult,
    UniqueStatusResult,
    Warning,
)
from trigear.wire.codec import request, response
from trigear.wire.packets import (
    ERROR,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    JOB_CREATED,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_REDUCE_JOB,
    SUBMIT_REDUCE_JOB_BACKGROUND,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
)

H = b"H:here:1"


def submitted(client: ClientConnection, handle: bytes = H, **how: bool) -> Submission:
    """A submission that the server has accepted."""
    token = client.submit(b"f", b"w", **how)
    client.receive(response(JOB_CREATED, handle))
    assert client.events() == [Created(token, handle)]
    return token


@pytest.mark.parametrize(
    ("priority", "background", "number"),
    [
        (Priority.HIGH, False, SUBMIT_JOB_HIGH),
        (Priority.NORMAL, False, SUBMIT_JOB),
        (Priority.LOW, False, SUBMIT_JOB_LOW),
        (Priority.HIGH, True, SUBMIT_JOB_HIGH_BG),
        (Priority.NORMAL, True, SUBMIT_JOB_BG),
        (Priority.LOW, True, SUBMIT_JOB_LOW_BG),
    ],
)
def test_each_kind_of_submission_has_its_packet(
    priority: Priority, background: bool, number: int
) -> None:
    client = ClientConnection()
    token = client.submit(b"f", b"w\0w", unique=b"u", priority=priority, background=background)
    assert client.take() == [request(number, b"f", b"u", b"w\0w")]
    client.receive(response(JOB_CREATED, H))
    assert client.events() == [Created(token, H)]


def test_a_job_for_later_is_in_the_background() -> None:
    client = ClientConnection()
    token = client.submit_at(b"f", b"w", 1_900_000_000, unique=b"u")
    assert client.take() == [request(SUBMIT_JOB_EPOCH, b"f", b"u", b"1900000000", b"w")]
    assert token.background


@pytest.mark.parametrize(
    ("background", "number"),
    [(False, SUBMIT_REDUCE_JOB), (True, SUBMIT_REDUCE_JOB_BACKGROUND)],
)
def test_a_reduce_job_has_an_empty_fourth_argument(background: bool, number: int) -> None:
    client = ClientConnection()
    token = client.submit_reduce(b"map", b"w", b"reduce", unique=b"u", background=background)
    assert client.take() == [request(number, b"map", b"u", b"reduce", b"", b"w")]
    assert token.background is background


def test_a_submission_needs_a_function_and_a_unique_that_servers_take() -> None:
    client = ClientConnection()
    with pytest.raises(LocalProtocolError, match="its name is empty"):
        client.submit(b"", b"w")
    with pytest.raises(LocalProtocolError, match="unique of 65 bytes"):
        client.submit(b"f", b"w", unique=b"u" * 65)
    client.submit(b"f", b"w", unique=b"u" * 64)
    assert client.outstanding == 1


def test_a_refused_submission_ends_there() -> None:
    client = ClientConnection()
    full, next_one = client.submit(b"f", b"1"), client.submit(b"f", b"2")
    client.receive(response(ERROR, b"QUEUE_ERROR", b"Job queue is full"))
    client.receive(response(JOB_CREATED, H))
    assert client.events() == [
        Refused(full, "QUEUE_ERROR", "Job queue is full"),
        Created(next_one, H),
    ]


def test_a_foreground_job_is_told_until_its_end() -> None:
    client = ClientConnection()
    token = submitted(client)
    client.receive(
        response(WORK_STATUS, H, b"1", b"2")
        + response(WORK_STATUS, H, b"0.5")
        + response(WORK_DATA, H, b"part")
        + response(WORK_WARNING, H, b"careful")
        + response(WORK_COMPLETE, H, b"a\0b")
    )
    assert client.events() == [
        Status(token, H, 1, 2),
        Status(token, H, 0.5, 0),
        Data(token, H, b"part"),
        Warning(token, H, b"careful"),
        Completed(token, H, b"a\0b"),
    ]


def test_a_job_may_fail_or_raise() -> None:
    client = ClientConnection()
    one, two = submitted(client, b"H:1"), submitted(client, b"H:2")
    client.receive(response(WORK_EXCEPTION, b"H:2", b"boom") + response(WORK_FAIL, b"H:1"))
    assert client.events() == [Raised(two, b"H:2", b"boom"), Failed(one, b"H:1")]


@pytest.mark.parametrize("stray", [b"", b"\0"])
def test_work_fail_with_a_stray_nul_still_names_its_handle(stray: bytes) -> None:
    client = ClientConnection()
    token = submitted(client)
    client.receive(response(WORK_FAIL, H + stray))
    assert client.events() == [Failed(token, H)]


@pytest.mark.parametrize(
    "packet",
    [
        response(WORK_STATUS, H, b"1", b"2"),
        response(WORK_DATA, H, b""),
        response(WORK_WARNING, H, b""),
        response(WORK_COMPLETE, H, b""),
        response(WORK_FAIL, H),
        response(WORK_EXCEPTION, H, b""),
    ],
)
def test_a_second_end_and_updates_after_it_are_harmless(packet: bytes) -> None:
    client = ClientConnection()
    submitted(client)
    client.receive(response(WORK_FAIL, H))
    client.events()
    client.receive(packet)
    assert client.events() == []
    assert client.closing is None


def test_a_background_submission_hears_no_more_than_its_handle() -> None:
    client = ClientConnection()
    submitted(client, background=True)
    client.receive(response(WORK_DATA, H, b"x") + response(WORK_COMPLETE, H, b"x"))
    assert client.events() == []


def test_submissions_that_share_a_handle_get_one_copy_each() -> None:
    client = ClientConnection()
    one = submitted(client)
    client.receive(response(WORK_STATUS, H, b"1", b"3"))
    two = client.submit(b"f", b"w")
    client.receive(response(JOB_CREATED, H))
    client.receive(response(WORK_STATUS, H, b"2", b"3") * 2)
    client.receive(response(WORK_DATA, H, b"x") * 2 + response(WORK_WARNING, H, b"y") * 2)
    client.receive(response(WORK_COMPLETE, H, b"z") * 2)
    assert client.events() == [
        Status(one, H, 1, 3),
        Created(two, H),
        Status(one, H, 2, 3),
        Status(two, H, 2, 3),
        Data(one, H, b"x"),
        Data(two, H, b"x"),
        Warning(one, H, b"y"),
        Warning(two, H, b"y"),
        Completed(one, H, b"z"),
        Completed(two, H, b"z"),
    ]


def test_an_abandoned_submission_takes_its_own_copies_and_no_others() -> None:
    client = ClientConnection()
    one, two, three = submitted(client), submitted(client), submitted(client)
    client.abandon(two)
    client.receive(response(WORK_DATA, H, b"x") * 3 + response(WORK_FAIL, H) * 3)
    assert client.events() == [
        Data(one, H, b"x"),
        Data(three, H, b"x"),
        Failed(one, H),
        Failed(three, H),
    ]


def test_a_submission_abandoned_before_its_handle_still_has_its_seat() -> None:
    client = ClientConnection()
    lost = client.submit(b"f", b"w")
    client.abandon(lost)
    client.receive(response(JOB_CREATED, H))
    kept = submitted(client)
    client.receive(response(WORK_COMPLETE, H, b"z") * 2)
    assert client.events() == [Completed(kept, H, b"z")]


def test_a_handle_can_come_back_after_its_job_is_over() -> None:
    client = ClientConnection()
    submitted(client)
    client.receive(response(WORK_FAIL, H))
    client.events()
    again = submitted(client)
    client.receive(response(WORK_COMPLETE, H, b""))
    assert client.events() == [Completed(again, H, b"")]


def test_handles_are_matched_whole() -> None:
    client = ClientConnection()
    one, ten = submitted(client, b"H:x:1"), submitted(client, b"H:x:10")
    client.receive(response(WORK_COMPLETE, b"H:x:10", b"10"))
    client.receive(response(WORK_COMPLETE, b"H:x:1", b"1"))
    assert client.events() == [Completed(ten, b"H:x:10", b"10"), Completed(one, b"H:x:1", b"1")]


def test_status_of_a_handle() -> None:
    client = ClientConnection()
    one, two = client.get_status(H), client.get_status(b"H:gone")
    assert client.take() == [request(GET_STATUS, H), request(GET_STATUS, b"H:gone")]
    client.receive(
        response(STATUS_RES, H, b"1", b"1", b"3", b"4")
        + response(STATUS_RES, b"H:gone", b"0", b"0", b"0", b"0")
    )
    assert client.events() == [
        StatusResult(one, H, True, True, 3, 4),
        StatusResult(two, b"H:gone", False, False, 0, 0),
    ]


def test_status_of_a_unique() -> None:
    client = ClientConnection()
    token = client.get_status_unique(b"u")
    assert client.take() == [request(GET_STATUS_UNIQUE, b"u")]
    client.receive(response(STATUS_RES_UNIQUE, b"u", b"1", b"0", b"0", b"0", b"2"))
    assert client.events() == [UniqueStatusResult(token, b"u", True, False, 0, 0, 2)]
