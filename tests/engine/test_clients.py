"""What clients ask of the server, and the answer to every request."""

from __future__ import annotations

import pytest

from tests.engine.world import JOBS, World, packet
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.engine.session import FUNCTION_LIMIT
from trigear.model import CONN_ID_LIMIT, UNIQUE_LIMIT
from trigear.wire.packets import PACKETS

HUGE = b"x" * 100_000
"""Large enough to leave in a piece of its own."""


# Submitting


@pytest.mark.parametrize("kind", JOBS)
def test_every_kind_of_submission_makes_a_job(world: World, kind: str) -> None:
    client, admin = world.caller(), world.caller()
    handle = client.submit(kind, b"f", b"u", b"work")
    priority, background = JOBS[kind]
    counts = {"high": b"0", "normal": b"0", "low": b"0", priority: b"1"}
    line = b"f\t%s\t%s\t%s\t0\n" % (counts["high"], counts["normal"], counts["low"])
    assert admin.command(b"prioritystatus") == line + b".\n"
    client.leave()
    left = [("STATUS_RES", handle, b"%d" % background, b"0", b"0", b"0")]
    assert admin.ask("GET_STATUS", handle) == left


@pytest.mark.parametrize("kind", JOBS)
def test_every_kind_of_job_reaches_a_worker_unchanged(world: World, kind: str) -> None:
    client, worker = world.caller(), world.worker()
    for workload in (b"", b"work", b"\0a\0", HUGE):
        handle = client.submit(kind, b"f", b"", workload)
        assert worker.ask("GRAB_JOB") == [("JOB_ASSIGN", handle, b"f", workload)]


@pytest.mark.parametrize(
    ("kind", "background"),
    [("SUBMIT_REDUCE_JOB", False), ("SUBMIT_REDUCE_JOB_BACKGROUND", True)],
)
def test_a_reduce_job_carries_its_reducer(world: World, kind: str, background: bool) -> None:
    client, worker = world.caller(), world.worker()
    args = (b"f", b"u", b"reducer", b"", b"data")
    handle = client.submit(kind, *args)
    assert worker.ask("GRAB_JOB_ALL") == [
        ("JOB_ASSIGN_ALL", handle, b"f", b"u", b"reducer", b"data")
    ]
    worker.tell("WORK_COMPLETE", handle, b"r")
    assert client.heard() == ([] if background else [("WORK_COMPLETE", handle, b"r")])


def test_a_job_due_later_waits_for_its_time(world: World) -> None:
    client, worker = world.caller(), world.worker()
    due = int(world.time().wall) + 30
    handle = client.submit("SUBMIT_JOB_EPOCH", b"f", b"", b"%d" % due, b"later")
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    worker.tell("PRE_SLEEP")
    world.pass_time(29.9)
    assert worker.heard() == []
    world.pass_time(0.2)
    assert worker.heard() == [("NOOP",)]
    assert worker.ask("GRAB_JOB") == [("JOB_ASSIGN", handle, b"f", b"later")]


@pytest.mark.parametrize(
    "when", [b"0", b"", b"-5", b"garbage", b"12", b"+7", b" 1", b"1700000000 or so"]
)
def test_a_job_due_in_the_past_is_due_now(world: World, when: bytes) -> None:
    handle = world.caller().submit("SUBMIT_JOB_EPOCH", b"f", b"", when, b"w")
    assert world.worker().grab() == handle


def test_a_time_beyond_all_times_is_no_mistake(world: World) -> None:
    world.caller().submit("SUBMIT_JOB_EPOCH", b"f", b"", b"9" * 40, b"w")
    assert world.worker().ask("GRAB_JOB") == [("NO_JOB",)]


def test_replies_come_in_the_order_of_the_submissions(world: World) -> None:
    client = world.caller()
    client.command(b"maxqueue f 1")
    client.command(b"create function f")
    client.command(b"maxqueue f 1")
    client.peer.send(
        packet("SUBMIT_JOB", b"f", b"", b"1")
        + packet("SUBMIT_JOB", b"f", b"", b"2")
        + b"version\n"
        + packet("SUBMIT_JOB", b"g", b"", b"3")
        + packet("OPTION_REQ", b"exceptions")
    )
    said = client.heard()
    assert [entry[0] for entry in said] == [
        "JOB_CREATED",
        "ERROR",
        "text",
        "JOB_CREATED",
        "OPTION_RES",
    ]


def test_the_creation_is_told_before_anything_about_the_job(world: World) -> None:
    """A worker may answer before the submitter's bytes have left."""
    client, worker = world.caller(), world.worker()
    worker.tell("PRE_SLEEP")
    handle = client.submit()
    assert worker.ask("GRAB_JOB")[0] == ("NOOP",)
    worker.tell("WORK_DATA", handle, b"d")
    worker.tell("WORK_COMPLETE", handle, b"r")
    assert client.heard() == [("WORK_DATA", handle, b"d"), ("WORK_COMPLETE", handle, b"r")]


# Submissions that are refused


def test_a_unique_may_have_64_bytes_and_not_65(world: World) -> None:
    client, worker = world.caller(), world.worker()
    unique = b"u" * UNIQUE_LIMIT
    handle = client.submit("SUBMIT_JOB", b"f", unique, b"w")
    assert client.submit("SUBMIT_JOB_BG", b"f", unique, b"w") == handle
    assert worker.ask("GRAB_JOB_UNIQ") == [("JOB_ASSIGN_UNIQ", handle, b"f", unique, b"w")]
    refusal = [("ERROR", b"ARGUMENT_TOO_LARGE", b"Unique value too large")]
    for kind in JOBS:
        assert client.ask(kind, b"f", unique + b"u", b"w") == refusal
    assert client.ask("SUBMIT_JOB_EPOCH", b"f", unique + b"u", b"0", b"w") == refusal
    assert client.ask("SUBMIT_REDUCE_JOB", b"f", unique + b"u", b"r", b"", b"w") == refusal


def test_a_reducer_is_not_measured_like_a_unique(world: World) -> None:
    client = world.caller()
    client.submit("SUBMIT_REDUCE_JOB", b"f", b"", b"r" * 200, b"", b"w")


def test_names_have_a_longest_length(world: World) -> None:
    client = world.caller()
    fits, over = b"f" * FUNCTION_LIMIT, b"f" * (FUNCTION_LIMIT + 1)
    refusal = [("ERROR", b"ARGUMENT_TOO_LARGE", b"Function name too large")]
    client.submit("SUBMIT_JOB", fits, b"", b"w")
    assert client.ask("SUBMIT_JOB", over, b"", b"w") == refusal
    client.submit("SUBMIT_REDUCE_JOB", b"f", b"", fits, b"", b"w")
    assert client.ask("SUBMIT_REDUCE_JOB", b"f", b"", over, b"", b"w") == refusal


def test_a_full_queue_refuses_with_the_words_of_gearmand(world: World) -> None:
    client = world.caller()
    client.command(b"create function f")
    client.command(b"maxqueue f 1")
    handle = client.submit("SUBMIT_JOB", b"f", b"u", b"w")
    refusal = [("ERROR", b"QUEUE_ERROR", b"Job queue is full")]
    for kind in JOBS:
        assert client.ask(kind, b"f", b"", b"w") == refusal
    assert client.ask("SUBMIT_JOB_EPOCH", b"f", b"", b"0", b"w") == refusal
    assert client.ask("SUBMIT_REDUCE_JOB", b"f", b"", b"r", b"", b"w") == refusal
    assert client.ask("SUBMIT_REDUCE_JOB_BACKGROUND", b"f", b"", b"r", b"", b"w") == refusal
    assert client.submit("SUBMIT_JOB", b"f", b"u", b"w") == handle, "one more interest is no job"


# Results


@pytest.mark.parametrize("size", [0, 5, 100_000])
def test_data_and_warnings_and_the_result_are_passed_on_unchanged(world: World, size: int) -> None:
    client, worker = world.caller(), world.worker()
    data = (b"\0d" * size)[:size]
    handle = client.submit()
    worker.grab()
    worker.tell("WORK_DATA", handle, data)
    worker.tell("WORK_WARNING", handle, data)
    worker.tell("WORK_COMPLETE", handle, data)
    assert client.heard() == [
        ("WORK_DATA", handle, data),
        ("WORK_WARNING", handle, data),
        ("WORK_COMPLETE", handle, data),
    ]
    assert worker.heard() == []


@pytest.mark.parametrize("size", [5, 100_000])
def test_each_submission_gets_its_own_copy(world: World, size: int) -> None:
    one, two, worker = world.caller(), world.caller(), world.worker()
    handle = one.submit("SUBMIT_JOB", b"f", b"u", b"w")
    for client in (one, two):
        assert client.submit("SUBMIT_JOB", b"f", b"u", b"w") == handle
    worker.grab()
    worker.tell("WORK_DATA", handle, b"x" * size)
    worker.tell("WORK_COMPLETE", handle, b"")
    copy = [("WORK_DATA", handle, b"x" * size), ("WORK_COMPLETE", handle, b"")]
    assert sorted(one.heard()) == sorted(copy * 2)
    assert two.heard() == copy


def test_a_failure_has_the_handle_and_nothing_else(world: World) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    worker.peer.send(packet("WORK_FAIL", handle + b"\0"))
    assert client.heard() == [("WORK_FAIL", handle)]


@pytest.mark.parametrize(
    ("sent", "known"),
    [
        ((b"1", b"2"), (b"1", b"2")),
        ((b"0.5", b"1.0"), (b"0", b"1")),
        ((b"-3", b"x"), (b"0", b"0")),
        ((b"99999999999", b"4294967295"), (b"4294967295", b"4294967295")),
        ((b"5",), (b"5", b"0")),
        ((b" +7 ", b"1" * 300), (b"7", b"4294967295")),
        ((b"", b""), (b"0", b"0")),
    ],
)
def test_progress_is_passed_on_as_it_is_and_remembered_as_numbers(
    world: World, sent: tuple[bytes, ...], known: tuple[bytes, bytes]
) -> None:
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    worker.tell("WORK_STATUS", handle, *sent)
    assert client.heard() == [("WORK_STATUS", handle, sent[0], sent[1] if sent[1:] else b"")]
    assert client.ask("GET_STATUS", handle) == [("STATUS_RES", handle, b"1", b"1", *known)]
    assert worker.heard() == []


# Exceptions


def test_an_exception_is_a_failure_for_who_did_not_ask_for_it(world: World) -> None:
    asked, other, worker = world.caller(), world.caller(), world.worker()
    assert asked.ask("OPTION_REQ", b"exceptions") == [("OPTION_RES", b"exceptions")]
    handle = asked.submit("SUBMIT_JOB", b"f", b"u", b"w")
    assert other.submit("SUBMIT_JOB", b"f", b"u", b"w") == handle
    worker.grab()
    assert worker.ask("WORK_EXCEPTION", handle, b"boom\0") == []
    assert asked.heard() == [("WORK_EXCEPTION", handle, b"boom\0")]
    assert other.heard() == [("WORK_FAIL", handle)]
    assert asked.ask("GET_STATUS", handle)[0][2] == b"0", "an exception ends the job"


def test_a_server_may_send_exceptions_to_everybody() -> None:
    world = World(EngineConfig(exceptions=True))
    client, worker = world.caller(), world.worker()
    handle = client.submit()
    worker.grab()
    worker.tell("WORK_EXCEPTION", handle, b"boom")
    assert client.heard() == [("WORK_EXCEPTION", handle, b"boom")]


@pytest.mark.parametrize("word", [b"exceptions", b"Exceptions", b"EXCEPTIONS", b"exceptions\0"])
def test_the_option_is_echoed_in_the_words_of_the_request(world: World, word: bytes) -> None:
    assert world.caller().ask("OPTION_REQ", word) == [("OPTION_RES", word.rstrip(b"\0"))]


@pytest.mark.parametrize("word", [b"bad", b"", b"exception", b"x" * 64, b"exceptions "])
def test_an_unknown_option_is_refused_and_the_connection_lives(world: World, word: bytes) -> None:
    client = world.caller()
    assert client.ask("OPTION_REQ", word) == [
        ("ERROR", b"UNKNOWN_OPTION", b"Server does not recognize given option")
    ]
    assert client.ask("ECHO_REQ", b"on") == [("ECHO_RES", b"on")]


# Asking about jobs


def test_the_status_of_a_job_follows_it(world: World) -> None:
    client, other, worker = world.caller(), world.caller(), world.worker()
    handle = client.submit("SUBMIT_JOB", b"f", b"u", b"w")
    client.submit("SUBMIT_JOB", b"f", b"u", b"w")

    def state() -> tuple[object, ...]:
        (by_handle,) = other.ask("GET_STATUS", handle)
        (by_unique,) = other.ask("GET_STATUS_UNIQUE", b"u")
        assert by_handle[:2] == ("STATUS_RES", handle)
        assert by_unique[:2] == ("STATUS_RES_UNIQUE", b"u")
        assert by_handle[2:] == by_unique[2:-1]
        return (*by_handle[2:], by_unique[-1])

    assert state() == (b"1", b"0", b"0", b"0", b"2")
    worker.grab()
    assert state() == (b"1", b"1", b"0", b"0", b"2")
    worker.tell("WORK_STATUS", handle, b"3", b"4")
    assert state() == (b"1", b"1", b"3", b"4", b"2")
    worker.leave()
    assert state() == (b"1", b"0", b"0", b"0", b"2")
    world.worker().ask("GRAB_JOB")
    client.command(b"cancel job " + handle)
    assert state() == (b"0", b"0", b"0", b"0", b"0")


def test_background_jobs_have_no_clients(world: World) -> None:
    client = world.caller()
    client.submit("SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert client.ask("GET_STATUS_UNIQUE", b"u") == [
        ("STATUS_RES_UNIQUE", b"u", b"1", b"0", b"0", b"0", b"0")
    ]


@pytest.mark.parametrize("handle", [b"", b"H:nowhere:1", b"H" * 64, b"H" * 5000])
def test_what_is_unknown_is_answered_with_the_same_bytes(world: World, handle: bytes) -> None:
    client = world.caller()
    client.submit("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert client.ask("GET_STATUS", handle) == [("STATUS_RES", handle, b"0", b"0", b"0", b"0")]
    assert client.ask("GET_STATUS_UNIQUE", handle) == [
        ("STATUS_RES_UNIQUE", handle, b"0", b"0", b"0", b"0", b"0")
    ]


def test_a_handle_or_unique_ends_at_its_first_nul(world: World) -> None:
    client = world.caller()
    handle = client.submit("SUBMIT_JOB_BG", b"f", b"u", b"w")
    assert client.ask("GET_STATUS", handle + b"\0junk\0")[0][1:3] == (handle, b"1")
    assert client.ask("GET_STATUS_UNIQUE", b"u\0junk")[0][1:3] == (b"u", b"1")


# Any peer


@pytest.mark.parametrize("data", [b"", b"x", b"\0\0", HUGE], ids=len)
def test_an_echo_has_the_same_bytes(world: World, data: bytes) -> None:
    assert world.caller().ask("ECHO_REQ", data) == [("ECHO_RES", data)]


def test_a_thousand_echoes_without_reading_come_back_in_order(world: World) -> None:
    client = world.caller()
    words = [b"%d" % number + bytes(2000) for number in range(1000)]
    client.peer.send(b"".join(packet("ECHO_REQ", word) for word in words))
    assert client.heard() == [("ECHO_RES", word) for word in words]


def test_a_client_id_is_kept_up_to_a_length(world: World) -> None:
    client = world.caller()

    def name() -> bytes:
        return client.command(b"workers").split()[2]

    assert name() == b"-"
    client.tell("SET_CLIENT_ID", b"me")
    assert name() == b"me"
    client.tell("SET_CLIENT_ID", b"x" * 300)
    assert name() == b"x" * CONN_ID_LIMIT
    client.tell("SET_CLIENT_ID", b"")
    assert name() == b"-"


# What is no request


@pytest.mark.parametrize(
    "name", [p.name for p in PACKETS.values() if p.number <= 42 and not (p.asked_by and p.served)]
)
def test_a_packet_that_is_no_request_is_refused_and_the_connection_lives(
    world: World, name: str
) -> None:
    client = world.caller()
    assert client.ask(name, *[b"1"] * 8) == [("ERROR", b"INVALID_COMMAND", b"Command not expected")]
    assert client.ask("ECHO_REQ", b"on") == [("ECHO_RES", b"on")]
    assert world.engine.statistics().ignored == 1


def test_functions_keep_their_own_settings() -> None:
    config = EngineConfig(functions={b"f": FunctionSettings(attempts=1)})
    world = World(config)
    client = world.caller()
    for function, end in ((b"f", "WORK_FAIL"), (b"g", None)):
        handle = client.submit("SUBMIT_JOB", function, b"", b"w")
        worker = world.worker(function)
        worker.grab()
        worker.leave()
        assert client.heard() == ([(end, handle)] if end else [])
