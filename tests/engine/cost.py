"""What a job costs the engine, counted: calls and instructions of Python, the same on every run.

``python -m tests.engine.cost`` prints the figures that the budgets in ``test_cost.py`` are made
from. Times are measured by ``benchmarks/``; counts see a change of one per cent that times do not.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from trigear.broker.quotas import Allowance, Quotas
from trigear.engine.config import EngineConfig
from trigear.engine.engine import Engine
from trigear.model import DEFAULT_TENANT, Now
from trigear.testing.memory import counting_mint
from trigear.wire.codec import request
from trigear.wire.packets import (
    CAN_DO,
    GRAB_JOB_UNIQ,
    PRE_SLEEP,
    SUBMIT_JOB,
    SUBMIT_JOB_BG,
    WORK_COMPLETE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from trigear.engine.session import Session

JOBS = 512
WARM_UP = 64
OUTSTANDING = 16
"""Jobs a client has on the way at a time."""

NOW = Now(0.0, 1_800_000_000.0)
WORK = b"w" * 64
HANDLE = slice(12, 12 + len("H:memory:") + 20)
"""Where the handle stands in a JOB_ASSIGN_UNIQ packet."""


class Bench:
    """An engine whose calls are counted, and nothing else."""

    def __init__(self, *, durable: bool = False, quotas: bool = False) -> None:
        self.engine = Engine(EngineConfig(), counting_mint(), NOW, durable=durable)
        if quotas:
            self.engine.broker.tenant(DEFAULT_TENANT).allowance = Allowance(Quotas())
        self.number = 0
        self.calls = 0
        self.instructions = 0
        self.mode = ""

    def connect(self) -> Session:
        self.number += 1
        return self.engine.connection_opened(self.number, "-", NOW)

    def count(self, call: Callable[..., Any], *args: object) -> Any:
        if self.mode == "calls":
            sys.setprofile(self._profile)
            try:
                return call(*args)
            finally:
                sys.setprofile(None)
        if self.mode == "instructions":
            sys.settrace(self._trace)
            try:
                return call(*args)
            finally:
                sys.settrace(None)
        return call(*args)

    def _profile(self, frame: object, event: str, arg: object) -> None:
        self.calls += event in ("call", "c_call")

    def _trace(self, frame: Any, event: str, arg: object) -> Any:
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        self.instructions += event == "opcode"
        return self._trace

    def round(self, session: Session, *packets: bytes) -> None:
        """What the hub does for one connection that sent something."""
        more = self.count(self.engine.receive, session, b"".join(packets), NOW)
        while more:
            more = self.count(self.engine.receive, session, b"", NOW)

    def flush(self) -> dict[Session, bytes]:
        """What the hub sends afterwards, by connection."""
        return {
            session: b"".join(self.count(session.take))
            for session in self.count(self.engine.take_touched)
        }


def background(bench: Bench) -> Iterator[int]:
    """Submissions of background jobs, several at a time; yields the jobs done so far."""
    client = bench.connect()
    submit = request(SUBMIT_JOB_BG, b"f", b"", WORK)
    while True:
        bench.round(client, *[submit] * OUTSTANDING)
        while (ticket := bench.count(bench.engine.take_ticket)) is not None:
            bench.count(bench.engine.done, ticket, None, NOW)
        bench.flush()
        yield OUTSTANDING


def drain(bench: Bench) -> Iterator[int]:
    """A worker empties a queue, one job at a time; only the worker's side is counted."""
    client, worker = bench.connect(), bench.connect()
    mode, bench.mode = bench.mode, ""
    for _ in range(JOBS + WARM_UP + 1):
        bench.round(client, request(SUBMIT_JOB_BG, b"f", b"", WORK))
    bench.round(worker, request(CAN_DO, b"f"), request(GRAB_JOB_UNIQ))
    bench.mode = mode
    handle = bench.flush()[worker][HANDLE]
    while True:
        bench.round(worker, request(WORK_COMPLETE, handle, WORK), request(GRAB_JOB_UNIQ))
        handle = bench.flush()[worker][HANDLE]
        yield 1


def foreground(bench: Bench) -> Iterator[int]:
    """Clients with several jobs on the way, workers that are woken and work until there is none."""
    client, worker = bench.connect(), bench.connect()
    submit = request(SUBMIT_JOB, b"f", b"", WORK)
    bench.round(worker, request(CAN_DO, b"f"), request(PRE_SLEEP))
    while True:
        bench.round(client, *[submit] * OUTSTANDING)
        bench.flush()
        bench.round(worker, request(GRAB_JOB_UNIQ))
        handle = bench.flush()[worker][HANDLE]
        for _ in range(OUTSTANDING):
            bench.round(worker, request(WORK_COMPLETE, handle, WORK), request(GRAB_JOB_UNIQ))
            handle = bench.flush()[worker][HANDLE]
        bench.round(worker, request(PRE_SLEEP))
        yield OUTSTANDING


WORKS = {"background": background, "drain": drain, "foreground": foreground}


def cost_of(name: str, *, durable: bool = False, quotas: bool = False) -> tuple[float, float]:
    """Calls and instructions per job."""
    counted = []
    for mode in ("calls", "instructions"):
        bench = Bench(durable=durable, quotas=quotas)
        bench.mode = mode
        work = WORKS[name](bench)
        done = 0
        while done < WARM_UP:
            done += next(work)
        bench.calls = bench.instructions = done = 0
        while done < JOBS - WARM_UP:
            done += next(work)
        counted.append((bench.calls + bench.instructions) / done)
    return counted[0], counted[1]


def main() -> None:
    costs = {name: cost_of(name) for name in WORKS}
    costs["background, durable"] = cost_of("background", durable=True)
    costs["foreground, quotas"] = cost_of("foreground", quotas=True)
    json.dump(costs, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
