"""When cron expressions are due, in the plainest way: by looking at every minute."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

LEAST_AND_MOST = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))

MINUTE = timedelta(minutes=1)


@lru_cache
def numbers(field: str, place: int) -> frozenset[int]:
    """The numbers that a field of digits, stars, commas, dashes and slashes stands for."""
    least, most = LEAST_AND_MOST[place]
    found: set[int] = set()
    for term in field.split(","):
        base, _, step = term.partition("/")
        first, _, last = base.partition("-")
        if first == "*":
            begin, end = least, most
        else:
            begin, end = int(first), int(last or (most if step else first))
        found |= set(range(begin, end + 1, int(step or 1)))
    return frozenset(found)


def matches(text: str, shown: datetime) -> bool:
    """Whether this time on the clock is meant."""
    minute, hour, day, month, weekday = text.split()
    sunday_is_0 = shown.isoweekday() % 7
    days = numbers(weekday, 4)
    on_weekday = sunday_is_0 in days or (sunday_is_0 == 0 and 7 in days)
    on_day = shown.day in numbers(day, 2)
    both = day.startswith("*") or weekday.startswith("*")
    return (
        shown.minute in numbers(minute, 0)
        and shown.hour in numbers(hour, 1)
        and shown.month in numbers(month, 3)
        and (on_day and on_weekday if both else on_day or on_weekday)
    )


def due_minutes(text: str, zone: str, begin: datetime, end: datetime) -> list[datetime]:
    """The minutes from ``begin`` up to ``end`` in which it is due, in UTC."""
    minute, hour, *_ = text.split()
    regular = minute.startswith("*") or hour.startswith("*")
    clock = ZoneInfo(zone)
    found = []
    # What the clocks have shown so far, a day before included: they may go back by an hour.
    latest = (begin - timedelta(days=1)).astimezone(clock).replace(tzinfo=None)
    moment = begin - timedelta(days=1)
    while moment < end:
        moment += MINUTE
        shown = moment.astimezone(clock).replace(tzinfo=None)
        if regular:
            due = matches(text, shown)
        else:
            due = False
            while latest < shown:
                latest += MINUTE
                due = matches(text, latest) or due
        if due and begin < moment < end:
            found.append(moment)
    return found


def changes(zone: str, year: int) -> list[datetime]:
    """When the clocks are changed in a year, to the hour before."""
    clock = ZoneInfo(zone)
    hours = [datetime(year, 1, 1, tzinfo=UTC) + timedelta(hours=hour) for hour in range(8760)]
    offsets = [hour.astimezone(clock).utcoffset() for hour in hours]
    return [hours[n] for n in range(8759) if offsets[n] != offsets[n + 1]]
