"""What can be said about a function: in `trigear.toml`, as the server's default, by command.

One table. The file's reader, the text commands and the documentation go by it; what the values do
is told in ``docs/retries.md``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from trigear.broker.functions import RESULTS_COUNT, RESULTS_SIZE
from trigear.engine.config import Auto, OnTimeout
from trigear.model import parse_duration, parse_size, show_duration, show_size

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST: Final = 10 * 365 * 86400.0
"""Seconds. Nobody means a longer duration."""

DIGITS: Final = 18
"""A count with more of them means no limit that is ever reached."""

_SWITCH: Final = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of a function.

    Args:
        name: what it is called in files and commands.
        about: what it does, in a line.
        parse: makes its value of what stands in a file, or of the words of a command; raises
            ``ValueError`` if it is none.
        show: the reverse, as one word, or several where the command takes several.
        example: a value, as a file has it.
        default: what holds unless something else is said; None: the server's options say it.
    """

    name: str
    about: str
    parse: Callable[[object], object]
    show: Callable[[Any], str]
    example: str
    default: object = None

    @property
    def field(self) -> str:
        """Its name as an attribute of ``FunctionSettings`` and ``EngineConfig``."""
        return self.name.replace("-", "_")

    def plain(self, value: object) -> object:
        """Its value as a file may have it."""
        if isinstance(value, bool | int):
            return value
        return list(value) if isinstance(value, tuple) else self.show(value)


def duration(value: object) -> float:
    """Seconds of a duration that somebody may mean.

    Raises:
        ValueError: it is none, or nobody means it.
    """
    seconds = parse_duration(value)
    if seconds > LONGEST:
        raise ValueError(f"'{value}' is longer than ten years")
    return seconds


def _some_duration(value: object) -> float:
    seconds = duration(value)
    if not seconds:
        raise ValueError(f"'{value}' is no time at all")
    return seconds


def _backoff(value: object) -> float | Auto:
    return Auto.AUTO if value == Auto.AUTO.value else duration(value)


def _show_backoff(value: float | Auto) -> str:
    return value.value if isinstance(value, Auto) else show_duration(value)


def count_of(what: str) -> Callable[[object], int]:
    """What reads a number of these; it raises ``ValueError`` for what is none."""

    def parse(value: object) -> int:
        text = str(value)
        if isinstance(value, bool) or not (text.isascii() and text.isdigit()):
            raise ValueError(f"'{value}' is not a number of {what}")
        return int(text[:DIGITS])

    return parse


def _results(value: object) -> int:
    number = count_of("results")(value)
    if not number:
        raise ValueError("at least one result has to be kept, or none with keep-results = 0")
    return number


def _factor(value: object) -> float:
    try:
        factor = float(str(value))
    except ValueError:
        raise ValueError(f"'{value}' is not a number") from None
    if not 1 <= factor <= 1000:
        raise ValueError(f"'{value}' is not between 1 and 1000")
    return factor


def _switch(value: object) -> bool:
    found = value if isinstance(value, bool) else _SWITCH.get(str(value).lower())
    if found is None:
        raise ValueError(f"'{value}' is neither yes nor no")
    return found


def _show_switch(value: bool) -> str:
    return "yes" if value else "no"


def _on_timeout(value: object) -> OnTimeout:
    words = [choice.value for choice in OnTimeout]
    if value not in words:
        raise ValueError(f"{value!r} is not one of {', '.join(words)}")
    return OnTimeout(value)


def _limits(value: object) -> tuple[int, ...]:
    words = value.split() if isinstance(value, str) else value
    numbers = words if isinstance(words, list) else [words]
    if len(numbers) not in (1, 3):
        raise ValueError(f"'{value}' is neither one number nor three: for high, normal, low")
    limits = tuple(map(count_of("jobs"), numbers))
    return limits if len(limits) == 3 else limits * 3


def _show_limits(value: tuple[int, ...]) -> str:
    return " ".join(map(str, value))


SETTINGS: Final = (
    Setting(
        "timeout",
        "How long a worker may take that names no time of its own; 0: any time.",
        duration,
        show_duration,
        '"30s"',
        0.0,
    ),
    Setting(
        "on-timeout",
        "What becomes of a job whose worker took too long: reassign or fail.",
        _on_timeout,
        lambda value: str(value.value),
        '"reassign"',
    ),
    Setting(
        "attempts",
        "How often a job may be lost or time out before it is given up; 0: any number of times.",
        count_of("attempts"),
        str,
        "10",
    ),
    Setting(
        "retry-failures",
        "Whether a background job that its worker lets fail is tried again.",
        _switch,
        _show_switch,
        "false",
    ),
    Setting(
        "backoff",
        "How long a job waits for its second attempt; auto: not at all after its first lost"
        " attempt, then 1s.",
        _backoff,
        _show_backoff,
        '"auto"',
    ),
    Setting(
        "backoff-factor",
        "How much longer it waits each further time.",
        _factor,
        lambda value: f"{value:g}",
        "2",
    ),
    Setting(
        "backoff-limit",
        "How long it waits at most.",
        _some_duration,
        show_duration,
        '"5m"',
    ),
    Setting(
        "expires",
        "How long a background job may wait for its first attempt before it is given up; 0: any"
        " time.",
        duration,
        show_duration,
        '"0s"',
    ),
    Setting(
        "dead-letters",
        "Whether a background job that is given up becomes a dead letter.",
        _switch,
        _show_switch,
        "true",
    ),
    Setting(
        "dead-failures",
        "Whether a background job that its worker lets fail does, too.",
        _switch,
        _show_switch,
        "false",
    ),
    Setting(
        "dead-keep",
        "How long dead letters are kept; 0: for ever.",
        duration,
        show_duration,
        '"0s"',
    ),
    Setting(
        "maxqueue",
        "How many jobs there may be before a further one is refused; three numbers: of high,"
        " normal, low priority; 0: any number.",
        _limits,
        _show_limits,
        "[0, 0, 0]",
        (0, 0, 0),
    ),
    Setting(
        "paused",
        "Whether no jobs are handed out.",
        _switch,
        _show_switch,
        "false",
        False,
    ),
    Setting(
        "keep-results",
        "How long results are kept for who asks for them later; 0: not at all.",
        duration,
        show_duration,
        '"24h"',
        0.0,
    ),
    Setting(
        "keep-results-count",
        "How many of them at most, for each tenant: the oldest go first.",
        _results,
        str,
        "10000",
        RESULTS_COUNT,
    ),
    Setting(
        "keep-results-size",
        "How much they may be, for each tenant.",
        parse_size,
        show_size,
        '"64MiB"',
        RESULTS_SIZE,
    ),
    Setting(
        "reuse-results",
        "Whether a submission with the unique of a kept success is answered from it.",
        _switch,
        _show_switch,
        "false",
        False,
    ),
)

BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
