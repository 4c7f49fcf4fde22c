"""When a schedule is due: cron expressions in a time zone, and plain intervals.

What a cron expression means on a calendar is the business of the library ``cronsim``, which is
asked about calendars without time zones only. What a zone does to its clocks is decided here, by
the rules of Debian's cron:

* where neither the minute nor the hour begins with ``*``, a time that the clocks skip is due at the
  first moment behind the gap, and one that they show twice is due the first time;
* otherwise every minute is due in which the clock on the wall shows a time that matches, skipped
  times never and repeated ones twice.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol
from zoneinfo import ZoneInfo

from trigear.model import NEVER
from trigear.wire.cron import FIELDS, NICKNAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

INTERVAL_LIMIT: Final = 10 * 365 * 86400
"""Longest interval, in seconds."""

_TEXT_LIMIT: Final = 256
"""Characters of an expression that are looked at."""

_LAST_MOMENT: Final = 200_000_000_000.0
"""Nothing is due behind this, in the year 8307: where calendars end, so does arithmetic."""

_EVERY: Final = re.compile(
    r"@every (?:(?P<d>[0-9]{1,9})d)?(?:(?P<h>[0-9]{1,9})h)?(?:(?P<m>[0-9]{1,9})m)?"
    r"(?:(?P<s>[0-9]{1,9})s?)?"
)

_UNITS: Final = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))

_DAY: Final = 86400


class Timing(Protocol):
    """When something is due. ``text`` and ``zone`` make the same timing again."""

    text: str
    zone: str
    regular: bool
    """Whether it follows the clock wherever that is set to, rather than naming times of day."""

    def next_after(self, moment: float, start: float) -> float:
        """The first moment later than this one, in seconds since 1970; infinity if none comes.

        ``start`` is when the schedule began, from which intervals are counted.
        """


class Interval:
    """Due again and again after so many seconds."""

    __slots__ = ("_seconds", "regular", "text", "zone")

    def __init__(self, seconds: int, zone: str) -> None:
        self._seconds = seconds
        self.zone = zone
        self.regular = True
        rest, parts = seconds, []
        for unit, size in _UNITS:
            count, rest = divmod(rest, size)
            if count:
                parts.append(f"{count}{unit}")
        self.text = "@every " + "".join(parts)

    def next_after(self, moment: float, start: float) -> float:
        steps = (moment - start) // self._seconds + 1
        return start + steps * self._seconds


class Cron:
    """Due by the calendar.

    Asked again for a moment before its last answer it repeats that answer, because schedules share
    timings: of a million that are due at midnight, one has to look at the calendar.
    """

    __slots__ = ("_clock", "_from", "_until", "regular", "text", "zone")

    def __init__(self, text: str, zone: str) -> None:
        self.text = text
        self.zone = zone
        self._clock = ZoneInfo(zone)
        minute, hour, *_ = text.split()
        self.regular = minute.startswith("*") or hour.startswith("*")
        self._from = self._until = NEVER

    def next_after(self, moment: float, start: float) -> float:
        if moment >= _LAST_MOMENT:
            return NEVER
        if not self._from <= moment < self._until:
            second = max(math.floor(moment), 0)
            self._until = self._by_wall(second) if self.regular else self._by_name(second)
            self._from = moment
        return self._until

    def _by_wall(self, second: int) -> float:
        """The next minute in which the clock on the wall shows a time that matches."""
        behind = second
        while True:
            offset = self._offset(second)
            shown = self._next_shown(_naive(behind + offset))
            if shown is None:
                return NEVER
            due = _count(shown) - offset
            change = self._change(second, due)
            if change is None:
                return float(due)
            # Before that the clocks are changed. From this moment on, itself included, they show
            # other times.
            second, behind = change, change - 1

    def _by_name(self, second: int) -> float:
        """The next moment at which the clocks show a time that matches, or skip it."""
        shown = _naive(second + self._offset(second))
        while True:
            found = self._next_shown(shown)
            if found is None:
                return NEVER
            due = self._first(found)
            if due > second:
                return float(due)
            # The clocks show it for the second time.
            shown = found

    def _next_shown(self, shown: datetime) -> datetime | None:
        """The next match on a calendar without time zones; None if there is none in 50 years."""
        from cronsim import CronSim

        return next(CronSim(self.text, shown), None)

    def _first(self, shown: datetime) -> int:
        """The first moment at which the clocks show this time, or a later one."""
        before, after = (
            _count(shown) - _seconds(shown.replace(tzinfo=self._clock, fold=fold).utcoffset())
            for fold in (0, 1)
        )
        if before <= after:
            return before
        # It is skipped: then the two are the one on this side of the gap and the one behind it.
        change = self._change(after, before)
        assert change is not None, "a time is skipped where the clocks are changed"
        return change

    def _change(self, second: int, until: int) -> int | None:
        """The first moment in between, the later end included, with another offset from UTC."""
        offset = self._offset(second)
        while second < until:
            # No clocks are changed twice within a day.
            later = min(second + _DAY, until)
            if self._offset(later) != offset:
                while later - second > 1:
                    middle = (second + later) // 2
                    if self._offset(middle) == offset:
                        second = middle
                    else:
                        later = middle
                return later
            second = later
        return None

    def _offset(self, second: int) -> int:
        """How far the clocks are ahead of UTC, in seconds."""
        return _seconds(datetime.fromtimestamp(second, self._clock).utcoffset())


@lru_cache(maxsize=4096)
def timing_of(text: str, zone: str = "UTC") -> Timing:
    """Read when something is to be due.

    Args:
        text: five fields of cron; or ``@hourly``, ``@daily``, ``@weekly``, ``@monthly`` or
            ``@yearly``; or ``@every`` and a duration of at least a second, such as ``5m``.
        zone: the time zone whose clocks count, by its name in the time zone database.

    Raises:
        ValueError: what is wrong with it, for people.
    """
    if len(text) > _TEXT_LIMIT:
        raise ValueError(f"a cron expression has at most {_TEXT_LIMIT} characters")
    _check_zone(zone)
    words = text.split()
    text = " ".join(words)
    if words and words[0].lower() == "@every":
        return Interval(_seconds_in("@every " + "".join(words[1:])), zone)
    text = NICKNAMES.get(text.lower(), text)
    if text.startswith("@"):
        raise ValueError(f"{text} means nothing: write {', '.join(NICKNAMES)} or @every 5m")
    fields = text.split()
    if len(fields) != len(FIELDS):
        raise ValueError(
            f"cron has five fields (minute, hour, day of month, month, day of week), not"
            f" {len(fields)}"
        )
    _check_fields(fields)
    cron = Cron(text, zone)
    if cron.next_after(0.0, 0.0) == NEVER:
        raise ValueError(f"'{text}' never comes: there is no such day")
    return cron


def _check_fields(fields: Sequence[str]) -> None:
    """Look at each field by itself, so that the error can name the one.

    Raises:
        ValueError: one of them makes no sense.
    """
    from cronsim import CronSim, CronSimError

    for place, (field, (name, values)) in enumerate(zip(fields, FIELDS, strict=True)):
        alone = ["*"] * len(FIELDS)
        alone[place] = field
        try:
            CronSim(" ".join(alone), _EPOCH)
        except CronSimError:
            raise ValueError(
                f"{name} '{field}' makes no sense: {values}, or *, lists (1,2), ranges (1-5) and"
                " steps (*/5)"
            ) from None
    try:
        CronSim(" ".join(fields), _EPOCH)
    except CronSimError:
        raise ValueError(f"'{' '.join(fields)}' never comes: there is no such day") from None


def _check_zone(zone: str) -> None:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise ValueError(
            f"there is no time zone '{zone}' on the server: write UTC or a name such as"
            " Europe/Berlin"
        ) from None


def _seconds_in(text: str) -> int:
    found = _EVERY.fullmatch(text)
    seconds = sum(int(found[unit] or 0) * size for unit, size in _UNITS) if found else 0
    if not 1 <= seconds <= INTERVAL_LIMIT:
        raise ValueError(f"'{text}' is no interval: write @every 30s, @every 5m or @every 1h30m")
    return seconds


_EPOCH: Final = datetime(1970, 1, 1)
_SECOND: Final = timedelta(seconds=1)


def _naive(seconds: int) -> datetime:
    """The time that clocks show which have counted so many seconds since they showed 1970."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)


def _count(shown: datetime) -> int:
    """The reverse of :func:`_naive`."""
    return (shown - _EPOCH) // _SECOND


def _seconds(offset: timedelta | None) -> int:
    assert offset is not None, "every zone of the database has an offset"
    return offset // _SECOND


def show_in(zone: str, moment: float) -> str:
    """A moment as ISO 8601 with the offset of this zone, to the second."""
    return datetime.fromtimestamp(math.floor(moment), ZoneInfo(zone)).isoformat()
