"""What workers send, and when they are answered, above all when they are not."""

from __future__ import annotations

import logging

import pytest

from tests.engine.world import Caller, World, packet
from trigear.engine.config import EngineConfig, FunctionSettings, OnTimeout
from trigear.engine.session import FUNCTION_LIMIT, leading_int

WORK = {
    "WORK_COMPLETE": (b"Job given in work result not found", b"r"),
    "WORK_FAIL": (b"Job given in work result not found",),
    "WORK_STATUS": (b"Job given in work result not found", b"1", b"2"),
    "WORK_DATA": (b"Job does not exist on server", b"d"),
    "WORK_WARNING": (b"Job does not exist on server", b"w"),
    "WORK_EXCEPTION": (b"An exception was received for a job that does not exist", b"e"),
}
"""The text of the refusal, and what follows the handle."""

work_packets = pytest.mark.parametrize("name", WORK)


def answer(caller: Caller, name: str, handle: bytes) -> list[tuple[object, ...]]:
    return caller.ask(name, handle, *WORK[name][1:])


def refusal(name: str) -> list[tuple[object, ...]]:
    return [("ERROR", b"JOB_NOT_FOUND", WORK[name][0])]


# Grabbing


def test_each_kind_of_grab_has_its_kind_of_assignment(world: World) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"u", b"w\0")
    for grab, *said in (
        ("GRAB_JOB", "JOB_ASSIGN", handle, b"f", b"w\0"),
        ("GRAB_JOB_UNIQ", "JOB_ASSIGN_UNIQ", handle, b"f", b"u", b"w\0"),
        ("GRAB_JOB_ALL", "JOB_ASSIGN_UNIQ", handle, b"f", b"u", b"w\0"),
    ):
        assert worker.ask(grab) == [tuple(said)]
        assert worker.ask(grab) == [("NO_JOB",)]
        worker.leave()
        worker = world.worker()


def test_a_reducer_is_only_told_to_who_asks_for_all(world: World) -> None:
    client = world.caller()
    args = (b"f", b"u", b"r", b"", b"w" * 20_000)
    handle = client.submit("SUBMIT_REDUCE_JOB", *args)
    for grab, *said in (
        ("GRAB_JOB", "JOB_ASSIGN", handle, b"f", args[-1]),
        ("GRAB_JOB_UNIQ", "JOB_ASSIGN_UNIQ", handle, b"f", b"u", args[-1]),
        ("GRAB_JOB_ALL", "JOB_ASSIGN_ALL", handle, b"f", b"u", b"r", args[-1]),
    ):
        worker = world.worker()
        assert worker.ask(grab) == [tuple(said)]
        worker.leave()


def test_the_unique_that_stands_for_the_workload_is_told_as_it_was_sent(world: World) -> None:
    world.caller().submit("SUBMIT_JOB_BG", b"f", b"-", b"w")
    assert world.worker().ask("GRAB_JOB_UNIQ")[0][3] == b"-"


@pytest.mark.parametrize("grab", ["GRAB_JOB", "GRAB_JOB_UNIQ", "GRAB_JOB_ALL"])
def test_who_can_do_nothing_gets_nothing(world: World, grab: str) -> None:
    world.caller().submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert world.caller().ask(grab) == [("NO_JOB",)]
    assert world.worker(b"g").ask(grab) == [("NO_JOB",)]


def test_a_grab_is_answered_once_and_in_order_with_everything_else(world: World) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    worker.peer.send(packet("GRAB_JOB") + packet("GRAB_JOB") + packet("ECHO_REQ", b"x"))
    assert worker.heard() == [
        ("JOB_ASSIGN", handle, b"f", b"w"),
        ("NO_JOB",),
        ("ECHO_RES", b"x"),
    ]


def test_a_worker_may_hold_several_jobs(world: World) -> None:
    client, worker = world.caller(), world.worker()
    handles = [client.submit() for _ in range(3)]
    assert [worker.grab() for _ in handles] == handles
    for handle in reversed(handles):
        assert worker.ask("WORK_COMPLETE", handle, b"") == []
    assert [said[1] for said in client.heard()] == handles[::-1]


# Sleeping


def test_sleep_is_answered_at_once_if_there_is_a_job_and_by_nothing_if_not(world: World) -> None:
    client, worker = world.caller(), world.worker()
    assert worker.ask("PRE_SLEEP") == []
    client.submit()
    assert worker.heard() == [("NOOP",)]
    assert worker.ask("PRE_SLEEP") == [("NOOP",)]
    worker.grab()
    assert worker.ask("PRE_SLEEP") == []


def test_a_worker_that_was_woken_and_went_back_to_sleep_is_woken_again(world: World) -> None:
    """One that only looked at NOOP and slept on must not be taken for awake for ever."""
    client, worker, quick = world.caller(), world.worker(), world.worker()
    worker.tell("PRE_SLEEP")
    client.submit()
    assert worker.heard() == [("NOOP",)]
    quick.grab()
    assert worker.ask("PRE_SLEEP") == []
    client.submit()
    assert worker.heard() == [("NOOP",)]


# Abilities


def test_what_a_worker_can_do_is_taken_by_its_bytes(world: World) -> None:
    client, worker = world.caller(), world.caller()
    for name in (b"", b"f\0", b"F", b"f f", b"\xff\n"):
        worker.tell("CAN_DO", name)
    client.submit("SUBMIT_JOB", b"f", b"", b"w")
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    handle = client.submit("SUBMIT_JOB", b"\xff\n", b"", b"w")
    assert worker.ask("GRAB_JOB") == [("JOB_ASSIGN", handle, b"\xff\n", b"w")]


def test_taking_back_an_ability_takes_no_job_away(world: World) -> None:
    client, worker = world.caller(), world.worker()
    for forget in (("CANT_DO", b"f"), ("RESET_ABILITIES",)):
        worker.tell("CAN_DO", b"f")
        handle = client.submit()
        worker.grab()
        assert worker.ask(forget[0], *map(bytes, forget[1:])) == []
        assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
        assert worker.ask("WORK_COMPLETE", handle, b"r") == []
        assert client.heard() == [("WORK_COMPLETE", handle, b"r")]
    assert worker.ask("CANT_DO", b"never heard of") == []


def test_an_ability_with_a_name_beyond_all_measure_is_ignored_and_counted(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    worker = world.caller()
    for _ in range(3):
        assert worker.ask("CAN_DO", b"f" * (FUNCTION_LIMIT + 1)) == []
        assert worker.ask("CAN_DO_TIMEOUT", b"f" * (FUNCTION_LIMIT + 1), b"5000") == []
    assert world.engine.statistics().ignored == 6
    assert world.engine.statistics().functions == 0
    assert [record.message for record in caplog.records] == [
        "connection 1 (127.0.0.1): ignored CAN_DO of a function name that is too long "
        "(said once per connection)"
    ]
    worker.tell("CAN_DO", b"f" * FUNCTION_LIMIT)
    assert world.engine.statistics().functions == 1


# Answers for jobs that are not one's own


@work_packets
def test_an_answer_for_a_job_never_held_is_refused_and_the_connection_lives(
    world: World, name: str
) -> None:
    client, worker = world.caller(), world.worker()
    held = client.submit()
    worker.grab()
    queued = client.submit()
    stranger = world.worker()
    for handle in (held, queued, b"H:nowhere:1", b"", b"H" * 64):
        assert answer(stranger, name, handle) == refusal(name)
    assert answer(client, name, held) == refusal(name), "nor may clients cancel like this"
    assert stranger.ask("ECHO_REQ", b"on") == [("ECHO_RES", b"on")]
    assert client.heard() == []
    assert client.ask("GET_STATUS", held)[0][2:4] == (b"1", b"1")


@work_packets
def test_an_answer_after_the_last_one_is_refused(world: World, name: str) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    worker.tell("WORK_COMPLETE", handle, b"r")
    assert answer(worker, name, handle) == refusal(name)
    assert [said[0] for said in client.heard()] == ["WORK_COMPLETE"]


def test_a_failure_after_ones_own_exception_is_let_pass_once(world: World) -> None:
    """Perl and Python workers send both; ERROR would end the worker."""
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    assert worker.ask("WORK_EXCEPTION", handle, b"e") == []
    assert worker.ask("WORK_FAIL", handle) == []
    assert client.heard() == [("WORK_FAIL", handle)]
    assert worker.ask("WORK_FAIL", handle) == refusal("WORK_FAIL")
    other = client.submit()
    worker.grab()
    worker.tell("WORK_EXCEPTION", other, b"e")
    assert worker.ask("WORK_FAIL", handle) == refusal("WORK_FAIL")
    assert worker.ask("WORK_FAIL", b"") == refusal("WORK_FAIL")
    assert world.worker().ask("WORK_FAIL", other) == refusal("WORK_FAIL")


@work_packets
def test_an_answer_for_a_job_that_was_taken_away_is_never_refused(world: World, name: str) -> None:
    client, late = world.caller(), world.worker(timeout=b"1000")
    handle = client.submit()
    late.grab()
    world.pass_time(1.5)
    other = world.worker()
    assert other.grab() == handle
    assert answer(late, name, handle) == []
    assert client.heard() == [], "the job is somebody else's now"
    assert world.engine.statistics().late_answers == 1
    other.tell("WORK_COMPLETE", handle, b"theirs")
    assert client.heard() == [("WORK_COMPLETE", handle, b"theirs")]


@work_packets
def test_an_answer_for_a_job_that_was_cancelled_is_never_refused(world: World, name: str) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    client.command(b"cancel job " + handle)
    assert answer(worker, name, handle) == []


@pytest.mark.parametrize("name", ["WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"])
def test_a_late_end_counts_while_nobody_else_has_the_job(world: World, name: str) -> None:
    client, late = world.caller(), world.worker(timeout=b"1000")
    handle = client.submit()
    late.grab()
    world.pass_time(1.5)
    assert answer(late, name, handle) == []
    said = client.heard()
    assert [entry[1] for entry in said] == [handle]
    assert client.ask("GET_STATUS", handle)[0][2] == b"0"


def test_late_progress_is_dropped(world: World) -> None:
    client, late = world.caller(), world.worker(timeout=b"1000")
    handle = client.submit()
    late.grab()
    world.pass_time(1.5)
    for name in ("WORK_DATA", "WORK_WARNING", "WORK_STATUS"):
        assert answer(late, name, handle) == []
    assert client.heard() == []
    assert client.ask("GET_STATUS", handle) == [("STATUS_RES", handle, b"1", b"0", b"0", b"0")]


# Timeouts


@pytest.mark.parametrize(
    ("announced", "seconds"),
    [
        (b"1000", 1.0),
        (b"1500", 1.5),
        (b"1", 1.0),
        (b"999", 1.0),
        (b"5 s", 1.0),
        (b" +2000", 2.0),
        (b"0", None),
        (b"-5", None),
        (b"", None),
        (b"never", None),
        (b"9" * 300, None),
    ],
)
def test_timeouts_are_milliseconds_of_at_least_a_second(
    world: World, announced: bytes, seconds: float | None
) -> None:
    client, worker = world.caller(), world.worker(timeout=announced)
    handle = client.submit()
    worker.grab()
    if seconds is None:
        world.pass_time(10_000)
        assert world.worker().ask("GRAB_JOB") == [("NO_JOB",)]
    else:
        other = world.worker()
        world.pass_time(seconds - 0.01)
        assert other.ask("GRAB_JOB") == [("NO_JOB",)]
        world.pass_time(0.02)
        assert other.grab() == handle
    assert worker.heard() == []
    assert client.heard() == []


def test_a_timeout_below_a_second_is_remarked_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    worker = world.worker(timeout=b"30")
    worker.tell("CAN_DO_TIMEOUT", b"g", b"60")
    assert [record.getMessage() for record in caplog.records] == [
        "connection 1 (127.0.0.1) announces a timeout of 30 ms: counted as 1000 ms; "
        "does it mean seconds?"
    ]


def test_the_server_has_a_timeout_for_functions_whose_workers_have_none() -> None:
    world = World(EngineConfig(functions={b"f": FunctionSettings(timeout=5.0)}))
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    world.pass_time(5.1)
    assert world.worker().grab() == handle


def test_a_job_may_fail_when_its_time_is_over() -> None:
    config = EngineConfig(
        on_timeout=OnTimeout.FAIL,
        functions={b"g": FunctionSettings(on_timeout=OnTimeout.REASSIGN)},
    )
    world = World(config)
    client, worker = world.caller(), world.worker(b"f", b"g", timeout=b"1000")
    f = client.submit("SUBMIT_JOB", b"f", b"", b"w")
    g = client.submit("SUBMIT_JOB", b"g", b"", b"w")
    assert {worker.grab(), worker.grab()} == {f, g}
    world.pass_time(2)
    assert client.heard() == [("WORK_FAIL", f)]
    assert worker.ask("WORK_COMPLETE", f, b"late") == []
    assert world.worker(b"g").grab() == g


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"12", 12),
        (b"-12", -12),
        (b"+12", 12),
        (b"  12 apples", 12),
        (b"0.5", 0),
        (b"", 0),
        (b"-", 0),
        (b"+", 0),
        (b"x1", 0),
        (b"1_000", 1),
        (b"\xd9\xa3", 0),
        (b"9" * 50, int("9" * 20)),
    ],
)
def test_numbers_are_read_as_far_as_they_go(text: bytes, number: int) -> None:
    assert leading_int(text) == number


# Ends of workers and clients


def test_a_lost_workers_job_goes_to_the_next_and_its_clients_hear_nothing(world: World) -> None:
    client, worker, other = world.caller(), world.worker(), world.worker()
    other.tell("PRE_SLEEP")
    handle = client.submit()
    other.heard()
    worker.grab()
    other.tell("PRE_SLEEP")
    worker.leave()
    assert other.heard() == [("NOOP",)]
    assert other.grab() == handle
    assert client.heard() == []


def test_the_last_allowed_loss_fails_the_job() -> None:
    world = World(EngineConfig(attempts=2))
    client = world.caller()
    handle = client.submit()
    for end in ([], [("WORK_FAIL", handle)]):
        worker = world.worker()
        worker.grab()
        worker.leave()
        assert client.heard() == end


@pytest.mark.parametrize("dead", [True, False])
def test_a_background_job_that_is_given_up_is_logged_without_its_workload(
    dead: bool, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(EngineConfig(attempts=1, dead_letters=dead))
    handle = world.caller().submit("SUBMIT_JOB_BG", b"f\n", b"", b"secret")
    worker = world.worker(b"f\n")
    worker.grab()
    worker.leave()
    given_up, lost = (record.getMessage() for record in caplog.records)
    assert given_up == (
        f"background job {handle.decode()} of function f\\x0a "
        f"{'becomes a dead letter' if dead else 'is dropped'}: attempts used up after 1 attempt"
    )
    assert lost == "connection 2 (127.0.0.1) closed: peer closed, 1 running job goes to others"
    assert "secret" not in caplog.text


def test_who_left_hears_nothing_and_who_stayed_is_served(world: World) -> None:
    gone, stays, worker = world.caller(), world.caller(), world.worker()
    handle = gone.submit("SUBMIT_JOB", b"f", b"u", b"w")
    stays.submit("SUBMIT_JOB", b"f", b"u", b"w")
    worker.grab()
    gone.leave()
    worker.tell("WORK_COMPLETE", handle, b"r")
    assert stays.heard() == [("WORK_COMPLETE", handle, b"r")]
    assert gone.heard() == []


def test_the_result_of_an_abandoned_job_goes_nowhere_and_is_no_mistake(world: World) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    client.leave()
    for name in ("WORK_STATUS", "WORK_DATA", "WORK_WARNING", "WORK_COMPLETE"):
        assert answer(worker, name, handle) == []
    assert world.engine.statistics().jobs == 0


@pytest.mark.parametrize("name", ["WORK_COMPLETE", "WORK_FAIL", "WORK_EXCEPTION"])
def test_the_end_of_a_background_job_is_told_to_nobody(world: World, name: str) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    worker.grab()
    assert answer(worker, name, handle) == []
    assert client.heard() == []
    assert world.engine.statistics().jobs == 0
