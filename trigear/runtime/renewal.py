"""When a login is to be made anew, whatever the way of waiting."""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Final

from trigear.protocol.login import RENEW_AT
from trigear.runtime.backoff import delay, slow

if TYPE_CHECKING:
    from collections.abc import Callable

    from trigear.errors import LoginRefused
    from trigear.protocol.login import Entry

log: Final = logging.getLogger("trigear.login")

LEAST_SECONDS: Final = 1.0
"""Between two logins on one connection, however short they hold."""


class Renewal:
    """When the next login on a connection is ``due``, and when the one in force ``ends``, in
    seconds of a clock that counts on.

    A login may have an end. Four fifths of the way there, or when the server says so, another is
    made. The server counts failures and hangs up at the third: so a login that it refuses is tried
    once more half-way to the end, and then no more.

    Args:
        entry: the login that is in force.
        now: the time.
        random: gives numbers from 0 up to 1.
    """

    def __init__(self, entry: Entry, now: float, random: Callable[[], float]) -> None:
        self.due = math.inf
        self.ends = math.inf
        self._least = now
        self._refusals = 0
        self._backoff = slow(random)
        self.entered(entry, now)

    def entered(self, entry: Entry, now: float) -> None:
        """A login has succeeded."""
        lifetime = math.inf if entry.lifetime is None else entry.lifetime
        self.ends = now + lifetime
        self._least = now + LEAST_SECONDS
        self.due = max(now + lifetime * RENEW_AT, self._least)
        self._refusals = 0
        self._backoff.reset()

    def expiring(self, left: float, now: float) -> None:
        """The server says that the login ends in so many seconds."""
        self.ends = min(self.ends, now + left)
        self.due = min(self.due, max(now, self._least))

    def refused(self, error: LoginRefused, now: float) -> None:
        """The server did not take the login; what was before is still in force."""
        left = max(0.0, self.ends - now)
        if error.temporary:
            wait = self._backoff.next()
        else:
            self._refusals += 1
            wait = max(left / 2, LEAST_SECONDS) if self._refusals == 1 else math.inf
        self._least = self.due = now + wait
        then = "this was the last try" if wait == math.inf else f"trying again in {delay(wait)}"
        ends = "" if left == math.inf else f", and the connection ends in {delay(left)}"
        log.warning("%s; it was to be made anew (%s%s)", error, then, ends)
