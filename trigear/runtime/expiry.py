"""Says in time that a certificate or a revocation list of the server ends: a server may run for
longer than either."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Never

import trio

from trigear.model import counted
from trigear.runtime.clock import now

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trigear.security.tls import Listening

log: Final = logging.getLogger("trigear.server")

DAY: Final = 86400.0

SOON: Final = 14 * DAY
"""Seconds before the end from which on it is told, once a day."""


async def mind_the_ends(tls: Mapping[str, Listening]) -> Never:
    """Look at once and then once a day what ends soon, and write it to the log.

    Args:
        tls: what is in service, by address; what is read anew later is looked at then.
    """
    while True:
        wall = now().wall
        ends = {file: end for one in tls.values() for file, end in one.ends.items()}
        for (file, consequence), end in ends.items():
            left = end - wall
            if left <= 0:
                log.error("%s has ended: %s", file, consequence)
            elif left < SOON:
                days = counted(int(left // DAY), "day", "days")
                log.warning("%s ends in %s: then %s", file, days, consequence)
        await trio.sleep(DAY)
