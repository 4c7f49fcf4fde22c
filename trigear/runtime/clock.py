"""The clock pair of a running program."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import trio

from trigear.model import Now

if TYPE_CHECKING:
    from collections.abc import Callable


def now() -> Now:
    """The present moment by Trio's clock and by the wall clock."""
    return Now(trio.current_time(), time.time())


def clock() -> Callable[[], Now]:
    """What does the same as :func:`now`, as long as Trio runs, in a third of the time: for who asks
    thousands of times a second."""
    current, wall, make = trio.lowlevel.current_clock().current_time, time.time, tuple.__new__

    def moment() -> Now:
        return make(Now, (current(), wall()))

    return moment
