"""The worker's column: its cycle, its functions and the jobs it holds."""

from __future__ import annotations

import pytest

from trigear.errors import LocalProtocolError
from trigear.model import CloseReason
from trigear.protocol.events import (
    Assigned,
    Broken,
    Cancelled,
    Disowned,
    Echoed,
    NoJob,
    OptionSet,
    Refused,
    Woken,
)
from trigear.protocol.worker import CYCLE, GRABS, State, WorkerConnection
from trigear.wire.codec import request, response
from trigear.wire.packets import (
    CAN_DO,
    CAN_DO_TIMEOUT,
    CANT_DO,
    ECHO_RES,
    ERROR,
    EXTENDED_OPTION,
    GRAB_JOB,
    GRAB_JOB_ALL,
    GRAB_JOB_UNIQ,
    HEARTBEAT,
    JOB_ASSIGN,
    JOB_ASSIGN_ALL,
    JOB_ASSIGN_UNIQ,
    JOB_CANCELLED,
    JOB_RELEASE,
    NO_JOB,
    NOOP,
    OPTION_REQ,
    OPTION_RES,
    PRE_SLEEP,
    RESET_ABILITIES,
    WORK_COMPLETE,
    WORK_DATA,
    WORK_EXCEPTION,
    WORK_FAIL,
    WORK_STATUS,
    WORK_WARNING,
    name_of,
)

H = b"H:here:1"


def in_state(state: State) -> WorkerConnection:
    worker = WorkerConnection()
    if state is State.GRABBING:
        worker.grab()
    elif state is State.SLEEPING:
        worker.sleep()
    worker.take()
    assert worker.state is state
    return worker


def holding(handle: bytes = H) -> WorkerConnection:
    worker = in_state(State.GRABBING)
    worker.receive(response(JOB_ASSIGN_UNIQ, handle, b"f", b"u", b"w"))
    worker.events()
    return worker


# The cycle


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("number", [*GRABS, PRE_SLEEP], ids=name_of)
def test_sending_follows_the_cycle(state: State, number: int) -> None:
    worker = in_state(state)

    def send() -> None:
        if number == PRE_SLEEP:
            worker.sleep()
        else:
            worker.grab(number)

    if (state, number) in CYCLE:
        send()
        assert worker.take() == [request(number)]
        assert worker.state is CYCLE[state, number]
    else:
        with pytest.raises(LocalProtocolError, match=state.value):
            send()
        assert worker.take() == []
        assert worker.state is state


@pytest.mark.parametrize(
    ("grab", "packet", "event"),
    [
        (GRAB_JOB, response(JOB_ASSIGN, H, b"f", b"w\0"), Assigned(H, b"f", b"", b"", b"w\0")),
        (
            GRAB_JOB_UNIQ,
            response(JOB_ASSIGN_UNIQ, H, b"f", b"u", b"w"),
            Assigned(H, b"f", b"u", b"", b"w"),
        ),
        (
            GRAB_JOB_ALL,
            response(JOB_ASSIGN_UNIQ, H, b"f", b"u", b"w"),
            Assigned(H, b"f", b"u", b"", b"w"),
        ),
        (
            GRAB_JOB_ALL,
            response(JOB_ASSIGN_ALL, H, b"f", b"u", b"r", b"w"),
            Assigned(H, b"f", b"u", b"r", b"w"),
        ),
        (GRAB_JOB, response(NO_JOB), NoJob()),
        (GRAB_JOB_UNIQ, response(NO_JOB), NoJob()),
        (GRAB_JOB_ALL, response(NO_JOB), NoJob()),
    ],
)
def test_a_grab_is_answered_by_a_job_or_none(grab: int, packet: bytes, event: object) -> None:
    worker = WorkerConnection()
    worker.grab(grab)
    worker.receive(packet)
    assert worker.events() == [event]
    assert worker.state is State.AWAKE


def test_a_grab_is_not_answered_by_what_was_not_asked_for() -> None:
    worker = in_state(State.GRABBING)
    worker.receive(response(JOB_ASSIGN, H, b"f", b"w"))
    (event,) = worker.events()
    assert isinstance(event, Broken)
    assert event.error.text == "the server sent JOB_ASSIGN in answer to GRAB_JOB_UNIQ"


def test_a_refused_grab_leaves_the_worker_awake() -> None:
    worker = in_state(State.GRABBING)
    worker.receive(response(ERROR, b"NOT_ALLOWED", b"no"))
    (event,) = worker.events()
    assert isinstance(event, Refused)
    assert (event.token.number, event.code, event.text) == (GRAB_JOB_UNIQ, "NOT_ALLOWED", "no")
    assert worker.state is State.AWAKE


def test_a_refused_echo_leaves_the_cycle_alone() -> None:
    worker = in_state(State.SLEEPING)
    token = worker.echo(b"x")
    worker.receive(response(ERROR, b"NOT_ALLOWED", b"no"))
    assert worker.events() == [Refused(token, "NOT_ALLOWED", "no")]
    assert worker.state is State.SLEEPING


def test_only_a_sleeper_is_told_that_it_was_woken() -> None:
    awake, grabbing, sleeping = map(in_state, State)
    for worker in awake, grabbing, sleeping:
        worker.receive(response(NOOP))
    assert (awake.events(), awake.state) == ([], State.AWAKE)
    assert (grabbing.events(), grabbing.state) == ([], State.GRABBING)
    assert (sleeping.events(), sleeping.state) == ([Woken()], State.AWAKE)


def test_noop_may_cross_a_grab_sent_from_sleep() -> None:
    worker = in_state(State.SLEEPING)
    worker.grab()
    worker.receive(response(NOOP) + response(NO_JOB))
    assert worker.events() == [NoJob()]
    worker.sleep()
    assert worker.state is State.SLEEPING


def test_requests_may_overlap_a_grab() -> None:
    worker = in_state(State.GRABBING)
    token = worker.echo(b"x")
    worker.receive(response(NO_JOB) + response(ECHO_RES, b"x"))
    assert worker.events() == [NoJob(), Echoed(token, b"x")]


def test_a_grab_on_a_dead_connection_changes_no_state() -> None:
    worker = WorkerConnection()
    worker.close(CloseReason.MALFORMED)
    with pytest.raises(LocalProtocolError, match="is over"):
        worker.grab()
    assert worker.state is State.AWAKE


# Functions


def test_functions_are_offered_and_taken_back() -> None:
    worker = WorkerConnection()
    worker.can_do(b"plain")
    worker.can_do_timeout(b"timed", 1500)
    worker.cant_do(b"plain")
    assert worker.abilities == {b"timed": 1500}
    worker.reset()
    assert worker.abilities == {}
    assert worker.take() == [
        request(CAN_DO, b"plain"),
        request(CAN_DO_TIMEOUT, b"timed", b"1500"),
        request(CANT_DO, b"plain"),
        request(RESET_ABILITIES),
    ]
    worker.can_do(b"plain")


@pytest.mark.parametrize("name", [b"", b"a\0b"])
def test_a_function_needs_a_name(name: bytes) -> None:
    worker = WorkerConnection()
    with pytest.raises(LocalProtocolError, match="a name without NUL"):
        worker.can_do(name)
    with pytest.raises(LocalProtocolError, match="a name without NUL"):
        worker.can_do_timeout(name, 1000)
    assert (worker.take(), worker.abilities) == ([], {})


def test_a_function_is_offered_once() -> None:
    worker = WorkerConnection()
    worker.can_do(b"f")
    with pytest.raises(LocalProtocolError, match="offered already"):
        worker.can_do(b"f")
    with pytest.raises(LocalProtocolError, match="offered already"):
        worker.can_do_timeout(b"f", 1000)
    with pytest.raises(LocalProtocolError, match="not offered"):
        worker.cant_do(b"g")


@pytest.mark.parametrize("timeout_ms", [0, -1])
def test_a_timeout_is_positive(timeout_ms: int) -> None:
    with pytest.raises(LocalProtocolError, match="not positive"):
        WorkerConnection().can_do_timeout(b"f", timeout_ms)


# Jobs


def test_a_job_is_answered_for_once() -> None:
    worker = holding()
    worker.work_status(H, 1, 2)
    worker.work_data(H, b"part")
    worker.work_warning(H, b"careful")
    worker.work_complete(H, b"done")
    assert worker.take() == [
        request(WORK_STATUS, H, b"1", b"2"),
        request(WORK_DATA, H, b"part"),
        request(WORK_WARNING, H, b"careful"),
        request(WORK_COMPLETE, H, b"done"),
    ]
    assert worker.outstanding == 0
    with pytest.raises(LocalProtocolError, match=r"WORK_COMPLETE for .* not held"):
        worker.work_complete(H, b"again")


def test_a_job_can_fail() -> None:
    worker = holding()
    worker.work_fail(H)
    assert worker.take() == [request(WORK_FAIL, H)]
    assert not worker.held


def test_an_exception_ends_the_job_without_a_failure_after_it() -> None:
    worker = holding()
    worker.work_exception(H, b"boom")
    assert worker.take() == [request(WORK_EXCEPTION, H, b"boom")]
    with pytest.raises(LocalProtocolError, match="not held"):
        worker.work_fail(H)


def test_a_forgotten_job_is_not_held_and_nothing_is_said() -> None:
    worker = holding()
    worker.forget(H)
    worker.forget(H)
    assert worker.take() == []
    with pytest.raises(LocalProtocolError, match="not held"):
        worker.work_data(H, b"")


def test_nothing_is_said_about_a_job_of_others() -> None:
    worker = WorkerConnection()
    for say in worker.work_data, worker.work_warning, worker.work_complete, worker.work_exception:
        with pytest.raises(LocalProtocolError, match="not held"):
            say(b"H:other", b"")
    with pytest.raises(LocalProtocolError, match="not held"):
        worker.work_status(b"H:other", 0, 1)
    assert worker.take() == []


@pytest.mark.parametrize(("numerator", "denominator"), [(-1, 2), (1, -2)])
def test_progress_is_not_negative(numerator: int, denominator: int) -> None:
    with pytest.raises(LocalProtocolError, match="negative"):
        holding().work_status(H, numerator, denominator)


def test_a_job_that_came_back_is_answered_for_twice() -> None:
    worker = holding()
    worker.grab()
    worker.receive(response(JOB_ASSIGN_UNIQ, H, b"f", b"u", b"w"))
    worker.work_complete(H, b"first")
    worker.work_complete(H, b"second")
    assert not worker.held


@pytest.mark.parametrize("code", [b"JOB_NOT_FOUND", b"job_not_found"])
def test_a_disowned_job_does_not_answer_the_grab(code: bytes) -> None:
    worker = holding()
    worker.work_complete(H, b"late")
    worker.grab()
    worker.receive(response(ERROR, code, b"Job does not exist") + response(NO_JOB))
    assert worker.events() == [Disowned("Job does not exist"), NoJob()]


def test_jobs_overlap() -> None:
    worker = holding(b"H:1")
    worker.grab()
    worker.receive(response(JOB_ASSIGN_UNIQ, b"H:2", b"f", b"", b"w"))
    assert worker.held == {b"H:1": 1, b"H:2": 1}
    worker.work_complete(b"H:2", b"")
    worker.work_complete(b"H:1", b"")
    assert not worker.held


# Extended mode


def extended() -> WorkerConnection:
    worker = holding()
    token = worker.extend()
    assert worker.take() == [request(OPTION_REQ, EXTENDED_OPTION)]
    worker.receive(response(OPTION_RES, EXTENDED_OPTION))
    assert worker.events() == [OptionSet(token, EXTENDED_OPTION)]
    assert worker.extended
    return worker


def test_a_job_is_given_back() -> None:
    worker = extended()
    worker.release(H, b"drain")
    assert worker.take() == [request(JOB_RELEASE, H, b"drain")]
    assert (worker.outstanding, worker.held) == (0, {})
    with pytest.raises(LocalProtocolError, match="not held"):
        worker.release(H, b"drain")


def test_a_worker_says_that_it_lives() -> None:
    worker = extended()
    worker.heartbeat(1500)
    worker.heartbeat(0)
    assert worker.take() == [request(HEARTBEAT, b"1500"), request(HEARTBEAT, b"0")]
    with pytest.raises(LocalProtocolError, match="negative"):
        worker.heartbeat(-1)


def test_a_plain_server_is_told_nothing_of_that() -> None:
    worker = holding()
    token = worker.extend()
    worker.receive(response(ERROR, b"UNKNOWN_OPTION", b"what?"))
    assert worker.events() == [Refused(token, "UNKNOWN_OPTION", "what?")]
    worker.take()
    for say in lambda: worker.release(H, b"drain"), lambda: worker.heartbeat(1000):
        with pytest.raises(LocalProtocolError, match="no request of a worker"):
            say()
    assert worker.take() == []
    assert worker.held == {H: 1}


def test_the_cancelling_of_a_held_job_is_told() -> None:
    worker = extended()
    worker.receive(response(JOB_CANCELLED, H, b"cancelled"))
    assert worker.events() == [Cancelled(H, "cancelled")]
    assert worker.held == {H: 1}, "until the worker has stopped"


def test_a_cancelling_that_crosses_the_answer_is_no_news() -> None:
    worker = extended()
    worker.work_complete(H, b"")
    worker.receive(response(JOB_CANCELLED, H, b"timeout"))
    assert worker.events() == []


def test_a_plain_server_cancels_nothing() -> None:
    worker = holding()
    worker.receive(response(JOB_CANCELLED, H, b"cancelled"))
    (event,) = worker.events()
    assert isinstance(event, Broken)
