"""Which of several servers a submission goes to.

Servers know nothing of each other, so submissions with the same unique become one job only if they
reach the same server. Clients that agree on a list of servers therefore agree on this formula, too:
the one that Perl's ``Gearman::Client`` has always used.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


def home_of(unique: bytes, workload: bytes, servers: int) -> int | None:
    """The place in the list where submissions with this unique belong.

    Args:
        unique: the unique; ``-`` stands for the workload.
        workload: what the worker is given.
        servers: how many servers are in the list; its order matters.

    Returns:
        A number below ``servers``, or None where no other submission can join this one.
    """
    key = workload if unique == b"-" else unique
    if not key:
        return None
    return ((zlib.crc32(key) >> 16) & 0x7FFF) % servers


def walk(start: int, servers: int) -> Iterator[int]:
    """The order in which to try servers: from ``start`` to the end of the list, then from its
    beginning. Whoever finds the same servers down ends up at the same one."""
    return ((start + step) % servers for step in range(servers))
