"""Dead letters by text command: looked at, run again, forgotten."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest

from tests.engine.storing import StoringWorld
from tests.engine.world import Caller, World
from trigear.engine import admin_dead
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.errors import StoreUnavailable

OK = b"OK\r\n"
UNKNOWN = b"ERR UNKNOWN_JOB\r\n"
CONFIG = EngineConfig(
    attempts=1,
    functions={
        b"late": FunctionSettings(expires=5.0),
        b"slow": FunctionSettings(timeout=2.0),
        b"harsh": FunctionSettings(dead_failures=True),
        b"again": FunctionSettings(attempts=2, retry_failures=True, backoff=0.0),
    },
)


@pytest.fixture(params=["memory", "store"])
def world(request: pytest.FixtureRequest) -> World:
    return World(CONFIG) if request.param == "memory" else StoringWorld(CONFIG)


@pytest.fixture
def storing() -> StoringWorld:
    return StoringWorld(CONFIG)


def die(world: World, function: bytes = b"f", unique: bytes = b"", workload: bytes = b"w") -> bytes:
    """A background job that is lost as often as it may be; its handle."""
    handle = world.caller().submit("SUBMIT_JOB_BG", function, unique, workload)
    worker = world.worker(function)
    assert worker.grab() == handle
    worker.leave()
    return handle


def rows(admin: Caller, command: bytes = b"dead list") -> list[list[bytes]]:
    lines = admin.command(command).split(b"\n")
    assert lines[-2:] == [b".", b""]
    return [line.split(b"\t") for line in lines[:-2]]


def handles(admin: Caller, command: bytes = b"dead list") -> list[bytes]:
    return [row[0] for row in rows(admin, command)]


def shown(admin: Caller, handle: bytes) -> dict[bytes, Any]:
    """What `dead show` says; the workload put together."""
    found: dict[bytes, Any] = {b"workload": b""}
    for name, value in rows(admin, b"dead show " + handle):
        if name == b"workload":
            found[name] += b64decode(value)
        else:
            assert name not in found
            found[name] = value
    return found


# Looking


def test_dead_letters_are_listed_in_the_order_of_their_death(world: World) -> None:
    admin = world.caller()
    start = world.time().wall
    first = die(world, b"f", b"u", b"1234567")
    world.pass_time(2.5)
    second = die(world, b"g")
    assert rows(admin) == [
        [first, b"f", b"attempts", b"1", b"%.3f" % start, b"7", b"u"],
        [second, b"g", b"attempts", b"1", b"%.3f" % (start + 2.5), b"1", b""],
    ]
    assert handles(admin, b"dead list g") == [second]
    assert handles(admin, b"dead list h") == []


def test_each_way_to_die_has_its_word(world: World) -> None:
    admin, client = world.caller(), world.caller()
    client.submit("SUBMIT_JOB_BG", b"late", b"", b"w")
    world.pass_time(5)
    for function, packets in (
        (b"harsh", [("WORK_FAIL",)]),
        (b"harsh", [("WORK_EXCEPTION", b"bang")]),
        (b"again", [("WORK_FAIL",), ("WORK_EXCEPTION", b"bang")]),
        (b"slow", []),
    ):
        handle = client.submit("SUBMIT_JOB_BG", function, b"", b"w")
        worker = world.worker(function)
        for name, *text in packets:
            worker.grab()
            worker.tell(name, handle, *text)
        if not packets:
            worker.grab()
            world.pass_time(2)
    assert [(row[1], row[2], row[3]) for row in rows(admin)] == [
        (b"late", b"expired", b"0"),
        (b"harsh", b"failed", b"1"),
        (b"harsh", b"exception", b"1"),
        (b"again", b"attempts", b"2"),
        (b"slow", b"attempts", b"1"),
    ]


def test_all_of_a_dead_letter_is_shown(world: World) -> None:
    admin, client = world.caller(), world.caller()
    start = world.time().wall
    workload = bytes(range(256)) * 300
    handle = client.submit(
        "SUBMIT_REDUCE_JOB_BACKGROUND", b"f f", b"u\x07", b"add\n", b"", workload
    )
    worker = world.worker(b"f f")
    worker.grab()
    worker.tell("WORK_WARNING", handle, b"hot\tand\nbothered")
    world.pass_time(1)
    worker.leave()
    assert shown(admin, handle) == {
        b"handle": handle,
        b"function": b"f f",
        b"unique": b"u\\x07",
        b"priority": b"normal",
        b"reducer": b"add\\x0a",
        b"reason": b"attempts",
        b"attempts": b"1",
        b"submitted": b"%.3f" % start,
        b"died": b"%.3f" % (start + 1),
        b"worker": b"127.0.0.1",
        b"text": b"hot\\x09and\\x0abothered",
        b"size": b"%d" % len(workload),
        b"workload": workload,
    }
    lines = admin.command(b"dead show " + handle).split(b"\n")
    assert max(map(len, lines)) < 2 * admin_dead.PIECE
    assert admin.command(b"dead show H:nobody:1") == UNKNOWN


def test_what_is_not_known_of_a_dead_letter_is_left_open(storing: StoringWorld) -> None:
    handle = storing.job("SUBMIT_JOB_BG", b"late", b"", b"")
    ((key, job),) = storing.cabinet.jobs.items()
    storing.cabinet.jobs[key] = job._replace(submitted=0.0)
    again = storing.killed()
    again.pass_time(5)
    found = shown(again.caller(), handle)
    assert (found[b"submitted"], found[b"worker"]) == (b"-", b"-")
    assert (found[b"size"], found[b"workload"]) == (b"0", b"")


# Running again


def test_a_dead_letter_is_run_again_under_its_handle(world: World) -> None:
    admin = world.caller()
    handle = die(world)
    assert admin.command(b"dead retry " + handle) == OK
    assert rows(admin) == []
    worker = world.worker()
    assert worker.grab() == handle
    worker.leave()
    assert handles(admin) == [handle]
    assert admin.command(b"dead retry H:nobody:1") == UNKNOWN


def test_all_dead_letters_are_run_again_as_far_as_one_command_goes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_dead, "MOST", 2)
    admin = world.caller()
    dead = [die(world), die(world, b"g"), die(world), die(world)]
    assert admin.command(b"dead retry all f") == b"OK 2 1\n"
    assert handles(admin) == [dead[1], dead[3]]
    assert admin.command(b"dead retry ALL") == b"OK 2 0\n"
    assert admin.command(b"dead retry all") == b"OK 0 0\n"
    worker = world.worker()
    assert [worker.grab(), worker.grab(), worker.grab()] == [dead[0], dead[2], dead[3]]


def test_a_handle_has_no_function_beside_it(world: World) -> None:
    admin = world.caller()
    assert admin.command(b"dead retry %s f" % die(world)).startswith(b"ERR INVALID_ARGUMENTS ")
    assert admin.command(b"dead retry").startswith(b"ERR INVALID_ARGUMENTS ")


def test_a_server_that_is_about_to_stop_runs_nothing_again(world: World) -> None:
    client, worker = world.caller(), world.worker()
    handle = die(world)
    client.submit()
    worker.grab()
    world.engine.drain(world.time())
    assert client.command(b"dead retry " + handle) == (
        b"ERR SHUTDOWN_GRACEFUL The+server+is+about+to+stop\r\n"
    )


# Going


def test_dead_letters_are_deleted(world: World) -> None:
    admin = world.caller()
    dead = [die(world), die(world, b"g"), die(world)]
    assert admin.command(b"dead delete " + dead[0]) == OK
    assert admin.command(b"dead delete " + dead[0]) == UNKNOWN
    assert admin.command(b"dead delete all g") == b"OK 1 0\n"
    assert handles(admin) == [dead[2]]
    assert admin.command(b"dead delete all") == b"OK 1 0\n"
    assert rows(admin) == []


# With a store


def test_dead_letters_outlive_the_server(storing: StoringWorld) -> None:
    handle = die(storing, b"f", b"u", b"load")
    before = shown(storing.caller(), handle)
    again = storing.killed()
    assert again.cabinet.jobs == {}
    assert shown(again.caller(), handle) == before
    assert again.caller().command(b"dead retry " + handle) == OK
    third = again.killed()
    assert rows(third.caller()) == []
    assert third.worker().grab() == handle


def test_deleted_dead_letters_are_gone_for_good(storing: StoringWorld) -> None:
    handle = die(storing)
    assert storing.caller().command(b"dead delete " + handle) == OK
    again = storing.killed()
    assert (rows(again.caller()), again.cabinet.records) == ([], {})


def test_the_answer_comes_when_it_is_stored(storing: StoringWorld) -> None:
    admin, worker = storing.caller(), storing.worker()
    handles = [die(storing), die(storing)]
    storing.writing = False
    assert admin.command(b"dead retry all") == b""
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    storing.writing = True
    storing.flush()
    assert admin.peer.take() == b"OK 2 0\n"
    assert [worker.grab(), worker.grab()] == handles


@pytest.mark.parametrize("command", [b"dead retry ", b"dead delete "])
def test_what_cannot_be_stored_is_dead_as_before(storing: StoringWorld, command: bytes) -> None:
    admin = storing.caller()
    handle = die(storing)
    storing.failing = StoreUnavailable("full")
    assert admin.command(command + b"all") == b"ERR NOT_STORED Could+not+be+stored:+1+of+1\r\n"
    assert admin.command(command + handle) == b"ERR NOT_STORED Could+not+be+stored:+1+of+1\r\n"
    assert handles(admin) == [handle]
    storing.failing = None
    assert admin.command(command + handle) == OK


def test_while_the_store_is_stalled_dead_letters_stay_as_they_are(storing: StoringWorld) -> None:
    admin = storing.caller()
    handle = die(storing)
    storing.writing = False
    storing.caller().tell("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert storing.engine.take_ticket() is not None
    storing.pass_time(10)
    for command in (b"dead retry ", b"dead delete "):
        assert admin.command(command + handle) == (b"ERR QUEUE_ERROR The+store+does+not+answer\r\n")


# Restarts


def test_a_job_that_waits_out_a_delay_waits_after_a_restart_with_its_attempts() -> None:
    storing = StoringWorld(EngineConfig(attempts=3, backoff=100.0))
    handle = storing.job()
    worker = storing.worker()
    assert worker.grab() == handle
    worker.leave()
    storing.pass_time(30)
    again = storing.killed()
    again.pass_time(69)
    assert again.worker().ask("GRAB_JOB") == [("NO_JOB",)]
    again.pass_time(1)
    for attempt in range(2):
        worker = again.worker()
        assert worker.grab() == handle
        worker.leave()
        again.pass_time(200 if attempt == 0 else 0)
    assert [row[3] for row in rows(again.caller())] == [b"3"]


def test_a_job_expires_although_the_server_was_started_again(storing: StoringWorld) -> None:
    handle = storing.job("SUBMIT_JOB_BG", b"late", b"", b"w")
    storing.pass_time(3)
    again = storing.killed()
    again.pass_time(2)
    assert handles(again.caller()) == [handle]
