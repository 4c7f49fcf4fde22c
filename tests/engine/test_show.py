"""The text commands that tell more than gearmand's: one job, and what functions have done."""

from __future__ import annotations

from tests.engine.world import Caller, World
from tests.stores.places import job
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.engine.engine import Engine
from trigear.model import Now
from trigear.testing.memory import counting_mint


def shown_job(admin: Caller, handle: bytes) -> list[tuple[str, str]]:
    """What `show job` says, line by line."""
    *lines, end, rest = admin.command(b"show job " + handle).decode().split("\n")
    assert (end, rest) == (".", "")
    rows = [line.split("\t") for line in lines]
    assert all(len(row) == 2 for row in rows)
    return [(name, value) for name, value in rows]


def shown_function(admin: Caller, name: bytes) -> list[bytes]:
    """What `show functions` says of one."""
    lines = admin.command(b"show functions").split(b"\n")
    (row,) = (line.split(b"\t") for line in lines if line.startswith(name + b"\t"))
    return row[1:]


def test_a_queued_job_is_shown_with_all_that_is_known(world: World) -> None:
    client, admin = world.caller("10.0.0.2"), world.caller()
    handle = client.submit("SUBMIT_JOB_HIGH", b"re size\t", b"my key", b"12345")
    client.submit("SUBMIT_JOB_HIGH", b"re size\t", b"my key", b"67890")
    world.pass_time(61.5)
    assert shown_job(admin, handle) == [
        ("handle", handle.decode()),
        ("function", "re size\\x09"),
        ("unique", "my key"),
        ("state", "queued"),
        ("priority", "high"),
        ("background", "0"),
        ("size", "5"),
        ("attempts", "0"),
        ("losses", "0"),
        ("numerator", "0"),
        ("denominator", "0"),
        ("age", "61"),
        ("waiter", "10.0.0.2"),
        ("waiter", "10.0.0.2"),
    ]


def test_a_running_job_is_shown_with_its_worker_and_its_progress() -> None:
    world = World()
    worker, admin = world.caller("10.0.0.3"), world.caller()
    worker.tell("SET_CLIENT_ID", b"resizer-1")
    worker.tell("CAN_DO_TIMEOUT", b"f", b"5000")
    handle = world.caller().submit("SUBMIT_JOB_BG")
    assert worker.grab() == handle
    world.pass_time(5)  # it took too long
    world.pass_time(5)  # and may have it again
    assert worker.grab() == handle
    worker.tell("WORK_STATUS", handle, b"3", b"10")
    world.pass_time(1.5)
    rows = dict(shown_job(admin, handle))
    assert rows["state"] == "running"
    assert rows["background"] == "1"
    assert (rows["attempts"], rows["losses"]) == ("2", "1")
    assert (rows["numerator"], rows["denominator"]) == ("3", "10")
    assert rows["age"] == "11"
    assert (rows["worker"], rows["worker-id"]) == ("10.0.0.3", "resizer-1")
    assert rows["left"] == "4"
    assert "waiter" not in rows


def test_a_worker_without_a_deadline_has_no_time_left_to_tell(world: World) -> None:
    worker, admin = world.worker(), world.caller()
    handle = world.caller().submit()
    worker.grab()
    rows = dict(shown_job(admin, handle))
    assert rows["worker-id"] == "-"
    assert "left" not in rows


def test_a_job_that_waits_for_its_time_tells_when(world: World) -> None:
    admin = world.caller()
    handle = world.caller().submit("SUBMIT_JOB_EPOCH", b"f", b"", b"99999999999", b"w")
    rows = dict(shown_job(admin, handle))
    assert (rows["state"], rows["due"]) == ("delayed", "99999999999")
    assert "age" not in rows


def test_a_job_that_is_not_there_is_unknown(world: World) -> None:
    admin = world.caller()
    assert admin.command(b"show job H:nobody:1") == b"ERR UNKNOWN_JOB\r\n"
    assert admin.command(b"show job") == b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"
    assert admin.command(b"show job a b") == b"ERR UNKNOWN_SHOW_ARGUMENTS\r\n"


def test_functions_are_shown_with_what_they_have_done() -> None:
    settings = {b"f": FunctionSettings(attempts=1)}
    world = World(EngineConfig(functions=settings))
    client, admin = world.caller(), world.caller()
    worker = world.worker()
    for answer in ("WORK_COMPLETE", "WORK_COMPLETE", "WORK_EXCEPTION", "WORK_FAIL"):
        client.submit()
        handle = worker.grab()
        worker.tell(answer, handle, *([] if answer == "WORK_FAIL" else [b""]))
        client.heard()
    client.submit("SUBMIT_JOB_BG")
    worker.grab()
    worker.leave()  # the one attempt there was
    admin.command(b"cancel job " + client.submit("SUBMIT_JOB_BG"))
    assert shown_function(admin, b"f") == [b"0", b"0", b"0", b"2", b"3", b"1", b"-", b"no"]


def test_functions_are_shown_with_the_age_of_their_oldest_queued_job(world: World) -> None:
    client, admin = world.caller(), world.caller()
    client.submit("SUBMIT_JOB_BG")
    world.pass_time(2)
    client.submit("SUBMIT_JOB_BG")
    world.pass_time(1.9)
    assert shown_function(admin, b"f") == [b"2", b"0", b"0", b"0", b"0", b"0", b"3", b"no"]
    world.worker().grab()
    assert shown_function(admin, b"f") == [b"2", b"1", b"1", b"0", b"0", b"0", b"1", b"no"]


def test_a_function_that_is_paused_says_so(world: World) -> None:
    admin = world.worker()
    for command, paused in (b"pause f", b"yes"), (b"resume f", b"no"):
        admin.command(command)
        assert shown_function(admin, b"f")[-1] == paused


def test_a_job_of_unknown_age_tells_none() -> None:
    now = Now(100.0, 1_800_000_000.0)
    engine = Engine(EngineConfig(), counting_mint(), now, durable=True, term=2)
    assert engine.restore([job(7, submitted=0.0)], now) == 1
    session = engine.connection_opened(1, "-", now)
    engine.receive(session, b"show job H:test:7\nshow functions\n", now)
    answer = b"".join(session.take())
    assert b"state\tqueued\n" in answer
    assert b"age" not in answer
    assert answer.endswith(b"f\t1\t0\t0\t0\t0\t0\t-\tno\n.\n")


def test_a_clock_that_was_set_back_makes_no_job_younger_than_new(world: World) -> None:
    admin = world.caller()
    handle = world.caller().submit("SUBMIT_JOB_BG")
    world.time.set_wall(world.time().wall - 3600)
    assert dict(shown_job(admin, handle))["age"] == "0"
    assert shown_function(admin, b"f")[-2:] == [b"0", b"no"]
