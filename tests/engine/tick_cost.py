"""What a tick costs a server on which much waits for its time, counted in calls of Python.

``python -m tests.engine.tick_cost 10 1000000`` prints a line for each kind of waiting and each
number of things that wait, with the time a tick takes here and the memory that one thing takes up.
"""

from __future__ import annotations

import gc
import resource
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.model import Now
from trigear.testing.memory import counting_mint
from trigear.wire.codec import request
from trigear.wire.packets import CAN_DO, SUBMIT_JOB_EPOCH, SUBMIT_JOB_SCHED

if TYPE_CHECKING:
    from collections.abc import Callable

START = Now(1000.0, 1_800_000_000.0)
"""At 08:00 UTC."""

DUE_AT = START.wall + 3600
"""When as many as are asked for are due; all others are a day and more away."""

SPREAD = 1000
"""The others are due at so many different times."""


class Cost(NamedTuple):
    """Of one tick with what belongs to it: asking when the next one is to be."""

    idle: int
    """Calls, where nothing is due."""
    due: int
    """Calls, where something is due."""
    idle_seconds: float
    bytes_each: float


def schedules(number: int, due: int) -> bytes:
    """The packet for a schedule; the first ``due`` of them are due at the time above."""
    if number < due:
        when = (b"0", b"9", b"*", b"*", b"*")
    else:
        minute, day = number % 60, 17 + number % SPREAD // 60
        when = (b"%d" % minute, b"12", b"%d" % (1 + day % 28), b"6", b"*")
    return request(SUBMIT_JOB_SCHED, b"f", b"s%d" % number, *when, b"w")


def epoch_jobs(number: int, due: int) -> bytes:
    """The packet for a job; the same."""
    when = DUE_AT if number < due else DUE_AT + 86400 * (1 + number % SPREAD)
    return request(SUBMIT_JOB_EPOCH, b"f", b"", b"%d" % when, b"w")


KINDS: dict[str, Callable[[int, int], bytes]] = {
    "schedules": schedules,
    "epoch jobs": epoch_jobs,
}


def cost_of(kind: str, count: int, due: int = 1) -> Cost:
    """Count one tick when nothing is due, and one when ``due`` of ``count`` things are."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    engine = Engine(EngineConfig(), counting_mint(), START)
    session = engine.connection_opened(1, "-", START)
    engine.receive(session, request(CAN_DO, b"f"), START)  # or the lack of workers is told
    for number in range(count):
        engine.receive(session, KINDS[kind](number, due), START)
        session.take()
        engine.take_touched()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    idle, seconds = counted(engine, Now(START.monotonic + 5, START.wall + 5))
    assert engine.statistics().jobs == (0 if kind == "schedules" else count)
    assert running(engine) == 0
    done, _ = counted(engine, Now(START.monotonic + 3600, DUE_AT))
    assert running(engine) == due
    return Cost(idle, done, seconds, memory * 1024 / count)


def running(engine: Engine) -> int:
    """How many jobs could be had by a worker."""
    return sum(f.runnable for f in engine.broker.tenant("default").functions.values())


def counted(engine: Engine, now: Now) -> tuple[int, float]:
    """How many calls a tick makes, and how long it takes without being watched."""
    calls = 0

    def profile(frame: object, event: str, arg: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    engine.next_deadline()
    # A collection in between would be counted: other tools have it call them.
    gc.disable()
    sys.setprofile(profile)
    try:
        engine.tick(now)
        engine.next_deadline()
    finally:
        sys.setprofile(None)
        gc.enable()
    begin = time.perf_counter()
    engine.tick(now)
    engine.next_deadline()
    return calls, time.perf_counter() - begin


def main() -> None:
    for kind in KINDS:
        for count in map(int, sys.argv[1:] or ("10", "20000")):
            cost = cost_of(kind, count)
            print(
                f"{count:>9,} {kind}: {cost.idle} calls in a tick, {cost.due} with one due;"
                f" {cost.idle_seconds * 1e6:.0f} µs; {cost.bytes_each:.0f} bytes each"
            )


if __name__ == "__main__":
    main()
