"""Schedules as peers see them: SUBMIT_JOB_SCHED and the text commands."""

from __future__ import annotations

import pytest

from tests.engine.shop import NOON, Shop, moment
from tests.engine.world import packet, spoken
from trigear.model import FUNCTION_LIMIT, UNIQUE_LIMIT

MIDNIGHT = (b"0", b"0", b"*", b"*", b"*")


@pytest.fixture
def shop() -> Shop:
    return Shop()


def sched(shop: Shop, *fields: bytes, unique: bytes = b"", workload: bytes = b"w") -> bytes:
    """Submit by the packet; the handle."""
    ((said, handle),) = shop.ask("SUBMIT_JOB_SCHED", b"f", unique, *(fields or MIDNIGHT), workload)
    assert said == "JOB_CREATED"
    return handle


# The packet


def test_the_handle_names_the_schedule_and_each_run_has_its_own(shop):
    handle = sched(shop)
    assert shop.ask("GET_STATUS", handle) == [("STATUS_RES", handle, b"1", b"0", b"0", b"0")]
    shop.pass_time(2 * 86400)
    jobs = shop.job_list()
    assert len({handle, *jobs}) == 3
    assert shop.work_off() == [b"w", b"w"]
    assert shop.ask("GET_STATUS", handle) == [("STATUS_RES", handle, b"1", b"0", b"0", b"0")]


def test_it_is_accepted_when_it_is_written(shop):
    request = packet("SUBMIT_JOB_SCHED", b"f", b"", *MIDNIGHT, b"w")
    assert shop.tell(request + packet("ECHO_REQ", b"x")) == b""
    (record,) = shop.take()
    assert (record.kind, record.function, record.data) == ("schedule", b"f", b"w")
    assert shop.tell(packet("GET_STATUS", record.key), other := shop.connect()) != b""
    shop.keep()
    assert shop.heard() == b""
    shop.answer()
    assert spoken(shop.heard()) == [("JOB_CREATED", record.key), ("ECHO_RES", b"x")]
    assert spoken(shop.tell(packet("GET_STATUS", record.key), other))[0][2] == b"1"


def test_monday_is_day_0_of_the_week_and_the_time_zone_is_utc(shop):
    handle = sched(shop, b"30", b"6", b"*", b"*", b"0")
    assert shop.schedule(handle).due == moment("2026-11-30T06:30:00+00:00")
    assert "when\t30 6 * * 1\n" in shop.command(f"schedule show {handle.decode()}")


@pytest.mark.parametrize(
    ("unique", "workload", "same"),
    [
        (b"u", b"other", True),
        (b"v", b"w", False),
        (b"", b"w", False),
    ],
)
def test_the_same_unique_replaces(shop, unique, workload, same):
    first = sched(shop, unique=b"u")
    second = sched(shop, b"5", b"5", b"*", b"*", b"*", unique=unique, workload=workload)
    assert (first == second) is same
    assert len(shop.engine.scheduler) == (1 if same else 2)
    if same:
        assert shop.schedule(first).workload == b"other"
        assert shop.schedule(first).due == moment("2026-11-24T05:05:00+00:00")


def test_without_a_unique_the_same_workload_replaces(shop):
    first = sched(shop)
    assert sched(shop, b"5", b"5", b"*", b"*", b"*") == first
    assert sched(shop, unique=b"-") == first
    assert sched(shop, workload=b"x") != first


def test_submitting_the_same_again_changes_nothing(shop):
    handle = sched(shop, b"0", b"13", b"*", b"*", b"*", unique=b"u")
    shop.pass_time(3600 + 30)
    before = shop.schedule(handle)
    records = dict(shop.records)
    assert sched(shop, b"0", b"13", b"*", b"*", b"*", unique=b"u") == handle
    assert shop.schedule(handle) == before
    assert shop.records == records


def test_one_that_is_replaced_stays_paused_and_keeps_its_count(shop):
    handle = sched(shop, unique=b"u")
    shop.pass_time(86400)
    shop.command("schedule pause u")
    assert sched(shop, b"1", b"1", b"*", b"*", b"*", unique=b"u") == handle
    assert shop.schedule(handle).paused
    assert shop.schedule(handle).runs == 1


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ((b"61", b"0", b"*", b"*", b"*"), "minute '61' makes no sense: 0 to 59, or *, lists"),
        ((b"", b"0", b"*", b"*", b"*"), "minute '' makes no sense: 0 to 59, or *"),
        ((b"0", b"0", b"30", b"2", b"*"), "'0 0 30 2 *' never comes: there is no such day"),
        ((b"0", b"0", b"*", b"*", b"7"), "day of week '7' makes no sense: 0 to 6 for Monday to"),
        ((b"\xff\x1b", b"0", b"*", b"*", b"*"), "minute '\\xff\\x1b' makes no sense"),
        ((b"1" * 300, b"0", b"*", b"*", b"*"), "a cron expression has at most 256 characters"),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_connection_lives(shop, fields, why):
    ((said, code, text),) = shop.ask("SUBMIT_JOB_SCHED", b"f", b"", *fields, b"w")
    assert (said, code) == ("ERROR", b"INVALID_ARGUMENT")
    assert text.decode().startswith(why)
    assert shop.ask("ECHO_REQ", b"x") == [("ECHO_RES", b"x")]
    assert shop.command("status") == ".\n"


@pytest.mark.parametrize(
    ("function", "unique", "why"),
    [
        (b"f", b"u" * (UNIQUE_LIMIT + 1), b"Unique value too large"),
        (b"f" * (FUNCTION_LIMIT + 1), b"", b"Function name too large"),
    ],
)
def test_names_have_the_lengths_that_those_of_jobs_have(shop, function, unique, why):
    refused = [("ERROR", b"ARGUMENT_TOO_LARGE", why)]
    assert shop.ask("SUBMIT_JOB_SCHED", function, unique, *MIDNIGHT, b"w") == refused
    if len(function) == 1:
        said = shop.command(f"schedule add f @daily unique={unique.decode()}")
        assert said == "ERR ARGUMENT_TOO_LARGE Unique+value+too+large\r\n"
    sched(shop, unique=b"u" * UNIQUE_LIMIT)


def test_a_draining_server_takes_no_schedules(shop):
    handle = sched(shop).decode()
    shop.tell(packet("SUBMIT_JOB", b"g", b"", b""))  # or it would be idle and closed
    shop.heard()
    shop.engine.drain(shop.now)
    refused = ("ERROR", b"SHUTDOWN_GRACEFUL", b"The server is about to stop")
    assert shop.ask("SUBMIT_JOB_SCHED", b"f", b"", *MIDNIGHT, b"w") == [refused]
    for command in ("add f @daily", f"run {handle}", f"pause {handle}"):
        said = shop.command(f"schedule {command}")
        assert said == "ERR SHUTDOWN_GRACEFUL The+server+is+about+to+stop\r\n"
    assert shop.command("schedule list").startswith("H:")


def test_a_store_that_does_not_answer_takes_no_schedules(shop):
    shop.tell(packet("SUBMIT_JOB_BG", b"g", b"", b"x"), shop.connect())
    shop.take()
    shop.pass_time(10, write=False)
    refused = ("ERROR", b"QUEUE_ERROR", b"The store does not answer")
    assert spoken(shop.tell(packet("SUBMIT_JOB_SCHED", b"f", b"", *MIDNIGHT, b"w"))) == [refused]


# Text commands


def test_a_schedule_is_added_by_words(shop):
    handle = shop.add(
        "f 0 13 * * mon-fri timezone=Europe/Berlin unique=night%20shift workload=a%00b%ff"
        " missed=SKIP priority=high"
    )
    assert handle == b"H:1:1"
    due = moment("2026-11-24T13:00:00+01:00")
    assert shop.command("schedule list") == (
        f"H:1:1\tf\tnight shift\t0 13 * * mon-fri\tEurope/Berlin\tactive\t{due:.0f}\t-\t0\n.\n"
    )
    assert shop.command("schedule show H:1:1").splitlines() == [
        "handle\tH:1:1",
        "function\tf",
        "unique\tnight shift",
        "when\t0 13 * * mon-fri",
        "timezone\tEurope/Berlin",
        "missed\tskip",
        "priority\thigh",
        "state\tactive",
        f"since\t{moment(NOON):.0f}",
        "runs\t0",
        "ran\t-",
        "run\t-",
        "size\t4",
        "workload\ta%00b%FF",
        *(f"next\t{due + days * 86400:.0f}" for days in (0, 1, 2, 3, 6)),
        ".",
    ]
    shop.pass_time(86400)
    (row,) = shop.rows.values()
    assert (row.unique, row.workload, row.priority) == (b"night shift", b"a\0b\xff", 0)
    shown = shop.command("schedule show H:1:1")
    assert f"runs\t1\nran\t{due:.0f}\nrun\t{row.handle.decode()}\n" in shown


def test_a_large_workload_is_not_shown(shop):
    handle = sched(shop, workload=b"x" * 4097).decode()
    assert "size\t4097\nnext\t" in shop.command(f"schedule show {handle}")


def test_intervals_and_nicknames(shop):
    shop.add("f @every 90 unique=a")
    shop.add("f @Hourly unique=b")
    lines = [line.split("\t")[3:6] for line in shop.command("schedule list").splitlines()[:-1]]
    assert lines == [["@every 1m30s", "UTC", "active"], ["0 * * * *", "UTC", "active"]]
    shop.pass_time(180)
    assert len(shop.job_list()) == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("", "a function is needed, and when it is to be done"),
        ("f", "cron has five fields"),
        ("f * * * *", "cron has five fields"),
        ("f * * * * 9", "day of week '9' makes no sense"),
        (
            "f @daily colour=red",
            "there are the options unique, workload, timezone, missed, priority",
        ),
        ("f @daily \xff=red", "there are the options unique"),
        ("f @daily missed=twice", "missed is one of once, skip"),
        ("f @daily priority=0", "priority is one of high, normal, low"),
        ("f @daily timezone=Mars", "there is no time zone 'Mars' on the server"),
        ("f @daily unique=a%00b", "a unique has no NUL in it"),
        ("f @daily\t\x1b[1m", "@daily \\x1b[1m means nothing"),
        ("f @dai\x1b[1mly", "@dai\\x1b[1mly means nothing"),
    ],
)
def test_words_that_make_no_sense_are_named(shop, words, why):
    said = shop.command(f"schedule add {words}")
    assert said.startswith("ERR INVALID_ARGUMENT " + why.replace(" ", "+"))
    assert said.endswith("\r\n")
    assert shop.command("schedule list") == ".\n"


def test_a_paused_schedule_makes_no_runs_and_none_of_them_later(shop):
    shop.add("f * * * * * unique=u")
    assert shop.command("schedule pause u") == "OK\r\n"
    assert shop.command("schedule pause u") == "OK\r\n"
    assert "\tpaused\t-\t-\t0\n" in shop.command("schedule list")
    assert "next" not in shop.command("schedule show u")
    shop.pass_time(600)
    shop.restart()
    shop.pass_time(600)
    assert shop.rows == {}
    assert shop.command("schedule resume u") == "OK\r\n"
    shop.pass_time(59)
    assert shop.rows == {}
    shop.pass_time(1)
    assert len(shop.rows) == 1


def test_a_run_at_once_is_one_more(shop):
    handle = shop.add("f 0 13 * * * workload=w")
    assert shop.command("schedule pause " + handle.decode()) == "OK\r\n"
    said = shop.command("schedule run " + handle.decode())
    (job,) = shop.job_list()
    assert said == f"OK {job.decode()}\n"
    assert shop.schedule(handle).run == job
    shop.command("schedule resume " + handle.decode())
    shop.pass_time(3600)
    assert shop.work_off() == [b"w", b"w"]


def test_a_run_at_once_joins_what_has_its_unique(shop):
    shop.add("f 0 13 * * * unique=u")
    assert shop.command("schedule run u") == shop.command("schedule run u")
    assert len(shop.job_list()) == 1


def test_jobs_stay_when_their_schedule_is_removed(shop):
    shop.add("f * * * * * unique=u")
    shop.pass_time(60)
    assert shop.command("schedule remove u") == "OK\r\n"
    assert shop.command("schedule list") == ".\n"
    shop.pass_time(600)
    assert len(shop.job_list()) == 1
    assert shop.records == {}


def test_cancelling_by_the_handle_removes_the_schedule(shop):
    handle = sched(shop)
    assert shop.command(f"cancel job {handle.decode()}") == "OK\r\n"
    assert shop.ask("GET_STATUS", handle) == [("STATUS_RES", handle, b"0", b"0", b"0", b"0")]
    assert shop.command(f"cancel job {handle.decode()}") == "ERR UNKNOWN_JOB\r\n"


def test_a_unique_names_a_schedule_where_only_one_has_it(shop):
    first, second = shop.add("f @daily unique=u"), shop.add("g @daily unique=u")
    several = "ERR AMBIGUOUS_SCHEDULE Several+functions+have+one:+name+its+handle\r\n"
    none = "ERR UNKNOWN_SCHEDULE No+schedule+has+this+handle+or+unique\r\n"
    for command in ("show", "pause", "resume", "run", "remove"):
        assert shop.command(f"schedule {command} u") == several
        assert shop.command(f"schedule {command} v") == none
    assert shop.command(f"schedule remove {first.decode()}") == "OK\r\n"
    assert shop.command("schedule show u").startswith(f"handle\t{second.decode()}\n")


@pytest.mark.parametrize(
    "line", ["schedule", "schedule list all", "schedule show", "schedule fly x"]
)
def test_words_too_many_and_too_few_are_answered(shop, line):
    assert shop.command(line).startswith("ERR INVALID_ARGUMENTS An+incomplete+set+of+arguments")


def test_a_function_may_be_dropped_and_comes_back_with_the_next_run(shop):
    shop.add("f * * * * * workload=w")
    shop.pass_time(60)
    assert shop.command("drop function f") == "OK\r\n"
    assert shop.rows == {}
    assert shop.command("status") == ".\n"
    shop.pass_time(60)
    assert shop.work_off() == [b"w"]
