"""What a server does about its memory when the process is its own."""

from __future__ import annotations

import ctypes
import gc
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

GARBAGE: Final = 2_000
"""New objects that are worth a collection when the server has nothing else to do."""

GARBAGE_LIMIT: Final = 8_000
"""New objects that would take too long to look at: about a third of a microsecond each."""

GARBAGE_SHARE: Final = 0.02
"""Of the time, for collections at most. A server that waits for its store has nothing else to do a
hundred times a second, and nearly all that is new then are jobs."""

KEPT_MEMORY: Final = 64 << 20
"""Bytes of free memory that the process keeps at most at the end of its heap."""

LARGEST_KEPT: Final = 4 << 20
"""What is larger is taken from the system each time, and given back."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Numbers of glibc's `mallopt`."""


def collector(clock: Callable[[], float] = time.perf_counter) -> Callable[[], None]:
    """Garbage collection by hand: what to call whenever the server is idle.

    A full collection looks at every queued job; a million of them cost a quarter of a second, at
    a time of the interpreter's choosing. The server makes no cycles on its way of the data. So
    what is alive now is set aside for good, again and again, and only what came since is looked
    at, when nothing else is to be done. Where that comes too often, what is new grows until it is
    set aside without a look, as under full load, and the garbage in it stays.

    Args:
        clock: in seconds.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    again = clock()

    def collect() -> None:
        nonlocal again
        new = gc.get_count()[0]
        if new <= GARBAGE:
            return
        if new < GARBAGE_LIMIT:
            began = clock()
            if began < again:
                return
            gc.collect()
            ended = clock()
            again = ended + (ended - began) / GARBAGE_SHARE
        gc.freeze()

    return collect


def keep_memory() -> None:
    """Let the C library keep memory that large workloads have left, for the next ones.

    Otherwise it gives mebibytes back to the system as soon as they are free, and the next ones are
    zeroed again page by page: with workloads of a mebibyte that was two fifths of the processor
    time of a job. Other C libraries than glibc are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_TRIM_THRESHOLD, KEPT_MEMORY)
    mallopt(_M_MMAP_THRESHOLD, LARGEST_KEPT)
