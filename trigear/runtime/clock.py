"""The clock pair of a running program."""

from __future__ import annotations

import time

import trio

from trigear.model import Now


def now() -> Now:
    """The present moment by Trio's clock and by the wall clock."""
    return Now(trio.current_time(), time.time())
