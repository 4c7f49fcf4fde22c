"""Schedules at work: what is recorded when, and that runs are neither lost nor made twice."""

from __future__ import annotations

import logging

import pytest

from tests.engine.shop import Shop, moment
from tests.engine.world import packet, spoken
from trigear.engine import scheduler
from trigear.engine.scheduler import record_of
from trigear.errors import StoreUnavailable
from trigear.model import CloseReason
from trigear.stores.base import Erase, Keep, Record, SpoiltRecord


@pytest.fixture
def shop() -> Shop:
    return Shop()


def daily(shop: Shop, at: str = "0 13", more: str = "") -> bytes:
    return shop.add(f"f {at} * * * workload=w {more}".strip())


# Runs


def test_a_run_is_made_when_it_is_due_and_the_next_one_a_day_later(shop):
    daily(shop)
    shop.pass_time(3599)
    assert shop.job_list() == []
    shop.pass_time(1)
    (first,) = shop.job_list()
    assert shop.work_off() == [b"w"]
    shop.pass_time(86399)
    assert shop.job_list() == []
    shop.pass_time(1)
    (second,) = shop.job_list()
    assert first != second


def test_job_and_schedule_are_written_together_and_the_job_waits_for_that(shop):
    handle = daily(shop)
    shop.pass_time(3600, write=False)
    keep, record = shop.take()
    assert isinstance(keep, Keep)
    assert isinstance(record, Record)
    assert (keep.workload, keep.function, record.key) == (b"w", b"f", handle)
    worker = shop.connect()
    shop.tell(packet("CAN_DO", b"f"), worker)
    assert spoken(shop.tell(packet("GRAB_JOB"), worker)) == [("NO_JOB",)]
    assert shop.schedule(handle).runs == 0
    shop.keep()
    shop.answer()
    assert spoken(shop.tell(packet("GRAB_JOB"), worker)) == [
        ("JOB_ASSIGN", keep.handle, b"f", b"w")
    ]
    schedule = shop.schedule(handle)
    assert (schedule.runs, schedule.run, schedule.ran) == (1, keep.handle, shop.now.wall)
    assert shop.engine.next_deadline() > shop.now.monotonic


def test_a_crash_before_the_run_is_written_has_it_made_afterwards(shop):
    daily(shop)
    shop.pass_time(3600, write=False)
    assert len(shop.take()) == 2
    shop.restart(5)
    assert shop.job_list() == []
    shop.pass_time(0)
    assert shop.work_off() == [b"w"]


def test_a_crash_after_the_run_is_written_has_it_made_no_more(shop):
    daily(shop)
    shop.pass_time(3600, write=False)
    shop.take()
    shop.keep()
    shop.restart(5)
    assert len(shop.job_list()) == 1
    shop.pass_time(3600)
    assert shop.work_off() == [b"w"]


@pytest.mark.parametrize("seconds", [0, 1, 7, 59, 61, 300])
def test_whenever_it_crashes_every_minute_has_its_run_or_a_later_one_for_it(seconds, shop):
    handle = shop.add("f * * * * * workload=w")
    runs = 0
    for round_ in range(8):
        shop.pass_time(90 + round_ * 17)
        shop.pass_time(60, write=False)
        shop.take()
        if round_ % 2:
            shop.keep()
        runs = max(runs, len(shop.rows))
        shop.restart(seconds)
    shop.pass_time(60)
    assert len(shop.rows) == len(shop.job_list()) == shop.schedule(handle).runs
    times = [row.submitted for row in shop.rows.values()]
    assert len(times) == len({time // 60 for time in times})


def test_a_run_that_the_store_does_not_take_is_made_later(shop):
    handle = daily(shop)
    shop.pass_time(3600, write=False)
    shop.take()
    shop.answer(StoreUnavailable("full"))
    assert shop.job_list() == []
    assert shop.schedule(handle).runs == 0
    shop.pass_time(4.9)
    assert shop.job_list() == []
    shop.pass_time(0.2)
    assert shop.work_off() == [b"w"]
    assert shop.schedule(handle).runs == 1


def test_while_the_store_does_not_answer_no_runs_are_made(shop):
    daily(shop)
    shop.tell(packet("SUBMIT_JOB_BG", b"g", b"", b"x"))
    shop.take()
    shop.pass_time(3700, write=False)
    assert shop.engine.refuses_durable
    assert shop.engine.scheduler.next_deadline() == float("inf")
    shop.answer()
    shop.pass_time(1)
    assert shop.work_off() == [b"w"]


@pytest.mark.pure
def test_no_more_runs_are_under_way_than_fit_into_a_batch(shop, monkeypatch):
    monkeypatch.setattr(scheduler, "RUNS_AT_ONCE", 3)
    for number in range(8):
        shop.add(f"f{number} 0 13 * * *")
    monkeypatch.setattr("trigear.broker.schedules.TURN", 2)
    shop.pass_time(3600, write=False)
    assert len(shop.take()) == 8  # four runs with their schedules
    shop.keep()
    shop.answer()
    shop.pass_time(1)
    assert len(shop.job_list()) == 8


def test_a_draining_server_makes_no_runs(shop):
    daily(shop)
    shop.engine.drain(shop.now)
    assert shop.engine.scheduler.next_deadline() == float("inf")
    shop.pass_time(7200)
    assert shop.rows == {}
    shop.restart(5)
    shop.pass_time(1)
    assert shop.work_off() == [b"w"]


def test_no_runs_are_made_before_every_job_is_loaded(shop):
    daily(shop, more="unique=u")
    shop.engine.expect_jobs()
    shop.pass_time(3700)
    assert shop.rows == {}
    assert shop.command("schedule run u") == ""
    shop.engine.have_arrived(shop.now)
    shop.write()
    assert shop.heard().startswith(b"OK H:")
    shop.pass_time(1)
    assert shop.work_off() == [b"w"]


def test_in_memory_everything_happens_at_once():
    shop = Shop(durable=False)
    handle = daily(shop)
    shop.pass_time(3600)
    assert shop.work_off() == [b"w"]
    assert shop.schedule(handle).runs == 1
    assert shop.command("schedule run " + handle.decode()).startswith("OK H:")
    assert shop.work_off() == [b"w"]
    assert shop.command("schedule remove " + handle.decode()) == "OK\r\n"


# Missed runs


@pytest.mark.parametrize(
    ("policy", "away", "runs"),
    [
        ("once", 59, 1),
        ("skip", 59, 1),
        ("once", 3600, 1),
        ("skip", 3600, 0),
        ("once", 5 * 86400, 1),
        ("skip", 5 * 86400 + 3600, 0),
        # Then it is due again.
        ("skip", 5 * 86400 + 59, 1),
    ],
)
def test_a_server_that_was_away_makes_one_run_for_all_or_none(policy, away, runs, caplog):
    shop = Shop()
    handle = daily(shop, more=f"missed={policy}")
    shop.pass_time(1800)
    shop.restart(1800 + away)
    with caplog.at_level(logging.WARNING):
        shop.pass_time(0)
    assert len(shop.job_list()) == runs
    assert shop.schedule(handle).due > shop.now.wall
    assert ("1 schedule has missed" in caplog.text) == (away > 60)
    shop.pass_time(86400)
    assert len(shop.job_list()) == runs + 1


def test_what_was_left_out_is_not_written_down(shop):
    daily(shop, more="missed=skip")
    before = dict(shop.records)
    shop.restart(7200)
    shop.pass_time(3600)
    assert shop.records == before
    assert shop.rows == {}


def test_how_many_were_missed_is_said_once(shop, caplog, monkeypatch):
    monkeypatch.setattr("trigear.broker.schedules.TURN", 2)
    for number in range(3):
        shop.add(f"f{number} 0 13 * * * missed={'skip' if number else 'once'}")
    shop.restart(7200)
    with caplog.at_level(logging.WARNING):
        shop.pass_time(60)
    assert caplog.records[0].getMessage() == (
        "3 schedules have missed runs; made up for by one run each: 1"
    )
    assert caplog.text.count("missed") == 1


# Overlap


def test_without_a_unique_runs_pile_up(shop):
    shop.add("f * * * * *")
    shop.pass_time(180)
    assert len(shop.job_list()) == 3


def test_with_a_unique_a_run_joins_the_one_that_is_queued_or_running(shop):
    handle = shop.add("f * * * * * unique=u")
    shop.pass_time(120)
    (job,) = shop.job_list()
    worker = shop.connect()
    shop.tell(packet("CAN_DO", b"f"), worker)
    shop.tell(packet("GRAB_JOB"), worker)
    shop.pass_time(60)
    assert shop.job_list() == [job]
    assert (shop.schedule(handle).runs, shop.schedule(handle).run) == (3, job)
    shop.tell(packet("WORK_COMPLETE", job, b""), worker)
    shop.pass_time(60)
    (other,) = shop.job_list()
    assert other != job


def test_with_a_dash_for_a_unique_the_workload_is_what_runs_join_by(shop):
    shop.add("f * * * * * unique=- workload=w")
    shop.pass_time(180)
    assert len(shop.job_list()) == 1


def test_a_run_that_joins_a_foreground_job_has_it_outlive_its_client(shop):
    shop.add("f * * * * * unique=u workload=w")
    client = shop.connect()
    ((said, job),) = shop.ask("SUBMIT_JOB", b"f", b"u", b"theirs", session=client)
    assert said == "JOB_CREATED"
    shop.pass_time(60)
    # It has to be written first; a moment later it counts as a run.
    assert shop.schedule(shop.engine.scheduler.of("default")[0].handle).runs == 0
    shop.pass_time(1)
    assert shop.engine.scheduler.of("default")[0].runs == 1
    assert shop.engine.scheduler.of("default")[0].run == job
    assert [row.workload for row in shop.rows.values()] == [b"theirs"]


@pytest.mark.parametrize(("policy", "runs"), [("once", 1), ("skip", 0)])
def test_a_full_queue_puts_a_run_off_or_has_it_left_out(policy, runs, shop):
    handle = daily(shop, more=f"missed={policy}")
    shop.ask("SUBMIT_JOB_BG", b"f", b"", b"other")
    shop.command("maxqueue f 1")
    shop.pass_time(3600)
    assert len(shop.job_list()) == 1
    assert (
        shop.command("schedule run " + handle.decode()) == "ERR QUEUE_ERROR Job+queue+is+full\r\n"
    )
    assert shop.work_off() == [b"other"]
    shop.pass_time(60)
    assert shop.schedule(handle).runs == len(shop.job_list()) == runs


# Clocks


@pytest.mark.parametrize(
    ("when", "start", "hours", "times"),
    [
        (
            "30 2 * * *",
            "2026-03-28T00:00:00+01:00",
            72,
            ["28T02:30:00+01:00", "29T03:00:00+02:00", "30T02:30:00+02:00"],
        ),
        (
            "30 2 * * *",
            "2026-10-24T00:00:00+02:00",
            72,
            ["24T02:30:00+02:00", "25T02:30:00+02:00", "26T02:30:00+01:00"],
        ),
        (
            "*/30 2,3 * * *",
            "2026-10-25T00:00:00+02:00",
            12,
            [
                *("25T02:00:00+02:00", "25T02:30:00+02:00", "25T02:00:00+01:00"),
                *("25T02:30:00+01:00", "25T03:00:00+01:00", "25T03:30:00+01:00"),
            ],
        ),
    ],
)
def test_nights_in_which_the_clocks_are_changed(when, start, hours, times):
    shop = Shop(start)
    shop.add(f"f {when} timezone=Europe/Berlin")
    shop.pass_time(hours * 3600)
    made = sorted(row.submitted for row in shop.rows.values())
    month = start[:8]
    assert made == [moment(month + time) for time in times]


def test_a_clock_set_forward_makes_one_run_for_what_it_skipped(shop):
    every, named = shop.add("f * * * * *"), daily(shop, "30 12,13,14")
    skipped = daily(shop, "31 12,13,14", "missed=skip unique=u")
    shop.set_clock("2026-11-23T15:00:30+00:00")
    shop.pass_time(10)
    assert [shop.schedule(handle).runs for handle in (every, named, skipped)] == [1, 1, 0]
    shop.pass_time(60)
    assert [shop.schedule(handle).runs for handle in (every, named, skipped)] == [2, 1, 0]


@pytest.mark.parametrize(
    ("back", "every", "named"),
    [
        # By a little: what follows the clock waits for the clock.
        ("2026-11-23T12:59:35+00:00", 0, 0),
        # By two hours: what follows the clock goes on at once, times of day are not repeated.
        ("2026-11-23T11:00:30+00:00", 130, 0),
        # By a day: the clock was wrong before, and everything goes by the new time.
        ("2026-11-22T12:50:00+00:00", 20, 1),
    ],
)
def test_a_clock_set_back(back, every, named, shop):
    schedules = [shop.add("f * * * * *"), daily(shop)]
    shop.pass_until("2026-11-23T13:00:10+00:00")
    before = [shop.schedule(handle).runs for handle in schedules]
    assert before == [60, 1]
    shop.set_clock(back)
    minutes = max(every, 1)
    shop.pass_time(60 * minutes - 31)
    after = [shop.schedule(handle).runs for handle in schedules]
    assert after[1] - before[1] == named
    assert abs(after[0] - before[0] - every) <= 1


def test_a_clock_that_was_years_ahead_stops_nothing(shop):
    every, named = shop.add("f * * * * *"), daily(shop)
    shop.set_clock("2036-01-01T00:00:00+00:00")
    shop.pass_time(30)
    shop.set_clock("2026-11-23T12:58:00+00:00")
    before = shop.schedule(every).runs, shop.schedule(named).runs
    shop.pass_time(180)
    assert (shop.schedule(every).runs - before[0], shop.schedule(named).runs - before[1]) == (3, 1)


def test_a_server_that_finds_the_clock_set_back_at_its_start_goes_by_it(shop):
    daily(shop)
    shop.pass_until("2026-11-23T13:00:00+00:00")
    shop.set_clock("2026-11-20T12:00:00+00:00")
    shop.restart()
    shop.pass_time(3600)
    assert len(shop.job_list()) == 2


def test_a_schedule_whose_step_is_being_written_goes_by_the_new_time_as_well(shop):
    handle = daily(shop)
    shop.pass_time(3600, write=False)
    shop.take()
    shop.set_clock("2026-11-20T12:00:00+00:00")
    shop.engine.tick(shop.now)
    shop.keep()
    shop.answer()
    assert shop.schedule(handle).due == moment("2026-11-20T13:00:00+00:00")


# Steps


def test_steps_of_one_schedule_take_turns(shop):
    sched = [b"0", b"13", b"*", b"*", b"*"]
    for workload in (b"1", b"2", b"3"):
        assert shop.tell(packet("SUBMIT_JOB_SCHED", b"f", b"u", *sched, workload)) == b""
    other = shop.connect()
    assert shop.tell(packet("SUBMIT_JOB_SCHED", b"f", b"v", *sched, b"x"), other) == b""
    assert [line.data for line in shop.take()] == [b"1", b"x"]
    shop.keep()
    shop.answer()
    ((_, first),) = spoken(shop.heard())
    assert spoken(shop.heard(other)) != []
    assert [line.data for line in shop.take()] == [b"2"]
    shop.answer(StoreUnavailable("full"))
    assert spoken(shop.heard()) == [("ERROR", b"QUEUE_ERROR", b"The schedule could not be stored")]
    shop.write()
    assert spoken(shop.heard()) == [("JOB_CREATED", first)]
    assert shop.schedule(first).workload == b"3"


@pytest.mark.parametrize(
    ("step", "answer"),
    [
        (b"pause", b"OK"),
        (b"remove", b"ERR UNKNOWN_SCHEDULE No+schedule+has+this+handle+or+unique"),
    ],
)
def test_any_number_of_steps_may_wait_for_one_that_is_written(shop, step, answer):
    handle = daily(shop)
    steps = 2_000
    assert shop.tell(b"schedule %s %s\n" % (step, handle) * steps) == b""
    shop.write()
    first, *others = shop.heard().splitlines()
    assert first == b"OK"
    assert others == [answer] * (steps - 1)


def test_steps_that_waited_are_taken_a_few_at_a_time(shop):
    handle = daily(shop)
    shop.tell(b"schedule pause %s\n" % handle * (scheduler.TURNS * 2 + 2))
    shop.take()
    shop.keep()
    shop.answer()
    # The one that was written, and the one behind it.
    assert shop.heard() == b"OK\r\n" * 2
    for _ in range(2):
        assert shop.engine.next_deadline() <= shop.now.monotonic
        assert shop.engine.waits
        shop.engine.tick(shop.now)
        assert shop.heard() == b"OK\r\n" * scheduler.TURNS
    assert not shop.engine.waits
    assert shop.engine.next_deadline() > shop.now.monotonic


def test_a_schedule_that_was_not_stored_is_not_there(shop):
    shop.tell(b"schedule add f @daily\n")
    shop.take()
    shop.answer(StoreUnavailable("full"))
    assert shop.heard() == b"ERR QUEUE_ERROR The+schedule+could+not+be+stored\r\n"
    assert shop.command("schedule list") == ".\n"
    assert len(shop.engine.scheduler) == 0
    shop.add("f @daily")
    assert len(shop.engine.scheduler) == 1


def test_what_is_asked_of_a_schedule_that_is_being_removed_is_refused(shop):
    handle = daily(shop).decode()
    for step in ("remove", "remove", "pause", "run"):
        assert shop.tell(f"schedule {step} {handle}\n".encode()) == b""
    shop.write()
    assert shop.heard().decode().splitlines() == [
        "OK",
        *["ERR UNKNOWN_SCHEDULE No+schedule+has+this+handle+or+unique"] * 3,
    ]
    assert shop.records == {}
    assert shop.rows == {}


def test_a_schedule_is_paused_behind_a_run_that_is_being_written(shop):
    handle = daily(shop)
    shop.pass_time(3600, write=False)
    shop.take()
    assert shop.tell(b"schedule pause %s\n" % handle) == b""
    shop.keep()
    shop.answer()
    shop.write()
    assert shop.heard() == b"OK\r\n"
    schedule = shop.schedule(handle)
    assert schedule.paused
    assert schedule.runs == 1


def test_a_run_that_is_asked_for_while_the_job_to_join_is_being_written_is_refused(shop):
    handle = daily(shop, more="unique=u")
    shop.tell(packet("SUBMIT_JOB_BG", b"f", b"u", b"x"))
    other = shop.connect()
    assert shop.tell(b"schedule run %s\n" % handle, other) == (
        b"ERR QUEUE_ERROR The+job+to+be+joined+is+being+stored\r\n"
    )


def test_a_peer_that_is_gone_is_not_answered(shop):
    session = shop.connect()
    shop.tell(b"schedule add f @daily\n", session)
    shop.engine.connection_lost(session, CloseReason.PEER_CLOSED, shop.now)
    shop.write()
    assert shop.heard(session) == b""
    assert len(shop.engine.scheduler) == 1


# The store


def test_a_restarted_server_has_its_schedules_as_they_were(shop):
    first = shop.add("f 5 4 * * sun unique=%C3%A9%ff workload=%00%ff timezone=Asia/Tokyo")
    shop.add("g @every 90s missed=skip priority=high")
    shop.command("schedule pause " + first.decode())
    shop.pass_time(200)
    before = shop.command("schedule list"), shop.command(f"schedule show {first.decode()}")
    records = list(map(record_of, shop.engine.scheduler.of("default")))
    shop.restart()
    assert (
        shop.command("schedule list"),
        shop.command(f"schedule show {first.decode()}"),
    ) == before
    assert list(map(record_of, shop.engine.scheduler.of("default"))) == records
    assert shop.engine.spoilt == 0


def test_removing_a_schedule_erases_its_record(shop):
    handle = daily(shop)
    shop.tell(b"schedule remove %s\n" % handle)
    assert shop.take() == [Erase("schedule", "default", handle, 0)]
    shop.keep()
    shop.answer()
    assert shop.records == {}


def spoil(record: Record, **changes: object) -> Record:
    """The record with other words about it; one that is an Ellipsis is left out."""
    import json

    about = {**json.loads(record.about), **changes}
    about = {name: value for name, value in about.items() if value is not ...}
    return record._replace(about=json.dumps(about))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"when": "* * *"}, "cron has five fields"),
        ({"when": 5}, "object of type 'int' has no len()"),
        ({"timezone": "Mars/Base"}, "there is no time zone 'Mars/Base'"),
        ({"missed": "twice"}, "'twice' is not a valid Missed"),
        ({"priority": 7}, "7 is not a valid Priority"),
        ({"since": "never"}, "could not convert string to float"),
        ({"settled": float("inf")}, "settled: is no time"),
        ({"runs": None}, "int() argument must be"),
        ({"unique": 5}, "unique: is no text"),
        ({"unique": "a\0b"}, "a name with a NUL in it"),
        ({"paused": ...}, "'paused' is missing"),
    ],
)
def test_a_record_that_makes_no_sense_is_named_and_stays(shop, changes, why, caplog):
    handle, good = daily(shop), shop.add("g @daily")
    place = Erase("schedule", "default", handle, 0)
    shop.records[place] = spoil(shop.records[place], **changes)
    with caplog.at_level(logging.ERROR):
        shop.restart()
    said = f"schedule {handle.decode()} of tenant default in the store makes no sense and stays"
    assert said in caplog.text
    assert why in caplog.text
    assert [schedule.handle for schedule in shop.engine.scheduler.of("default")] == [good]
    assert place in shop.records


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"partition": 3}, "the function does not belong to this partition"),
        ({"key": b""}, "it has no handle"),
        ({"key": b"H:other"}, "another schedule has the same place"),
        ({"function": b"g"}, "another schedule has the same place"),
    ],
)
def test_a_record_in_the_wrong_place_is_named(shop, changes, why, caplog):
    daily(shop, more="unique=u")
    (place,) = shop.records
    shop.records[place._replace(key=b"second")] = shop.records[place]._replace(**changes)
    with caplog.at_level(logging.ERROR):
        shop.restart()
    assert why in caplog.text
    assert len(shop.engine.scheduler) == 1


def test_a_row_that_cannot_be_read_is_counted(shop):
    shop.engine.restore_records([SpoiltRecord("schedule", "default", b"x", 0, "odd")], shop.now)
    assert shop.engine.spoilt == 1
