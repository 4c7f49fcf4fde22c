"""When schedules are due: calendars, clocks that are changed, intervals, nonsense."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.broker.plain_cron import changes, due_minutes
from trigear.broker.timing import Cron, show_in, timing_of
from trigear.model import NEVER

ZONES = {
    "Europe/Berlin": 2025,
    "America/New_York": 2025,
    "Europe/Dublin": 2025,  # winter is the exception
    "America/Havana": 2025,  # at midnight
    "America/St_Johns": 2010,  # at a minute past midnight
    "Australia/Lord_Howe": 2025,  # by half an hour
    "Antarctica/Troll": 2025,  # by two hours
    "Pacific/Chatham": 2025,  # at a quarter to
    "Africa/Casablanca": 2025,  # twice within five weeks
    "Pacific/Apia": 2011,  # a day that never was
    "Asia/Kathmandu": 2025,  # never
}

EXPRESSIONS = (
    "30 2 * * *",
    "0,15,30,45 0-3 * * *",
    "0 0 * * *",
    "5 1,2 * * 0",
    "0-59/7 1-3 * * 1-6",
    "17 * * * *",
    "*/15 * * * *",
    "* 2 * * *",
    "*/20 1-2 30 * *",
    "15 */2 * * *",
    "45 */3 * * *",
    "5 */12 * * 6,7",
)


def dues(text: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """What the timing says is due between two moments, both left out."""
    timing = timing_of(text, zone)
    found = []
    moment = timing.next_after(begin.timestamp(), 0)
    while moment < end.timestamp():
        found.append(datetime.fromtimestamp(moment, UTC))
        moment = timing.next_after(moment, 0)
    return found


@pytest.mark.parametrize("zone", ZONES)
def test_around_every_change_of_the_clocks_it_is_due_when_looking_at_each_minute_says_so(zone: str):
    for change in changes(zone, ZONES[zone]) or [datetime(2025, 5, 1, tzinfo=UTC)]:
        begin, end = change - timedelta(hours=26), change + timedelta(hours=28)
        for text in EXPRESSIONS:
            assert dues(text, zone, begin, end) == due_minutes(text, zone, begin, end), text


def test_between_any_two_due_times_the_next_one_is_the_later():
    zone = "Europe/Berlin"
    begin = datetime(2025, 10, 25, 22, tzinfo=UTC)
    for text in ("30 2 * * *", "*/15 * * * *"):
        times = dues(text, zone, begin, begin + timedelta(days=2))
        for minute in range(0, 2 * 24 * 60, 7):
            timing = Cron(text, zone)  # one that does not remember the last answer
            moment = begin + timedelta(minutes=minute, seconds=31)
            later = [time for time in times if time > moment]
            if later:
                assert timing.next_after(moment.timestamp(), 0) == later[0].timestamp()


@pytest.mark.parametrize(
    ("text", "zone", "after", "due"),
    [
        # The hour from 2 to 3 is skipped.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00+01:00", "2026-03-29T03:00:00+02:00"),
        (
            "10,50 2 * * *",
            "Europe/Berlin",
            "2026-03-29T03:00:00+02:00",
            "2026-03-30T02:10:00+02:00",
        ),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T01:30:00+01:00", "2026-03-29T03:00:00+02:00"),
        # The hour from 2 to 3 comes twice.
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00+02:00", "2026-10-25T02:30:00+02:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T02:15:00+01:00", "2026-10-26T02:30:00+01:00"),
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T02:30:00+02:00", "2026-10-25T02:00:00+01:00"),
        # Days.
        ("0 0 29 2 *", "UTC", "2026-11-23T00:00:00+00:00", "2028-02-29T00:00:00+00:00"),
        ("0 12 13 * FRI", "UTC", "2026-11-23T00:00:00+00:00", "2026-11-27T12:00:00+00:00"),
        ("0 12 L * *", "UTC", "2027-02-01T00:00:00+00:00", "2027-02-28T12:00:00+00:00"),
        ("0 12 * * mon#1", "UTC", "2026-11-23T00:00:00+00:00", "2026-12-07T12:00:00+00:00"),
        # Exactly at a due time the next one counts, a moment before it that one.
        ("0 0 * * *", "UTC", "2026-11-23T00:00:00+00:00", "2026-11-24T00:00:00+00:00"),
        ("0 0 * * *", "UTC", "2026-11-22T23:59:59.999+00:00", "2026-11-23T00:00:00+00:00"),
        ("0 0 * * *", "UTC", "2026-11-23T00:00:00.001+00:00", "2026-11-24T00:00:00+00:00"),
    ],
)
def test_examples(text: str, zone: str, after: str, due: str):
    timing = Cron(timing_of(text, zone).text, zone)  # one that does not remember the last answer
    moment = timing.next_after(datetime.fromisoformat(after).timestamp(), 0)
    assert show_in(zone, moment) == due


@pytest.mark.parametrize(
    ("nickname", "text"),
    [
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("@monthly", "0 0 1 * *"),
        ("@weekly", "0 0 * * 0"),
        ("@daily", "0 0 * * *"),
        (" @Midnight ", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        (" 1  2 3 4\t5 ", "1 2 3 4 5"),
    ],
)
def test_nicknames_and_blanks_are_written_out(nickname: str, text: str):
    assert timing_of(nickname).text == text
    assert timing_of(nickname).zone == "UTC"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("@every 90", "@every 1m30s"),
        ("@every 5m", "@every 5m"),
        ("@EVERY 1h 30m", "@every 1h30m"),
        ("@every 36h", "@every 1d12h"),
        ("@every 1s", "@every 1s"),
        ("@every 3650d", "@every 3650d"),
    ],
)
def test_intervals_are_written_in_the_largest_units(text: str, plain: str):
    assert timing_of(text).text == plain


def test_an_interval_counts_from_the_start_whatever_the_clock_did():
    timing = timing_of("@every 5m")
    assert timing.next_after(1000.0, 1000.0) == 1300.0
    assert timing.next_after(1299.9, 1000.0) == 1300.0
    assert timing.next_after(1300.0, 1000.0) == 1600.0
    assert timing.next_after(90_000.5, 1000.0) == 90_100.0
    assert timing.next_after(10.0, 1000.0) == 100.0
    assert timing.regular


@pytest.mark.parametrize(
    ("text", "regular"),
    [("* 2 * * *", True), ("5 */2 * * *", True), ("*/5 * * * *", True), ("5 2 * * *", False)],
)
def test_a_star_in_minute_or_hour_makes_it_follow_the_clock(text: str, regular: bool):
    assert timing_of(text).regular is regular


FIVE = "cron has five fields (minute, hour, day of month, month, day of week), not "
HOW = ", or *, lists (1,2), ranges (1-5) and steps (*/5)"


@pytest.mark.parametrize(
    ("text", "zone", "why"),
    [
        ("", "UTC", FIVE + "0"),
        ("* * * *", "UTC", FIVE + "4"),
        ("0 * * * * *", "UTC", FIVE + "6"),
        ("60 * * * *", "UTC", f"minute '60' makes no sense: 0 to 59{HOW}"),
        ("* 24 * * *", "UTC", f"hour '24' makes no sense: 0 to 23{HOW}"),
        ("* * 0 * *", "UTC", f"day of month '0' makes no sense: 1 to 31{HOW}"),
        ("* * * 13 *", "UTC", f"month '13' makes no sense: 1 to 12 or JAN to DEC{HOW}"),
        (
            "* * * * 8",
            "UTC",
            f"day of week '8' makes no sense: 0 to 7 or SUN to SAT, 0 and 7 for Sunday{HOW}",
        ),
        ("0 0 30 2 *", "UTC", "'0 0 30 2 *' never comes: there is no such day"),
        ("* * */20 * 1L", "UTC", "'* * */20 * 1L' never comes: there is no such day"),
        ("@reboot", "UTC", "@reboot means nothing: write @yearly, @annually, @monthly"),
        (
            "@every 0s",
            "UTC",
            "'@every 0s' is no interval: write @every 30s, @every 5m or @every 1h",
        ),
        ("@every", "UTC", "'@every ' is no interval"),
        ("@every 3650d1s", "UTC", "'@every 3650d1s' is no interval"),
        ("@every 5 o'clock", "UTC", "'@every 5o'clock' is no interval"),
        ("1" * 257, "UTC", "a cron expression has at most 256 characters"),
        ("0 0 * * *", "Mars/Base", "there is no time zone 'Mars/Base' on the server: write UTC or"),
        ("0 0 * * *", "Europe", "there is no time zone 'Europe'"),
        ("0 0 * * *", "../UTC", "there is no time zone '../UTC'"),
        ("0 0 * * *", "", "there is no time zone ''"),
        ("@every 5m", "x" * 999, "there is no time zone 'xxx"),
    ],
)
def test_what_makes_no_sense_is_named(text: str, zone: str, why: str):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - what it says is compared
        timing_of(text, zone)
    assert str(raised.value).startswith(why)


@given(st.lists(st.text("0123456789*/,-#LWMONSU@ \u00b2", max_size=8), max_size=7))
def test_whatever_is_written_is_read_or_refused(fields: list[str]):
    try:
        timing = timing_of(" ".join(fields))
    except ValueError:
        return
    moment = timing.next_after(1_800_000_000.0, 0.0)
    assert timing.next_after(moment - 1, 0.0) == moment > 1_800_000_000.0
    assert timing_of(timing.text) is timing_of(timing.text, "UTC")


def test_the_calendar_is_asked_again_when_the_answer_may_be_another():
    due = Cron("0 0 * * *", "UTC").next_after(1_800_000_000.0, 0)
    asked = []

    class Counting(Cron):
        __slots__ = ()

        def _by_name(self, second: int) -> float:
            asked.append(second)
            return super()._by_name(second)

    timing = Counting("0 0 * * *", "UTC")
    for moment in (1_800_000_000.0, 1_800_000_000.0, 1_800_000_001.5, due - 1):
        assert timing.next_after(moment, 0) == due
    assert asked == [1_800_000_000]
    assert timing.next_after(due, 0) == due + 86400
    assert timing.next_after(1_799_999_999.0, 0) == due
    assert asked == [1_800_000_000, due, 1_799_999_999]


@pytest.mark.parametrize("text", ["* * * * *", "0 0 1 1 *"])
def test_clocks_that_are_far_off_do_no_harm(text: str):
    timing = timing_of(text, "Europe/Berlin")
    assert timing.next_after(-1e18, 0) == timing.next_after(0, 0) > 0
    assert timing.next_after(1e18, 0) == NEVER == math.inf
    assert timing.next_after(199_999_999_999.0, 0) < NEVER


@pytest.mark.parametrize("text", ["* * */20 * 1L", "0 0 */20 * 1L"])
def test_what_comes_no_more_is_never_due(text: str):
    timing = Cron(text, "UTC")
    assert timing.next_after(0, 0) == NEVER
    assert timing.next_after(5e9, 0) == NEVER
