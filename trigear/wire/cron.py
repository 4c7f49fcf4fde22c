"""Cron expressions and the fields of SUBMIT_JOB_SCHED, which differ in one: where cron's week
begins with 0 for Sunday, the packet's begins with 0 for Monday. Names of days are the same in both.

==============================  ====================================================
in the packet                   in cron
==============================  ====================================================
``0`` … ``5``, ``6``            ``1`` … ``6``, ``7`` (or ``0``)
``0-4``, ``1-5/2``, ``3/2``     ``1-5``, ``2-6/2``, ``4/2``
``*/2`` (from Monday on)        ``1-7/2``
``0#1``, ``4L``                 ``1#1``, ``5L``
``MON-FRI``                     ``MON-FRI``
==============================  ====================================================
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

FIELDS: Final = (
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of month", "1 to 31"),
    ("month", "1 to 12 or JAN to DEC"),
    ("day of week", "0 to 7 or SUN to SAT, 0 and 7 for Sunday"),
)
"""The fields of an expression, and what may stand in them."""

NICKNAMES: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
"""Words that stand for expressions."""

_TERM: Final = re.compile(
    r"(?P<first>[0-9]+)(?:-(?P<last>[0-9]+))?(?P<kind>#[0-9]+|L)?(?P<step>/[0-9]+)?", re.IGNORECASE
)


def cron_of_packet(fields: Sequence[bytes]) -> str:
    """The cron expression for the five fields of a packet.

    Raises:
        ValueError: there is none; says why, for people. Not everything is looked at.
    """
    words = [field.decode("ascii", "backslashreplace") for field in fields]
    for word, (name, values) in zip(words, FIELDS, strict=True):
        if word.split() != [word]:
            raise ValueError(f"{name} '{word}' makes no sense: {values}, or *")
    days = words[-1]
    if days == "*":
        return " ".join(words)
    if days.startswith("*") and not words[2].startswith("*"):
        # To cron a star says that day of month and day of week must both match, and after the
        # conversion there would be none.
        raise ValueError(
            f"day of week '{days}' cannot go with day of month '{words[2]}': write the days out,"
            " as in 0,2,4"
        )
    words[-1] = ",".join(map(_from_monday, days.split(",")))
    return " ".join(words)


def _from_monday(term: str) -> str:
    if term.startswith("*/"):
        return f"1-7{term[1:]}"
    found = _parts(term, 6, "0 to 6 for Monday to Sunday")
    if found is None:
        return term
    first, last, kind, step = found
    return f"{first + 1}{'' if last is None else f'-{last + 1}'}{kind}{step}"


def _parts(term: str, most: int, values: str) -> tuple[int, int | None, str, str] | None:
    """What a term of days consists of: first day, last day, what is behind them, step.

    Returns:
        None if it is made of names, or of nothing that makes sense to anybody.

    Raises:
        ValueError: its numbers make no sense.
    """
    found = _TERM.fullmatch(term)
    if found is None:
        return None
    first, last = int(found["first"]), None if found["last"] is None else int(found["last"])
    step = found["step"] or ""
    if not first <= (first if last is None else last) <= most or step.strip("/0") != step[1:]:
        raise ValueError(f"day of week '{term}' makes no sense: {values}, or *")
    return first, last, found["kind"] or "", step


def packet_of_cron(text: str) -> tuple[bytes, ...] | None:
    """The five fields of a packet that mean the same as a cron expression or its nickname.

    Returns:
        None if there are none. Not everything is looked at.

    Raises:
        ValueError: its days of the week make no sense; says why, for people.
    """
    fields = NICKNAMES.get(text.strip().lower(), text).split()
    if len(fields) != len(FIELDS) or not text.isascii():
        return None
    days = fields[-1]
    if days != "*":
        if days.startswith("*") and not fields[2].startswith("*"):
            return None  # for the same reason as above
        fields[-1] = ",".join(map(_from_sunday, days.split(",")))
    return tuple(field.encode() for field in fields)


def _from_sunday(term: str) -> str:
    found = _parts("0-6" + term[1:] if term.startswith("*") else term, 7, "0 to 7, 0 for Sunday")
    if found is None:
        return term
    first, last, kind, step = found
    if kind:
        return f"{_monday_is_0(first)}{kind}{step}"
    if last is None:
        # With a step it goes on to the Sunday at the end of the week.
        last = 7 if step else first
    days = range(first, last + 1)[:: int(step[1:] or 1)]
    return ",".join(map(str, sorted({_monday_is_0(day) for day in days})))


def _monday_is_0(day: int) -> int:
    return (day + 6) % 7
