"""Steering by text command: jobs, functions, and settings that outlive the server."""

from __future__ import annotations

import pytest

from tests.engine.storing import StoringWorld
from tests.engine.world import Caller, World
from trigear.engine.config import EngineConfig, FunctionSettings
from trigear.engine.settings import SETTINGS
from trigear.errors import StoreUnavailable
from trigear.model import Priority

OK = b"OK\r\n"
UNKNOWN = b"ERR UNKNOWN_JOB\r\n"
NOT_STORED = b"ERR NOT_STORED In+effect,+but+not+stored+yet\r\n"


@pytest.fixture
def admin(world: World) -> Caller:
    return world.caller("10.0.0.1")


@pytest.fixture
def storing() -> StoringWorld:
    return StoringWorld(EngineConfig(attempts=7))


def values(admin: Caller, function: bytes = b"f") -> dict[bytes, tuple[bytes, bytes]]:
    """The settings of a function and their origins."""
    found = {}
    for line in admin.command(b"functions " + function).splitlines()[:-1]:
        name, setting, value, origin = line.split(b"\t")
        assert name == function
        found[setting] = value, origin
    return found


# Jobs


def test_a_running_job_is_queued_anew_and_its_worker_hears_of_it(
    world: World, admin: Caller
) -> None:
    worker, other, plain = world.caller(), world.worker(), world.worker()
    worker.ask("OPTION_REQ", b"trigear")
    worker.tell("CAN_DO", b"f")
    client = world.caller()
    first, second = client.submit(), client.submit()
    assert (worker.grab(), plain.grab()) == (first, second)
    assert admin.command(b"requeue " + first) == OK
    assert admin.command(b"requeue " + second) == OK
    assert worker.heard() == [("JOB_CANCELLED", first, b"requeued")]
    assert plain.heard() == []
    assert other.grab() == first
    assert worker.ask("WORK_COMPLETE", first, b"") == []
    assert other.ask("WORK_COMPLETE", first, b"") == []
    assert client.heard() == [("WORK_COMPLETE", first, b"")]
    assert admin.command(b"requeue " + first) == UNKNOWN


def test_a_job_gets_another_priority(world: World, admin: Caller) -> None:
    client, worker = world.caller(), world.worker()
    first, second = client.submit(), client.submit()
    assert admin.command(b"priority %s HIGH" % second) == OK
    assert worker.grab() == second
    assert admin.command(b"priority %s urgent" % first) == (
        b"ERR INVALID_ARGUMENT a+priority+is+high,+normal+or+low\r\n"
    )
    assert admin.command(b"priority H:nobody:1 low") == UNKNOWN
    assert admin.command(b"priority " + first).startswith(b"ERR INVALID_ARGUMENTS ")


def test_another_priority_outlives_the_server(storing: StoringWorld) -> None:
    handle, other = storing.job(), storing.job()
    storing.caller().command(b"priority %s high" % other)
    again = storing.killed()
    worker = again.worker()
    assert (worker.grab(), worker.grab()) == (other, handle)


def test_a_job_that_was_to_run_later_is_queued_at_once_for_good(storing: StoringWorld) -> None:
    due = b"%d" % (storing.time().wall + 5000)
    handle = storing.job("SUBMIT_JOB_EPOCH", b"f", b"", due, b"w")
    assert storing.caller().command(b"requeue " + handle) == OK
    assert storing.killed().worker().grab() == handle


# Pausing


def test_a_paused_function_takes_jobs_and_hands_out_none(world: World, admin: Caller) -> None:
    worker, client = world.worker(), world.caller()
    assert admin.command(b"pause f") == OK
    handle = client.submit()
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    assert worker.ask("PRE_SLEEP") == []
    # gearmand's lists have no place for it.
    assert admin.command(b"status") == b"f\t1\t0\t1\n.\n"
    assert values(admin)[b"paused"] == (b"yes", b"command")
    assert admin.command(b"resume f") == OK
    assert worker.heard() == [("NOOP",)]
    assert worker.grab() == handle
    assert values(admin)[b"paused"] == (b"no", b"command")


def test_a_function_can_be_paused_before_it_is_there(world: World, admin: Caller) -> None:
    assert admin.command(b"pause f") == OK
    assert admin.command(b"status") == b".\n"
    world.caller().submit()
    assert world.worker().ask("GRAB_JOB") == [("NO_JOB",)]


def test_a_pause_outlives_the_server(storing: StoringWorld) -> None:
    storing.job()
    assert storing.caller().command(b"pause f") == OK
    again = storing.killed()
    worker = again.worker()
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    worker.tell("PRE_SLEEP")
    assert again.caller().command(b"resume f") == OK
    assert worker.heard() == [("NOOP",)]
    worker.grab()
    assert values(again.killed().caller())[b"paused"] == (b"no", b"command")


# Settings


def test_functions_tells_each_setting_and_where_it_comes_from(world: World) -> None:
    world = World(EngineConfig(attempts=4, functions={b"f": FunctionSettings(timeout=90.0)}))
    admin = world.caller()
    assert admin.command(b"functions") == b".\n"
    admin.command(b"create function f")
    admin.command(b"set g expires 5m")
    lines = admin.command(b"functions").splitlines()
    assert len(lines) == 2 * len(SETTINGS) + 1
    assert b"f\ttimeout\t90s\tfile" in lines
    assert b"f\tattempts\t4\tdefault" in lines
    assert b"g\texpires\t5m\tcommand" in lines
    assert values(admin, b"nope")[b"timeout"] == (b"0s", b"default")


def test_names_of_functions_do_not_break_lines(world: World, admin: Caller) -> None:
    world.worker(b"a\tb")
    assert admin.command(b"functions").startswith(b"a\\x09b\ttimeout\t")


@pytest.mark.parametrize(
    ("command", "setting", "value"),
    [
        (b"set f attempts 3", b"attempts", b"3"),
        (b"set f Backoff-Limit 90s", b"backoff-limit", b"90s"),
        (b"set f backoff auto", b"backoff", b"auto"),
        (b"set f maxqueue 1 2 3", b"maxqueue", b"1 2 3"),
        (b"set f paused on", b"paused", b"yes"),
        (b"maxqueue f 5", b"maxqueue", b"5 5 5"),
        (b"maxqueue f 5 6", b"maxqueue", b"5 6 0"),
    ],
)
def test_what_is_set_wins_outlives_the_server_and_can_be_reset(
    storing: StoringWorld, command: bytes, setting: bytes, value: bytes
) -> None:
    admin = storing.caller()
    admin.command(b"create function f")
    before = values(admin)
    assert admin.command(command) == OK
    assert values(admin)[setting] == (value, b"command")
    admin = (again := storing.killed()).caller()
    assert values(admin)[setting] == (value, b"command")
    assert len(again.cabinet.of("setting")) == 1
    assert admin.command(b"reset f " + setting.upper()) == OK
    assert values(admin) == before
    assert again.cabinet.of("setting") == []
    assert values(again.killed().caller()) == before
    assert admin.command(b"reset f") == OK


def test_rules_hold_at_once(world: World, admin: Caller) -> None:
    client = world.caller()
    client.submit()
    admin.command(b"set f attempts 1")
    worker = world.worker()
    handle = worker.grab()
    worker.leave()
    assert client.heard() == [("WORK_FAIL", handle)]


def test_everything_of_a_function_can_be_reset(world: World, admin: Caller) -> None:
    client, worker = world.caller(), world.worker()
    client.submit()
    admin.command(b"maxqueue f 1")
    admin.command(b"pause f")
    admin.command(b"pause g")
    assert client.ask("SUBMIT_JOB", b"f", b"", b"w")[0][0] == "ERROR"
    assert admin.command(b"reset f") == OK
    client.submit()
    worker.grab()
    assert values(admin, b"g")[b"paused"] == (b"yes", b"command")
    assert all(origin == b"default" for _, origin in values(admin).values())


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (b"set f", b"ERR INVALID_ARGUMENTS An+incomplete+set"),
        (b"set f attempts", b"ERR INVALID_ARGUMENTS An+incomplete+set"),
        (b"set f atempts 3", b"ERR INVALID_ARGUMENT no+such+setting:+there+are+timeout,+on-"),
        (b"set f attempts \xff", b"ERR INVALID_ARGUMENT '\\xff'+is+not+a+number+of+attempts"),
        (b"set f attempts many", b"ERR INVALID_ARGUMENT 'many'+is+not+a+number+of+attempts"),
        (b"set f attempts 3 4", b"ERR INVALID_ARGUMENT '3+4'+is+not+a+number+of+attempts"),
        (b"reset f atempts", b"ERR INVALID_ARGUMENT no+such+setting"),
        (b"reset", b"ERR INVALID_ARGUMENTS "),
        (b"pause", b"ERR INVALID_ARGUMENTS "),
        (b"resume f g", b"ERR INVALID_ARGUMENTS "),
        (b"requeue", b"ERR INVALID_ARGUMENTS "),
        (b"functions a b", b"ERR INVALID_ARGUMENTS "),
        (b"dead", b"ERR INVALID_ARGUMENTS "),
    ],
)
def test_mistakes_are_told(admin: Caller, command: bytes, says: bytes) -> None:
    answer = admin.command(command)
    assert answer.startswith(says)
    assert (answer.count(b"\n"), answer[-2:]) == (1, b"\r\n")


def test_the_answer_waits_until_the_setting_is_stored(storing: StoringWorld) -> None:
    admin, worker = storing.caller(), storing.worker()
    storing.job()
    storing.writing = False
    assert admin.command(b"pause f") == b""
    # It holds meanwhile.
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    storing.writing = True
    storing.flush()
    assert admin.peer.take() == OK


def test_a_setting_that_cannot_be_stored_holds_and_is_stored_later(storing: StoringWorld) -> None:
    admin, worker = storing.caller(), storing.worker()
    storing.job()
    storing.failing = StoreUnavailable("full")
    assert admin.command(b"pause f") == NOT_STORED
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]
    assert storing.cabinet.of("setting") == []
    storing.failing = None
    storing.flush()
    assert [record.key for record in storing.cabinet.of("setting")] == [b"f"]


def test_while_the_store_is_stalled_settings_hold_at_once(storing: StoringWorld) -> None:
    admin, worker = storing.caller(), storing.worker()
    storing.job()
    storing.writing = False
    other = storing.caller()
    other.tell("SUBMIT_JOB_BG", b"f", b"", b"w")
    assert storing.engine.take_ticket() is not None
    storing.pass_time(10)
    assert storing.engine.refuses_durable
    assert admin.command(b"pause f") == NOT_STORED
    assert worker.ask("GRAB_JOB") == [("NO_JOB",)]


def test_who_asked_and_is_gone_is_not_answered(storing: StoringWorld) -> None:
    admin = storing.caller()
    storing.writing = False
    admin.command(b"pause f")
    admin.leave()
    storing.writing = True
    storing.flush()
    assert len(storing.cabinet.of("setting")) == 1


def test_a_restored_job_has_the_attempts_that_were_set(storing: StoringWorld) -> None:
    storing.caller().command(b"set f attempts 1")
    handle = storing.job()
    again = storing.killed()
    worker = again.worker()
    assert worker.grab() == handle
    worker.leave()
    assert again.worker().ask("GRAB_JOB") == [("NO_JOB",)]


def test_limits_set_by_command_are_thresholds_by_priority(world: World, admin: Caller) -> None:
    admin.command(b"create function f")
    admin.command(b"maxqueue f 3 2 1")
    function = admin.peer.session.peer.tenant.functions[b"f"]
    assert [function.limits[priority] for priority in Priority] == [3, 2, 1]
