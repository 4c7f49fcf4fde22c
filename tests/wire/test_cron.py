"""The days of the week of SUBMIT_JOB_SCHED and of cron, from one to the other and back."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from trigear.wire.cron import NICKNAMES, cron_of_packet, packet_of_cron


def packet(days: bytes, day: bytes = b"*") -> list[bytes]:
    return [b"0", b"0", day, b"*", days]


def days_of(text: str) -> list[int]:
    """The days of two months on which an expression is due."""
    start = datetime(2026, 11, 1) - timedelta(seconds=1)
    found = []
    for moment in CronSim(text, start):
        if moment >= datetime(2027, 1, 1):
            break
        found.append((moment - start).days)
    return found


@pytest.mark.parametrize(
    ("days", "cron"),
    [
        (b"*", "*"),
        (b"0", "1"),
        (b"6", "7"),
        (b"0-4", "1-5"),
        (b"5,6", "6,7"),
        (b"1-5/2", "2-6/2"),
        (b"3/2", "4/2"),
        (b"*/2", "1-7/2"),
        (b"*/10", "1-7/10"),
        (b"0#1", "1#1"),
        (b"4L", "5L"),
        (b"MON-FRI", "MON-FRI"),
        (b"sun", "sun"),
        (b"nonsense", "nonsense"),
        (b"0,MON,\xff", "1,MON,\\xff"),
    ],
)
def test_days_of_the_packet_begin_with_monday(days: bytes, cron: str):
    assert cron_of_packet(packet(days)) == f"0 0 * * {cron}"


def test_zero_is_monday_on_the_calendar():
    dates = CronSim(cron_of_packet(packet(b"0")), datetime(2026, 11, 25))
    assert [next(dates), next(dates)] == [datetime(2026, 11, 30), datetime(2026, 12, 7)]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        (packet(b"7"), "day of week '7' makes no sense: 0 to 6 for Monday to Sunday, or *"),
        (packet(b"0-7"), "day of week '0-7' makes no sense"),
        (packet(b"4-2"), "day of week '4-2' makes no sense"),
        (packet(b"1/0"), "day of week '1/0' makes no sense"),
        (packet(b""), "day of week '' makes no sense: 0 to 7 or SUN to SAT"),
        (packet(b"*", b""), "day of month '' makes no sense: 1 to 31, or *"),
        (packet(b"*", b"1 2"), "day of month '1 2' makes no sense"),
        (packet(b"*", b" 1"), "day of month ' 1' makes no sense"),
        (packet(b"*/2", b"1"), "day of week '*/2' cannot go with day of month '1': write the days"),
    ],
)
def test_fields_that_make_no_sense_are_named(fields: list[bytes], why: str):
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - what it says is compared
        cron_of_packet(fields)
    assert str(raised.value).startswith(why)


def test_both_stars_stay_stars():
    assert cron_of_packet(packet(b"*/2", b"*/2")) == "0 0 */2 * 1-7/2"
    assert packet_of_cron("0 0 */2 * */2") == (b"0", b"0", b"*/2", b"*", b"1,3,5,6")
    assert packet_of_cron("0 0 1 * */2") is None


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("*", b"*"),
        ("0", b"6"),
        ("7", b"6"),
        ("1-5", b"0,1,2,3,4"),
        ("0-7", b"0,1,2,3,4,5,6"),
        ("5-7", b"4,5,6"),
        ("5/1", b"4,5,6"),
        ("*/2", b"1,3,5,6"),
        ("0-6/3", b"2,5,6"),
        ("1#2", b"0#2"),
        ("0L", b"6L"),
        ("MON-FRI/2", b"MON-FRI/2"),
        ("nonsense,1", b"nonsense,0"),
    ],
)
def test_days_of_cron_become_days_of_the_packet(cron: str, days: bytes):
    assert packet_of_cron(f"0 0 * * {cron}") == (b"0", b"0", b"*", b"*", days)


def test_nicknames_have_fields_as_well():
    assert packet_of_cron(" @Weekly ") == (b"0", b"0", b"*", b"*", b"6")
    for name in NICKNAMES:
        assert packet_of_cron(name) is not None


@pytest.mark.parametrize(
    "text", ["@every 5m", "@reboot", "", "* * * *", "* * * * * *", "é * * * *"]
)
def test_what_is_no_cron_expression_has_no_fields(text: str):
    assert packet_of_cron(text) is None


@pytest.mark.parametrize("days", ["8", "0-8", "5-2", "*/0", "1/00"])
def test_days_that_make_no_sense_are_named(days: str):
    term = days.replace("*", "0-6")
    with pytest.raises(ValueError, match=f"day of week '{term}' makes no sense: 0 to 7, 0 for"):
        packet_of_cron(f"* * * * {days}")


TERMS = st.one_of(
    st.integers(0, 7).map(str),
    st.tuples(st.integers(0, 7), st.integers(0, 7)).map(lambda pair: f"{min(pair)}-{max(pair)}"),
    st.tuples(st.integers(0, 7), st.integers(1, 9)).map(lambda pair: f"{pair[0]}/{pair[1]}"),
    st.tuples(st.integers(0, 6), st.integers(1, 5)).map(lambda pair: f"{pair[0]}#{pair[1]}"),
    st.sampled_from(["*", "*/2", "*/3", "*/7", "1-5/2", "MON", "tue-sat", "0L", "5L"]),
)


@given(st.lists(TERMS, min_size=1, max_size=3), st.sampled_from(["*", "*/3", "1,15"]))
def test_there_and_back_means_the_same_days(terms: list[str], day: str):
    text = f"0 0 {day} * {','.join(terms)}"
    fields = packet_of_cron(text)
    if fields is None:
        assert terms[0].startswith("*")
        assert not day.startswith("*")
    else:
        assert days_of(cron_of_packet(fields)) == days_of(text)
