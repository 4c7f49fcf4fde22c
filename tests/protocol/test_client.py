"""The client's column: submissions, and the dealing of updates among those with one handle."""

from __future__ import annotations

import pytest

from trigear.errors import LocalProtocolError
from trigear.model import Priority
from trigear.protocol.client import ClientConnection, Submission
from trigear.protocol.events import (
    Broken,
    Completed,
    Created,
    Data,
    Echoed,
    Failed,
    Raised,
    Refused,
    ResultTold,
    Status,
    StatusResult,
    UniqueStatusResult,
    Warning,
)
from trigear.testing.clock import SettableClock
from trigear.testing.memory import MemoryEngine, MemoryPeer
from trigear.wire.codec import request, response
from trigear.wire.packets import (
    CAN_DO,
    ECHO_REQ,
    ECHO_RES,
    ERROR,
    EXTENDED_OPTION,
    GET_RESULT,
    GET_STATUS,
    GET_STATUS_UNIQUE,
    GRAB_JOB,
    JOB_CREATED,
    JOB_DETACH,
    OPTION_REQ,
    OPTION_RES,
    RESULT,
    STATUS_RES,
    STATUS_RES_UNIQUE,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    SUBMIT_JOB_EPOCH,
    SUBMIT_JOB_HIGH,
    SUBMIT_JOB_HIGH_BG,
    SUBMIT_JOB_LOW,
    SUBMIT_JOB_LOW_BG,
    SUBMIT_JOB_SCHED,
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


def test_a_schedule_is_in_the_background() -> None:
    client = ClientConnection()
    fields = (b"0", b"3", b"*", b"*", b"MON")
    token = client.submit_schedule(b"f", b"w", fields, unique=b"u")
    assert client.take() == [request(SUBMIT_JOB_SCHED, b"f", b"u", *fields, b"w")]
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


# Extended mode


def extended() -> ClientConnection:
    client = ClientConnection()
    client.extend()
    client.receive(response(OPTION_RES, EXTENDED_OPTION))
    client.events()
    client.take()
    return client


DETACHES = request(JOB_DETACH, H) + request(ECHO_REQ, b"")


def sent(client: ClientConnection) -> bytes:
    return b"".join(client.take())


def test_extended_mode_is_asked_for_and_may_be_refused() -> None:
    client = ClientConnection()
    token = client.extend()
    assert sent(client) == request(OPTION_REQ, EXTENDED_OPTION)
    client.receive(response(ERROR, b"UNKNOWN_OPTION", b"what?"))
    assert client.events() == [Refused(token, "UNKNOWN_OPTION", "what?")]
    assert not client.extended
    with pytest.raises(LocalProtocolError, match="JOB_DETACH is no request of a client"):
        client.ask(JOB_DETACH, H)


def test_another_option_is_not_extended_mode() -> None:
    client = ClientConnection()
    client.option(b"exceptions")
    client.receive(response(OPTION_RES, b"exceptions"))
    assert not client.extended


def test_a_detached_submission_tells_the_server_and_hears_no_more() -> None:
    client = extended()
    token = submitted(client)
    client.take()
    client.detach(token)
    client.detach(token)
    assert sent(client) == DETACHES
    client.receive(response(WORK_DATA, H, b"under way") + response(ECHO_RES, b""))
    assert client.events() == []
    assert client.outstanding == 0
    # The place is clear: whoever comes now gets everything.
    again = submitted(client)
    client.receive(response(WORK_COMPLETE, H, b"x"))
    assert client.events() == [Completed(again, H, b"x")]


def test_a_submission_detached_before_its_handle_is_detached_when_it_has_one() -> None:
    client = extended()
    token = client.submit(b"f", b"w")
    client.take()
    client.detach(token)
    assert sent(client) == b""
    client.receive(response(JOB_CREATED, H))
    assert client.events() == []
    assert sent(client) == DETACHES


def test_without_extended_mode_a_detached_submission_is_an_abandoned_one() -> None:
    client = ClientConnection()
    token = submitted(client)
    client.take()
    client.detach(token)
    assert sent(client) == b""
    client.receive(response(WORK_COMPLETE, H, b""))
    assert client.events() == []


def test_nothing_is_detached_from_a_job_that_is_over() -> None:
    client = extended()
    token = submitted(client)
    client.receive(response(WORK_COMPLETE, H, b""))
    client.take()
    client.detach(token)
    assert sent(client) == b""


def test_nothing_is_sent_on_a_connection_that_is_over() -> None:
    client = extended()
    token = submitted(client)
    client.take()
    client.receive(b"\0BAD" + bytes(8))
    client.detach(token)
    assert sent(client) == b""


def test_an_end_that_was_under_way_leaves_nothing_to_clear() -> None:
    client = extended()
    token = submitted(client)
    client.detach(token)
    client.receive(response(WORK_COMPLETE, H, b"") + response(ECHO_RES, b""))
    assert client.events() == []


def test_an_echo_of_the_callers_own_is_answered_beside_the_fence() -> None:
    client = extended()
    token = submitted(client)
    client.detach(token)
    mine = client.echo(b"x")
    client.receive(response(ECHO_RES, b"") + response(ECHO_RES, b"x"))
    assert client.events() == [Echoed(mine, b"x")]


@pytest.mark.parametrize("leaver", [0, 1, 2])
@pytest.mark.parametrize("heard_before", [True, False])
@pytest.mark.parametrize("in_flight", [True, False])
def test_whoever_stays_hears_everything_once(
    leaver: int, heard_before: bool, in_flight: bool
) -> None:
    """Three submissions of one job on one connection, one is detached, against the engine."""
    server = MemoryEngine(SettableClock())
    near, worker = server.connect(), server.connect()
    worker.send(request(CAN_DO, b"f"))
    client = extended()
    near.send(request(OPTION_REQ, EXTENDED_OPTION))
    near.take()
    tokens = [client.submit(b"f", b"w", unique=b"u") for _ in range(3)]
    exchange(client, near)
    heard = [event for event in client.events() if isinstance(event, Created)]
    handle = heard[0].handle
    worker.send(request(GRAB_JOB))
    if heard_before:
        worker.send(request(WORK_DATA, handle, b"1"))
        if not in_flight:
            client.receive(near.take())
    client.detach(tokens[leaver])
    late = client.submit(b"f", b"w", unique=b"u")
    exchange(client, near)
    worker.send(request(WORK_DATA, handle, b"2") + request(WORK_COMPLETE, handle, b"3"))
    client.receive(near.take())
    told = [event for event in client.events() if isinstance(event, Data | Completed)]
    for token in {*tokens} - {tokens[leaver]}:
        data = [event.data for event in told if event.token is token]
        assert data == ([b"1"] if heard_before else []) + [b"2", b"3"]
    assert [event.data for event in told if event.token is late] == [b"2", b"3"]
    if in_flight:
        assert not [event for event in told if event.token is tokens[leaver]]


@pytest.mark.parametrize(
    ("kept", "data", "told"), [(b"1", b"x\0y", b"x\0y"), (b"1", b"", b""), (b"0", b"", None)]
)
def test_a_result_is_told_with_its_data_if_it_is_kept(
    kept: bytes, data: bytes, told: bytes | None
) -> None:
    client = extended()
    token = client.get_result(H)
    assert sent(client) == request(GET_RESULT, H)
    client.receive(response(RESULT, H, b"done", b"3", b"1500", kept, data))
    assert client.events() == [ResultTold(token, H, "done", 3, 1.5, told)]
    assert client.outstanding == 0


def test_a_result_cannot_be_asked_for_without_extended_mode() -> None:
    client = ClientConnection()
    with pytest.raises(LocalProtocolError, match="GET_RESULT is no request of a client"):
        client.get_result(H)


def test_a_result_that_nobody_asked_for_breaks_the_connection() -> None:
    client = extended()
    client.receive(response(RESULT, H, b"done", b"1", b"0", b"0", b""))
    (event,) = client.events()
    assert isinstance(event, Broken)
    plain = ClientConnection()
    plain.receive(response(RESULT, H, b"done", b"1", b"0", b"0", b""))
    assert plain.closing is not None


def exchange(client: ClientConnection, near: MemoryPeer) -> None:
    """Send what waits in the client, and have it hear what has come until now, in that order."""
    near.send(b"".join(client.take()))
    client.receive(near.take())
